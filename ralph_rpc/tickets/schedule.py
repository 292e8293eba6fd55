"""Which tickets start now, and why the others do not. Pure: the same backlog gives the same plan.

Called by the runner whenever a ticket ends or the backlog changes, and by `ralph-rpc tickets` to explain the queue.

A ticket is ready when everything that it depends on is done: closed, and merged. Ready tickets start in the order of
priority and id, as long as there are places, and never beside one that shares a component with them; a ticket without
a component runs alone. A finished ticket that waits to be merged gives its place to the next, but only so many may pile
up. A ticket that has to wait for a component reserves it: none behind it in the order takes it first, and one that runs
alone reserves all of them. So every ticket gets its turn, at the price of places that stay empty for a while. A merge
that waits for a person may wait all night, so nothing is reserved behind one.

An epic that has children is no work: it is closed with the last of them. Which tickets are none of the loop's business
(somebody else works on them, or they were not chosen) is in `choice.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ralph_rpc.terminal.inert import inert
from ralph_rpc.tickets.choice import Choice, LeftOut, epics_of
from ralph_rpc.tickets.deps import cycles, dep_faults, missing
from ralph_rpc.tickets.standing import Standing, is_busy, piles_up, takes_place
from ralph_rpc.tickets.ticket import Backlog, Order, Ticket, natural, order

State = Literal["running", "merging", "ready", "waiting", "blocked", "failed", "needs-merge", "done"]
STATES: tuple[State, ...] = ("running", "merging", "ready", "waiting", "blocked", "needs-merge", "failed", "done")
"""In the order in which rows are shown."""

_NAMED = 3
"""How many tickets a row names that it waits for; the others are only counted."""
_RING = 8
"""How many members of a dependency cycle a row names."""


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
    left_out: LeftOut | None = None
    """Why it is none of the loop's business; None: it is."""
    is_epic: bool = False
    """It stands for its children."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    start: tuple[str, ...]
    """To be started now, in this order."""
    close: tuple[str, ...]
    """Epics whose children are all done."""
    rows: tuple[Row, ...]
    """Every ticket, in the order in which to show them."""
    finished: bool
    """Nothing runs, and nothing can start without a person or a new ticket."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The options of a loop that limit what it starts."""

    parallel: int = 1
    """Tickets that may have a place at the same time."""
    allow_untagged: bool | None = None
    """Tickets without a component may run beside others; None: if the whole backlog has no component."""
    choice: Choice = field(default_factory=Choice)
    unmerged: int = 0
    """Finished ones that may wait to be merged beside those that have a place."""

    @classmethod
    def of(cls, config: Mapping[str, object]) -> "Rules":
        """Those in a config.json; what it lacks, or what makes no sense in it, is as if it had not been given."""
        parallel, untagged = config.get("parallel"), config.get("allowUntagged")
        places = parallel if isinstance(parallel, int) and parallel > 0 else 1
        return cls(
            parallel=places,
            allow_untagged=untagged if isinstance(untagged, bool) else None,
            choice=Choice.of(config),
            # Without worktrees a ticket is finished when it is committed: the next one would work in the same files.
            unmerged=places if config.get("worktrees") else 0,
        )

    def lets_untagged(self, backlog: Backlog) -> bool:
        """Whether tickets of this backlog that have no component may run beside others."""
        if self.allow_untagged is not None:
            return self.allow_untagged
        return not any(ticket.components for ticket in backlog.tickets.values())


def plan(backlog: Backlog, standing: Mapping[str, Standing], rules: Rules) -> Plan:
    """What to start now, where each ticket stands, and whether this is the end.

    A ticket that runs but is not in the backlog, because its file is just being written, runs beside no other.
    """
    epics = epics_of(backlog.tickets)
    chosen = rules.choice.within(backlog.tickets, epics)
    left_out = {id: out for id, one in backlog.tickets.items() if (out := chosen.leaves_out(one, standing)) is not None}
    judged = _judged(backlog, standing, epics, left_out)
    places = _Places(rules, rules.lets_untagged(backlog))
    busy = sorted((id for id, stands in standing.items() if is_busy(stands)), key=natural)
    for id in busy:
        if id not in epics:
            places.hold(id, standing[id], backlog.tickets.get(id))
    keys = {id: order(ticket) for id, ticket in backlog.tickets.items()}
    start: list[str] = []
    for id in sorted((id for id, one in judged.items() if one.state == "ready"), key=keys.__getitem__):
        ticket = backlog.tickets[id]
        if reason := places.refusal(ticket):
            judged[id] = _Judged("ready", reason)
        else:
            places.hold(id, "next", ticket)
            start.append(id)
    close = tuple(sorted((id for id, one in judged.items() if one is _CLOSES), key=natural))
    rows = _rows(backlog, judged, keys, left_out, epics)
    return Plan(tuple(start), close, rows, finished=not (busy or start or close))


