"""The lines of events.jsonl that the runner adds to pi's own."""

from typing import Literal, NotRequired, TypedDict

from ralph_rpc.model.commands import Verb
from ralph_rpc.model.iteration import Iteration, IterationKind, Verify
from ralph_rpc.model.state import Status, StopReason
from ralph_rpc.model.ticket import TicketStatus


class Stamp(TypedDict):
    """Last member of every line that came from pi, under the key `ralph`."""

    at: int
    """Epoch milliseconds."""
    iteration: int
    """0 before the first iteration."""
    ticket: NotRequired[str]


class LoopStart(TypedDict):
    """A runner took the loop over."""

    type: Literal["ralph_loop_start"]
    at: int
    name: str
    pid: int
    resumed: bool


class LoopEnd(TypedDict):
    """The last line of a run."""

    type: Literal["ralph_loop_end"]
    at: int
    status: Status
    stopReason: StopReason | None
    error: str | None


# `from` is a keyword, so this one is written as a call.
StatusChange = TypedDict(
    "StatusChange",
    {"type": Literal["ralph_status"], "at": int, "from": Status, "to": Status, "reason": NotRequired[str]},
)


class IterationStart(TypedDict):
    """The next lines belong to this iteration."""

    type: Literal["ralph_iteration_start"]
    at: int
    iteration: int
    kind: IterationKind
    ticket: NotRequired[str]


class IterationEnd(Iteration):
    """The iteration's record, as in iterations/NNN.json."""

    type: Literal["ralph_iteration_end"]
    at: int


class PiStart(TypedDict):
    """pi was started and has answered."""

    type: Literal["ralph_pi_start"]
    at: int
    pid: int
    version: str | None
    argv: list[str]
    ticket: NotRequired[str]


class PiExit(TypedDict):
    """pi and every process below it are gone."""

    type: Literal["ralph_pi_exit"]
    at: int
    pid: int
    exitCode: int | None
    """Negative: the signal that ended it. null: unknown, its guard was killed."""
    terminationMethod: Literal["natural", "eof", "sigterm", "sigkill"]
    ticket: NotRequired[str]


class CommandStep(TypedDict):
    """One step of one command."""

    type: Literal["ralph_command"]
    at: int
    id: str
    command: Verb
    state: Literal["accepted", "queued", "delivered", "rejected", "expired"]
    message: NotRequired[str]
    """With `accepted`: the text of a steer or followup."""
    reason: NotRequired[str]
    redelivered: NotRequired[bool]
    ticket: NotRequired[str]


class VerifyRun(Verify):
    """The verify command was run."""

    type: Literal["ralph_verify"]
    at: int
    ticket: NotRequired[str]


class Notice(TypedDict):
    """Something a person should know."""

    type: Literal["ralph_notice"]
    at: int
    level: Literal["info", "warning", "error"]
    message: str
    ticket: NotRequired[str]


# `from` is a keyword, so this one is written as a call.
TicketStep = TypedDict(
    "TicketStep",
    {
        "type": Literal["ralph_ticket"], "at": int, "ticket": str, "from": TicketStatus | Literal["ready"], "to": TicketStatus,
        "reason": NotRequired[str],
    },
)  # fmt: skip


class Lesson(TypedDict):
    """Something that the agent says later tickets should know."""

    type: Literal["ralph_lesson"]
    at: int
    ticket: str
    lesson: str


class LogOpen(TypedDict):
    """First line of a log file that follows a rotation."""

    type: Literal["ralph_log_open"]
    at: int
    base: int
    """Offset of this line in the whole log, counted over all files ever rotated."""


class Unparsed(TypedDict):
    """A line of pi's that is no JSON object, or the torn end of a line."""

    type: Literal["ralph_unparsed"]
    raw: str
    """Bytes that are no UTF-8 are shown as U+FFFD."""
    ralph: NotRequired[Stamp]


RunnerEvent = (
    LoopStart | LoopEnd | StatusChange | IterationStart | IterationEnd | PiStart | PiExit | CommandStep
    | VerifyRun | Notice | TicketStep | Lesson | LogOpen | Unparsed
)  # fmt: skip
