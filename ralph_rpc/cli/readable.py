"""Items of `ralph_rpc.story.fold` as lines for a terminal or a file; used by `logs` and `start --foreground`.

Text streams as it comes; a tool call is one line, written when it begins and completed in place when nothing
came between, else repeated whole; iterations have borders with their cost. All text is made inert here.
"""

from collections.abc import Callable
from typing import Any

from ralph_rpc.story.items import CommandReceipt, Item, MessageDone, TextDelta, ToolBegan, ToolEnded, UserText
from ralph_rpc.story.words import worded
from ralph_rpc.terminal.colour import Style, paint
from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.units import duration
from ralph_rpc.terminal.width import clip, line_of, width

_NOTE = 300
"""Columns that a one-line note may have; a terminal wraps it, a log stays readable."""


class Readable:
    """Turns items into text, in order; knows only where the cursor is and which tool's line is open."""

    def __init__(self, colour: bool, columns: int) -> None:
        self._colour = colour
        self._columns = max(columns, 40)
        self._fresh = True
        self._block: tuple[int, bool] | None = None
        self._open: tuple[str, int] | None = None

    def text(self, item: Item) -> str:
        """What to write for this item; it may end in the middle of a line."""
        if isinstance(item, TextDelta):
            return self._delta(item)
        if isinstance(item, ToolEnded):
            return self._tool_ended(item)
        return _WRITERS.get(type(item), Readable._worded)(self, item)

    def finish(self) -> str:
        """Ends the open line, if there is one."""
        return self._break()

    def _delta(self, item: TextDelta) -> str:
        before = ""
        if self._block != (item.block, item.thinking):
            before = self._break()
            self._block = (item.block, item.thinking)
        text = inert(item.text)
        if item.thinking:
            text = ("~ " if self._fresh else "") + text[:-1].replace("\n", "\n~ ") + text[-1]
            text = paint(text, "dim", self._colour)
        self._fresh = item.text.endswith("\n")
        return before + text

    def _tool_began(self, item: ToolBegan) -> str:
        before = self._break()
        head = self._tool_head(item.name, item.args)
        self._open = (item.id, width(head))
        self._fresh = False
        return before + paint(head, "cyan", self._colour)

    def _tool_ended(self, item: ToolEnded) -> str:
        mark = "ok" if item.ok else "failed"
        taken = "" if item.duration_ms is None else f" {duration(item.duration_ms)}"
        if self._open and self._open[0] == item.id:
            before, used = "", self._open[1]
        else:
            head = self._tool_head(item.name, item.args)
            before, used = self._break() + paint(head, "cyan", self._colour), width(head)
        self._open = None
        self._fresh = True
        self._block = None
        room = self._columns - used - len(mark) - len(taken) - 6
        outcome = line_of(item.outcome, max(room, 16))
        result = paint(f"  {mark}{taken}", "green" if item.ok else "red", self._colour)
        return before + result + (f"  {outcome}" if outcome else "") + "\n"

    def _tool_head(self, name: str, args: str) -> str:
        limit = self._columns * 3 // 5  # leaves room for the outcome on the same line
        return clip(f"▸ {inert(name, keep_newlines=False)} {line_of(args, limit)}".rstrip(), limit)

    def _break(self) -> str:
        """Ends the line that is open."""
        tail = "" if self._fresh else " …\n" if self._open else "\n"
        self._fresh = True
        self._open = None
        self._block = None
        return tail

    def _line(self, text: str, style: Style | None = None) -> str:
        before = self._break()
        return before + (paint(text, style, self._colour) if style else text) + "\n"

    def _note(self, text: str, style: Style = "dim") -> str:
        return self._line("· " + line_of(text, _NOTE), style)

    def _message_done(self, item: MessageDone) -> str:
        return self._break() if item.error is None else self._worded(item)

    def _user(self, item: UserText) -> str:
        if not item.operator:
            return self._line("» " + line_of(item.text, self._columns - 2), "dim")
        return self._line("» " + inert(item.text.strip()).replace("\n", "\n  "), "bold")

    def _command(self, item: CommandReceipt) -> str:
        text = f"{item.command} {item.id[-8:]} {item.state}"
        text += " again (it may have arrived before a crash)" if item.redelivered else ""
        text += f": {item.message or item.reason}" if item.message or item.reason else ""
        return self._note(text, "yellow" if item.state in ("rejected", "expired") else "dim")

    def _worded(self, item: Item) -> str:
        words = worded(item)
        if words is None:
            return ""
        line = self._border(words.text, words.style) if words.border else self._note(words.text, words.style)
        for text, style in words.tail:
            line += self._line(clip(inert(text, keep_newlines=False), _NOTE), style)
        return line

    def _border(self, text: str, style: Style = "bold") -> str:
        text = f"── {line_of(text, _NOTE)} "
        return self._line(text + "─" * max(2, min(self._columns, 100) - width(text)), style)


_WRITERS: dict[type, Callable[[Readable, Any], str]] = {
    ToolBegan: Readable._tool_began,
    MessageDone: Readable._message_done,
    UserText: Readable._user,
    CommandReceipt: Readable._command,
}
