"""All that a ticket loop remembers. Immutable; `core/tickets/step.py` makes the next one.

A ticket's job, with worktrees:

    opening -> [setting up] -> working -> committing -> queued -> merging -> closing -> removing -> settled
                                 ^                                  |
                                 +- returning <- conflict, or red --+
    any of them -> settled as failed or needs-merge; the loop ends first -> orphaned, its work kept

Without worktrees `working -> committing -> closing -> settled`, and all tickets share one worker. The status in the
ticket's dispatch record (contract: claimed, running, verifying, merging, merged, closed, failed, needs-merge,
orphaned) is on disk before the next step is asked for, so that a restart knows how far the ticket had come.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ralph_rpc.model.config import Config
from ralph_rpc.model.state import Stats, Status, StopReason
from ralph_rpc.model.ticket import TicketRecord
from ralph_rpc.tickets.ticket import Backlog
from ralph_runner.core.mailbox import Mail
from ralph_runner.core.state import Loop, Order
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


@dataclass(frozen=True, slots=True)
class Committing:
    """The agent says that it is done, and verify agrees; what it left is being committed."""


@dataclass(frozen=True, slots=True)
class Queued:
    """To be merged, one after the other."""

    not_before: int = 0
    """Monotonic milliseconds."""
    reason: str | None = None
    """Why it could not be merged the last time."""


@dataclass(frozen=True, slots=True)
class Merging:
    """It has the merge queue's one place."""

    step: Literal["looking", "updating", "verifying", "landing"]
    target: str = ""
    """The target branch's head that the branch was made to contain."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Merged; the ticket is being closed."""


@dataclass(frozen=True, slots=True)
class Removing:
    """Closed; its worker and its worktree go."""


Stage: TypeAlias = Opening | SettingUp | Working | Returning | Committing | Queued | Merging | Closing | Removing


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
    """verify has seen what would be merged; what an earlier runner saw of it is not known."""
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

    parallel: int = 1
    attempts: int = 3
    allow_untagged: bool = False
    worktrees: bool = False
    setup: str | None = None
    merge: bool = True
    into: str = ""
    """The target branch."""
    only: frozenset[str] | None = None

    @classmethod
    def of(cls, config: Config) -> "TicketOptions":
        only = config.get("only", [])
        return cls(
            parallel=config.get("parallel", 1), attempts=config.get("attempts", 3),
            allow_untagged=bool(config.get("allowUntagged")), worktrees=bool(config.get("worktrees")),
            setup=config.get("worktreeSetup"), merge=config.get("merge") is not False, into=config.get("into") or "",
            only=frozenset(only) if only else None,
        )  # fmt: skip


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
    stop_reason: StopReason | None = None
    error: str | None = None
    next_wake: int | None = None
    """Epoch milliseconds, for people."""
    mail: Mail = ()
    """Messages that no worker has."""
    addressed: Mapping[str, str] = field(default_factory=dict)
    """Message id -> the ticket that it was sent to."""
    orders: tuple[Order, ...] = ()
    pending: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Order id -> the workers in which it has had no effect yet."""
    paused: bool = False
    paused_for: str | None = None
    """A ticket that failed where the next would work, too: nothing starts before it is known what it left."""
    ending: Verdict | None = None
    """How the loop ends, once nothing runs any more."""
    at_once: bool = False
    """The end does not wait for iterations and merges under way."""
    stale: bool = True
    """Something has changed by which another ticket may start."""
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


SHARED = ""
"""The key of the one worker of a loop without worktrees."""
