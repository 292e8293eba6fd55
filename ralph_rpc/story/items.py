"""What the fold makes of a loop's events: one value for each thing that a person wants to see. Values only.

Texts are raw, as the model, a tool or a file gave them: they are made inert before they are shown.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Event = Mapping[str, Any]
"""One parsed line of events.jsonl."""


class TextDelta(NamedTuple):
    """A piece of the assistant's text; a new `block` begins on a new line."""

    text: str
    thinking: bool
    block: int


class MessageDone(NamedTuple):
    """The assistant's message ended; `error` for stopReason `error` and `aborted`."""

    stop_reason: str
    error: str | None


class ToolBegan(NamedTuple):
    """`args` in a few words, `details` as the model gave them."""

    id: str
    name: str
    args: str
    at: int | None
    details: Event


class ToolOutput(NamedTuple):
    """All of the output of a running tool so far: it replaces what came before."""

    id: str
    text: str


class ToolEnded(NamedTuple):
    """`outcome`: the first line of the result, the last one where the tool failed; `output`: the whole.

    `details` is what pi adds for people, such as the `diff` of an edit.
    """

    id: str
    name: str
    args: str
    ok: bool
    duration_ms: int | None
    outcome: str
    output: str
    details: Event


class UserText(NamedTuple):
    """A message to the agent: its prompt, or (`operator`) one from a person in between."""

    text: str
    operator: bool


class RetryBegan(NamedTuple):
    """pi tries a failed request again after `delay_ms`."""

    attempt: int
    delay_ms: int
    error: str


class Compaction(NamedTuple):
    """pi compacts its context; `result` is None when it begins."""

    reason: str
    result: str | None
    ok: bool


class DialogAsked(NamedTuple):
    """An extension asked something (confirm, select, input, editor); the runner answers at once."""

    method: str
    title: str


class IterationBegan(NamedTuple):
    number: int
    kind: str
    at: int | None
    ticket: str | None = None


class IterationEnded(NamedTuple):
    """`record` is the iteration's record (`ralph_rpc.model.iteration`), unchecked."""

    record: Event


class StatusChanged(NamedTuple):
    before: str
    status: str
    reason: str | None
    at: int | None


class CommandReceipt(NamedTuple):
    """A step of a command on its way to the agent or the loop; `message` comes with the step that received it."""

    id: str
    command: str
    state: str
    message: str | None
    reason: str | None
    redelivered: bool


class VerifyEnded(NamedTuple):
    command: str
    exit_code: int
    duration_ms: int
    tail: str


class TicketChanged(NamedTuple):
    """A ticket of the loop went from one status to another; either may be empty where it is not known."""

    ticket: str
    before: str
    status: str
    reason: str | None


class BatchChanged(NamedTuple):
    """What became of tickets that are merged together; without tickets it is about the target branch itself."""

    tickets: tuple[str, ...]
    state: str
    """verifying, restarted, red, landed or target-red."""
    duration_ms: int
    fluke: bool


class LogNotice(NamedTuple):
    """`level`: info, warning or error."""

    level: str
    message: str


class PiStarted(NamedTuple):
    pid: int
    version: str | None
    host: str | None = None
    """With a launcher: where."""


class PiEnded(NamedTuple):
    exit_code: int | None
    method: str


class LoopBegan(NamedTuple):
    name: str
    pid: int
    resumed: bool
    at: int | None


class LoopEnded(NamedTuple):
    status: str
    reason: str | None
    error: str | None


Item = (
    TextDelta
    | MessageDone
    | ToolBegan
    | ToolOutput
    | ToolEnded
    | UserText
    | RetryBegan
    | Compaction
    | DialogAsked
    | IterationBegan
    | IterationEnded
    | StatusChanged
    | CommandReceipt
    | VerifyEnded
    | TicketChanged
    | BatchChanged
    | LogNotice
    | PiStarted
    | PiEnded
    | LoopBegan
    | LoopEnded
)
