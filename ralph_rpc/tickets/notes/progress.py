"""progress.md as text: what became of each ticket, for people and for the tools that read it. Pure.

The format is the one of `.tf/ralph/progress.md`: the sections Current State, Statistics and History, an entry `- <id>:
<STATUS> (<time>)` with indented details per ticket, new ones right below a marker line. Those tools find their fields
by how a line begins, at its very start; so only lines in their own section are changed here, and every detail of an
entry is indented. Everything else in the file stays. Called by `memory`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ralph_rpc.clock import iso
from ralph_rpc.terminal.units import duration, money
from ralph_rpc.terminal.width import line_of

Outcome = Literal["complete", "failed", "needs-merge"]

MARKER = "<!-- Auto-appended entries below -->"
_HEADING = re.compile(r"#{1,2}\s")
_TEMPLATE = """\
# Ralph Loop Progress

## Current State

- Status: RUNNING
- Current ticket: (none)
- Started: {at}
- Last updated: {at}

## Statistics

- Tickets completed: 0
- Tickets failed: 0
- Total iterations: 0

## History

{marker}
"""


@dataclass(frozen=True)
class TicketEntry:
    """What became of a ticket. `ended_at` in epoch milliseconds; with the id it says which end this is."""

    id: str
    title: str
    outcome: Outcome
    iteration: int
    attempt: int
    duration_ms: int
    cost: float
    ended_at: int
    commit: str | None = None
    summary: str = ""
    verify: int | None = None
    error: str | None = None


def with_entry(text: str | None, entry: TicketEntry) -> str | None:
    """The file with one more entry and its figures counted; None if the entry is in it already.

    So that after a crash the same entry may be written again. None as `text`: there is no file yet.
    """
    at = _time(entry.ended_at)
    page = _Page(text, at)
    if page.has(entry.id, at):
        return None
    done = entry.outcome == "complete"
    page.count("Tickets completed" if done else "Tickets failed")
    page.count("Total iterations")
    page.touch(at, "RUNNING")
    page.leave(entry.id)
    page.insert(_entry(entry, at))
    return page.text()


def with_state(text: str | None, status: str, running: Sequence[str], at: int) -> str:
    """The file with Current State as it is now: a status such as RUNNING, and the running tickets."""
    page = _Page(text, _time(at))
    page.touch(_time(at), status)
    page.set("Current State", "Current ticket", ", ".join(running) or "(none)")
    return page.text()


def _time(ms: int) -> str:
    """In whole seconds, as the other tools write it."""
    return iso(ms)[:19] + "Z"


def _entry(entry: TicketEntry, at: str) -> list[str]:
    status = entry.outcome.upper()
    details = [
        ("Summary", line_of(entry.title, 200)),
        ("Result", line_of(entry.summary, 200)),
        ("Attempt", f"{entry.attempt}, Retry Count: {entry.attempt - 1}"),
        ("Iteration", str(entry.iteration)),
        ("Duration", duration(entry.duration_ms)),
        ("Cost", money(entry.cost)),
        ("Verify", "" if entry.verify is None else f"exit {entry.verify}"),
        ("Status", status),
        ("Commit", line_of(entry.commit or "", 80)),
        ("Error", line_of(entry.error or "", 200)),
    ]
    return [f"- {entry.id}: {status} ({at})", *(f"  - {name}: {value}" for name, value in details if value)]


class _Page:
    """The lines of the file, each with the CR that it may end with."""

    def __init__(self, text: str | None, at: str) -> None:
        if text is None or not text.strip():
            text = _TEMPLATE.format(at=at, marker=MARKER)
        self._cr = "\r" if "\r\n" in text else ""
        self._lines = text.split("\n")

    def text(self) -> str:
        return "\n".join(self._lines)

    def has(self, ticket: str, at: str) -> bool:
        return any(line.startswith(f"- {ticket}: ") and line.rstrip().endswith(f"({at})") for line in self._lines)

    def count(self, name: str) -> None:
        """Add one to a figure, where the file has it and it is a number."""
        if (number := self._get("Statistics", name)) is not None and re.fullmatch(r"[0-9]{1,15}", number):
            self.set("Statistics", name, str(int(number) + 1))

    def touch(self, at: str, status: str) -> None:
        self.set("Current State", "Status", status)
        self.set("Current State", "Last updated", at)
        if self._get("Current State", "Started") == "(not started)":
            self.set("Current State", "Started", at)

    def leave(self, ticket: str) -> None:
        """Remove a ticket that has ended from the running ones."""
        running = [name.strip() for name in (self._get("Current State", "Current ticket") or "").split(",")]
        others = ", ".join(name for name in running if name != ticket)
        self.set("Current State", "Current ticket", others or "(none)")

    def set(self, section: str, name: str, value: str) -> None:
        """Change a field, where the file has it."""
        if (at := self._find(section, name)) is not None:
            self._lines[at] = f"- {name}: {value}{self._cr}"

    def insert(self, entry: list[str]) -> None:
        """Below the marker, so that the newest comes first; without one at the end of the history."""
        for at, line in enumerate(self._lines):
            if line.strip() == MARKER:
                place = at + 1
                break
        else:
            section = self._section("History") or range(len(self._lines))
            filled = [at for at in section if self._lines[at].strip()]
            place = filled[-1] + 1 if filled else section.stop
        if place == len(self._lines):  # the last line has no end
            self._lines[-1] += self._cr
            self._lines.append("")
        self._lines[place:place] = [line + self._cr for line in entry]

    def _get(self, section: str, name: str) -> str | None:
        at = self._find(section, name)
        return None if at is None else self._lines[at].partition(":")[2].strip()

    def _find(self, section: str, name: str) -> int | None:
        lines = self._section(section) or range(0)
        return next((at for at in lines if self._lines[at].startswith(f"- {name}:")), None)

    def _section(self, title: str) -> range | None:
        """The lines below a heading, up to the next one of its level."""
        starts = (at for at, line in enumerate(self._lines) if line.rstrip() == f"## {title}")
        start = next(starts, None)
        if start is None:
            return None
        ends = (at for at in range(start + 1, len(self._lines)) if _HEADING.match(self._lines[at]))
        return range(start + 1, next(ends, len(self._lines)))
