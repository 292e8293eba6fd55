"""What the core of a ticket loop can ask of the shell in addition to `core/effects.py`. Outcomes come back
as `core/tickets/results.py`."""

from dataclasses import dataclass
from typing import TypeAlias

from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.ticket import TicketRecord
from ralph_rpc.tickets.ticket import Status as SourceStatus
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
    """A worker that stays gets another ticket."""

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
    fresh: bool = True
    """Nothing of the ticket's is in the worktree: where setup fails there, the ticket is not at fault."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Close the ticket where its file travels with the work, and commit what is uncommitted -> Committed or JobFailed."""

    ticket: str
    subject: str


@dataclass(frozen=True, slots=True)
class CancelSetUp:
    """End it -> WasSetUp(None)."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Update:
    """Merge the target branch into the ticket's, in its worktree -> Updated or JobFailed."""

    ticket: str


@dataclass(frozen=True, slots=True)
class BuildBatch:
    """Merge these branches on top of the target and of one another, which nobody sees -> BatchBuilt or BatchFailed."""

    merges: tuple[tuple[str, str], ...]
    """Ticket and subject of its merge commit, in order."""


@dataclass(frozen=True, slots=True)
class CheckOutBatch:
    """Bring the queue's own place to this commit -> BatchCheckedOut or BatchFailed."""

    commit: str


@dataclass(frozen=True, slots=True)
class VerifyBatch:
    """Verify the commit that the queue's own place is at -> BatchVerified."""

    tickets: tuple[str, ...]
    command: str
    timeout_ms: int
    lenders: tuple[str, ...] = ()
    """Tickets whose worktrees lend what their agents have installed; the same, or where the target is verified, those
    that wait for it.
    """


@dataclass(frozen=True, slots=True)
class CancelVerifyBatch:
    """End it -> BatchVerified(None)."""


@dataclass(frozen=True, slots=True)
class LandBatch:
    """Move the target branch from `target` to `commit` -> BatchLanded or BatchFailed."""

    target: str
    commit: str
    tickets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeaveQueue:
    """Remove the queue's own place -> QueueLeft."""


@dataclass(frozen=True, slots=True)
class CloseTicket:
    """Close the ticket in the source, where the merge has not done it -> TicketClosed or JobFailed."""

    ticket: str


@dataclass(frozen=True, slots=True)
class CloseEpic:
    """Close an epic in the source, at once where nothing has to be merged for it -> TicketClosed, EpicTravels or JobFailed."""

    ticket: str


@dataclass(frozen=True, slots=True)
class MarkTicket:
    """Its status in the source, and a note. A failure becomes a notice and changes nothing."""

    ticket: str
    status: SourceStatus | None = None
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


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """Leave an order at the hub and submit a job for it -> JobTold …, then JobReturned or JobLost."""

    ticket: str
    number: int
    attempts: int
    max_cost: float | None
    max_tokens: int | None
    max_time_ms: int | None
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FindJob:
    """Hear again of a job that an earlier runner has submitted -> as SubmitJob."""

    ticket: str
    number: int
    id: str | None


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Call it off; what it has done by then comes all the same -> JobReturned or JobLost, within a minute."""

    ticket: str
    number: int


@dataclass(frozen=True, slots=True)
class AdoptIteration:
    """The record of an iteration that a job has made."""

    record: Iteration


@dataclass(frozen=True, slots=True)
class TakeBranch:
    """The ticket's branch gets what its job has pushed -> BranchTaken or JobFailed."""

    ticket: str
    number: int


@dataclass(frozen=True, slots=True)
class ForgetJob:
    """All that is to be had of it is here: what is left of it at the hub goes."""

    ticket: str
    number: int


TicketOnlyEffect: TypeAlias = (
    To
    | Hire
    | Release
    | Reassign
    | Scan
    | KeepRecord
    | OpenWorktree
    | SetUp
    | Commit
    | CancelSetUp
    | Update
    | BuildBatch
    | CheckOutBatch
    | VerifyBatch
    | CancelVerifyBatch
    | LandBatch
    | LeaveQueue
    | CloseTicket
    | CloseEpic
    | MarkTicket
    | Remember
    | RemoveWorktree
    | LookAtRest
    | SubmitJob
    | FindJob
    | CancelJob
    | AdoptIteration
    | TakeBranch
    | ForgetJob
)
TicketEffect: TypeAlias = Effect | TicketOnlyEffect
