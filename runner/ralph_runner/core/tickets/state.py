"""All that a ticket loop remembers. Immutable; `core/tickets/step.py` makes the next one.

The stages of a ticket's job, with worktrees:

    opening -> [setting up] -> working -> committing -> queued -> merging -> closing -> removing -> settled
                                 ^                                  |
                 [updating] <- returning <------ conflict, or red --+
    any of them -> settled as failed or needs-merge; the loop ends first -> orphaned, its work kept

With --engine a job in a clone takes the place of the first three; its branch comes back finished:

    away -> taking -> opening -> committing -> …
     ^________|_______ returning

Without worktrees `working -> committing -> closing -> settled`, and all tickets share one worker. An epic has no worker:
`closing -> settled`, or where its file comes by a merge `closing -> opening -> committing -> …`. The status in the
ticket's dispatch record (contract: claimed, running, verifying, merging, merged, closed, failed, needs-merge,
orphaned) is on disk before the next step is asked for, so that a restart knows how far the ticket had come.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ralph_rpc.model.config import Config
from ralph_rpc.model.state import Stats, Status, StopReason, WaitingFor
from ralph_rpc.model.ticket import TicketRecord
from ralph_rpc.model.usage import Spent
from ralph_rpc.tickets.schedule import Rules
from ralph_rpc.tickets.ticket import Backlog
from ralph_runner.core.mailbox import Mail
from ralph_runner.core.models import Outages
from ralph_runner.core.results import Verified
from ralph_runner.core.state import Loop, Order
from ralph_runner.core.tickets.batch import Batch
from ralph_runner.core.tickets.gate import Gate
from ralph_runner.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Opening:
    """Its worktree is being made, or found again."""


@dataclass(frozen=True, slots=True)
class SettingUp:
    """--worktree-setup runs in it."""


@dataclass(frozen=True, slots=True)
class Working:
    """A worker has it."""


@dataclass(frozen=True, slots=True)
class Returning:
    """Its work goes back to its agent, as soon as there is a place."""

    update: bool = False
    """The target is to be merged into its branch first, so that the agent has what was red before it."""


@dataclass(frozen=True, slots=True)
class Updating:
    """The target is being merged into its branch, or its own commits are carried over a target that was rewritten."""

    arrival: int | None = None
    """Its work is done, and it is queued again afterwards; None: it has its place, and goes back to its agent."""


@dataclass(frozen=True, slots=True)
class Committing:
    """The agent says that it is done, and verify agrees; what it left is being committed."""


@dataclass(frozen=True, slots=True)
class Queued:
    """To be merged, in the order of arrival, together with all that are queued when the queue is free."""

    arrival: int = 0
    """Its number among all that were ever queued."""
    not_before: int = 0
    """Monotonic milliseconds."""
    reason: str | None = None
    """Why it could not be merged the last time."""


@dataclass(frozen=True, slots=True)
class Merging:
    """It is in the batch that is being merged (`TicketLoop.batch`)."""

    arrival: int = 0


@dataclass(frozen=True, slots=True)
class ClosingTicket:
    """Merged; the ticket is being closed."""


@dataclass(frozen=True, slots=True)
class Removing:
    """Closed; its worker and its worktree go."""


@dataclass(frozen=True, slots=True)
class Away:
    """A job on an engine has it (`away.py`); or one is to be submitted."""

    number: int
    cancelled: bool = False
    """It was told to end."""
    again: int | None = None
    """The last one brought nothing: monotonic milliseconds at which the next is submitted; None: one is out there."""
    reason: str | None = None
    """Why it brought nothing."""


@dataclass(frozen=True, slots=True)
class Taking:
    """The record of its job has come; its branch is being taken over."""

    number: int
    outcome: Literal["done", "failed", "stopped", "error"]
    stop_reason: StopReason | None
    error: str
    cancelled: bool


Stage: TypeAlias = (
    Opening
    | SettingUp
    | Working
    | Away
    | Taking
    | Returning
    | Updating
    | Committing
    | Queued
    | Merging
    | ClosingTicket
    | Removing
)


@dataclass(frozen=True, slots=True)
class Job:
    """A ticket that is neither waiting nor settled."""

    record: TicketRecord
    stage: Stage
    tried: int = 0
    """Attempts that were made and count."""
    attempts: int = 0
    """The number of the last attempt that may be made."""
    taken: bool = True
    """False until the record says that it is claimed."""
    finished: bool = False
    """An earlier runner has seen the agent's work done and verified."""
    verified: bool = True
    """verify has seen its work; what an earlier runner saw of it is not known."""
    doubted: bool = False
    """Its own verify was red, and so is what it began with: only the merge queue's verify counts."""
    landed_before: int = 0
    """How many of `TicketLoop.landed` its branch began with, or was brought up to."""
    conflict: bool = False
    """The work is done; what is being worked on is its merge."""
    refusal: str | None = None
    """What the last claim of completion lacked."""
    summary: str = ""
    iteration: int = 0
    verify_exit: int | None = None


