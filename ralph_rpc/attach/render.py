"""A block as lines of a terminal, of a given width: the only way for text to reach the screen.

Pure but for rich's console, which is used only to compute. Everything is made inert twice: the text before it
is rendered, and each piece of a line after it, because Markdown decodes entities such as `&#x202e;`. Markup
of rich or Textual is never read from a text, and links are shown, not made. Colours are the terminal's own
sixteen.
"""

import io
import re
from collections.abc import Iterable
from copy import copy
from functools import lru_cache
from typing import ClassVar

from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text
from rich.theme import Theme
from textual.strip import Strip

from ralph_rpc.attach.blocks import Block, CommandBlock, LineBlock, SaidBlock, TextBlock, ToolBlock
from ralph_rpc.attach.streamed_markdown import Piece
from ralph_rpc.story.items import Event
from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.units import duration
from ralph_rpc.terminal.width import clip, line_of

FOLDED = 5
"""Lines of a tool's output while it is folded."""
UNFOLDED = 2_000
THINKING = 3
PROMPT = 2
_WIDEST = 2_000
"""Characters of one line of a tool's output that are looked at."""

_THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.code_block": "cyan",
        "markdown.h1": "bold",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold",
        "markdown.h5": "bold",
        "markdown.h6": "bold",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
        "markdown.block_quote": "dim",
        "markdown.hr": "dim",
        "markdown.link": "underline",
        "markdown.link_url": "underline",
    }
)
DIM = Style(dim=True)
_PLAIN = Style.null()
_STEPS = {"sent": "sent", "accepted": "accepted", "queued": "queued", "delivered": "✓ delivered"}
_DIFF = {"+": Style(color="green"), "-": Style(color="red"), "@": Style(color="cyan")}
_NUMBERED = re.compile(r"[+-] *\d+ ")


class _LeftHeading(Heading):
    """At the left; rich centres it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Code(CodeBlock):
    """Highlighted in the terminal's own colours; diffs as diffs."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        if self.lexer_name in ("diff", "patch"):
            yield _diff_text(code)
        else:
            yield Syntax(
                code, self.lexer_name, theme="ansi_dark", word_wrap=True, background_color="default", padding=(0, 1)
            )


class _Markdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _LeftHeading,
        "fence": _Code,
        "code_block": _Code,
    }


_PARSER = MarkdownIt().enable("strikethrough").enable("table")
_NOTHING = _Markdown("", hyperlinks=False)


def _parsed(text: str) -> Markdown:
    """The text as Markdown. rich itself builds a parser for each, which takes longer than to use it."""
    made = copy(_NOTHING)
    made.markup, made.parsed = text, _PARSER.parse(text)
    return made


@lru_cache(maxsize=2)
def _console(columns: int) -> Console:
    return Console(
        file=io.StringIO(),
        width=columns,
        height=50,
        color_system="truecolor",
        force_terminal=True,
        theme=_THEME,
        legacy_windows=False,
        _environ={},
    )


def to_strips(what: RenderableType, columns: int, style: Style | None = None) -> list[Strip]:
    """The lines of anything that rich can render; nothing active is in them."""
    console = _console(columns)
    lines = console.render_lines(what, console.options, style=style, pad=False)
    return [Strip(_safe(line)) for line in lines]


def _safe(line: Iterable[Segment]) -> list[Segment]:
    safe = []
    for text, style, control in line:
        if control or not text:
            continue
        if not text.isprintable():
            text = inert(text.expandtabs(4), keep_newlines=False)
        safe.append(Segment(text, style.update_link(None) if style and style.link else style))
    return safe


