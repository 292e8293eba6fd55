"""How the smaller things that happen in a loop are put into words: one line each, the same in every view.

Pure. Called by `logs` and `attach`, which show the words in their own way and make them inert first.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ralph_rpc.items import (
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
    TicketChanged,
    Verified,
)
from ralph_rpc.text import Style, count, duration, money, number

_TAIL = 3
"""Lines shown of a failed verification."""


class Wording(NamedTuple):
    """A line; `border`: it parts what is before it from what comes after. `tail`: (text, style) of lines
    below it.
    """

    text: str
    style: Style
    border: bool = False
    tail: tuple[tuple[str, Style | None], ...] = ()


def worded(item: Item) -> Wording | None:
    """None for text, tools, messages and commands, which each view shows in a way of its own."""
    words = _WORDS.get(type(item))
    return words(item) if words else None


def iteration_line(record: Event) -> str:
    """The one line about an ended iteration: outcome, duration, turns, tools, tokens, cost."""

    def amount(key: str) -> str:
        return count(number(record.get(key)))

    return (
        f"iteration {int(number(record.get('iteration')))} {record.get('outcome')}: "
        f"{duration(number(record.get('durationMs')))}, "
        f"{amount('turns')} turns, {amount('toolCalls')} tool calls, "
        f"{amount('tokensIn')} in + {amount('tokensOut')} out, {money(number(record.get('cost')))}"
    )


def clock_time(at: int) -> str:
    """Local time of day, of the day too where it is not today."""
    try:
        moment = time.localtime(at / 1000)
    except (ValueError, OverflowError, OSError):
        return ""
    today = time.localtime()[:3] == moment[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", moment)


def _message_done(item: MessageDone) -> Wording | None:
    return None if item.error is None else Wording(f"{item.stop_reason}: {item.error}", "red")


def _retry(item: Retry) -> Wording:
    # The error was the message before.
    return Wording(f"retry {item.attempt} in {duration(item.delay_ms)}", "yellow")


def _compaction(item: Compaction) -> Wording:
    if item.result is None:
        return Wording(f"pi shortens its context ({item.reason})", "dim")
    verb = "context shortened" if item.ok else "context not shortened"
    return Wording(f"{verb}: {item.result}", "dim" if item.ok else "yellow")


def _dialog(item: Dialog) -> Wording:
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


def _verified(item: Verified) -> Wording:
    taken = duration(item.duration_ms)
    if item.exit_code == 0:
        return Wording(f"verified in {taken}: {item.command}", "green")
    lines = [line for line in item.tail.split("\n") if line.strip()][-_TAIL:]
    text = f"verify failed ({item.exit_code}) in {taken}: {item.command}"
    return Wording(text, "red", tail=tuple((f"    {line}", None) for line in lines))


def _ticket(item: TicketChanged) -> Wording:
    reason = f": {item.reason}" if item.reason else ""
    return Wording(f"ticket {item.ticket}: {item.before or 'new'} → {item.status}{reason}", "cyan")


def _notice(item: Notice) -> Wording:
    styles: dict[str, Style] = {"warning": "yellow", "error": "red"}
    return Wording(item.message, styles.get(item.level, "dim"))


def _pi_started(item: PiStarted) -> Wording:
    return Wording(f"pi {item.version or ''} started (pid {item.pid})", "dim")


def _pi_exited(item: PiExited) -> Wording:
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
    Retry: _retry,
    Compaction: _compaction,
    Dialog: _dialog,
    IterationBegan: _iteration_began,
    IterationEnded: _iteration_ended,
    StatusChanged: _status,
    Verified: _verified,
    TicketChanged: _ticket,
    Notice: _notice,
    PiStarted: _pi_started,
    PiExited: _pi_exited,
    LoopBegan: _loop_began,
    LoopEnded: _loop_ended,
}
