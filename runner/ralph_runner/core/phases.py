"""What a task loop, or a worker of a ticket loop, is doing: one frozen value per phase, with what it waits for.

    spawning -> [queued] -> greeting -> preparing -> running -> closing -> [verifying] -> preparing …
                                           ^                                              |
                                           +---- waiting, paused, idle <------------------+--> ending -> ended

Only workers are ever idle. Deadlines are monotonic milliseconds. Phases live in memory only: a restarted runner begins
a fresh iteration.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ralph_rpc.model.iteration import ErrorKind, Outcome
from ralph_rpc.model.state import Status
from ralph_runner.core.failures import Failure
from ralph_runner.core.inputs import Reply
from ralph_runner.core.results import TicketRead, WorkMeasured
from ralph_runner.core.run import Run
from ralph_runner.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nothing has happened yet."""


@dataclass(frozen=True, slots=True)
class Spawning:
    """StartPi is under way, for the model with this index."""

    model: int = 0


@dataclass(frozen=True, slots=True)
class Queued:
    """A launcher runs, and has started nothing yet."""

    show: int
    """When this is to be shown as a wait."""
    give_up: int | None
    before: Status
    word: str = ""


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
class RunResult:
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

    result: RunResult
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
class Between:
    """Nothing is under way: what comes next is decided before the step ends, so no step begins in this phase."""

    session: Session | None = None
    """The next iteration's, where it was asked for ahead."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """For a reset, a backoff, or before pi is started again."""

    until_mono: int
    until_wall: int
    for_model: bool = False
    """Until a model may be asked again, which may be known earlier."""


@dataclass(frozen=True, slots=True)
class Switching:
    """pi is being ended, so that a fresh one, perhaps with another model, continues."""


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
    Fresh
    | Spawning
    | Queued
    | Greeting
    | Preparing
    | Running
    | Closing
    | Verifying
    | Between
    | Waiting
    | Switching
    | Paused
    | Idle
    | Ending
    | Ended
)