class Renderer:
    """Makes the lines of blocks; knows the width and what is folded. Settled pieces of a text are rendered once."""

    def __init__(self, columns: int, tools: bool = False, thinking: bool = False, labels: bool = True) -> None:
        self.columns = columns
        self._labels = labels
        self.unfold_tools = tools
        self.unfold_thinking = thinking
        self._pieces: dict[int, tuple[int, list[Strip]]] = {}

    def strips(self, block: Block, now_ms: int) -> list[Strip]:
        """The lines of a block, with an empty one after it where it is more than a line."""
        if block.ticket is None or not self._labels:
            return self._strips(block, now_ms)
        label = f"{line_of(block.ticket, 16)} "
        margin = " " * cell_len(label)
        whole = self.columns
        self.columns = max(whole - len(margin), 20)
        try:
            return _behind(self._strips(block, now_ms), margin, label, Style(color="blue"))
        finally:
            self.columns = whole

    def _strips(self, block: Block, now_ms: int) -> list[Strip]:
        if isinstance(block, TextBlock):
            return self._thinking(block) if block.thinking else self._markdown(block)
        if isinstance(block, ToolBlock):
            return self._tool(block, now_ms)
        if isinstance(block, SaidBlock):
            return self._said(block)
        if isinstance(block, CommandBlock):
            return self._command(block)
        return self._line(block) if isinstance(block, LineBlock) else []

    def forget(self, block: Block) -> None:
        """Its rendered pieces are no longer needed."""
        self._pieces.pop(id(block), None)

    # texts

    def _markdown(self, block: TextBlock) -> list[Strip]:
        pieces = block.markdown.pieces
        done, lines = self._pieces.get(id(block), (0, []))
        for piece in _together(pieces[done:]):
            lines += self._piece(piece.text, lines and not piece.glued)
        if block.ended:
            self.forget(block)
            return [*lines, Strip.blank(0)] if lines else []
        self._pieces[id(block)] = (len(pieces), lines)
        tail = block.markdown.tail
        return [*lines, *self._piece(tail.text, lines and not tail.glued)] if tail.text.strip() else list(lines)

    def _piece(self, text: str, apart: object) -> list[Strip]:
        lines = to_strips(_parsed(inert(text)), max(self.columns - 1, 10))
        while lines and not lines[0].text.strip():
            lines.pop(0)
        while lines and not lines[-1].text.strip():
            lines.pop()
        return [Strip.blank(0), *lines] if apart and lines else lines

    def _thinking(self, block: TextBlock) -> list[Strip]:
        text = block.plain
        unfolded = self.unfold_thinking if block.unfolded is None else block.unfolded
        if not unfolded:
            # While it streams its end shows what is happening; later its beginning shows what it was about.
            limit = THINKING * self.columns * 2
            text = text[:limit] if block.ended else text[-limit:]
        lines = to_strips(Text(inert(text), style=Style(dim=True, italic=True)), max(self.columns - 2, 10))
        hidden = len(lines) > THINKING and not unfolded
        if hidden:
            lines = lines[:THINKING] if block.ended else lines[-THINKING:]
        lines = _behind(lines, "~ ")
        if hidden and block.ended:
            lines.append(_dim("~ … t shows all thinking"))
        return [*lines, Strip.blank(0)] if lines else []

    # tools

    def _tool(self, block: ToolBlock, now_ms: int) -> list[Strip]:
        unfolded = self.unfold_tools if block.unfolded is None else block.unfolded
        body, hidden = self._body(block, unfolded)
        lines = [self._tool_head(block, now_ms), *_behind(body, "  ")]
        if hidden:
            lines.append(_dim(f"  … {hidden} more lines" if not unfolded else f"  … {hidden} lines are not shown"))
        return [*lines, Strip.blank(0)]

    def _tool_head(self, block: ToolBlock, now_ms: int) -> Strip:
        if block.ok is None:
            since = f" {duration(now_ms - block.at)}" if block.at is not None and not block.lost else ""
            mark, style = (" interrupted", "yellow") if block.lost else (f" running{since}", "yellow")
        else:
            taken = "" if block.duration_ms is None else f" {duration(block.duration_ms)}"
            mark, style = (f" ok{taken}", "green") if block.ok else (f" failed{taken}", "red")
        room = max(self.columns - cell_len(mark) - 4, 10)
        name = line_of(block.name, room)
        head = Text("▸ ", style="cyan")
        head.append(name, style="bold cyan")
        head.append(" " + line_of(block.args, max(room - cell_len(name) - 1, 4)), style="cyan")
        head.append(mark, style=style)
        return to_strips(head, self.columns)[0]

    def _body(self, block: ToolBlock, unfolded: bool) -> tuple[list[Strip], int]:
        """What is below the head, and how many lines of it are not shown."""
        columns = max(self.columns - 3, 10)
        shown = _change_of(block)
        if shown is not None and block.ok is not False:
            return self._cut(_lines(shown), columns, unfolded, first=True, diff=True)
        content = block.details.get("content")
        if isinstance(content, str) and block.name == "write" and block.ok is not False:
            return self._cut(_lines(content), columns, unfolded, first=True, diff=False)
        first = block.ok is True and block.name not in ("bash", "shell")
        command = _lines(block.args)
        above = _lines("$ " + "\n".join(command)) if unfolded and len(command) > 1 else []
        return self._cut([*above, *_lines(block.output)], columns, unfolded, first=first, diff=False)

    def _cut(self, lines: list[str], columns: int, unfolded: bool, first: bool, diff: bool) -> tuple[list[Strip], int]:
        limit = UNFOLDED if unfolded else FOLDED
        kept = lines[:limit] if first else lines[-limit:]
        strips: list[Strip] = []
        for line in kept:
            text = inert(line[:_WIDEST].expandtabs(4), keep_newlines=False)
            style = _DIFF.get(text[:1], DIM) if diff else DIM
            if unfolded:
                strips += to_strips(Text(text), columns, style)
            else:
                strips.append(Strip(_safe([Segment(clip(text, columns), style)])))
        return strips, len(lines) - len(kept)

    # the rest

    def _said(self, block: SaidBlock) -> list[Strip]:
        text = inert(block.plain)
        style = Style(bold=True) if block.operator else DIM
        if not block.operator and not block.unfolded:
            text = "\n".join(line for line in text.split("\n") if line.strip())
        lines = to_strips(Text(text[: 200 * self.columns]), max(self.columns - 2, 10), style)
        if not block.operator and not block.unfolded and len(lines) > PROMPT:
            hidden = len(lines) - PROMPT
            lines = [*lines[:PROMPT], _dim(f"… {hidden} more lines of the prompt")]
        return [*_behind(lines, "  ", "» ", style), Strip.blank(0)]

    def _command(self, block: CommandBlock) -> list[Strip]:
        bad = bool(block.steps) and block.steps[-1] in ("rejected", "expired")
        steps = " → ".join(_STEPS.get(step, inert(step, keep_newlines=False)) for step in dict.fromkeys(block.steps))
        receipt = Text(steps, style="red" if bad else "green" if block.steps[-1:] == ["delivered"] else "yellow")
        if block.redelivered:
            receipt.append(" (again: it may have arrived before a crash)")
        if block.reason:
            receipt.append(": " + inert(block.reason, keep_newlines=False))
        verb = inert(block.command, keep_newlines=False)
        if block.message is None:
            return to_strips(Text.assemble(("◆ ", "magenta"), (f"{verb}: ", "magenta"), receipt), self.columns)
        lines = to_strips(Text(inert(block.plain.strip())), max(self.columns - 2, 10), Style(bold=True))
        told = to_strips(Text.assemble((f"{verb}: ", "dim"), receipt), max(self.columns - 2, 10))
        return [*_behind([*lines, *told], "  ", "◆ ", Style(color="magenta")), Strip.blank(0)]

    def _line(self, block: LineBlock) -> list[Strip]:
        words = block.words
        if words.border:
            text = f"── {line_of(words.text, self.columns - 6)} "
            lines = to_strips(Text(text + "─" * max(2, self.columns - cell_len(text)), style=words.style), self.columns)
        else:
            lines = to_strips(
                Text("· " + inert(words.text, keep_newlines=False)[:600], style=words.style), self.columns
            )
        for text, style in words.tail:
            lines += to_strips(
                Text(clip(inert(text, keep_newlines=False), self.columns), style=style or ""), self.columns
            )
        return lines


