"""The line above the stream, in one line of any width; and the summary when the loop has ended.

Pure: values in, text out. What has no room is left out, the least important first.
"""

from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from ralph_rpc.clock import parse_iso
from ralph_rpc.items import Event
from ralph_rpc.text import count, duration, inert, line_of, money, number, width

QUIET_MS = 15_000
"""Silence that is worth telling."""
_STYLES = {
    "running": "green", "completed": "bold green", "error": "bold red", "crashed": "bold red",
    "stale": "bold red", "waiting": "yellow", "paused": "yellow", "stopping": "yellow",
    "stopped": "bold yellow", "starting": "cyan",
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What the line is made of. `state` is state.json, unchecked; `shown` the status that a person should
    see.
    """

    name: str
    shown: str
    state: Event = field(default_factory=dict)
    doing: str = ""
    """The tool that runs, or what pi does instead."""
    ticket: str | None = None
    context: int | None = None
    window: int | None = None
    commit: str | None = None
    last_at: int | None = None
    """When the last event came."""
    behind: bool = False
    """The screen is not at the end of the log."""


def headline(seen: Seen, now_ms: int, columns: int) -> Text:
    """One line of at most so many columns."""
    state = seen.state
    quiet = _quiet_ms(seen, now_ms)
    parts: list[tuple[int, str, str]] = [
        # (importance, text, style); 0 stays whatever the width
        (0, line_of(seen.name, 24), "bold"),
        (0, _status(seen, now_ms), _STYLES.get(seen.shown, "bold")),
        (1, _iteration(state), ""),
        (3, f"nothing for {whole_seconds(quiet)}" if quiet else "", "bold yellow"),
        (2, f"⚒ {line_of(seen.ticket, 24)}" if seen.ticket else "", "blue"),
        (4, line_of(seen.doing, 28), "cyan"),
        (5, whole_seconds(_elapsed(seen, now_ms)) if state else "", ""),
        (6, money(_stat(state, "cost")) if state else "", ""),
        (7, f"{count(_stat(state, 'tokensIn') + _stat(state, 'tokensOut'))} tokens" if state else "", ""),
        (8, _context(seen), ""),
        (9, f"commit {inert(seen.commit, keep_newlines=False)[:7]}" if seen.commit else "", "dim"),
    ]
    parts = [part for part in parts if part[1]]
    while len(parts) > 2 and sum(width(text) + 3 for _, text, _ in parts) - 1 > columns:
        parts.remove(max(parts))
    line = Text(" ", no_wrap=True)
    for index, (_, text, style) in enumerate(parts):
        if index:
            line.append(" · ", style="dim")
        line.append(text, style=style)
    if quiet:
        line.stylize("yellow")
    line.truncate(columns, pad=True)
    return line


def ended_lines(name: str, shown: str, state: Event, commit: str | None, columns: int) -> list[Text]:
    """What came of a loop that runs no more: what it did, why it ended, what can be done now."""
    reason = state.get("stopReason")
    why = f" ({inert(reason, keep_newlines=False)})" if isinstance(reason, str) else ""
    stats = [
        f"{count(_stat(state, 'iterations'))} iterations", f"{count(_stat(state, 'turns'))} turns",
        f"{count(_stat(state, 'toolCalls'))} tool calls",
        f"{count(_stat(state, 'tokensIn'))} in + {count(_stat(state, 'tokensOut'))} out",
        money(_stat(state, "cost")), duration(number(state.get("elapsedMs"))),
    ]  # fmt: skip
    lines = [Text(f" loop {shown}{why}", style=_STYLES.get(shown, "bold")), Text(" " + ", ".join(stats))]
    error = state.get("error")
    if isinstance(error, str) and error:
        lines.append(Text(" " + line_of(error, columns - 2), style="red"))
    if commit:
        lines.append(Text(f" last commit {line_of(commit, 12)}"))
    lines.append(Text(f" {next_step(name, shown)} · q leaves", style="dim"))
    for line in lines:
        line.truncate(columns)
    return lines


def next_step(name: str, shown: str) -> str:
    """What a person may do with a loop that runs no more."""
    if shown == "completed":
        return f"see all of it: ralph-rpc report {name}"
    return f"go on with: ralph-rpc resume {name}"


def goodbye(name: str, shown: str, state: Event) -> str:
    """The line that stays on the terminal after detaching."""
    if shown in ("completed", "stopped", "error", "crashed"):
        reason = state.get("stopReason")
        why = f" ({reason})" if isinstance(reason, str) and shown != "crashed" else ""
        figures = f"{count(_stat(state, 'iterations'))} iterations, {money(_stat(state, 'cost'))}"
        then = next_step(name, shown)
        text = f"{name}: {shown}{why}, {figures}. {then[:1].upper()}{then[1:]}"
    else:
        text = f"Detached from {name}, which goes on ({shown}). Back with: ralph-rpc attach {name}"
    return inert(text, keep_newlines=False)


def whole_seconds(ms: float) -> str:
    """A duration that is counted on a screen: `42s`, `3m12s`."""
    return f"{int(ms) // 1000}s" if ms < 60_000 else duration(ms)


def _quiet_ms(seen: Seen, now_ms: int) -> int:
    """How long nothing has come from a loop of which something should come; 0 for not long."""
    if seen.last_at is None or seen.shown not in ("running", "stopping", "starting", "stale"):
        return 0
    quiet = now_ms - seen.last_at
    return quiet if quiet >= QUIET_MS else 0


def _status(seen: Seen, now_ms: int) -> str:
    text = inert(seen.shown, keep_newlines=False)
    if seen.shown == "waiting":
        wake = parse_iso(seen.state.get("nextWakeAt"))
        text += f" {whole_seconds(wake - now_ms)}" if wake is not None and wake > now_ms else ""
    return text + (" ↑" if seen.behind else "")


def _iteration(state: Event) -> str:
    most = int(number(state.get("maxIterations")))
    return f"iteration {int(number(state.get('iteration')))}" + (f"/{most}" if most else "") if state else ""


def _elapsed(seen: Seen, now_ms: int) -> float:
    """`elapsedMs` stands still in the file between two writings."""
    elapsed = number(seen.state.get("elapsedMs"))
    if seen.shown in ("running", "stopping", "waiting"):
        written = parse_iso(seen.state.get("updatedAt"))
        elapsed += max(0, now_ms - written) if written is not None else 0
    return elapsed


def _context(seen: Seen) -> str:
    if not seen.context:
        return ""
    if seen.window:
        return f"context {min(seen.context * 100 // seen.window, 100)}%"
    return f"context {count(seen.context)}"


def _stat(state: Event, key: str) -> float:
    stats: Any = state.get("stats")
    return number(stats.get(key)) if isinstance(stats, dict) else 0
