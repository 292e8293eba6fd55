"""What a report says, as plain values. Texts are raw, as a model or a file gave them; renderers make them inert.

`gather` fills them, every renderer reads them, nothing else. Keys of the JSON form are these names in camelCase.
Times are ISO 8601; None is what is not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ralph_rpc.model.iteration import Iteration
from ralph_rpc.story.models import HostUse, ModelUse


@dataclass(frozen=True, slots=True)
class LoopSummary:
    """The loop as a whole, so far."""

    name: str
    project: str
    ralph_dir: str
    kind: str
    status: str
    """As a person should see it: `crashed` where the runner is gone without an end."""
    stop_reason: str | None
    error: str | None
    started_at: str | None
    ended_at: str | None
    updated_at: str | None
    elapsed_ms: int
    iterations: int
    """Those that count towards the limit."""
    max_iterations: int
    progress: str
    """How far it is, as every view says it: `3/50 iterations`, `1/4 tickets`."""
    waited_ms: int
    """Waiting and paused together, as far as the log goes back."""
    turns: int
    tool_calls: int
    tokens_in: int
    tokens_out: int
    cache_read: int
    cache_write: int
    tokens: int
    """All of the four above."""
    cost: float
    unpriced: int
    """Requests whose usage nobody told."""
    model: str | None
    provider: str | None
    waits: str | None
    """For what, and until when in local time; None unless the loop waits."""
    pi_version: str | None
    branch: str | None
    """Of the worktree, where the loop has one."""
    verify: str | None
    task: str | None
    last_text: str | None


@dataclass(frozen=True, slots=True)
class OpenIteration:
    """An iteration that has begun and has no record (yet)."""

    iteration: int
    kind: str
    ticket: str | None
    started_at: str | None


@dataclass(frozen=True, slots=True)
class TicketSummary:
    """A ticket's dispatch record, and what its iterations add up to."""

    ticket: str
    title: str | None
    status: str
    attempt: int | None
    branch: str | None
    waited_ms: int | None
    """How long its finished work waited to be merged."""
    session_id: str | None
    started_at: str | None
    ended_at: str | None
    duration_ms: int | None
    return_code: int | None
    termination_method: str | None
    error: str | None
    note: str | None
    """What else there is to know: closed without changes, stash entries left behind."""
    iterations: Sequence[int]
    tokens: int
    cost: float
    commits: int
    session_files: Sequence[str]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """All calls of one tool."""

    name: str
    calls: int
    failed: int
    unfinished: int
    """Begun, and cut off by an abort or a crash; or running now."""
    total_ms: int
    longest_ms: int
    last_failure: str | None


@dataclass(frozen=True, slots=True)
class CommandGiven:
    """A command that was given: a message to the agent, or an order to the loop."""

    id: str
    command: str
    text: str | None
    at: str | None
    state: str
    """How far it got: received, sent, accepted, queued, delivered, rejected, expired."""
    delivered_at: str | None
    iteration: int | None
    reason: str | None
    redelivered: bool


@dataclass(frozen=True, slots=True)
class ReportedFailure:
    """Something that went wrong, and why."""

    at: str | None
    iteration: int | None
    ticket: str | None
    kind: str
    """Why an iteration failed (`auth`, `network`, …; `verify`: its claim was refused), a ticket's status, or a level."""
    cause: str
    detail: str | None
    """More about it: the end of the output of verify."""


@dataclass(frozen=True, slots=True)
class RetriedError:
    """Requests that pi retried, by the error that caused it."""

    cause: str
    times: int
    last_at: str | None


@dataclass(frozen=True, slots=True)
class TimeWaited:
    """All that the loop waited or was paused for one reason."""

    what: str
    """`waiting` or `paused`."""
    reason: str | None
    times: int
    total_ms: int
    longest_ms: int
    last_at: str | None
    """When the last of them began."""


@dataclass(frozen=True, slots=True)
class LifeEvent:
    """A step in the life of the loop and its processes."""

    at: str | None
    what: str
    detail: str | None
    is_bad: bool


@dataclass(frozen=True, slots=True)
class BatchTried:
    """Tickets that were merged together, and what verify or the target branch made of it."""

    at: str | None
    tickets: Sequence[str]
    """Empty: the target branch itself."""
    state: str
    """red, landed or target-red."""
    duration_ms: int
    is_fluke: bool
    """It landed though verify had been red for these very tickets."""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report."""

    generated_at: str
    version: str
    summary: LoopSummary
    gaps: Sequence[str]
    """What this report cannot know, in sentences."""
    iterations: Sequence[Iteration]
    running: Sequence[OpenIteration]
    models: Sequence[ModelUse]
    """What each model did."""
    hosts: Sequence[HostUse]
    """What was done on each machine, with --launcher."""
    tickets: Sequence[TicketSummary]
    batches: Sequence[BatchTried]
    """What the merge queue did, as far as the log goes back."""
    tools: Sequence[ToolUse]
    messages: Sequence[CommandGiven]
    failures: Sequence[ReportedFailure]
    retries: Sequence[RetriedError]
    waits: Sequence[TimeWaited]
    """The longest first."""
    life: Sequence[LifeEvent]
    sessions: Mapping[str, str]
    """A session file, as records name it -> `file:` URI of the file that is really there."""
