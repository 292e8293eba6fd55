"""All that the core remembers. Immutable; `core/step.py` makes the next one.

    spawning -> greeting -> preparing -> running -> closing -> [verifying] -> preparing …
                               ^                                              |
                               +---- waiting, paused, idle <------------------+--> ending -> ended

A task loop is one of these. A ticket loop has one for every pi, its workers; only they are ever idle.

What a restart needs is in state.json (`core/snapshot.py`); phases live in memory only: a restarted runner begins
a fresh iteration.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import ErrorKind, Outcome
from ralph_rpc.model.state import Stats, Status, StopReason
from ralph_runner.core.duty import NOTHING_SPENT, Duty, Spent
from ralph_runner.core.failures import Failure
from ralph_runner.core.inputs import Reply
from ralph_runner.core.mailbox import Mail
from ralph_runner.core.reports import Measure, TicketRead, WorkMeasured
from ralph_runner.core.run import Run
from ralph_runner.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nothing has happened yet."""


@dataclass(frozen=True, slots=True)
class Spawning:
    """StartPi is under way."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """pi runs; its first answer, then its features are awaited."""

    deadline: int
    asked: Literal["get_state", "clear_queue"]


@dataclass(frozen=True, slots=True)
class Session:
    """A new_session that was asked for: the request's id, and pi's answer once it is there."""

    request: str
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class Preparing:
    """Before a prompt: new_session, the task, and where needed a first measure of the work are awaited."""

    deadline: int
    asked: str
    """The id of the new_session that counts; the answer to an earlier one may still come."""
    session: bool
    task: str | None = None
    reflection: str | None = None
    ticket: TicketRead | None = None
    measured: bool = False

    @property
    def ready(self) -> bool:
        return self.session and self.measured and self.task is not None


@dataclass(frozen=True, slots=True)
class Running:
    """pi works."""

    run: Run


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    run: Run
    outcome: Outcome
    failure: Failure | None
    error_kind: ErrorKind | None
    ended_mono: int
    ended_wall: int


@dataclass(frozen=True, slots=True)
class Closing:
    """The run is over; statistics, the task and the measure of the work are awaited."""

    result: Result
    deadline: int
    stats: dict[str, object] | None
    """pi's own figures; empty where there are none to come; None while awaited."""
    task: str | None = None
    task_read: bool = False
    closed: bool = False
    """The ticket was found closed."""
    work: WorkMeasured | None = None
    session: Session | None = None
    """The next iteration's, asked for ahead; None where there may be no next one."""

    @property
    def ready(self) -> bool:
        return self.stats is not None and self.task_read and self.work is not None


@dataclass(frozen=True, slots=True)
class Verifying:
    """A completion was claimed; the verify command runs."""

    closing: Closing
    claim: Literal["marker", "checklist"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """For a reset, a backoff, or before pi is started again."""

    until_mono: int
    until_wall: int


@dataclass(frozen=True, slots=True)
class Paused:
    """Until resume, stop or kill."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A ticket was handed back; pi waits for the next one."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Ending:
    """The verdict is known; pi is being ended."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Ended:
    """Finish has been asked for."""


Phase: TypeAlias = (
    Fresh | Spawning | Greeting | Preparing | Running | Closing | Verifying | Waiting | Paused | Idle
    | Ending | Ended
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PiFacts:
    """What we know of the pi that runs."""

    pid: int
    version: str | None
    answered: bool = False
    clear_queue: bool = False
    settles: bool = False
    """It sends agent_settled."""
    argv: tuple[str, ...] = ()
    used: bool = False
    """It has had a prompt: its context is no longer empty."""


@dataclass(frozen=True, slots=True)
class Order:
    """A control command that has not taken effect yet."""

    id: str
    verb: Literal["stop", "abort", "pause", "resume"]
    then: Literal["continue", "pause", "stop"] = "continue"


@dataclass(frozen=True, slots=True)
class Loop:
    """The core's whole state."""

    config: Config
    task_path: str
    status: Status
    stop_reason: StopReason | None
    error: str | None
    iteration: int
    stats: Stats
    consecutive_failures: int
    unchanged: int
    restarts: tuple[int, ...]
    """When pi was started anew of late, in monotonic milliseconds."""
    last_reflection: int | None
    last_outcome: str | None
    last_text: str | None
    refusal: str | None
    elapsed_ms: int
    mail: Mail = ()
    orders: tuple[Order, ...] = ()
    phase: Phase = Fresh()
    pi: PiFacts | None = None
    model: str | None = None
    provider: str | None = None
    next_wake: int | None = None
    """Epoch milliseconds, for people."""
    last_mono: int = 0
    """When the core was last called; what `elapsed_ms` has been counted up to."""
    measure: Measure | None = None
    """The project at the end of the last iteration; None: to be measured before the next."""
    task_seen: str | None = None
    """The task's text at the end of the last iteration."""
    price_warned: bool = False
    ever_answered: bool = False
    """A model has answered at least once under this runner."""
    blocked_since: int | None = None
    """Monotonic: since when pi is held because the disk is full."""
    terminate: bool = False
    broken: str | None = None
    """Why the runner itself cannot go on."""
    seq: int = 0
    """Numbers the requests to pi."""
    duty: Duty | None = None
    """A worker's ticket; None in task loops."""
    highest: int = 0
    """The highest iteration number that any worker has taken."""
    elsewhere: Spent = NOTHING_SPENT
