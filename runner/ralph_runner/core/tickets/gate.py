"""Which verifications run at one time, and which red one counts. Pure.

Test suites that share a port, a database or a lock are red when two of them run at once. So a run that was red while
another ran, be it for an instant, is done again with nothing beside it, and only that one counts. If it is green, the
two cannot run together: from then on one runs at a time, unless the user has fixed a number. The merge queue's own
verification goes first, as more tickets wait for it; a run that is to be alone goes before all that are not.
"""

from dataclasses import dataclass, replace

from ralph_rpc.model.iteration import Verify
from ralph_runner.core.tickets.effects import TicketOnlyEffect

QUEUE = "(queue)"
"""The merge queue's key beside the workers'; no ticket can have this id."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A verification that waits or runs."""

    key: str
    run: TicketOnlyEffect
    again: bool = False
    """It was red beside another, and has to be alone this time."""
    beside: bool = False
    """Another runs, or has run, at the same time."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What runs, and what waits."""

    running: tuple[Asked, ...] = ()
    waiting: tuple[Asked, ...] = ()
    alone: bool = False
    """One at a time: two of them have been seen to disturb each other."""


def asked(gate: Gate, key: str, run: TicketOnlyEffect) -> Gate:
    """With one more that waits."""
    new = Asked(key, run)
    if key != QUEUE:
        return replace(gate, waiting=(*gate.waiting, new))
    ahead = sum(one.again for one in gate.waiting)
    return replace(gate, waiting=(*gate.waiting[:ahead], new, *gate.waiting[ahead:]))


def admit(gate: Gate, limit: int | None) -> tuple[Gate, Asked | None]:
    """The next that may start, if one may; `limit` is the number that the user has fixed."""
    if not gate.waiting:
        return gate, None
    first, *rest = gate.waiting
    if is_full(gate, limit) or (gate.running and (first.again or any(one.again for one in gate.running))):
        return gate, None
    running = gate.running
    if running:
        running = tuple(replace(one, beside=True) for one in running)
        first = replace(first, beside=True)
    return replace(gate, running=(*running, first), waiting=tuple(rest)), first


def is_full(gate: Gate, limit: int | None) -> bool:
    """Whether no more may run at one time than do."""
    most = limit if limit is not None else 1 if gate.alone else None
    return most is not None and len(gate.running) >= most


def ended(gate: Gate, key: str, verify: Verify | None) -> tuple[Gate, bool, bool]:
    """Without the run that has ended; whether its result counts, and whether it has just shown that runs disturb each other.

    One that does not count waits to be done again.
    """
    run = running(gate, key)
    if run is None:
        return gate, True, False
    left = replace(gate, running=tuple(one for one in gate.running if one is not run))
    if verify is None:
        return left, True, False
    if verify["exitCode"] == 0:
        return replace(left, alone=gate.alone or run.again), True, run.again
    if run.beside and not run.again:
        return replace(left, waiting=(Asked(key, run.run, again=True), *left.waiting)), False, False
    return left, True, False


def running(gate: Gate, key: str) -> Asked | None:
    """The run of this key that is under way."""
    return next((one for one in gate.running if one.key == key), None)


def waits(gate: Gate, key: str) -> bool:
    """Whether the run of this key has not begun."""
    return any(one.key == key for one in gate.waiting)


def dropped(gate: Gate, key: str) -> Gate:
    """Without those of this key that wait."""
    return replace(gate, waiting=tuple(one for one in gate.waiting if one.key != key))
