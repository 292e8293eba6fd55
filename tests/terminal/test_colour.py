"""Colours, where they are wanted."""

from ralph_rpc.terminal.colour import paint


def test_paint_adds_colour_only_when_asked() -> None:
    assert paint("x", "red", False) == "x"
    assert paint("x", "red", True) == "\x1b[31mx\x1b[0m"
