"""What pi can tell the core: one frozen value per kind of line that matters, and none for the rest.

`pi/protocol.py` makes them from pi's lines, `pi/client.py` adds what the pipe itself tells; `core/` consumes
them. Values only: no clock, no files, no offsets. A value exists only after its line is in the event log, so
the log explains all that was decided, wherever the machine dies. What a pi does not say is None or empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class AgentStart:
    """pi began to work on a prompt."""


@dataclass(frozen=True, slots=True)
class TurnStart:
    """One request to the model begins."""


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The model's answer and the tools it called are done."""


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A user message entered the session: the prompt, or a steer or follow-up that is now delivered."""

    text: str
    """Its text parts, joined without a separator."""


@dataclass(frozen=True, slots=True)
class AssistantStart:
    """The model begins to answer."""

    stop_reason: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and US dollars of one answer, or of several."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost: float = 0.0

    def plus(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.cost + other.cost,
        )

    def at_least(self, other: "Usage") -> "Usage":
        """The larger of each figure: of two sums of the same requests, each of which may lack some."""
        return Usage(
            max(self.input, other.input),
            max(self.output, other.output),
            max(self.cache_read, other.cache_read),
            max(self.cache_write, other.cache_write),
            max(self.cost, other.cost),
        )


@dataclass(frozen=True, slots=True)
class AssistantEnd:
    """The model's answer is complete, failed or was aborted."""

    text: str
    """Its text parts, joined without a separator; no thinking, no tool calls."""
    stop_reason: str | None
    """stop, length, toolUse, error, aborted."""
    error: str | None
    model: str | None
    provider: str | None
    usage: Usage
    tool_calls: int


TOOL_ARGS = 200
"""Characters of a tool's arguments that the next prompt may quote."""


@dataclass(frozen=True, slots=True)
class Charged:
    """pi used tokens beside the model's answers: a warm-up of the prompt cache, a summary, what a tool asked a model."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class ToolStart:
    """A tool runs."""

    id: str
    name: str
    args: str = ""
    """Its command, path or the like, at most TOOL_ARGS characters of it."""


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """A tool is done."""

    id: str
    name: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class AgentEnd:
    """One agent run is over; retries, compaction and queued messages may follow."""

    will_retry: bool | None
    """None: this pi does not say."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing follows any more (pi >= 0.80.4)."""

    aborted: bool | None
    """None: this pi does not say."""


@dataclass(frozen=True, slots=True)
class QueueUpdate:
    """What now waits in pi's memory; it is lost at new_session and with pi."""

    steering: tuple[str, ...]
    follow_up: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetryStart:
    """pi waits and will ask the model again by itself."""

    attempt: int
    delay_ms: int
    error: str


@dataclass(frozen=True, slots=True)
class RetryEnd:
    """pi's own retries are over."""

    success: bool
    error: str
    """Empty where it succeeded."""


@dataclass(frozen=True, slots=True)
class CompactionStart:
    """pi summarises the session."""

    reason: str


@dataclass(frozen=True, slots=True)
class CompactionEnd:
    """The summary is done or has failed."""

    will_retry: bool
    """pi continues with the prompt that did not fit."""
    error: str
    """Empty where it succeeded."""
    usage: Usage | None = None
    """What the summary used; None: this pi does not say (0.73.1), or there is no summary."""


@dataclass(frozen=True, slots=True)
class Dialog:
    """An extension asks a person and waits for the answer."""

    id: str
    method: str
    """confirm, select, input or editor."""
    title: str
    options: tuple[str, ...]
    has_timeout: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """pi's answer to a request of ours, matched."""

    request: str
    """The command of the request: get_state, prompt ..."""
    id: str
    """What `PiClient.send` returned."""
    success: bool
    data: Mapping[str, Any] = field(default_factory=dict)
    """As pi sent it; empty where it sent none."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class StreamActivity:
    """Lines flow that give no other input; at most once a second."""


@dataclass(frozen=True, slots=True)
class LogBlocked:
    """The event log cannot be written; pi is held back until it can."""

    error: str
    """What the system says."""
    is_full: bool
    """There may be room again; any other failure stays."""


@dataclass(frozen=True, slots=True)
class LogUnblocked:
    """The event log is written again; nothing was lost."""


@dataclass(frozen=True, slots=True)
class FarRuns:
    """With a launcher: the far guard has spoken, and starts pi."""

    host: str
    pid: int
    boot_id: str
    pid_space: str = ""


@dataclass(frozen=True, slots=True)
class FarSaid:
    """With a launcher, before the far guard speaks: its last word, such as that a job is queued."""

    text: str


FarEnd: TypeAlias = Literal["", "never", "lost", "outside", "unusable", "elsewhere"]
"""How a launcher's end is to be understood: pi's own end; nothing ever ran over there; the far side is gone without a
word, and pi may still be running; it was ended over there, by its scheduler say; pi cannot be executed there;
one of several hosts could not start it, and another one may."""


@dataclass(frozen=True, slots=True)
class PiExited:
    """pi and its whole tree are gone, and every line it wrote was handed over before this."""

    code: int | None
    """Negative: the signal that ended it. None: unknown."""
    method: str
    """natural, eof, sigterm, sigkill."""
    stderr_tail: str
    """The last 20 lines it wrote to stderr, at most 4 kB."""
    far: FarEnd = ""


PiInput: TypeAlias = (
    AgentStart
    | TurnStart
    | TurnEnd
    | UserMessage
    | AssistantStart
    | AssistantEnd
    | Charged
    | ToolStart
    | ToolEnd
    | AgentEnd
    | Settled
    | QueueUpdate
    | RetryStart
    | RetryEnd
    | CompactionStart
    | CompactionEnd
    | Dialog
    | Reply
    | StreamActivity
    | LogBlocked
    | LogUnblocked
    | FarRuns
    | FarSaid
    | PiExited
)
