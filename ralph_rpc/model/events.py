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
    """A runner took over the loop."""

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
    """With a launcher: of the launcher."""
    version: str | None
    argv: list[str]
    launcher: NotRequired[str]
    """What started it on another machine or in a box."""
    host: NotRequired[str]
    """The name of the machine or box that it runs on, with a launcher."""
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
    tickets: NotRequired[list[str]]
    """Of a batch of the merge queue; empty: the target branch's own tip."""


class RunnerNotice(TypedDict):
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
        "type": Literal["ralph_ticket"],
        "at": int,
        "ticket": str,
        "from": TicketStatus | Literal["ready"],
        "to": TicketStatus,
        "reason": NotRequired[str],
    },
)


class BatchStep(TypedDict):
    """What became of finished tickets that the merge queue has brought together."""

    type: Literal["ralph_batch"]
    at: int
    tickets: list[str]
    """Merged one on top of the other; empty: the target branch itself."""
    state: Literal["verifying", "restarted", "red", "landed", "target-red"]
    """restarted: verify had only begun when more tickets came, and is started over with them. target-red: the target branch's
    own tip is red, so that nobody is to blame."""
    durationMs: NotRequired[int]
    """Of the verification that was red or given up, or of the move of the target branch."""
    fluke: NotRequired[bool]
    """With `landed`: verify had been red for these very tickets, and was green when it was run again."""


class Lesson(TypedDict):
    """Something that the agent wants later tickets to know."""

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
    """A line from pi that is not a JSON object, or the torn end of a line."""

    type: Literal["ralph_unparsed"]
    raw: str
    """Bytes that are not UTF-8 are shown as U+FFFD."""
    ralph: NotRequired[Stamp]


RunnerEvent = (
    LoopStart
    | LoopEnd
    | StatusChange
    | IterationStart
    | IterationEnd
    | PiStart
    | PiExit
    | CommandStep
    | VerifyRun
    | RunnerNotice
    | TicketStep
    | BatchStep
    | Lesson
    | LogOpen
    | Unparsed
)
