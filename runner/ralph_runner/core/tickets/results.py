"""What the shell tells the core of a ticket loop in addition to `core/results.py`. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ralph_rpc.model.iteration import Verify
from ralph_rpc.model.work import WorkRecord
from ralph_rpc.tickets.ticket import Backlog
from ralph_runner.core.inputs import PiInput
from ralph_runner.core.results import ShellResult
from ralph_runner.core.tickets.batch import Link


@dataclass(frozen=True, slots=True)
class From:
    """Something from a worker's pi, or a result of what was asked for it."""

    key: str
    input: PiInput | ShellResult


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
    """--worktree-setup has ended well in it."""


@dataclass(frozen=True, slots=True)
class WasSetUp:
    """--worktree-setup has ended; None: it was cancelled."""

    ticket: str
    run: Verify | None


@dataclass(frozen=True, slots=True)
class Committed:
    """What was uncommitted is committed; or `problem` is what the agent has to fix first."""

    ticket: str
    problem: str | None = None
    tree: str | None = None
    """Of its branch, in a worktree."""
    unchanged: bool = False
    """There is nothing to merge beyond the ticket's own file."""
    left: tuple[str, ...] = ()
    """Stash entries that the ticket made, a line each."""
    commit: str | None = None
    """The one that this made in the project's checkout; with worktrees the merge tells which there are."""


@dataclass(frozen=True, slots=True)
class Updated:
    """The target branch is in the ticket's; or `conflict` says why not, and all is as it was."""

    ticket: str
    conflict: str | None = None


@dataclass(frozen=True, slots=True)
class BatchBuilt:
    """The branches merged on top of `target`, whose own tree is `tree`. Of each that was asked for it says what is with it."""

    target: str
    tree: str
    links: tuple[Link, ...] = ()
    landed: Mapping[str, str] = field(default_factory=dict)
    """In the target already: ticket -> the commit that brought it there."""
    conflicts: Mapping[str, str] = field(default_factory=dict)
    """Those that cannot be merged into the target, and why."""
    behind: frozenset[str] = frozenset()
    """Those that conflict with one of `links`."""
    outdated: frozenset[str] = frozenset()
    """Those under which the target was rewritten: their own commits are to be carried over first."""
    waits: Mapping[str, str] = field(default_factory=dict)
    """Those that would touch what a person has in their checkout, and what that is."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Those that git cannot merge at all, and why."""


@dataclass(frozen=True, slots=True)
class BatchCheckedOut:
    """The queue's own place is at this commit."""

    commit: str


@dataclass(frozen=True, slots=True)
class BatchVerified:
    """verify on a tree of the queue's; None: it was cancelled."""

    verify: Verify | None


@dataclass(frozen=True, slots=True)
class BatchLanded:
    """The target is at `commit`; else it, or a branch, has moved, or (`waits`) the move has to wait."""

    commit: str | None = None
    waits: str | None = None


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """Nothing of the batch could be built, verified or landed; nothing has moved."""

    reason: str
    own: bool = False
    """As in JobFailed."""


@dataclass(frozen=True, slots=True)
class QueueLeft:
    """The queue's own place is gone; or `kept` says why it is not."""

    kept: str | None = None


@dataclass(frozen=True, slots=True)
class TicketClosed:
    """The ticket is closed in the source."""

    ticket: str


@dataclass(frozen=True, slots=True)
class EpicTravels:
    """The epic's file comes into the target branch by a merge, like any work."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Removed:
    """The worktree is gone; or `kept` says why it is not."""

    ticket: str
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class RestSeen:
    """What a failed ticket left in the project, as one line; None: nothing, or it is not known."""

    ticket: str
    rest: str | None


@dataclass(frozen=True, slots=True)
class JobTold:
    """What the engine says of a job that is not over."""

    ticket: str
    number: int
    state: Literal["queued", "active"]
    id: str | None


@dataclass(frozen=True, slots=True)
class JobReturned:
    """A job's record is at the hub. It comes again until the job is forgotten."""

    ticket: str
    number: int
    report: WorkRecord


@dataclass(frozen=True, slots=True)
class JobLost:
    """A job is over, or never was, and has left no record."""

    ticket: str
    number: int
    words: str
    refused: bool = False
    """The engine did not take it."""


@dataclass(frozen=True, slots=True)
class BranchTaken:
    """The ticket's branch has what its job has pushed."""

    ticket: str


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A step of a job could not be carried out."""

    ticket: str
    reason: str
    own: bool = False
    """A fault of this program or machine, which did not pass; the loop ends with it."""


TicketResult: TypeAlias = (
    From
    | Scanned
    | Opened
    | WasSetUp
    | Committed
    | Updated
    | BatchBuilt
    | BatchCheckedOut
    | BatchVerified
    | BatchLanded
    | BatchFailed
    | QueueLeft
    | TicketClosed
    | EpicTravels
    | Removed
    | RestSeen
    | JobTold
    | JobReturned
    | JobLost
    | BranchTaken
    | JobFailed
)
