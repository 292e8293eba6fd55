"""What the log adds to a report: a pure fold over its lines, in bounded memory however long the log is.

Used by `gather`. Most lines (text as it streams, output of tools) do not matter here and are passed over by their
first bytes, unparsed; what an event means is `ralph_rpc.view`'s to say. Lists have a limit, and count what is over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from ralph_rpc.clock import iso
from ralph_rpc.files.shapes import misfit
from ralph_rpc.items import (
    CommandStep,
    Event,
    Item,
    IterationBegan,
    IterationEnded,
    LoopBegan,
    LoopEnded,
    Notice,
    PiExited,
    PiStarted,
    Retry,
    StatusChanged,
    ToolBegan,
    ToolEnded,
)
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.report import facts
from ralph_rpc.view import View, parse_line, ticket_of

TEXT = 4_000
"""Characters kept of one text."""
_NOTES = 1_000
"""Notices, steps of life and messages kept of each."""
_NAMES = 100
"""Tools and causes told apart."""
_OTHERS = "(others)"
_ENDS = ("delivered", "rejected", "expired")
_LATEST = 253_402_300_800_000
"""The year 10000, which a time of ours cannot show."""

_STREAMED = (b'{"type":"message_update"', b'{"type":"tool_execution_update"')
"""Most of all lines."""
_TYPE = b'{"type":"'
_FOLDED = frozenset((
    b"tool_execution_start", b"tool_execution_end", b"auto_retry_start", b"auto_retry_end", b"response",
    b"ralph_loop_start", b"ralph_loop_end", b"ralph_status", b"ralph_iteration_start", b"ralph_iteration_end",
    b"ralph_pi_start", b"ralph_pi_exit", b"ralph_command", b"ralph_notice",
))  # fmt: skip

T = TypeVar("T")


class Some(Generic[T]):
    """The first `limit` of something, and how many more there were."""

    def __init__(self, limit: int) -> None:
        self.kept: list[T] = []
        self.more = 0
        self._limit = limit

    def add(self, one: T) -> None:
        if len(self.kept) < self._limit:
            self.kept.append(one)
        else:
            self.more += 1


@dataclass(slots=True)
class _Tool:
    calls: int = 0
    ended: int = 0
    failed: int = 0
    total_ms: int = 0
    longest_ms: int = 0
    last_failure: str | None = None


@dataclass(slots=True)
class _Message:
    command: str
    text: str | None = None
    at: int | None = None
    state: str = "received"
    delivered_at: int | None = None
    iteration: int | None = None
    reason: str | None = None
    redelivered: bool = False

    def stepped(self, state: str, at: int | None, reason: str | None, redelivered: bool) -> None:
        """It has come to `state`; once it has ended, it stays so, whatever an older step says."""
        if self.at is None:
            self.at = at
        if state in _ENDS or self.state not in _ENDS:
            self.state = state
        self.reason = reason or self.reason
        self.redelivered = self.redelivered or redelivered
        if state == "delivered" and self.delivered_at is None:
            self.delivered_at = at


class Fold:
    """Feed it the lines of the log in order, and the journal of commands; then ask."""

    def __init__(self) -> None:
        self.records: dict[int, Iteration] = {}
        """Records that the log holds, too."""
        self.begun: dict[int, facts.Running] = {}
        self.notices: Some[facts.Failure] = Some(_NOTES)
        self.life: Some[facts.Happening] = Some(_NOTES)
        self.messages_cut = False
        self._view = View()
        self._tools: dict[str, _Tool] = {}
        self._retries: dict[str, tuple[int, int | None]] = {}
        self._messages: dict[str, _Message] = {}
        self._running = False

    # the log

    def line(self, line: bytes) -> None:
        """One line of events.jsonl."""
        if (
            line.startswith(_STREAMED)
            or line.startswith(_TYPE)
            and line[9 : line.find(b'"', 9)] not in _FOLDED
        ):
            return
        event = parse_line(line)
        if event is not None:
            for item in self._view.feed(event):
                self._item(item, event)

    def _item(self, item: Item, event: Event) -> None:
        at = _at(event)
        match item:
            case ToolBegan():
                self._tool(item.name).calls += 1
            case ToolEnded():
                self._tool_ended(item)
            case Retry():
                cause = item.error[:TEXT]
                if cause not in self._retries and len(self._retries) >= _NAMES:
                    cause = _OTHERS
                self._retries[cause] = (self._retries.get(cause, (0, None))[0] + 1, at)
            case IterationBegan():
                self.begun[item.number] = facts.Running(
                    item.number, item.kind, ticket_of(event), as_iso(item.at)
                )
            case IterationEnded():
                self._iteration_ended(item)
            case CommandStep():
                self._step(item, at)
            case Notice() if item.level in ("warning", "error"):
                ticket = ticket_of(event)
                self.notices.add(
                    facts.Failure(as_iso(at), None, ticket, item.level, item.message[:TEXT], None)
                )
            case LoopBegan() | LoopEnded() | StatusChanged() | PiStarted() | PiExited():
                self._lived(item, at)
            case _:
                pass

    def _tool(self, name: str) -> _Tool:
        name = name[:200]
        if name not in self._tools and len(self._tools) >= _NAMES:
            name = _OTHERS
        return self._tools.setdefault(name, _Tool())

    def _tool_ended(self, item: ToolEnded) -> None:
        tool = self._tool(item.name)
        tool.ended += 1
        # Where its beginning was rotated away, its end still counts as a call.
        tool.calls = max(tool.calls, tool.ended)
        taken = max(item.duration_ms or 0, 0)
        tool.total_ms += taken
        tool.longest_ms = max(tool.longest_ms, taken)
        if not item.ok:
            tool.failed += 1
            tool.last_failure = item.outcome[:TEXT]

    def _iteration_ended(self, item: IterationEnded) -> None:
        number = item.record.get("iteration")
        if not isinstance(number, int):
            return
        self.begun.pop(number, None)
        if misfit(item.record, Iteration) is None:
            record: Iteration = {**item.record}  # type: ignore[typeddict-item]  # `misfit` has checked it
            self.records[number] = record

    def _lived(
        self, item: LoopBegan | LoopEnded | StatusChanged | PiStarted | PiExited, at: int | None
    ) -> None:
        match item:
            case LoopBegan():
                if self._running:
                    self._step_of_life(at, "runner lost", "the runner before it was killed or crashed", True)
                self._running = True
                self._step_of_life(at, "resumed" if item.resumed else "started", f"runner pid {item.pid}")
            case LoopEnded():
                self._running = False
                detail = ": ".join(part for part in (item.reason, item.error) if part)
                self._step_of_life(at, item.status or "ended", detail, item.status == "error")
            case StatusChanged() if item.status in ("waiting", "paused"):
                self._step_of_life(at, item.status, item.reason)
            case PiStarted():
                self._step_of_life(at, "pi started", f"version {item.version}" if item.version else None)
            case PiExited():
                how = f"exit code {item.exit_code}" if item.exit_code is not None else "exit code unknown"
                # An end that the runner asked for is not by itself.
                alone = item.method == "natural"
                self._step_of_life(at, "pi ended", f"{how}, {'by itself' if alone else item.method}", alone)
            case _:
                pass

    def _step_of_life(self, at: int | None, what: str, detail: str | None, is_bad: bool = False) -> None:
        self.life.add(facts.Happening(as_iso(at), what, detail[:TEXT] if detail else None, is_bad))

    # commands

    def _step(self, item: CommandStep, at: int | None) -> None:
        message = self._message(item.id, item.command)
        if message is None:
            return
        message.text = item.message or message.text
        message.stepped(item.state, at, item.reason, item.redelivered)

    def journal_line(self, line: bytes) -> None:
        """One line of commands.jsonl: it has what the log has lost, and of an early crash what the log never had.

        To be fed before the log, which tells the same steps again.
        """
        step = parse_line(line)
        id, command, state = (_text(step, key) for key in ("id", "command", "state"))
        message = self._message(id, command) if step and id and command and state else None
        if step is None or message is None:
            return
        at, body, iteration = step.get("at"), step.get("body"), step.get("iteration")
        at = at if isinstance(at, int) else None
        message.stepped(state, at, _text(step, "reason"), step.get("redelivered") is True)
        if isinstance(body, dict):
            message.text = _text(body, "message") or message.text
        if isinstance(iteration, int):
            message.iteration = iteration

    def _message(self, id: str, command: str) -> _Message | None:
        known = self._messages.get(id)
        if known is None:
            if len(self._messages) >= _NOTES:
                self.messages_cut = True
                return None
            known = self._messages[id] = _Message(command)
        return known

    # the answers

    def tools(self) -> list[facts.Tool]:
        """Most used first."""
        found = [
            facts.Tool(
                name,
                tool.calls,
                tool.failed,
                tool.calls - tool.ended,
                tool.total_ms,
                tool.longest_ms,
                tool.last_failure,
            )
            for name, tool in self._tools.items()
        ]
        return sorted(found, key=lambda tool: (-tool.calls, tool.name))

    def retries(self) -> list[facts.Retry]:
        """Most frequent first."""
        found = [facts.Retry(cause, times, as_iso(at)) for cause, (times, at) in self._retries.items()]
        return sorted(found, key=lambda retry: -retry.times)

    def messages(self) -> Iterator[facts.Message]:
        """In the order they came."""
        for id, one in sorted(self._messages.items(), key=lambda pair: pair[1].at or 0):
            yield facts.Message(
                id, one.command, one.text and one.text[:TEXT], as_iso(one.at), one.state, as_iso(one.delivered_at),
                one.iteration, one.reason, one.redelivered,
            )  # fmt: skip


def as_iso(at: int | None) -> str | None:
    """The time as our files show it; None for what is no time of ours."""
    return iso(at) if at is not None and 0 <= at < _LATEST else None


def _at(event: Event) -> int | None:
    stamp = event.get("ralph")
    at = event.get("at", stamp.get("at") if isinstance(stamp, dict) else None)
    return at if isinstance(at, int) else None


def _text(holder: Event | None, key: str) -> str:
    value = holder.get(key) if holder else None
    return value if isinstance(value, str) else ""
