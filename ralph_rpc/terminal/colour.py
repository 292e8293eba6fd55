"""Colours, only where they are wanted: on a terminal, and never against NO_COLOR. Reads the environment."""

import os
from typing import Literal, TextIO

Style = Literal["dim", "bold", "red", "green", "yellow", "cyan"]


_SGR: dict[Style, str] = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def wants_colour(stream: TextIO) -> bool:
    """Colours only on a terminal, never with NO_COLOR (no-color.org: set and not empty) or TERM=dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: Style, colour: bool) -> str:
    """The text in a style, where `colour` says so; `text` is inert already."""
    return f"\x1b[{_SGR[style]}m{text}\x1b[0m" if colour and text else text
