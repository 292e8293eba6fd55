"""Blocks as lines: nothing active in them, whatever they hold; folded, coloured, of the right width."""

import random
from typing import Any

import pytest
from rich.cells import cell_len
from textual.strip import Strip

from ralph_rpc.attach.blocks import Block, Blocks, TextBlock
from ralph_rpc.attach.render import FOLDED, Renderer
from ralph_rpc.story.fold import View
from ralph_rpc.story.lines import ticket_of
from tests.attach.said import (
    RECORDINGS,
    began,
    begun,
    deltas,
    ended,
    finished,
    message,
    notice,
    output,
    recorded,
    step,
    told,
    tool,
    tool_call,
)

Json = dict[str, Any]
HOSTILE = [
    "\x1b[2J",
    "\x1b]52;c;aGk=\x07",
    "\x1b]8;;http://x\x07",
    "\x9b31m",
    "\x00",
    "\x07",
    "\r",
    "\x08",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u200f",
    "\u2028",
    "\ud800",
    "&#x202e;",
    "&#12;",
    "&#x1b;",
    "&#13;",
    "[bold]",
    "[/]",
    "[@click=app.exit]x[/]",
    "<b>",
    "\t",
    "\n",
    "```",
    "`",
    "| a | b |\n|---|---|\n| c | d |\n",
    "[l](http://e.x)",
    "![i](http://e.x)",
    "# ",
    "> ",
    "- ",
    "1. ",
    "**",
    "word ",
    "日本",
    "é",
    "a\u0301",
    "~~~diff\n",
    "+",
    "-",
    "$x^2$",
    "\\",
]


def blocks_of(*events: Json) -> list[Block]:
    view, blocks = View(), Blocks()
    for number, event in enumerate(events):
        for item in view.feed(event):
            blocks.add(item, number, True, ticket_of(event))
    return blocks.all


def lines_of(*events: Json, columns: int = 80, **folds: bool) -> list[Strip]:
    renderer = Renderer(columns, **folds)
    return [strip for block in blocks_of(*events) for strip in renderer.strips(block, 5_000)]


def text_of(*events: Json, **how: Any) -> str:
    return "\n".join(strip.text.rstrip() for strip in lines_of(*events, **how)).strip("\n")


def style_at(lines: list[Strip], text: str) -> str:
    return next(str(segment.style) for strip in lines for segment in strip if text in segment.text)


def every_place(text: str) -> list[Json]:
    """A text wherever a model, a tool, a file or another program can put one."""
    return [
        began(1, ticket=text),
        told(text),
        {"type": "agent_start"},
        told(text),
        *message(text),
        begun(),
        *deltas(text, kind="thinking"),
        ended(""),
        begun(),
        *deltas(text),
        tool("start", "a", text, args={"command": text}),
        tool("update", "a", text, partialResult=output(text)),
        tool("end", "b", "edit", args={"oldText": text, "newText": text}, result=output(text), isError=False),
        tool("start", "d", "write", args={"path": text, "content": text}),
        tool("end", "d", "write", result={"details": {"diff": text}, **output(text)}, isError=False),
        step(text or "i", "accepted", "steer", message=text, reason=text),
        step("j", "rejected", text, reason=text),
        notice(text, text),
        {"type": "extension_ui_request", "method": "confirm", "title": text},
        {"type": "compaction_end", "reason": text, "errorMessage": text},
        {"type": "auto_retry_start", "attempt": 1, "delayMs": 1, "errorMessage": text},
        {"type": "ralph_verify", "at": 1, "command": text, "exitCode": 1, "durationMs": 1, "tail": text},
        {"type": "ralph_ticket", "at": 1, "ticket": text, "from": text, "to": text, "reason": text},
        {"type": "ralph_status", "at": 1, "from": text, "to": text, "reason": text},
        {"type": "ralph_unparsed", "raw": text},
        finished(1, outcome=text, error=text, errorKind=text),
        {"type": "ralph_loop_start", "at": 1, "name": text, "pid": 1, "resumed": False},
        {"type": "ralph_loop_end", "at": 1, "status": text, "stopReason": text, "error": text},
    ]


@pytest.mark.parametrize("seed", range(40))
def test_nothing_active_gets_into_a_line_whatever_the_texts_hold(seed: int) -> None:
    some = random.Random(seed)
    text = "".join(some.choices(HOSTILE, k=some.randint(1, 40)))
    for folds in ({}, {"tools": True, "thinking": True}):
        for strip in lines_of(*every_place(text), columns=some.randint(12, 120), **folds):
            for segment in strip:
                assert segment.control is None and segment.text.isprintable(), ascii(segment.text)
                assert segment.style is None or not (segment.style.link or segment.style.meta)


