"""Which tickets start now, and why the others do not. Pure: the same backlog gives the same plan.

Called by the runner whenever a ticket ends or the backlog changes, and by `ralph-rpc tickets` to explain the
queue.

A ticket is ready when all that it depends on is done: closed, and merged. Ready ones start in the order of
priority and id, as far as there are places, and never beside one that has a component in common with them;
one without a component runs alone. Who has to wait for a component keeps it: nobody behind in the order takes
it first, and one that runs alone keeps all of them. So everybody's turn comes, at the price of places that
stay empty for a while. A merge that waits for a person may wait all night, so for such a one nothing is kept.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ralph_rpc.text import inert
from ralph_rpc.tickets.deps import cycles, dep_faults, missing
from ralph_rpc.tickets.ticket import COMPONENT, Backlog, Order, Ticket, natural, order

Standing = Literal["running", "merging", "merge-waits", "failed", "needs-merge", "closed"]
"""What a loop's records say of a ticket; one that they say nothing of has none.

`running` from claim to verification; `merging` until its work is in the target branch; `merge-waits` is a
merge that waits for a person (their checkout is in the way); `closed` is merged and closed.
"""
State = Literal["running", "merging", "ready", "waiting", "blocked", "failed", "needs-merge", "done"]
STATES: tuple[State, ...] = (
    "running", "merging", "ready", "waiting", "blocked", "needs-merge", "failed", "done",
)  # fmt: skip
"""In the order in which rows are shown."""

_NAMED = 3
"""Tickets that a row says it waits for; of the others it gives the number."""
_RING = 8
"""Members of a dependency cycle that a row names."""


@dataclass(frozen=True, slots=True)
class Row:
    """One ticket as a person sees it."""

    id: str
    state: State
    priority: int
    title: str
    components: tuple[str, ...]
    reason: str
    """Why it does not run, as a clause without a full stop; empty where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    start: tuple[str, ...]
    """To be started at once, in this order."""
    rows: tuple[Row, ...]
    """Every ticket, in the order in which to show them."""
    finished: bool
    """Nothing runs, and nothing can ever start without a person or a new ticket."""


def plan(
    backlog: Backlog,
    standing: Mapping[str, Standing],
    *,
    parallel: int,
    allow_untagged: bool,
    only: frozenset[str] | None = None,
) -> Plan:
    """What to start now, where each ticket stands, and whether this is the end.

    At most `parallel` run; one whose merge waits for a person takes no place. `only` names those that may be started.
    One that runs but is not in the backlog, as its file is just being written, gets along with nobody.
    """
    judged = _judged(backlog, standing, only)
    places = _Places(parallel, allow_untagged)
    for id, stands in standing.items():
        if stands in _BUSY:
            places.hold(id, stands, backlog.tickets.get(id))
    idle = not places.holders
    keys = {id: order(ticket) for id, ticket in backlog.tickets.items()}
    start: list[str] = []
    for id in sorted((id for id, one in judged.items() if one.state == "ready"), key=keys.__getitem__):
        ticket = backlog.tickets[id]
        if reason := places.refusal(ticket):
            judged[id] = _Judged("ready", reason)
        else:
            places.hold(id, "next", ticket)
            start.append(id)
    return Plan(tuple(start), _rows(backlog, judged, keys), finished=idle and not start)


class _Judged(NamedTuple):
    """Where a ticket stands, whatever else runs."""

    state: State
    reason: str = ""
    dead_end: str = ""
    """Why it will never be done without a person: a clause that goes on after its id."""
    root: str = ""
    """The same as a whole sentence, for those that depend on it indirectly."""


_BUSY = ("running", "merging", "merge-waits")
_STANDS: dict[Standing, _Judged] = {
    "running": _Judged("running"),
    "merging": _Judged("merging"),
    "merge-waits": _Judged("merging", "its merge waits"),
    "failed": _Judged("failed", dead_end="failed"),
    "needs-merge": _Judged("needs-merge", dead_end="needs a merge by hand"),
    "closed": _Judged("done"),
}
_NOT_CHOSEN = _Judged("waiting", "is not among the tickets to run", "is not among the tickets to run")


def _judged(
    backlog: Backlog, standing: Mapping[str, Standing], only: frozenset[str] | None
) -> dict[str, _Judged]:
    """Every ticket by its own standing and by what it depends on; those that may start are `ready`."""
    judged = {id: _STANDS[stands] for id, stands in standing.items()}
    judged |= {
        id: _STANDS["closed"]
        for id, t in backlog.tickets.items()
        if t.status == "closed" and id not in judged
    }
    faults = dep_faults(backlog.bad)
    todo = {id: ticket for id, ticket in backlog.tickets.items() if id not in judged}
    for id in _deps_first(todo, judged):
        judged[id] = _by_deps(todo[id], judged, faults)
        if only is not None and id not in only and judged[id].state != "blocked":
            judged[id] = _NOT_CHOSEN
    return judged


def _deps_first(todo: Mapping[str, Ticket], judged: dict[str, _Judged]) -> Iterator[str]:
    """The tickets in an order in which each comes after its deps; those in a cycle are judged at once."""
    needed_by: dict[str, list[str]] = {}
    lacks: dict[str, int] = {}
    for id, ticket in todo.items():
        deps = [dep for dep in ticket.deps if dep in todo]
        lacks[id] = len(deps)
        for dep in deps:
            needed_by.setdefault(dep, []).append(id)
    free = [id for id, count in lacks.items() if not count]
    yield from _freed(free, lacks, needed_by)
    left = {id: todo[id].deps for id, count in lacks.items() if count}
    knotted: list[str] = []
    for cycle in cycles(left):
        told = cycle.told(_RING)
        for id in cycle.members:
            judged[id] = _Judged("blocked", told, f"is blocked: {told}", told)
            lacks[id] = 0
            knotted.append(id)
    for id in _freed(knotted, lacks, needed_by):
        if id not in judged:
            yield id


