"""One file per living loop in ~/.ralph/registry."""

from typing import NotRequired, TypedDict

from ralph_rpc.model.state import LoopKind, Status, WaitingFor, Worktree
from ralph_rpc.model.version import SchemaVersion


class RegistryEntry(TypedDict):
    """Written by the runner at start, on every change, and at least every ten seconds."""

    schemaVersion: NotRequired[SchemaVersion]
    pid: int
    pidStartTime: float
    bootId: str
    cwd: str
    ralphDir: str
    name: str
    kind: LoopKind
    startedAt: str
    lastSeen: str
    monotonicMs: NotRequired[int]
    """`lastSeen` by the machine's monotonic clock, which cannot be set: comparable under the same bootId."""
    status: Status
    iteration: int
    maxIterations: int
    model: str | None
    provider: str | None
    cost: float
    waitingFor: NotRequired[WaitingFor]
    """In status `waiting`: for what."""
    nextWakeAt: NotRequired[str]
    """In status `waiting`: when the loop tries again."""
    tokens: NotRequired[int]
    counted: NotRequired[int]
    """Iterations that count towards maxIterations, as in state.json."""
    ticketsClosed: NotRequired[int]
    """Ticket loops: as `tickets` in state.json."""
    ticketsTotal: NotRequired[int]
    elapsedMs: NotRequired[int]
    """As in state.json, at `updatedAt`."""
    updatedAt: NotRequired[str]
    """When the figures were true: `updatedAt` of state.json."""
    updatedMonotonicMs: NotRequired[int]
    """`monotonicMs` of state.json."""
    worktree: NotRequired[Worktree]
