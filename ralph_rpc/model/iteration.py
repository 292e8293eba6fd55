"""iterations/NNN.json: one record per pi run."""

from typing import Literal, NotRequired, TypedDict

Outcome = Literal["ok", "failed", "aborted", "timeout", "crashed"]
ErrorKind = Literal["auth", "quota", "rate-limit", "overloaded", "network", "context", "crash", "hang", "other"]
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
    """Written once, when the iteration has ended."""

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
    model: str | None
    provider: str | None
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
