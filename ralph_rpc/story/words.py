"""The wording of smaller items, one line each, the same in every view.

Pure. Called by `logs` and `attach`, which show the words in their own way and make them inert first.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ralph_rpc.clock import parse_iso
from ralph_rpc.model.state import BatchState
from ralph_rpc.story.items import (
    BatchChanged,
    Compaction,
    DialogAsked,
    Event,
    Item,
    IterationBegan,
    IterationEnded,
    LogNotice,
    LoopBegan,
    LoopEnded,
    MessageDone,
    PiEnded,
    PiStarted,
    RetryBegan,
    StatusChanged,
    TicketChanged,
    VerifyEnded,
)
from ralph_rpc.terminal.colour import Style
from ralph_rpc.terminal.units import cost, count, duration, number, whole_seconds

_NAMED = 5
"""Tickets of a batch that are named."""
_TAIL = 3
"""Lines shown of a failed verification."""


class Wording(NamedTuple):
    """A line; `border`: it separates what is before it from what comes after. `tail`: (text, style) of lines below it."""

    text: str
    style: Style
    border: bool = False
    tail: tuple[tuple[str, Style | None], ...] = ()


def worded(item: Item) -> Wording | None:
    """None for text, tools, messages and commands, which each view shows in its own way."""
    words = _WORDS.get(type(item))
    return words(item) if words else None


def iteration_line(record: Event) -> str:
    """The one line about an ended iteration: outcome, duration, turns, tools, tokens, cost."""

    def amount(key: str) -> str:
        return count(number(record.get(key)))

    used = sum(number(record.get(key)) for key in ("tokensIn", "tokensOut", "cacheRead", "cacheWrite"))
    unpriced = int(number(record.get("unpricedRequests")))
    return (
        f"iteration {int(number(record.get('iteration')))} {record.get('outcome')}: "
        f"{duration(number(record.get('durationMs')))}, "
        f"{amount('turns')} turns, {amount('toolCalls')} tool calls, "
        f"{count(used)} tokens, {cost(number(record.get('cost')), used)}"
        + (f", {unpriced} unpriced" if unpriced else "")
    )


def clock_time(at: int) -> str:
    """Local time of day, with the date where it is not today."""
    try:
        moment = time.localtime(at / 1000)
    except (ValueError, OverflowError, OSError):
        return ""
    today = time.localtime()[:3] == moment[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", moment)


def _message_done(item: MessageDone) -> Wording | None:
    return None if item.error is None else Wording(f"{item.stop_reason}: {item.error}", "red")


def _retry(item: RetryBegan) -> Wording:
    # The error was the message before.
    return Wording(f"retry {item.attempt} in {duration(item.delay_ms)}", "yellow")


def _compaction(item: Compaction) -> Wording:
    if item.result is None:
        return Wording(f"pi compacts its context ({item.reason})", "dim")
    verb = "context compacted" if item.ok else "context not compacted"
    return Wording(f"{verb}: {item.result}", "dim" if item.ok else "yellow")


def _dialog(item: DialogAsked) -> Wording:
    return Wording(f"an extension asks ({item.method}): {item.title}", "yellow")


def _iteration_began(item: IterationBegan) -> Wording:
    ticket = f" on {item.ticket}" if item.ticket else ""
    return Wording(f"iteration {item.number} ({item.kind}){ticket}{_at(item.at)}", "bold", border=True)


def _iteration_ended(item: IterationEnded) -> Wording:
    record = item.record
    error = record.get("error")
    told = f"· {record.get('errorKind', 'error')}: {error}"
    tail: tuple[tuple[str, Style | None], ...] = ((told, "red"),) if error else ()
    style: Style = "bold" if record.get("outcome") == "ok" else "yellow"
    return Wording(iteration_line(record), style, True, tail)


def _status(item: StatusChanged) -> Wording:
    return Wording(f"{item.before} → {item.status}" + (f": {item.reason}" if item.reason else ""), "dim")


def _verified(item: VerifyEnded) -> Wording:
    taken = duration(item.duration_ms)
    if item.exit_code == 0:
        return Wording(f"verified in {taken}: {item.command}", "green")
    lines = [line for line in item.tail.split("\n") if line.strip()][-_TAIL:]
    text = f"verify failed ({item.exit_code}) in {taken}: {item.command}"
    return Wording(text, "red", tail=tuple((f"    {line}", None) for line in lines))


def _ticket(item: TicketChanged) -> Wording:
    reason = f": {item.reason}" if item.reason else ""
    return Wording(f"ticket {item.ticket}: {item.before or 'new'} → {item.status}{reason}", "cyan")


def _batch(item: BatchChanged) -> Wording:
    what = f"merge of {shortened(item.tickets)}" if item.tickets else "the target branch itself"
    took = f" after {duration(item.duration_ms)}" if item.duration_ms >= 1_000 else ""
    match item.state:
        case "verifying":
            return Wording(f"{what}: verifying", "dim")
        case "restarted":
            return Wording(f"{what}: verify is started over, together with what has just come", "dim")
        case "red":
            return Wording(f"{what}: verify is red{took}", "yellow")
        case "landed":
            fluke = ", though verify was red at first: it is not reliable" if item.fluke else ""
            return Wording(f"{what}: landed{fluke}", "yellow" if item.fluke else "green")
        case "target-red":
            return Wording(f"{what} does not pass verify{took}; merges wait", "red")
        case other:
            return Wording(f"{what}: {other}", "dim")


def batch_told(batch: BatchState, now_ms: int) -> str:
    """What the merge queue is at, in a line: which tickets, what is done with them, since when."""
    since = parse_iso(batch["since"])
    passed = "" if since is None else f" for {whole_seconds(max(0, now_ms - since))}"
    tried, count_ = batch["tickets"][: batch["trying"]], len(batch["tickets"])
    if not tried:
        why = f", as {shortened(batch['tickets'])} could not be merged into it" if count_ else ""
        return f"verifying the target branch itself{passed}{why}"
    part = "" if len(tried) == count_ else f" ({len(tried)} of {count_}, as all together were red)"
    what = {"waiting": "waiting to verify", "verifying": "verifying", "landing": "landing"}.get(batch["doing"], "")
    return f"{what} {shortened(tried)}{part}{passed}"


def shortened(tickets: Sequence[str]) -> str:
    """The first of these ids, and how many more there are."""
    more = f" and {len(tickets) - _NAMED} more" if len(tickets) > _NAMED else ""
    return ", ".join(tickets[:_NAMED]) + more


def _notice(item: LogNotice) -> Wording:
    styles: dict[str, Style] = {"warning": "yellow", "error": "red"}
    return Wording(item.message, styles.get(item.level, "dim"))


def _pi_started(item: PiStarted) -> Wording:
    if item.host is not None:
        return Wording(f"pi started on {item.host}", "dim")
    return Wording(f"pi {item.version or ''} started (pid {item.pid})", "dim")


def _pi_exited(item: PiEnded) -> Wording:
    code = "exit code unknown" if item.exit_code is None else f"exit code {item.exit_code}"
    return Wording(f"pi ended ({code}, {item.method})", "dim")


def _loop_began(item: LoopBegan) -> Wording:
    verb = "resumed" if item.resumed else "started"
    return Wording(f"loop {item.name} {verb} (runner {item.pid}){_at(item.at)}", "bold", border=True)


def _loop_ended(item: LoopEnded) -> Wording:
    reason = f" ({item.reason})" if item.reason else ""
    style: Style = "bold" if item.status == "completed" else "yellow"
    tail: tuple[tuple[str, Style | None], ...] = ((f"· {item.error}", "red"),) if item.error else ()
    return Wording(f"loop {item.status}{reason}", style, True, tail)


def _at(at: int | None) -> str:
    return "" if at is None else " " + clock_time(at)


_WORDS: dict[type, Callable[[Any], Wording | None]] = {
    MessageDone: _message_done,
    RetryBegan: _retry,
    Compaction: _compaction,
    DialogAsked: _dialog,
    IterationBegan: _iteration_began,
    IterationEnded: _iteration_ended,
    StatusChanged: _status,
    VerifyEnded: _verified,
    TicketChanged: _ticket,
    BatchChanged: _batch,
    LogNotice: _notice,
    PiStarted: _pi_started,
    PiEnded: _pi_exited,
    LoopBegan: _loop_began,
    LoopEnded: _loop_ended,
}
