"""The line above the stream, in one line of any width; and the summary when the loop has ended.

Pure: values in, text out. What has no room is left out, the least important first.
"""

from dataclasses import dataclass

from rich.text import Text

from ralph_rpc.clock import parse_iso
from ralph_rpc.loops.figures import Figures, of_state
from ralph_rpc.model.state import State
from ralph_rpc.model.usage import tokens
from ralph_rpc.story.models import model_name, waits_for, wakes_at
from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.units import cost, count, duration, number, whole_seconds
from ralph_rpc.terminal.width import line_of, width

QUIET_MS = 15_000
"""Silence that is worth showing."""
_STYLES = {
    "running": "green",
    "completed": "bold green",
    "error": "bold red",
    "crashed": "bold red",
    "stale": "bold red",
    "waiting": "yellow",
    "paused": "yellow",
    "stopping": "yellow",
    "stopped": "bold yellow",
    "starting": "cyan",
}


@dataclass(frozen=True)
class HeadlineFacts:
    """What the line is made of. `shown` is the status that a person should see; `state` None: not known yet."""

    name: str
    shown: str
    state: State | None = None
    figures: Figures | None = None
    """Of this moment; there where `state` is."""
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


def headline(facts: HeadlineFacts, now_ms: int, columns: int) -> Text:
    """One line of at most `columns` columns."""
    quiet = _quiet_ms(facts, now_ms)
    parts: list[tuple[int, str, str]] = [
        # (importance, text, style); 0 stays at any width
        (0, line_of(facts.name, 24), "bold"),
        (0, _status(facts, now_ms), _STYLES.get(facts.shown, "bold")),
        (3, f"nothing for {whole_seconds(quiet)}" if quiet else "", "bold yellow"),
        (2, f"⚒ {line_of(facts.ticket, 24)}" if facts.ticket else "", "blue"),
        (4, line_of(facts.doing, 28), "cyan"),
        (8, _context(facts), ""),
        (9, f"commit {inert(facts.commit, keep_newlines=False)[:7]}" if facts.commit else "", "dim"),
    ]
    if facts.state is not None and facts.figures is not None:
        figures = facts.figures
        parts.insert(2, (1, figures.progress_words, ""))
        parts[-2:-2] = [
            (5, whole_seconds(number(figures.elapsed_ms)), ""),
            (6, cost(number(figures.cost), figures.tokens), ""),
            (6, _fallback(facts.state), "yellow"),
            (7, _merging(facts.state), "cyan"),
            (7, f"{count(figures.tokens)} tokens", ""),
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


def _merging(state: State) -> str:
    """What the merge queue of a ticket loop is at."""
    batch = state["tickets"].get("batch") if "tickets" in state else None
    if batch is None:
        return ""
    tickets = batch["tickets"]
    if not tickets:
        return "verifying the target"
    return f"merging {line_of(tickets[0], 24)}" if len(tickets) == 1 else f"merging {len(tickets)} tickets"


def ended_lines(name: str, shown: str, state: State | None, commit: str | None, columns: int) -> list[Text]:
    """The summary of a loop that no longer runs: what it did, why it ended, what can be done now."""
    why = f" ({state['stopReason']})" if state is not None and state["stopReason"] else ""
    lines = [Text(f" loop {shown}{why}", style=_STYLES.get(shown, "bold"))]
    if state is not None:
        stats = state["stats"]
        figures = [
            of_state(state, "dead").progress_words,
            f"{count(number(stats['turns']))} turns",
            f"{count(number(stats['toolCalls']))} tool calls",
            f"{count(tokens(stats))} tokens",
            cost(number(stats["cost"]), tokens(stats)),
            duration(number(state["elapsedMs"])),
        ]
        lines.append(Text(" " + ", ".join(figures)))
        if state["error"]:
            lines.append(Text(" " + line_of(state["error"], columns - 2), style="red"))
    if commit:
        lines.append(Text(f" last commit {inert(commit, keep_newlines=False)[:7]}"))
    lines.append(Text(f" {next_step(name, shown)} · q leaves", style="dim"))
    for line in lines:
        line.truncate(columns)
    return lines


def next_step(name: str, shown: str) -> str:
    """What a person may do with a loop that no longer runs."""
    if shown == "completed":
        return f"see all of it: ralph-rpc report {name}"
    return f"continue with: ralph-rpc resume {name}"


def goodbye(name: str, shown: str, state: State | None) -> str:
    """The line that stays on the terminal after detaching."""
    if shown not in ("completed", "stopped", "error", "crashed"):
        return f"Detached from {name} (still {shown}). Back with: ralph-rpc attach {name}"
    why = figures = ""
    if state is not None:
        why = f" ({state['stopReason']})" if state["stopReason"] and shown != "crashed" else ""
        stats = state["stats"]
        figures = f", {of_state(state, 'dead').progress_words}, {cost(number(stats['cost']), tokens(stats))}"
    then = next_step(name, shown)
    return f"{name}: {shown}{why}{figures}. {then[:1].upper()}{then[1:]}"


def _quiet_ms(facts: HeadlineFacts, now_ms: int) -> int:
    """How long nothing has come from a loop of which something should come; 0 for not long."""
    if facts.last_at is None or facts.shown not in ("running", "stopping", "starting", "stale"):
        return 0
    quiet = now_ms - facts.last_at
    return quiet if quiet >= QUIET_MS else 0


def _status(facts: HeadlineFacts, now_ms: int) -> str:
    text = facts.shown
    if facts.shown == "waiting" and facts.state is not None:
        wake, reason = parse_iso(facts.state["nextWakeAt"]), waits_for(facts.state)
        text += f" for {line_of(reason, 24)}" if reason else ""
        if wake is not None and wake > now_ms:
            text += f" until {wakes_at(facts.state)} ({whole_seconds(wake - now_ms)})"
    return text + (" ↑" if facts.behind else "")


def _fallback(state: State) -> str:
    """The model in use, where it is not the loop's own."""
    name = model_name(state["provider"], state["model"])
    return line_of(name, 40) if name in state["config"].get("fallbackModels", []) else ""


def _context(facts: HeadlineFacts) -> str:
    if not facts.context:
        return ""
    if facts.window:
        return f"context {min(facts.context * 100 // facts.window, 100)}%"
    return f"context {count(facts.context)}"