class _Judged(NamedTuple):
    """Where a ticket stands, apart from what else runs."""

    state: State
    reason: str = ""
    dead_end: str = ""
    """Why it will never be done without a person: a clause to follow its id."""
    root: str = ""
    """The same as a whole sentence, for those that depend on it indirectly."""


_STANDS: dict[Standing, _Judged] = {
    "running": _Judged("running"),
    "merging": _Judged("merging"),
    "merge-waits": _Judged("merging", "its merge waits"),
    "failed": _Judged("failed", dead_end="failed"),
    "needs-merge": _Judged("needs-merge", dead_end="needs a merge by hand"),
    "closed": _Judged("done"),
}
_CLOSES = _Judged("waiting", "epic: its children are done")


def _judged(
    backlog: Backlog,
    standing: Mapping[str, Standing],
    epics: Mapping[str, Sequence[str]],
    left_out: Mapping[str, LeftOut],
) -> dict[str, _Judged]:
    """Every ticket, judged by its own standing and by what it depends on; those that may start are `ready`."""
    judged = {id: _STANDS[stands] for id, stands in standing.items() if stands != "left"}
    judged |= {id: _STANDS["closed"] for id, t in backlog.tickets.items() if t.status == "closed" and id not in judged}
    faults = dep_faults(backlog.bad)
    todo = {id: ticket for id, ticket in backlog.tickets.items() if id not in judged}
    for id in _needs_first({id: epics.get(id, ticket.deps) for id, ticket in todo.items()}, judged):
        ticket = todo[id]
        if ticket.doubt is not None:
            reason = f"{ticket.doubt.reason} ({_place(ticket, ticket.doubt.line)})"
            judged[id] = _Judged("blocked", reason, f"is blocked: {reason}", reason)
        elif id in epics:
            judged[id] = _by_children(epics[id], judged, backlog)
        else:
            judged[id] = _by_deps(ticket, judged, faults)
            out = left_out.get(id)
            if out is not None and (out.is_claimed or judged[id].state != "blocked"):
                judged[id] = _Judged("waiting", out.reason, out.clause)
    return judged


def _needs_first(needs: Mapping[str, Sequence[str]], judged: dict[str, _Judged]) -> Iterator[str]:
    """The tickets in an order in which each comes after what it needs; those in a cycle are judged at once."""
    needed_by: dict[str, list[str]] = {}
    lacks: dict[str, int] = {}
    for id, ids in needs.items():
        known = [one for one in ids if one in needs]
        lacks[id] = len(known)
        for one in known:
            needed_by.setdefault(one, []).append(id)
    free = [id for id, count in lacks.items() if not count]
    yield from _freed(free, lacks, needed_by)
    left = {id: needs[id] for id, count in lacks.items() if count}
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
            reason = faults.get(dep) or f"{missing(dep)} ({_place(ticket, ticket.deps_line)})"
            return _Judged("blocked", reason, f"is blocked: {reason}", reason)
        if found.dead_end:
            root = found.root or f"{dep} {found.dead_end}"
            return _Judged("blocked", f"depends on {dep}, which {found.dead_end}", f"is blocked: {root}", root)
        if found.state != "done":
            waits.append(f"{dep} ({found.state})")
    if not waits:
        return _Judged("ready")
    more = f" and {len(waits) - _NAMED} more" if len(waits) > _NAMED else ""
    return _Judged("waiting", f"waits for {', '.join(waits[:_NAMED])}{more}")


def _by_children(children: Sequence[str], judged: Mapping[str, _Judged], backlog: Backlog) -> _Judged:
    undone = [(id, judged[id]) for id in children if judged[id].state != "done"]
    if not undone and not backlog.unread:
        return _CLOSES
    told = f"epic: {len(children) - len(undone)} of {len(children)} children done"
    if not undone:
        place = backlog.unread[0].place
        return _Judged("waiting", f"{told}, but {place} cannot be read", f"waits, as {place} cannot be read")
    stuck = next(((id, one) for id, one in undone if one.dead_end), None)
    if stuck is None:
        return _Judged("waiting", told)
    id, one = stuck
    return _Judged("waiting", told, f"waits for {id}, which {one.dead_end}", one.root or f"{id} {one.dead_end}")


