"""What a report tells, as plain values. Texts are raw, as a model or a file gave them; renderers make them inert.

`gather` fills them, every renderer reads them, nothing else. Keys of the JSON form are these names in camelCase.
Times are ISO 8601; None is what nobody knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ralph_rpc.model.iteration import Iteration


@dataclass(frozen=True, slots=True)
class Summary:
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
    turns: int
    tool_calls: int
    tokens_in: int
    tokens_out: int
    cache_read: int
    cache_write: int
    cost: float
    model: str | None
    provider: str | None
    pi_version: str | None
    branch: str | None
    """Of the worktree, where the loop has one."""
    verify: str | None
    task: str | None
    last_text: str | None


@dataclass(frozen=True, slots=True)
class Running:
    """An iteration that has begun and has no record (yet)."""

    iteration: int
    kind: str
    ticket: str | None
    started_at: str | None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket's dispatch record, and what its iterations add up to."""

    ticket: str
    title: str | None
    status: str
    attempt: int | None
    branch: str | None
    session_id: str | None
    started_at: str | None
    ended_at: str | None
    duration_ms: int | None
    return_code: int | None
    termination_method: str | None
    error: str | None
    iterations: Sequence[int]
    tokens: int
    cost: float
    commits: int
    session_files: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tool:
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
class Message:
    """A command that somebody gave: a message to the agent, or an order to the loop."""

    id: str
    command: str
    text: str | None
    at: str | None
    state: str
    """How far it has come: received, sent, accepted, queued, delivered, rejected, expired."""
    delivered_at: str | None
    iteration: int | None
    reason: str | None
    redelivered: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that went wrong, and why."""

    at: str | None
    iteration: int | None
    ticket: str | None
    kind: str
    """Why an iteration failed (`auth`, `network`, …; `verify`: its claim was refused), a ticket's status, or a level."""
    cause: str
    detail: str | None
    """More of it: the end of the output of verify."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Requests that pi repeated by itself, by the error that made it do so."""

    cause: str
    times: int
    last_at: str | None


@dataclass(frozen=True, slots=True)
class Happening:
    """A step in the life of the loop and its processes."""

    at: str | None
    what: str
    detail: str | None
    is_bad: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """A whole report."""

    generated_at: str
    version: str
    summary: Summary
    gaps: Sequence[str]
    """What this report cannot know, in sentences."""
    iterations: Sequence[Iteration]
    running: Sequence[Running]
    tickets: Sequence[Ticket]
    tools: Sequence[Tool]
    messages: Sequence[Message]
    failures: Sequence[Failure]
    retries: Sequence[Retry]
    life: Sequence[Happening]
    sessions: Mapping[str, str]
    """A session file, as records name it -> `file:` URI of the file that is really there."""