@dataclass(frozen=True, slots=True)
class TicketOptions:
    """What of the loop's options is about tickets."""

    rules: Rules
    attempts: int = 3
    worktrees: bool = False
    setup: str | None = None
    merge: bool = True
    into: str = ""
    """The target branch."""
    verify_parallel: int | None = None
    """Verifications at one time; None: as many as there are, until one was red because of another."""
    keep_worktrees: bool = False
    """What is merged and closed keeps its worktree and branch."""
    engine: str | None = None
    """The name of what runs a job for each ticket; None: this loop has workers of its own."""

    @classmethod
    def of(cls, config: Config) -> "TicketOptions":
        return cls(
            rules=Rules.of(config),
            attempts=config.get("attempts", 3),
            worktrees=bool(config.get("worktrees")),
            setup=config.get("worktreeSetup"),
            merge=config.get("merge") is not False,
            into=config.get("into") or "",
            verify_parallel=config.get("verifyParallel"),
            keep_worktrees=bool(config.get("keepWorktrees")),
            engine=(config.get("engine") or "").partition(":")[0] or None,
        )


@dataclass(frozen=True, slots=True)
class RedTarget:
    """The target's own tip does not pass verify: nothing is started or blamed until it does."""

    commit: str
    tickets: frozenset[str]
    """Those that were merged onto it in vain."""
    reason: str
    again: int
    """Monotonic; then it is looked at once more, though it is the same."""


@dataclass(frozen=True, slots=True)
class TicketLoop:
    """The core's whole state."""

    name: str
    config: Config
    options: TicketOptions
    status: Status
    iteration: int
    stats: Stats
    """Of all iterations that have ended."""
    elapsed_ms: int
    settled: Mapping[str, TicketRecord]
    """The records of tickets without a job: closed, failed, needs-merge, orphaned."""
    backlog: Backlog | None = None
    jobs: Mapping[str, Job] = field(default_factory=dict)
    workers: Mapping[str, Loop] = field(default_factory=dict)
    """By ticket where each has a worktree, else one by SHARED."""
    batch: Batch | None = None
    """What the merge queue is at."""
    arrivals: int = 0
    """Tickets that were ever queued under this runner."""
    landed: tuple[str, ...] = ()
    """Tickets that have landed under this runner, in that order."""
    verified: tuple[str, ...] = ()
    """Trees, and commits of the target, that were seen green, the newest last."""
    doubts: Mapping[str, Verified] = field(default_factory=dict)
    """Red runs of workers that are held back until it is known whether what they began with is red (`doubts.py`)."""
    red_target: RedTarget | None = None
    place: Literal["not made", "may be there", "going", "gone"] = "not made"
    """The merge queue's own place, which goes at the end."""
    gate: Gate = field(default_factory=Gate)
    """The verifications that run, and those that wait for it."""
    verify_ms: int = 0
    """How long the last green one took; 0: none has ended yet."""
    stop_reason: StopReason | None = None
    error: str | None = None
    next_wake: int | None = None
    """Epoch milliseconds, for people."""
    waiting_for: WaitingFor | None = None
    adopted: frozenset[tuple[str, str]] = frozenset()
    """Iterations of jobs that are counted: ticket, and number in its jobs."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Ticket -> its jobs in a row that brought nothing."""
    short: Mapping[str, Spent] = field(default_factory=dict)
    """Ticket -> what its last job was allowed, which was not enough."""
    carried: Mapping[str, Mail] = field(default_factory=dict)
    """Ticket -> the messages that its job is to give to its agent."""
    ever_queued: bool = False
    """The engine has taken a job under this runner."""
    outages: Outages = ()
    """Which models do not answer; one fact for all workers."""
    news: Mapping[str, str] = field(default_factory=dict)
    """Ticket -> what cut its last iteration off under an earlier runner."""
    mail: Mail = ()
    """Messages that no worker has."""
    addressed: Mapping[str, str] = field(default_factory=dict)
    """Message id -> the ticket that it was sent to."""
    orders: tuple[Order, ...] = ()
    pending: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Order id -> the workers in which it has had no effect yet."""
    paused: bool = False
    was_paused: bool = False
    """It was paused when it was told to terminate."""
    paused_for: str | None = None
    """A ticket that failed in the folder that the next one would use: nothing starts before it is known what it left."""
    ending: Verdict | None = None
    """How the loop ends, once nothing runs any more."""
    at_once: bool = False
    """The end does not wait for iterations and merges under way."""
    stale: bool = True
    """Something has changed by which another ticket may start."""
    looking_idle: bool = False
    """No job was there when the look at the tickets that is under way began, and none has ended since."""
    looked: bool = False
    """The same of the look that came last: only by such a one can all be done."""
    unread_since: int | None = None
    """When nothing was left to do but a ticket that cannot be read, which may be half-written; monotonic milliseconds."""
    undone: int = 0
    """Tickets that need a person, once the loop has found nothing else to do."""
    next_scan: int | None = None
    """Monotonic; None while a scan is under way."""
    last_mono: int = 0
    began: int = 0
    """When this runner began, monotonic milliseconds."""
    last_outcome: str | None = None
    last_text: str | None = None
    model: str | None = None
    provider: str | None = None
    ever_answered: bool = False
    price_warned: bool = False
    ended: bool = False

    def elapsed_at(self, mono: int) -> int:
        """The time under a runner by then; a pause does not count."""
        stands = self.status == "paused" or self.ended or self.last_mono == 0
        return self.elapsed_ms + (0 if stands else max(0, mono - self.last_mono))


def waits_for(job: Job) -> str | None:
    """Why the job's merge cannot be done now, if it cannot; also while it is tried once more."""
    match job.stage:
        case Queued(reason=reason):
            return reason
        case Merging():
            return job.record["error"]
        case _:
            return None


SHARED = ""
"""The key of the one worker of a loop without worktrees."""


def key_of(loop: TicketLoop, ticket: str) -> str:
    """The key of the worker that has the ticket, or will have it."""
    return ticket if loop.options.worktrees else SHARED
