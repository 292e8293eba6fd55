"""What `view` makes of a loop's events: one frozen value per thing that a person wants to see. Values only.

Texts are raw, as the model, a tool or a file gave them: whoever shows an item makes them inert first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any]
"""One parsed line of events.jsonl."""


@dataclass(frozen=True)
class TextDelta:
    """A piece of the assistant's text; a new `block` begins on a new line."""

    text: str
    thinking: bool
    block: int


@dataclass(frozen=True)
class MessageDone:
    """The assistant's message ended; `error` for stopReason `error` and `aborted`."""

    stop_reason: str
    error: str | None


@dataclass(frozen=True)
class ToolBegan:
    id: str
    name: str
    args: str
    at: int | None


@dataclass(frozen=True)
class ToolEnded:
    """`outcome`: the first line of the result, the last one where the tool failed."""

    id: str
    name: str
    args: str
    ok: bool
    duration_ms: int | None
    outcome: str


@dataclass(frozen=True)
class UserText:
    """What the agent was told: its prompt, or (`operator`) a message of a person in between."""

    text: str
    operator: bool


@dataclass(frozen=True)
class Retry:
    """pi tries a failed request again after `delay_ms`."""

    attempt: int
    delay_ms: int
    error: str


@dataclass(frozen=True)
class Compaction:
    """pi shortens its context; `result` is None when it begins."""

    reason: str
    result: str | None
    ok: bool


@dataclass(frozen=True)
class Dialog:
    """An extension asked something (confirm, select, input, editor); the runner answers at once."""

    method: str
    title: str


@dataclass(frozen=True)
class IterationBegan:
    number: int
    kind: str
    at: int | None


@dataclass(frozen=True)
class IterationEnded:
    """`record` is the iteration's record (`ralph_rpc.model.iteration`), unchecked."""

    record: Event


@dataclass(frozen=True)
class StatusChanged:
    before: str
    status: str
    reason: str | None
    at: int | None


@dataclass(frozen=True)
class CommandStep:
    """`message` comes with `accepted`."""

    id: str
    command: str
    state: str
    message: str | None
    reason: str | None
    redelivered: bool


@dataclass(frozen=True)
class Verified:
    command: str
    exit_code: int
    duration_ms: int
    tail: str


@dataclass(frozen=True)
class Notice:
    """`level`: info, warning or error."""

    level: str
    message: str


@dataclass(frozen=True)
class PiStarted:
    pid: int
    version: str | None


@dataclass(frozen=True)
class PiExited:
    exit_code: int | None
    method: str


@dataclass(frozen=True)
class LoopBegan:
    name: str
    pid: int
    resumed: bool
    at: int | None


@dataclass(frozen=True)
class LoopEnded:
    status: str
    reason: str | None
    error: str | None


Item = (
    TextDelta | MessageDone | ToolBegan | ToolEnded | UserText | Retry | Compaction | Dialog | IterationBegan
    | IterationEnded | StatusChanged | CommandStep | Verified | Notice | PiStarted | PiExited | LoopBegan | LoopEnded
)  # fmt: skip
