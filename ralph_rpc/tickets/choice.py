"""Which tickets a loop leaves alone: those that others work on, and those that its options do not choose. Pure.

Called by the scheduler. Somebody works on a ticket that is `in_progress`, unless it is the loop itself that has left it
so. Who is merely assigned to an open ticket decides nothing: `tk` assigns each one to whoever files it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ralph_rpc.terminal.width import line_of
from ralph_rpc.tickets.ticket import Ticket, natural


class LeftOut(NamedTuple):
    """Why a ticket is not the loop's to start."""

    reason: str
    """A clause without a full stop."""
    clause: str
    """The same, to follow the ticket's id."""
    is_claimed: bool = False
    """Somebody works on it."""


_NOT_CHOSEN = LeftOut("is not among the tickets to run", "is not among the tickets to run")


@dataclass(frozen=True, slots=True)
class Choice:
    """The options that choose tickets."""

    only: frozenset[str] | None = None
    """The tickets that may be started, and those below an epic among them; None: all of them."""
    assignees: frozenset[str] = frozenset()
    """Any of these must be assigned; empty: anybody."""
    tags: frozenset[str] = frozenset()
    """Any of these must be a tag of it; empty: any or none."""
    take_in_progress: bool = False
    """Those that somebody works on may be started as well."""

    @classmethod
    def of(cls, config: Mapping[str, object]) -> "Choice":
        """That of a config.json; what makes no sense in it is as if it had not been given."""
        return cls(
            only=_texts(config, "only") or None,
            assignees=frozenset(map(_person, _texts(config, "assignees"))),
            tags=_texts(config, "tags"),
            take_in_progress=config.get("takeInProgress") is True,
        )

    def within(self, tickets: Mapping[str, Ticket], epics: Mapping[str, Collection[str]]) -> "Choice":
        """The same choice, where the children of a chosen epic are chosen with it."""
        if self.only is None or self.only.isdisjoint(epics):
            return self
        chosen, todo = set(self.only), list(self.only)
        while todo:
            new = set(epics.get(todo.pop(), ())) - chosen
            chosen |= new
            todo += new
        return replace(self, only=frozenset(chosen))

    def leaves_out(self, ticket: Ticket, own: Collection[str]) -> LeftOut | None:
        """Why the loop does not start the ticket, None if it may; `own` are those that it has worked on itself."""
        if self.only is not None and ticket.id not in self.only:
            return _NOT_CHOSEN
        if self.tags and self.tags.isdisjoint(ticket.tags):
            told = f"has no tag {_any_of(self.tags)}"
            return LeftOut(told, told)
        if self.assignees and self.assignees.isdisjoint(map(_person, ticket.assignee.split(","))):
            told = f"is not assigned to {_any_of(self.assignees)}"
            return LeftOut(told, told)
        free = self.take_in_progress or ticket.id in own or self.only is not None
        if ticket.status == "in_progress" and not free:
            by = f" by {line_of(ticket.assignee, 40)}" if ticket.assignee else ""
            return LeftOut(f"is worked on{by}; --take-in-progress takes it", f"is worked on{by}", is_claimed=True)
        return None


def epics_of(tickets: Mapping[str, Ticket]) -> dict[str, list[str]]:
    """The children of each epic that has any."""
    found: dict[str, list[str]] = {}
    for id, ticket in tickets.items():
        parent = tickets.get(ticket.parent) if ticket.parent else None
        if parent is not None and parent.is_epic:
            found.setdefault(parent.id, []).append(id)
    return {id: sorted(children, key=natural) for id, children in found.items()}


def _texts(config: Mapping[str, object], key: str) -> frozenset[str]:
    value = config.get(key)
    return frozenset(one for one in value if isinstance(one, str)) if isinstance(value, list) else frozenset()


def _person(name: str) -> str:
    """`@Joe` and `joe` are one."""
    return name.strip().removeprefix("@").casefold()


def _any_of(names: frozenset[str]) -> str:
    return line_of(" or ".join(sorted(names)), 80)
