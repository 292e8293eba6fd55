"""tickets/<id>.json: what became of one ticket. The runner writes each step down before it takes it."""

import re
import unicodedata
from typing import Literal, NotRequired, TypedDict

from ralph_rpc.model.version import SchemaVersion

TicketStatus = Literal[
    "claimed", "running", "verifying", "merging", "merged", "closed", "failed", "needs-merge", "orphaned"
]


class EngineJob(TypedDict):
    """A job on an engine, with `--engine`."""

    number: int
    """Of all jobs for this ticket."""
    state: Literal["submitting", "queued", "active"]
    id: str | None
    """The engine's own; null: it has not named one yet."""
    since: str
    """When it was submitted."""
    maxCost: float | None
    """What of `--max-cost` is reserved for it, and is its own limit."""
    maxTokens: int | None


class TicketRecord(TypedDict):
    """Kept until the loop is cleaned, or for seven days after it."""

    schemaVersion: NotRequired[SchemaVersion]
    ticket: str
    title: str
    status: TicketStatus
    attempt: int
    """Attempts so far, including the current one."""
    sessionId: str | None
    sessionFile: NotRequired[str | None]
    pid: int | None
    """The pi that works on it."""
    pidStartTime: float | None
    """As in state.json."""
    worktreePath: str | None
    branch: str | None
    baseCommit: str | None
    """The commit that the branch started from."""
    mergeCommit: NotRequired[str]
    commit: NotRequired[str]
    """Without worktrees: the commit with which the runner closed the ticket."""
    queuedAt: NotRequired[str | None]
    """Since when its finished work waits to be merged; null: it does not."""
    waitedMs: NotRequired[int]
    """How long it has waited to be merged, all times together; without the wait that `queuedAt` began."""
    withoutChanges: NotRequired[bool]
    """It was done without any change beyond its own file; its agent's last message says why."""
    host: NotRequired[str]
    """Where that pi runs or ran, with `--launcher`; then `pid` is the launcher's."""
    jobs: NotRequired[int]
    """Jobs that were submitted for it, with `--engine`."""
    job: NotRequired[EngineJob | None]
    """The one that may be queued or running."""
    leftBehind: NotRequired[list[str]]
    """Stash entries that its agent made, a line each: they are not merged, and stay."""
    startedAt: str
    endedAt: str | None
    durationMs: int
    cost: NotRequired[float]
    returnCode: int | None
    """pi's exit code, negative for a signal; 0 where the same pi continued with the next ticket."""
    terminationMethod: Literal["natural", "eof", "sigterm", "sigkill"] | None
    error: str | None
    """One line: why it failed, needs a person, or waits."""


_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST_SLUG = 40


def file_name(id: str) -> str:
    """The name of a ticket's record, of its worktree and of its branch: its id, where every system takes that as it is.

    Of any other id what is left of it in plain letters, and a sum that no other id has.
    """
    if _SAFE.fullmatch(id) is not None and ".." not in id and not id.endswith((".", ".lock")):
        return id
    import hashlib  # hardly anybody needs it

    plain = unicodedata.normalize("NFKD", id).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:_LONGEST_SLUG] or "ticket"
    # No id that is its own name has a plus.
    return f"{slug}+{hashlib.sha256(id.encode()).hexdigest()[:8]}"