def test_entities_of_markdown_do_not_bring_back_what_was_made_inert() -> None:
    assert text_of(*message("a &#x202e; b &lt;c&gt;")) == "a \\u202e b <c>"


def test_markup_of_other_kinds_is_text() -> None:
    text = "[bold red]not bold[/] [@click=app.exit]no[/]"
    lines = lines_of(*message(text), notice(text), *tool_call("a", text, text))
    assert sum(text in strip.text for strip in lines) == 4
    assert "bold" not in style_at(lines, "not bold")


def test_markdown_is_rendered_and_code_is_highlighted() -> None:
    lines = lines_of(*message("# Head\n\nsome **bold** text\n\n```python\ndef f(): pass\n```\n\n- one\n"))
    assert [strip.text.rstrip() for strip in lines] == [
        "Head",
        "",
        "some bold text",
        "",
        " def f(): pass",
        "",
        " • one",
        "",
    ]
    assert "bold" in style_at(lines, "bold")
    assert style_at(lines, "def") not in ("none", style_at(lines, "()"))


def test_diffs_are_coloured_in_fences_and_in_edits() -> None:
    edit = [tool("start", "e", "edit", args={"path": "f.py", "edits": [{"oldText": "old", "newText": "new"}]})]
    done = tool("end", "e", "edit", result=output("ok"), isError=False)
    for lines in (lines_of(*message("```diff\n-old\n+new\n```")), lines_of(*edit, done)):
        assert "red" in style_at(lines, "-old") and "green" in style_at(lines, "+new")


def test_streaming_shows_in_the_end_what_the_whole_text_shows() -> None:
    text = "# Head\n\npara one\nwith two lines\n\n```py\nx = 1\n\ny = 2\n```\n\n1. a\n2. b\n\nend"
    renderer = Renderer(60)
    block = TextBlock(0, True, None, False, 0)
    streamed: list[Strip] = []
    for character in text:
        block.add(character)
        streamed = renderer.strips(block, 0)
    block.end()
    assert [s.text.rstrip() for s in renderer.strips(block, 0)][:-1] == [s.text.rstrip() for s in streamed]
    assert [s.text.rstrip() for s in Renderer(60).strips(block, 0)] == [
        s.text.rstrip() for s in lines_of(*message(text), columns=60)
    ]


def test_a_tool_is_folded_to_its_last_lines_and_unfolds() -> None:
    call = tool_call("a", "make", "\n".join(f"line {n}" for n in range(100)))
    folded = text_of(*call).split("\n")
    assert folded[0] == "▸ bash make ok 1.5s"
    assert folded[1:] == [*(f"  line {n}" for n in range(95, 100)), "  … 95 more lines"]
    assert len(folded) == FOLDED + 2
    assert text_of(*call, tools=True).split("\n")[1:] == [f"  line {n}" for n in range(100)]


def test_a_running_tool_says_for_how_long_and_a_failed_one_that_it_failed() -> None:
    start = tool("start", args={"command": "make"}, ralph={"at": 1_000})
    assert text_of(start) == "▸ bash make running 4.0s"
    assert "failed" in text_of(*tool_call("a", "make", "no", ok=False))
    assert "interrupted" in text_of(start, finished(1))


def test_thinking_is_dim_and_short_until_it_is_unfolded() -> None:
    thought = [begun(), *deltas("\n".join(f"thought {n}" for n in range(50)), kind="thinking"), ended("")]
    lines = text_of(*thought).split("\n")
    assert len(lines) == 4 and "t shows all" in lines[-1]
    assert "dim" in style_at(lines_of(*thought), "thought 0")
    assert "thought 49" in text_of(*thought, thinking=True)


def test_a_message_and_its_receipt_stand_together() -> None:
    shown = text_of(step("i", "accepted", message="be quick"), step("i", "queued"), step("i", "delivered"))
    assert shown == "◆ be quick\n  steer: accepted → queued → ✓ delivered"
    assert "steer: rejected: too late" in text_of(step("i", "rejected", message="x", reason="too late"))


@pytest.mark.parametrize("columns", [20, 80, 200])
@pytest.mark.parametrize(
    "path", [p for p in RECORDINGS if p.stem in ("tool_call_steer_followup", "compaction")], ids=str
)
def test_no_line_of_a_recording_is_wider_than_the_screen(path: Any, columns: int) -> None:
    assert all(cell_len(strip.text) <= columns for strip in lines_of(*recorded(path), columns=columns))
