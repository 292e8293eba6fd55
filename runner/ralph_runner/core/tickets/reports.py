"""What the shell can tell the core of a ticket loop beside `core/reports.py`. Values only."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ralph_rpc.model.iteration import Verify
from ralph_rpc.tickets.ticket import Backlog
from ralph_runner.core.inputs import PiInput
from ralph_runner.core.reports import Report


@dataclass(frozen=True, slots=True)
class From:
    """Something that a worker's pi, or what was asked for it, tells."""

    key: str
    input: PiInput | Report


@dataclass(frozen=True, slots=True)
class Scanned:
    """The tickets as they are now; None: as they were, or not to be had (`error`)."""

    backlog: Backlog | None
    took_ms: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The worktree is there."""

    ticket: str
    base: str
    path: str
    reused: bool
    """With work of an earlier run, which `base` may be older than."""
    set_up: bool = False
    """--worktree-setup has come to its end in it."""


@dataclass(frozen=True, slots=True)
class WasSetUp:
    """--worktree-setup has ended; None: it was cancelled."""

    ticket: str
    run: Verify | None


@dataclass(frozen=True, slots=True)
class Committed:
    """What lay about is committed; or `problem` is what the agent has to mend first."""

    ticket: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """How the ticket's branch stands to the target's head."""

    ticket: str
    standing: Literal["ready", "behind", "conflict"]
    target: str
    conflict: str = ""


@dataclass(frozen=True, slots=True)
class Updated:
    """The target branch is in the ticket's; or `conflict` says why not, and all is as it was."""

    ticket: str
    conflict: str | None = None


@dataclass(frozen=True, slots=True)
class MergeVerified:
    """verify on the merged tree; None: it was cancelled."""

    ticket: str
    verify: Verify | None


@dataclass(frozen=True, slots=True)
class Landed:
    """The target branch holds the ticket's work, as `commit`; else it has moved, or the merge has to wait."""

    ticket: str
    commit: str | None = None
    waits: str | None = None


@dataclass(frozen=True, slots=True)
class TicketClosed:
    """The ticket is closed in the source."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Removed:
    """The worktree is gone; or `kept` says why it is not."""

    ticket: str
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class RestSeen:
    """What a failed ticket left in the project, as one line; None: nothing, or there is no telling."""

    ticket: str
    rest: str | None


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A step of a job could not be carried out."""

    ticket: str
    reason: str


TicketReport: TypeAlias = (
    From | Scanned | Opened | WasSetUp | Committed | Looked | Updated | MergeVerified | Landed | TicketClosed
    | Removed | RestSeen | JobFailed
)  # fmt: skip
