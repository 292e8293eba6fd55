"""Tickets and the backlog, good and bad ones. Pure: made by a `TicketSource`, read by everything else."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ralph_rpc.model.ticket import file_name
from ralph_rpc.terminal.inert import inert

Status = Literal["open", "in_progress", "closed"]
STATUSES: tuple[Status, ...] = ("open", "in_progress", "closed")
PRIORITIES = range(5)
COMPONENT = "component:"

Natural = tuple[tuple[int, str], ...]
Order = tuple[int, Natural]

LONGEST_ID = 128
"""Bytes of an id; with it, file names and the stamps of the log keep their limits."""
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NOT_IN_IDS = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})
"""Kinds of characters that no id may have: control characters, and what ends a line."""
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What makes text look as if it stood in another order."""
_DIGITS = re.compile(r"([0-9]+)")


class Doubt(NamedTuple):
    """Why a ticket is not started before a person has looked at it, and at which line."""

    reason: str
    line: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket as its source has it. All text in it is data, and must be made inert before it is shown."""

    id: str
    status: Status
    path: Path
    title: str = ""
    """The head's `title`, else the first `# ` heading of the text; empty where there is none."""
    deps: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    priority: int = 2
    """0 to 4, 0 is the most urgent."""
    type: str = "task"
    assignee: str = ""
    parent: str = ""
    created: str = ""
    """As written in the file."""
    deps_line: int = 1
    """The line of its deps in the file."""
    doubt: Doubt | None = None
    blocks: tuple[str, ...] = ()
    """Tickets that wait for this one, by a key that `tk` does not know."""
    prefix: str = COMPONENT
    """What its component tags begin with."""
    components: frozenset[str] = field(init=False)
    """Those tags, without that."""

    def __post_init__(self) -> None:
        named = frozenset(tag[len(self.prefix) :] for tag in self.tags if tag.startswith(self.prefix))
        object.__setattr__(self, "components", named - {""})

    @property
    def is_epic(self) -> bool:
        """Whether it stands for its children, where it has any."""
        return self.type.lower() == "epic"


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
    """All tickets of a source by id, and everything that is wrong there.

    A ticket that depends on a missing one or on itself, or of which there is a doubt, is in both: it is known, and never
    ready.
    """

    tickets: Mapping[str, Ticket]
    bad: tuple[BadTicket, ...] = ()

    @property
    def unread(self) -> tuple[BadTicket, ...]:
        """Tickets of which nothing is known but that they are there."""
        return tuple(one for one in self.bad if one.id is None or one.id not in self.tickets)


def usable_id(id: str) -> bool:
    """Whether an id can be the name of a ticket's file, in any script."""
    if _PLAIN_ID.fullmatch(id):
        return True  # almost always
    if not id or id in (".", "..") or "/" in id or id != id.strip():
        return False
    strange = any(unicodedata.category(char) in _NOT_IN_IDS or char in _DIRECTIONS for char in id)
    return not strange and len(id.encode()) <= LONGEST_ID


def branch_of(loop: str, id: str) -> str:
    """The branch on which a loop does the ticket's work, where each ticket has a worktree."""
    return f"ralph/{loop}/{file_name(id)}"


def named(part: str, ids: Iterable[str]) -> list[str]:
    """The ids that are meant by a whole id or, as `tk` has it, by a part of one."""
    part = unicodedata.normalize("NFC", part.strip())
    known = list(ids)
    if part in known:
        return [part]
    return sorted((id for id in known if part.casefold() in id.casefold()), key=natural) if part else []


def natural(id: str) -> Natural:
    """A key that sorts ids as people do: `ab-9` before `ab-12`."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(id) if part]
    return (*parts, (-1, id))


def order(ticket: Ticket) -> Order:
    """The key of the order in which tickets are worked on: priority, then id."""
    return ticket.priority, natural(ticket.id)
