"""Items of `ralph_rpc.view` as lines for a terminal or a file; used by `logs` and whoever follows a loop.

Text streams as it comes; a tool call is one line, written when it begins and completed in place when nothing
came between, else repeated whole; iterations have borders with their cost. All text is made inert here.
"""

import time
from collections.abc import Callable
from typing import Any

from ralph_rpc.items import (
    CommandStep,
    Compaction,
    Dialog,
    Event,
    Item,
    IterationBegan,
    IterationEnded,
    LoopBegan,
    LoopEnded,
    MessageDone,
    Notice,
    PiExited,
    PiStarted,
    Retry,
    StatusChanged,
    TextDelta,
    ToolBegan,
    ToolEnded,
    UserText,
    Verified,
)
from ralph_rpc.text import Style, clip, count, duration, inert, line_of, money, number, paint, width

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
        writer = _WRITERS[type(item)]
        text: str = writer(self, item)
        return text

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
        """Ends the line that is open, whatever it holds."""
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
        if item.error is None:
            return self._break()
        return self._note(f"{item.stop_reason}: {item.error}", "red")

    def _user(self, item: UserText) -> str:
        if not item.operator:
            return self._line("» " + line_of(item.text, self._columns - 2), "dim")
        return self._line("» " + inert(item.text.strip()).replace("\n", "\n  "), "bold")

    def _retry(self, item: Retry) -> str:
        # The error was the message before.
        return self._note(f"retry {item.attempt} in {duration(item.delay_ms)}", "yellow")

    def _compaction(self, item: Compaction) -> str:
        if item.result is None:
            return self._note(f"pi shortens its context ({item.reason})")
        verb = "context shortened" if item.ok else "context not shortened"
        return self._note(f"{verb}: {item.result}", "dim" if item.ok else "yellow")

    def _dialog(self, item: Dialog) -> str:
        return self._note(f"an extension asks ({item.method}): {item.title}", "yellow")

    def _iteration_began(self, item: IterationBegan) -> str:
        at = "" if item.at is None else " " + _clock(item.at)
        return self._border(f"iteration {item.number} ({item.kind}){at}")

    def _iteration_ended(self, item: IterationEnded) -> str:
        record = item.record
        ok = record.get("outcome") == "ok"
        lines = self._border(iteration_line(record), "bold" if ok else "yellow")
        error = record.get("error")
        return lines + (self._note(f"{record.get('errorKind', 'error')}: {error}", "red") if error else "")

    def _status(self, item: StatusChanged) -> str:
        return self._note(f"{item.before} → {item.status}" + (f": {item.reason}" if item.reason else ""))

    def _command(self, item: CommandStep) -> str:
        text = f"{item.command} {item.id[-8:]} {item.state}"
        text += " again (it may have arrived before a crash)" if item.redelivered else ""
        text += f": {item.message or item.reason}" if item.message or item.reason else ""
        return self._note(text, "yellow" if item.state in ("rejected", "expired") else "dim")

    def _verified(self, item: Verified) -> str:
        taken = duration(item.duration_ms)
        if item.exit_code == 0:
            return self._note(f"verified in {taken}: {item.command}", "green")
        lines = self._note(f"verify failed ({item.exit_code}) in {taken}: {item.command}", "red")
        tail = [line for line in inert(item.tail).split("\n") if line.strip()][-3:]
        return lines + "".join(self._line("    " + clip(line, _NOTE)) for line in tail)

    def _notice(self, item: Notice) -> str:
        styles: dict[str, Style] = {"warning": "yellow", "error": "red"}
        return self._note(item.message, styles.get(item.level, "dim"))

    def _pi_started(self, item: PiStarted) -> str:
        return self._note(f"pi {item.version or ''} started (pid {item.pid})")

    def _pi_exited(self, item: PiExited) -> str:
        code = "exit code unknown" if item.exit_code is None else f"exit code {item.exit_code}"
        return self._note(f"pi ended ({code}, {item.method})")

    def _loop_began(self, item: LoopBegan) -> str:
        at = "" if item.at is None else " " + _clock(item.at)
        verb = "resumed" if item.resumed else "started"
        return self._border(f"loop {item.name} {verb} (runner {item.pid}){at}")

    def _loop_ended(self, item: LoopEnded) -> str:
        reason = f" ({item.reason})" if item.reason else ""
        lines = self._border(f"loop {item.status}{reason}", "bold" if item.status == "completed" else "yellow")
        return lines + (self._note(item.error, "red") if item.error else "")

    def _border(self, text: str, style: Style = "bold") -> str:
        text = f"── {line_of(text, _NOTE)} "
        return self._line(text + "─" * max(2, min(self._columns, 100) - width(text)), style)


def iteration_line(record: Event) -> str:
    """The one line about an ended iteration: outcome, duration, turns, tools, tokens, cost."""

    def amount(key: str) -> str:
        return count(number(record.get(key)))

    return (
        f"iteration {int(number(record.get('iteration')))} {record.get('outcome')}: {duration(number(record.get('durationMs')))}, "
        f"{amount('turns')} turns, {amount('toolCalls')} tool calls, "
        f"{amount('tokensIn')} in + {amount('tokensOut')} out, {money(number(record.get('cost')))}"
    )


def _clock(at: int) -> str:
    """Local time of day, of the day too where it is not today."""
    try:
        moment = time.localtime(at / 1000)
    except (ValueError, OverflowError, OSError):
        return ""
    today = time.localtime()[:3] == moment[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", moment)


_WRITERS: dict[type, Callable[[Readable, Any], str]] = {
    ToolBegan: Readable._tool_began,
    MessageDone: Readable._message_done,
    UserText: Readable._user,
    Retry: Readable._retry,
    Compaction: Readable._compaction,
    Dialog: Readable._dialog,
    IterationBegan: Readable._iteration_began,
    IterationEnded: Readable._iteration_ended,
    StatusChanged: Readable._status,
    CommandStep: Readable._command,
    Verified: Readable._verified,
    Notice: Readable._notice,
    PiStarted: Readable._pi_started,
    PiExited: Readable._pi_exited,
    LoopBegan: Readable._loop_began,
    LoopEnded: Readable._loop_ended,
}
