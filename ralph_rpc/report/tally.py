"""What the log adds to a report: a pure fold over its lines, in bounded memory however long the log is.

Used by `gather`. Most lines (text as it streams, output of tools) do not matter here and are skipped by their
first bytes, unparsed; what an event means is `ralph_rpc.story.fold`'s to say. Lists have a limit, and count what is beyond it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from ralph_rpc.clock import iso
from ralph_rpc.files.shapes import misfit
from ralph_rpc.model import members, pi
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.report import facts
from ralph_rpc.story.fold import View
from ralph_rpc.story.items import (
    BatchChanged,
    CommandReceipt,
    Event,
    Item,
    IterationBegan,
    IterationEnded,
    LogNotice,
    LoopBegan,
    LoopEnded,
    PiEnded,
    PiStarted,
    RetryBegan,
    StatusChanged,
    ToolBegan,
    ToolEnded,
)
from ralph_rpc.story.lines import parse_line, ticket_of, time_of

TEXT = 4_000
"""Characters kept of one text."""
_NOTES = 1_000
"""Notices, steps of life and messages kept of each."""
_NAMES = 100
"""Different tools and causes counted; the rest is one of each."""
_OTHERS = "(others)"
_ENDS = ("delivered", "rejected", "expired")
_LATEST = 253_402_300_800_000
"""The year 10000, which a time of ours cannot show."""

_STREAMED = (pi.head(pi.MESSAGE_UPDATE), pi.head(pi.TOOL_UPDATE))
"""Most of all lines."""
_TYPE = b'{"type":"'
_TALLIED = frozenset(
    pi.head(kind)
    for kind in (
        pi.TOOL_START,
        pi.TOOL_END,
        pi.RETRY_START,
        pi.RETRY_END,
        pi.RESPONSE,
        "ralph_loop_start",
        "ralph_loop_end",
        "ralph_status",
        "ralph_iteration_start",
        "ralph_iteration_end",
        "ralph_pi_start",
        "ralph_pi_exit",
        "ralph_command",
        "ralph_notice",
        "ralph_batch",
    )
)

T = TypeVar("T")


class Capped(Generic[T]):
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
class _ToolTally:
    calls: int = 0
    ended: int = 0
    failed: int = 0
    total_ms: int = 0
    longest_ms: int = 0
    last_failure: str | None = None


@dataclass(slots=True)
class _WaitTally:
    times: int = 0
    total_ms: int = 0
    longest_ms: int = 0
    last_at: int | None = None


@dataclass(slots=True)
class _CommandTally:
    command: str
    text: str | None = None
    at: int | None = None
    state: str = "received"
    delivered_at: int | None = None
    iteration: int | None = None
    reason: str | None = None
    redelivered: bool = False

    def stepped(self, state: str, at: int | None, reason: str | None, redelivered: bool) -> None:
        """It has come to `state`; once it has ended it stays so, even if an older step is read later."""
        if self.at is None:
            self.at = at
        if state in _ENDS or self.state not in _ENDS:
            self.state = state
        self.reason = reason or self.reason
        self.redelivered = self.redelivered or redelivered
        if state == "delivered" and self.delivered_at is None:
            self.delivered_at = at


class LogTally:
    """Feed it the lines of the log in order, and the journal of commands; then ask."""

    def __init__(self) -> None:
        self.records: dict[int, Iteration] = {}
        """The records of iterations that the log holds."""
        self.begun: dict[int, facts.OpenIteration] = {}
        self.notices: Capped[facts.ReportedFailure] = Capped(_NOTES)
        self.life: Capped[facts.LifeEvent] = Capped(_NOTES)
        self.batches: Capped[facts.BatchTried] = Capped(_NOTES)
        self.messages_cut = False
        self._view = View()
        self._tools: dict[str, _ToolTally] = {}
        self._retries: dict[str, tuple[int, int | None]] = {}
        self._messages: dict[str, _CommandTally] = {}
        self._running = False
        self._waits: dict[tuple[str, str | None], _WaitTally] = {}
        self._waiting: tuple[_WaitTally, int] | None = None
        self._last_at = self._last_heard = 0

    # the log

    def line(self, line: bytes) -> None:
        """One line of events.jsonl."""
        if line.startswith(_STREAMED) or line.startswith(_TYPE) and line[: line.find(b'"', 9) + 1] not in _TALLIED:
            return
        event = parse_line(line)
        if event is not None:
            for item in self._view.feed(event):
                self._item(item, event)

    def _item(self, item: Item, event: Event) -> None:
        at = time_of(event)
        self._last_heard, self._last_at = self._last_at, at if at is not None else self._last_at
        match item:
            case ToolBegan():
                self._tool(item.name).calls += 1
            case ToolEnded():
                self._tool_ended(item)
            case RetryBegan():
                cause = item.error[:TEXT]
                if cause not in self._retries and len(self._retries) >= _NAMES:
                    cause = _OTHERS
                self._retries[cause] = (self._retries.get(cause, (0, None))[0] + 1, at)
            case IterationBegan():
                self.begun[item.number] = facts.OpenIteration(item.number, item.kind, ticket_of(event), as_iso(item.at))
            case IterationEnded():
                self._iteration_ended(item)
            case CommandReceipt():
                self._step(item, at)
            case BatchChanged(tickets, state, taken, fluke) if state not in ("verifying", "restarted"):
                self.batches.add(facts.BatchTried(as_iso(at), tickets[:_NAMES], state[:TEXT], taken, fluke))
            case LogNotice() if item.level in ("warning", "error"):
                ticket = ticket_of(event)
                self.notices.add(facts.ReportedFailure(as_iso(at), None, ticket, item.level, item.message[:TEXT], None))
            case LoopBegan() | LoopEnded() | StatusChanged() | PiStarted() | PiEnded():
                self._lived(item, at)
            case _:
                pass

    def _tool(self, name: str) -> _ToolTally:
        name = name[:200]
        if name not in self._tools and len(self._tools) >= _NAMES:
            name = _OTHERS
        return self._tools.setdefault(name, _ToolTally())

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

    def _lived(self, item: LoopBegan | LoopEnded | StatusChanged | PiStarted | PiEnded, at: int | None) -> None:
        match item:
            case LoopBegan():
                # What it waited for when its runner was lost ended at the last that was heard of it.
                self._wait_ended(None)
                if self._running:
                    self._step_of_life(at, "runner lost", "the runner before it was killed or crashed", True)
                self._running = True
                self._step_of_life(at, "resumed" if item.resumed else "started", f"runner pid {item.pid}")
            case LoopEnded():
                self._wait_ended(at)
                self._running = False
                detail = ": ".join(part for part in (item.reason, item.error) if part)
                self._step_of_life(at, item.status or "ended", detail, item.status == "error")
            case StatusChanged():
                self._wait_ended(at)
                if item.status in ("waiting", "paused"):
                    self._wait_began(item.status, item.reason, at)
                    self._step_of_life(at, item.status, item.reason)
            case PiStarted():
                self._step_of_life(at, "pi started", f"version {item.version}" if item.version else None)
            case PiEnded():
                how = f"exit code {item.exit_code}" if item.exit_code is not None else "exit code unknown"
                # An end that the runner asked for is not "by itself".
                alone = item.method == "natural"
                self._step_of_life(at, "pi ended", f"{how}, {'by itself' if alone else item.method}", alone)
            case _:
                pass

    def _wait_began(self, what: str, reason: str | None, at: int | None) -> None:
        key = (what, reason[:TEXT] if reason else None)
        if key not in self._waits and len(self._waits) >= _NAMES:
            key = (what, _OTHERS)
        wait = self._waits.setdefault(key, _WaitTally())
        wait.times += 1
        wait.last_at = at
        self._waiting = (wait, at) if at is not None else None

    def _wait_ended(self, at: int | None) -> None:
        if self._waiting is not None:
            wait, began = self._waiting
            taken = max((self._last_heard if at is None else at) - began, 0)
            wait.total_ms += taken
            wait.longest_ms = max(wait.longest_ms, taken)
        self._waiting = None

    def _step_of_life(self, at: int | None, what: str, detail: str | None, is_bad: bool = False) -> None:
        self.life.add(facts.LifeEvent(as_iso(at), what, detail[:TEXT] if detail else None, is_bad))

    # commands

    def _step(self, item: CommandReceipt, at: int | None) -> None:
        message = self._message(item.id, item.command)
        if message is None:
            return
        message.text = item.message or message.text
        message.stepped(item.state, at, item.reason, item.redelivered)

    def journal_line(self, line: bytes) -> None:
        """One line of commands.jsonl: it has what the log has lost, and of an early crash what the log never had.

        To be fed before the log, which tells the same steps again.
        """
        step = parse_line(line) or {}
        id, command, state = (members.text(step, key) for key in ("id", "command", "state"))
        message = self._message(id, command) if id and command and state else None
        if message is None:
            return
        at, body, iteration = step.get("at"), step.get("body"), step.get("iteration")
        at = at if isinstance(at, int) else None
        message.stepped(state, at, members.text(step, "reason"), step.get("redelivered") is True)
        if isinstance(body, dict):
            message.text = members.text(body, "message") or message.text
        if isinstance(iteration, int):
            message.iteration = iteration

    def _message(self, id: str, command: str) -> _CommandTally | None:
        known = self._messages.get(id)
        if known is None:
            if len(self._messages) >= _NOTES:
                self.messages_cut = True
                return None
            known = self._messages[id] = _CommandTally(command)
        return known

    # the answers

    def tools(self) -> list[facts.ToolUse]:
        """Most used first."""
        found = [
            facts.ToolUse(
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

    def waits(self, now: int | None) -> list[facts.TimeWaited]:
        """The longest first; one that lasts still is counted until `now`, or until the last that was heard."""
        self._last_heard = self._last_at
        self._wait_ended(now)
        found = [
            facts.TimeWaited(what, reason, one.times, one.total_ms, one.longest_ms, as_iso(one.last_at))
            for (what, reason), one in self._waits.items()
        ]
        return sorted(found, key=lambda wait: -wait.total_ms)

    def retries(self) -> list[facts.RetriedError]:
        """Most frequent first."""
        found = [facts.RetriedError(cause, times, as_iso(at)) for cause, (times, at) in self._retries.items()]
        return sorted(found, key=lambda retry: -retry.times)

    def messages(self) -> Iterator[facts.CommandGiven]:
        """In the order they came."""
        for id, one in sorted(self._messages.items(), key=lambda pair: pair[1].at or 0):
            yield facts.CommandGiven(
                id,
                one.command,
                one.text and one.text[:TEXT],
                as_iso(one.at),
                one.state,
                as_iso(one.delivered_at),
                one.iteration,
                one.reason,
                one.redelivered,
            )


def as_iso(at: int | None) -> str | None:
    """The time as our files show it; None for what is no time of ours."""
    return iso(at) if at is not None and 0 <= at < _LATEST else None