def _together(pieces: list[Piece]) -> list[Piece]:
    """Pieces joined as they were in the text: one rendering of all takes a fraction of the time of many."""
    joined: list[tuple[list[str], bool]] = []
    for piece in pieces:
        if joined and not piece.glued:
            joined[-1][0].append(piece.text)
        else:
            joined.append(([piece.text], piece.glued))
    return [Piece("\n".join(texts), glued) for texts, glued in joined]


def _behind(lines: list[Strip], margin: str, first: str = "", style: Style = DIM) -> list[Strip]:
    """Lines with something before each of them."""
    return [
        Strip([Segment(first if first and not number else margin, style), *line]) for number, line in enumerate(lines)
    ]


def _dim(text: str) -> Strip:
    return Strip([Segment(text, DIM)])


def _lines(text: str) -> list[str]:
    lines = text.strip("\n").split("\n")
    return lines if lines != [""] else []


def _diff_text(code: str) -> Text:
    text = Text()
    for line in code.split("\n"):
        text.append(line + "\n", style=_DIFF.get(line[:1], _PLAIN))
    text.rstrip()
    return text


def _change_of(block: ToolBlock) -> str | None:
    """What an edit changes, as a diff: pi's own, else made of its arguments. None for other tools."""
    diff = block.result.get("diff")
    if isinstance(diff, str) and diff.strip():
        return diff
    edits = block.details.get("edits")
    pairs = [_pair(edit) for edit in edits] if isinstance(edits, list) else [_pair(block.details)]
    parts = [part for part in pairs if part]
    return "\n".join(parts) if parts else None


def _pair(edit: object) -> str:
    if not isinstance(edit, dict):
        return ""
    details: Event = edit
    old, new = details.get("oldText"), details.get("newText")
    if not isinstance(old, str) or not isinstance(new, str):
        return ""
    return "\n".join([f"-{line}" for line in _lines(old)] + [f"+{line}" for line in _lines(new)])