def _freed(free: list[str], lacks: dict[str, int], needed_by: Mapping[str, list[str]]) -> Iterator[str]:
    """The free ones, and those that become free by them."""
    while free:
        id = free.pop()
        yield id
        for other in needed_by.get(id, ()):
            lacks[other] -= 1
            if not lacks[other]:
                free.append(other)


def _by_deps(ticket: Ticket, judged: Mapping[str, _Judged], faults: Mapping[str, str]) -> _Judged:
    waits: list[str] = []
    for dep in ticket.deps:
        found = judged.get(dep)
        if found is None:
            place = f"{inert(ticket.path.name, keep_newlines=False)}:{ticket.deps_line}"
            reason = faults.get(dep) or f"{missing(dep)} ({place})"
            return _Judged("blocked", reason, f"is blocked: {reason}", reason)
        if found.dead_end:
            root = found.root or f"{dep} {found.dead_end}"
            return _Judged(
                "blocked", f"depends on {dep}, which {found.dead_end}", f"is blocked: {root}", root
            )
        if found.state != "done":
            waits.append(f"{dep} ({found.state})")
    if not waits:
        return _Judged("ready")
    more = f" and {len(waits) - _NAMED} more" if len(waits) > _NAMED else ""
    return _Judged("waiting", f"waits for {', '.join(waits[:_NAMED])}{more}")


Stands = Standing | Literal["next"]


class _Places:
    """Who runs beside whom: what is taken, and what is kept for those who are next."""

    def __init__(self, parallel: int, allow_untagged: bool) -> None:
        self.holders: dict[str, Stands] = {}
        self._parallel = parallel
        self._allow_untagged = allow_untagged
        self._running = 0
        self._alone: dict[str, str] = {}
        """Holders that nobody gets along with, and why."""
        self._users: dict[str, list[str]] = {}
        """Holders by component."""
        self._kept: dict[str, str] = {}
        """Who is next, by component."""
        self._next_alone: str | None = None
        self._stuck: set[str] = set()
        """Holders that may stay for long."""

    def hold(self, id: str, stands: Stands, ticket: Ticket | None) -> None:
        """This one runs, or its work is on the way into the target branch."""
        self.holders[id] = stands
        self._running += stands in ("running", "next")
        if stands == "merge-waits":
            self._stuck.add(id)
        if ticket is None:
            self._alone[id] = f"{id}, whose ticket cannot be read, must be alone"
        elif not ticket.components and not self._allow_untagged:
            self._alone[id] = f"{id} has no component tag and runs alone"
        for component in ticket.components if ticket else ():
            self._users.setdefault(component, []).append(id)

    def refusal(self, ticket: Ticket) -> str:
        """Why a ready ticket cannot start now, empty if it can; what it waits for is kept for it."""
        if ticket.components:
            return self._in_way(ticket) or self._full()
        if self._allow_untagged or not self.holders:
            return self._full()
        if self._next_alone is None and not self._stuck:
            self._next_alone = ticket.id
        return "has no component tag; runs alone, or with --allow-untagged"

    def _in_way(self, ticket: Ticket) -> str:
        """Who runs, or is next, with whom it does not get along."""
        components = sorted(ticket.components)
        used = [(component, id) for component in components for id in self._users.get(component, ())]
        kept = [(component, self._kept[component]) for component in components if component in self._kept]
        if not (used or kept or self._alone or self._next_alone):
            return ""
        if not any(id in self._stuck for id in (*self._alone, *(id for _, id in used))):
            for component in components:
                self._kept.setdefault(component, ticket.id)
        if self._alone:
            return next(iter(self._alone.values()))
        if used:
            return self._in_use(*used[0])
        if self._next_alone:
            return f"{self._next_alone} is next, and runs alone"
        return f"{COMPONENT}{kept[0][0]} goes to {kept[0][1]} first"

    def _in_use(self, component: str, id: str) -> str:
        if self.holders[id] == "next":
            return f"{COMPONENT}{component} goes to {id} first"
        merge = {"merging": ", which is being merged", "merge-waits": ", whose merge waits"}.get(
            self.holders[id], ""
        )
        return f"{COMPONENT}{component} is in use by {id}{merge}"

    def _full(self) -> str:
        if self._running < self._parallel:
            return ""
        return "the only place is taken" if self._parallel == 1 else f"all {self._parallel} places are taken"


def _rows(backlog: Backlog, judged: Mapping[str, _Judged], keys: Mapping[str, Order]) -> tuple[Row, ...]:
    """The tickets of the backlog, and those that run without being in it."""
    shown = [id for id, one in judged.items() if id in keys or one.state in ("running", "merging")]
    rank = {state: number for number, state in enumerate(STATES)}
    shown.sort(key=lambda id: (rank[judged[id].state], keys.get(id) or (0, natural(id))))
    return tuple(_row(id, backlog.tickets.get(id), judged[id]) for id in shown)


def _row(id: str, ticket: Ticket | None, one: _Judged) -> Row:
    if ticket is None:
        return Row(id, one.state, 0, "", (), one.reason or "its ticket is gone or cannot be read")
    return Row(id, one.state, ticket.priority, ticket.title, tuple(sorted(ticket.components)), one.reason)