def _place(ticket: Ticket, line: int) -> str:
    return f"{inert(ticket.path.name, keep_newlines=False)}:{line}"


Stands = Standing | Literal["next"]


class _Places:
    """Which tickets can run together: what is taken, and what is reserved for those that are next."""

    def __init__(self, rules: Rules, allow_untagged: bool) -> None:
        self.holders: dict[str, Stands] = {}
        self._parallel, self._unmerged, self._allow_untagged = rules.parallel, rules.unmerged, allow_untagged
        self._taken = 0
        self._waiting = 0
        """Finished ones that are to be merged."""
        self._alone: dict[str, str] = {}
        """Holders that no other ticket may run beside, and why."""
        self._users: dict[str, list[str]] = {}
        """Holders by component."""
        self._kept: dict[str, str] = {}
        """The ticket that is next, by component."""
        self._next_alone: str | None = None
        self._stuck: set[str] = set()
        """Holders that may stay for long."""

    def hold(self, id: str, stands: Stands, ticket: Ticket | None) -> None:
        """This one runs, or its work is on its way into the target branch."""
        self.holders[id] = stands
        self._taken += stands == "next" or takes_place(stands)
        self._waiting += stands != "next" and piles_up(stands)
        if stands == "merge-waits":
            self._stuck.add(id)
        if ticket is None:
            self._alone[id] = f"{id}, whose ticket cannot be read, must be alone"
        elif not ticket.components and not self._allow_untagged:
            self._alone[id] = f"{id} has no component tag and runs alone"
        for component in ticket.components if ticket else ():
            self._users.setdefault(component, []).append(id)

    def refusal(self, ticket: Ticket) -> str:
        """Why a ready ticket cannot start now, empty if it can; what it waits for is reserved for it."""
        if ticket.components:
            return self._in_way(ticket) or self._full()
        if self._allow_untagged or not self.holders:
            return self._full()
        if self._next_alone is None and not self._stuck:
            self._next_alone = ticket.id
        return "has no component tag; runs alone, or with --allow-untagged"

    def _in_way(self, ticket: Ticket) -> str:
        """The ticket that runs, or is next, and cannot run beside this one."""
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
            component, id = used[0]
            return self._in_use(f"{ticket.prefix}{component}", id)
        if self._next_alone:
            return f"{self._next_alone} is next, and runs alone"
        return f"{ticket.prefix}{kept[0][0]} goes to {kept[0][1]} first"

    def _in_use(self, component: str, id: str) -> str:
        """`component` with its prefix."""
        if self.holders[id] == "next":
            return f"{component} goes to {id} first"
        merge = {"merging": ", which is being merged", "merge-waits": ", whose merge waits"}.get(self.holders[id], "")
        return f"{component} is in use by {id}{merge}"

    def _full(self) -> str:
        places = self._parallel
        if self._taken < places and self._taken + self._waiting < places + self._unmerged:
            return ""
        if self._taken < places and self._unmerged:
            count = "a finished ticket waits" if self._waiting == 1 else f"{self._waiting} finished tickets wait"
            return f"{count} to be merged first"
        return "the only place is taken" if places == 1 else f"all {places} places are taken"


def _rows(
    backlog: Backlog,
    judged: Mapping[str, _Judged],
    keys: Mapping[str, Order],
    left_out: Mapping[str, LeftOut],
    epics: Mapping[str, Sequence[str]],
) -> tuple[Row, ...]:
    """The tickets of the backlog, and those that run without being in it."""
    shown = [id for id, one in judged.items() if id in keys or one.state in ("running", "merging")]
    rank = {state: number for number, state in enumerate(STATES)}
    shown.sort(key=lambda id: (rank[judged[id].state], keys.get(id) or (0, natural(id))))
    return tuple(_row(id, backlog.tickets.get(id), judged[id], left_out.get(id), id in epics) for id in shown)


def _row(id: str, ticket: Ticket | None, one: _Judged, left_out: LeftOut | None, is_epic: bool) -> Row:
    if ticket is None:
        return Row(id, one.state, 0, "", (), one.reason or "its ticket is gone or cannot be read")
    components = tuple(sorted(ticket.components))
    return Row(id, one.state, ticket.priority, ticket.title, components, one.reason, left_out, is_epic)
