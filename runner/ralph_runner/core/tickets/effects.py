"""What the core of a ticket loop can ask of the shell beside `core/effects.py`. Outcomes come back as reports."""

from dataclasses import dataclass
from typing import TypeAlias

from ralph_rpc.model.ticket import TicketRecord
from ralph_rpc.tickets.ticket import Status
from ralph_runner.core.effects import Effect


@dataclass(frozen=True, slots=True)
class To:
    """An effect for one worker's pi; what comes of it comes back as `From` with the same key."""

    key: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Hire:
    """A worker begins; its pi will work on this ticket's files."""

    key: str
    ticket: str


@dataclass(frozen=True, slots=True)
class Release:
    """A worker has left."""

    key: str


@dataclass(frozen=True, slots=True)
class Reassign:
    """A worker that stays goes on with another ticket."""

    key: str
    ticket: str


@dataclass(frozen=True, slots=True)
class Scan:
    """-> Scanned."""


@dataclass(frozen=True, slots=True)
class KeepRecord:
    """The ticket's dispatch record, on disk before the next effect is carried out."""

    record: TicketRecord


@dataclass(frozen=True, slots=True)
class OpenWorktree:
    """-> Opened or JobFailed."""

    ticket: str
    branch: str


@dataclass(frozen=True, slots=True)
class SetUp:
    """Run --worktree-setup -> WasSetUp."""

    ticket: str
    command: str
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Close the ticket where its file travels with the work, and commit what lies about -> Committed or JobFailed."""

    ticket: str
    subject: str


@dataclass(frozen=True, slots=True)
class LookAtTarget:
    """-> Looked or JobFailed."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Update:
    """Merge the target branch into the ticket's, in its worktree -> Updated or JobFailed."""

    ticket: str


@dataclass(frozen=True, slots=True)
class VerifyMerge:
    """-> MergeVerified."""

    ticket: str
    command: str
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class CancelVerifyMerge:
    """End it -> MergeVerified(None)."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Land:
    """Move the target branch from `target` to a merge of the ticket's branch -> Landed or JobFailed."""

    ticket: str
    target: str
    subject: str


@dataclass(frozen=True, slots=True)
class CloseTicket:
    """Close the ticket in the source, where the merge has not done it -> TicketClosed or JobFailed."""

    ticket: str


@dataclass(frozen=True, slots=True)
class MarkTicket:
    """Its status in the source, and a note. Failures are told of, and change nothing."""

    ticket: str
    status: Status | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Remember:
    """The entry in progress.md, and the lessons."""

    record: TicketRecord
    summary: str
    iteration: int
    verify_exit: int | None


@dataclass(frozen=True, slots=True)
class RemoveWorktree:
    """-> Removed."""

    ticket: str


@dataclass(frozen=True, slots=True)
class LookAtRest:
    """Does the project hold work of a ticket that failed there -> RestSeen."""

    ticket: str


TicketEffect: TypeAlias = (
    Effect | To | Hire | Release | Reassign | Scan | KeepRecord | OpenWorktree | SetUp | Commit | LookAtTarget | Update
    | VerifyMerge | CancelVerifyMerge | Land | CloseTicket | MarkTicket | Remember | RemoveWorktree | LookAtRest
)  # fmt: skip
