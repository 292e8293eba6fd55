"""A loop's figures at this moment: how far it is, cost, tokens, time. All views have them from here: `list`, `list --all`,
`status`, `attach`, `report` and the bar of `wait`.

The runner writes state.json and the registry entry from the same state, and a heartbeat renews only the entry's times;
so both tell the same, and what has passed since is added here. Pure but for the clock; imports nothing heavy.
"""

from typing import NamedTuple

from ralph_rpc import clock
from ralph_rpc.loops.status import Runner
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import State, Status
from ralph_rpc.model.usage import tokens

_TIME_PASSES = ("starting", "running", "waiting", "stopping")
"""The statuses in which the time under a runner is counted."""


class Figures(NamedTuple):
    """What a person compares."""

    iteration: int
    """Number of the current or last iteration."""
    counted: int | None
    """Iterations that count towards the limit; None: not known."""
    cost: float
    """US dollars."""
    elapsed_ms: int
    """Time under a runner, without pauses."""
    tokens: int = 0
    """Input, output, cache reads and cache writes."""
    limit: int = 0
    """Of `counted`; 0: none."""
    tickets: tuple[int, int] | None = None
    """Closed, and all; of a ticket loop."""

    @property
    def iterations(self) -> str:
        """Iterations done of those allowed: `3/50`, `3` where there is no limit."""
        done = self.iteration if self.counted is None else self.counted
        return f"{done}/{self.limit}" if self.limit else str(done)

    @property
    def progress(self) -> str:
        """How far the loop is, in a table: `3/50`, or `1/4 tickets`."""
        return self.iterations if self.tickets is None else f"{self.tickets[0]}/{self.tickets[1]} tickets"

    @property
    def progress_words(self) -> str:
        """The same where no title says what is counted: `3/50 iterations`."""
        return f"{self.iterations} iterations" if self.tickets is None else self.progress


def of_state(state: State, runner: Runner) -> Figures:
    """By state.json."""
    since = _since(state["status"], runner, state["updatedAt"], state.get("monotonicMs"))
    stats, tickets = state["stats"], state.get("tickets")
    return Figures(
        state["iteration"],
        stats["iterations"],
        stats["cost"],
        state["elapsedMs"] + since,
        tokens(stats),
        state["maxIterations"],
        None if tickets is None else (tickets["closed"], tickets["total"]),
    )


def of_entry(entry: RegistryEntry, runner: Runner) -> Figures:
    """By the registry alone; an entry of an older version tells only how long ago the loop was started."""
    if "elapsedMs" in entry and "updatedAt" in entry:
        since = _since(entry["status"], runner, entry["updatedAt"], entry.get("updatedMonotonicMs"))
        elapsed = entry["elapsedMs"] + since
    else:
        elapsed = max(0, (clock.parse_iso(entry["lastSeen"]) or 0) - (clock.parse_iso(entry["startedAt"]) or 0))
    closed, total = entry.get("ticketsClosed"), entry.get("ticketsTotal")
    return Figures(
        entry["iteration"],
        entry.get("counted"),
        entry["cost"],
        elapsed,
        entry.get("tokens", 0),
        entry["maxIterations"],
        None if closed is None or total is None else (closed, total),
    )


def _since(status: Status, runner: Runner, wall: str, up: int | None) -> int:
    """The time that has passed and counts since the files were written."""
    return max(0, clock.silent_ms(wall, up)) if runner == "alive" and status in _TIME_PASSES else 0
