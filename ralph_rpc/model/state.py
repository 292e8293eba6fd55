"""state.json: what a loop is doing now, and all that a restart needs to go on."""

from typing import Literal, NotRequired, TypedDict

from ralph_rpc.model.config import Config
from ralph_rpc.model.ticket import TicketStatus

Status = Literal[
    "starting", "running", "waiting", "paused", "stopping", "stopped", "completed", "error"
]
StopReason = Literal[
    "marker", "checklist", "verified", "tickets-done", "max-iterations", "max-cost", "max-tokens", "max-time",
    "stop", "kill", "stalled", "blocked", "auth", "failures", "crash", "limit",
]  # fmt: skip
Kind = Literal["task", "tickets"]

ENDED: frozenset[str] = frozenset({"stopped", "completed", "error"})
"""The statuses in which no runner is meant to live."""


class Stats(TypedDict):
    """Totals over the whole loop, resumes included."""

    iterations: int
    """Iterations that count towards maxIterations: crashes and provider outages do not."""
    turns: int
    toolCalls: int
    durationMs: int
    """Sum of the iterations' durations."""
    tokensIn: int
    tokensOut: int
    cacheRead: int
    cacheWrite: int
    cost: float
    """US dollars, as pi computed them from the model's prices."""


class Worktree(TypedDict):
    """The git worktree that pi works in, where `--worktree` asked for one."""

    branch: str
    path: str


class Held(TypedDict):
    """A message that has not reached the agent."""

    id: str
    command: Literal["steer", "followup"]
    message: str


class RunFigures(TypedDict):
    """What an iteration under way has used so far."""

    turns: int
    toolCalls: int
    tokensIn: int
    tokensOut: int
    cacheRead: int
    cacheWrite: int
    cost: float


class RunningTicket(TypedDict):
    """A ticket that is being worked on, verified or merged."""

    ticket: str
    title: str
    status: TicketStatus
    doing: str
    """For a person, in a few words."""
    attempt: int
    iteration: int
    since: str
    cost: float
    worktree: str | None
    run: NotRequired[RunFigures]


class TicketsState(TypedDict):
    """The queue of a ticket loop; `ralph-rpc tickets` tells each ticket's place in it."""

    total: int
    closed: int
    failed: int
    needsMerge: int
    running: list[RunningTicket]


class State(TypedDict):
    """Replaced atomically by the runner; nobody else writes it while the runner lives."""

    schemaVersion: Literal[1]
    name: str
    cwd: str
    """The project: the folder that holds .ralph."""
    ralphDir: str
    """<cwd>/.ralph/<name>."""
    kind: Kind
    status: Status
    stopReason: StopReason | None
    error: str | None
    """One line for a person: why the loop waits or ended."""
    pid: int | None
    """The runner."""
    pidStartTime: float | None
    """Linux: clock ticks since boot (proc(5), stat field 22); elsewhere seconds since the epoch."""
    bootId: str
    """Pids mean nothing under another boot id."""
    guardPid: int | None
    guardStartTime: float | None
    piPid: int | None
    piStartTime: float | None
    piVersion: str | None
    model: str | None
    provider: str | None
    iteration: int
    """Number of the current or last iteration, counted from 1; every pi run has a number of its own."""
    maxIterations: int
    """How many iterations may count (stats.iterations); 0 means no limit."""
    currentTicket: str | None
    """Ticket loops: the first of those that are under way, which `tickets` has all of."""
    tickets: NotRequired[TicketsState]
    startedAt: str
    """First start of the loop; a resume keeps it."""
    updatedAt: str
    monotonicMs: NotRequired[int]
    """`updatedAt` by the machine's monotonic clock, which nobody can set: comparable under the same bootId."""
    endedAt: str | None
    nextWakeAt: str | None
    """In status `waiting`: when the loop tries again."""
    elapsedMs: int
    """Time under a runner, all runs together, pauses left out; what --max-time limits."""
    stats: Stats
    consecutiveFailures: int
    unchangedIterations: int
    """Iterations in a row that changed nothing; what `stalled` counts."""
    restarts: list[int]
    """Epoch milliseconds of pi's recent restarts; the restart budget survives the runner."""
    lastReflection: int | None
    """The last iteration whose prompt asked for reflection."""
    lastOutcome: str | None
    lastText: str | None
    """First 500 characters of the last assistant text."""
    refusal: str | None
    """Why the last claim of completion was refused; becomes the next prompt's first words."""
    held: list[Held]
    """Messages waiting for the next prompt. After the end: messages that expired undelivered."""
    worktree: Worktree | None
    tmpDir: str | None
    """pi's TMPDIR for this run, removed when the loop ends."""
    config: Config
