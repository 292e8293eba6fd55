"""One file per living loop in ~/.ralph/registry."""

from typing import NotRequired, TypedDict

from ralph_rpc.model.state import Kind, Status, Worktree


class RegistryEntry(TypedDict):
    """Written by the runner at start, on every change, and at least every ten seconds."""

    pid: int
    pidStartTime: float
    bootId: str
    cwd: str
    ralphDir: str
    name: str
    kind: Kind
    startedAt: str
    lastSeen: str
    monotonicMs: NotRequired[int]
    """`lastSeen` by the machine's monotonic clock, which nobody can set: comparable under the same bootId."""
    status: Status
    iteration: int
    maxIterations: int
    model: str | None
    provider: str | None
    cost: float
    worktree: NotRequired[Worktree]
