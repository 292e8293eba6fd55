"""tickets/<id>.json: what became of one ticket. Written by the runner before each step that it tells of."""

from typing import Literal, NotRequired, TypedDict

TicketStatus = Literal[
    "claimed", "running", "verifying", "merging", "merged", "closed", "failed", "needs-merge", "orphaned"
]


class TicketRecord(TypedDict):
    """Kept until the loop is cleaned, or for seven days after it."""

    ticket: str
    title: str
    status: TicketStatus
    attempt: int
    """Attempts so far, the current one included."""
    sessionId: str | None
    sessionFile: NotRequired[str | None]
    pid: int | None
    """The pi that works on it."""
    pidStartTime: float | None
    """As in state.json."""
    worktreePath: str | None
    branch: str | None
    baseCommit: str | None
    """Where the branch began."""
    mergeCommit: NotRequired[str]
    startedAt: str
    endedAt: str | None
    durationMs: int
    cost: NotRequired[float]
    returnCode: int | None
    """pi's exit code, negative for a signal; 0 where one pi went on to the next ticket."""
    terminationMethod: Literal["natural", "eof", "sigterm", "sigkill"] | None
    error: str | None
    """One line: why it failed, needs a person, or waits."""
