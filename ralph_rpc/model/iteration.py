"""iterations/NNN.json: one record per pi run."""

from typing import Literal, NotRequired, TypedDict

from ralph_rpc.model.version import SchemaVersion

Outcome = Literal["ok", "failed", "aborted", "timeout", "crashed"]
ErrorKind = Literal[
    "auth",
    "billing",
    "quota",
    "rate-limit",
    "overloaded",
    "network",
    "refused",
    "empty",
    "context",
    "crash",
    "hang",
    "lost",
    "own",
    "other",
]
IterationKind = Literal["work", "reflect", "conflict"]


class Verify(TypedDict):
    """One run of the verify command."""

    command: str
    exitCode: int
    """As the shell's $?: 128 + signal where a signal ended it; 124 where the time limit did."""
    durationMs: int
    tail: str
    """The last 2,000 characters of its output."""


class Iteration(TypedDict):
    """Written when the iteration has ended; its tokens and cost grow if pi charges something for its session later."""

    schemaVersion: NotRequired[SchemaVersion]
    iteration: int
    ticket: NotRequired[str]
    attempt: NotRequired[int]
    kind: IterationKind
    outcome: Outcome
    error: NotRequired[str]
    errorKind: NotRequired[ErrorKind]
    startedAt: str
    endedAt: str
    durationMs: int
    turns: int
    toolCalls: int
    tokensIn: int
    tokensOut: int
    cacheRead: int
    cacheWrite: int
    cost: float
    unpricedRequests: NotRequired[int]
    """Requests whose usage nobody told: aborted, cut off, or under way when pi or the runner was killed."""
    host: NotRequired[str]
    """The machine or box that its pi ran on, with `--launcher`."""
    job: NotRequired[str]
    """With `--engine`: the number of the ticket's job, and that of the iteration in it."""
    model: str | None
    provider: str | None
    cutOff: NotRequired[list[str]]
    """The tool calls that ran when it timed out or crashed: name and command (or path …), at most 200 characters each."""
    sessionId: str | None
    sessionFile: str | None
    summary: str
    """The last assistant text, at most 2,000 characters."""
    verify: NotRequired[Verify]
    commits: NotRequired[list[str]]
    filesChanged: NotRequired[int]
    steering: list[str]
    """Ids of the commands that were delivered in it."""
    eventsFrom: int
    """Byte offset in the event log, counted over all its rotated files."""
    eventsTo: int
