"""A ticket, a backlog, and what is wrong in them. Pure: made by a `TicketSource`, read by everybody else."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ralph_rpc.text import inert

Status = Literal["open", "in_progress", "closed"]
STATUSES: tuple[Status, ...] = ("open", "in_progress", "closed")
PRIORITIES = range(5)
COMPONENT = "component:"

Natural = tuple[tuple[int, str], ...]
Order = tuple[int, Natural]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket as its source tells it. All text in it is data, and to be made inert before it is shown."""

    id: str
    status: Status
    path: Path
    title: str = ""
    """The first `# ` heading of the text; empty where there is none."""
    deps: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    priority: int = 2
    """0 to 4, 0 is the most urgent."""
    type: str = "task"
    assignee: str = ""
    parent: str = ""
    created: str = ""
    """As it stands in the file."""
    deps_line: int = 1
    """Where in the file its deps stand."""
    components: frozenset[str] = field(init=False)
    """Its tags that begin with `component:`, without that."""

    def __post_init__(self) -> None:
        named = frozenset(tag[len(COMPONENT) :] for tag in self.tags if tag.startswith(COMPONENT))
        object.__setattr__(self, "components", named - {""})


@dataclass(frozen=True, slots=True)
class BadTicket:
    """What is wrong with a ticket, and where."""

    path: Path
    line: int
    reason: str
    id: str | None = None
    """None: nothing in the file or its name says which ticket it is."""

    @property
    def place(self) -> str:
        """`ab-1.md:3`, inert."""
        return f"{inert(self.path.name, keep_newlines=False)}:{self.line}"


@dataclass(frozen=True, slots=True)
class Backlog:
    """All tickets of a source by id, and all that is wrong there.

    A ticket that depends on a missing one or on itself is in both: it is known, and never ready.
    """

    tickets: Mapping[str, Ticket]
    bad: tuple[BadTicket, ...] = ()


def safe_id(id: str) -> bool:
    """Whether an id can be the name of a file, of a folder and of a branch."""
    return _ID.fullmatch(id) is not None and ".." not in id and not id.endswith((".", ".lock"))


def natural(id: str) -> Natural:
    """A key that sorts ids as people do: `ab-9` before `ab-12`."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(id) if part]
    return (*parts, (-1, id))


def order(ticket: Ticket) -> Order:
    """The key of the order in which tickets are worked on: priority, then id."""
    return ticket.priority, natural(ticket.id)
