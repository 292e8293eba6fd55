"""What depends on what: cycles, and dependencies that are missing.

Pure; called by ticket sources, which report them, and by the scheduler, which never starts such a ticket.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ralph_rpc.terminal.width import line_of
from ralph_rpc.tickets.ticket import BadTicket, Ticket


@dataclass(frozen=True, slots=True)
class Cycle:
    """Tickets that depend on each other."""

    ring: tuple[str, ...]
    """Each depends on the next, and the last on the first."""
    others: tuple[str, ...]
    """Those that are in other rings with these."""

    @property
    def members(self) -> tuple[str, ...]:
        return self.ring + self.others

    def told(self, shown: int | None = None) -> str:
        """`dependency cycle a -> b -> a`, with at most `shown` members by name."""
        names = (*self.ring, self.ring[0])
        if shown is not None and len(names) > shown:
            names = (*names[:shown], f"… ({len(self.members)} tickets)")
        also = f", and {', '.join(self.others[:shown])}" if self.others else ""
        return f"dependency cycle {' -> '.join(names)}{also}"


def wrong_deps(tickets: Mapping[str, Ticket], bad: Iterable[BadTicket]) -> Iterator[BadTicket]:
    """What keeps tickets from ever being ready. What a closed ticket depends on no longer matters."""
    faults = dep_faults(bad)
    unclosed = {id: ticket.deps for id, ticket in tickets.items() if ticket.status != "closed"}
    for id, deps in unclosed.items():
        for dep in deps:
            if dep not in tickets:
                ticket = tickets[id]
                yield BadTicket(ticket.path, ticket.deps_line, faults.get(dep) or missing(dep), id)
    for cycle in cycles(unclosed):
        first = tickets[cycle.ring[0]]
        yield BadTicket(first.path, first.deps_line, cycle.told(), first.id)


def missing(dep: str) -> str:
    """What to say of a missing dependency, whose id can be any text."""
    return f"dep {line_of(dep, 64)} does not exist"


def dep_faults(bad: Iterable[BadTicket]) -> dict[str, str]:
    """What to say of a dependency on one of these bad tickets, by its id."""
    return {one.id: f"dep {one.id} cannot be used ({one.place}: {one.reason})" for one in bad if one.id is not None}


def cycles(deps: Mapping[str, Collection[str]]) -> list[Cycle]:
    """Every knot of tickets that depend on each other; dependencies that are not a key are ignored."""
    knots = _knots(deps)
    return [_cycle(deps, knot) for knot in knots if len(knot) > 1 or knot[0] in deps[knot[0]]]


def _knots(deps: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """Strongly connected components, after Tarjan, without recursion: chains of tickets can be long."""
    seen: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    stacked: set[str] = set()
    for root in deps:
        if root in seen:
            continue
        path = [(root, iter(deps[root]))]
        while path:
            id, rest = path[-1]
            if id not in seen:
                seen[id] = low[id] = len(seen)
                stack.append(id)
                stacked.add(id)
            for dep in rest:
                if dep in stacked:
                    low[id] = min(low[id], seen[dep])
                elif dep in deps and dep not in seen:
                    path.append((dep, iter(deps[dep])))
                    break
            else:
                path.pop()
                if path:
                    above = path[-1][0]
                    low[above] = min(low[above], low[id])
                if low[id] == seen[id]:
                    knot = [stack.pop()]
                    while knot[-1] != id:
                        knot.append(stack.pop())
                    stacked.difference_update(knot)
                    yield knot


def _cycle(deps: Mapping[str, Collection[str]], knot: Collection[str]) -> Cycle:
    """The shortest ring through the first of a knot."""
    members = set(knot)
    first = min(members)
    before: dict[str, str] = {}
    todo = deque([first])
    while first not in before:
        id = todo.popleft()
        for dep in deps[id]:
            if dep in members and dep not in before:
                before[dep] = id
                todo.append(dep)
    ring = [before[first]]
    while ring[-1] != first:
        ring.append(before[ring[-1]])
    return Cycle(tuple(reversed(ring)), tuple(sorted(members.difference(ring))))
