"""state.json: what a loop is doing now, and all that a restart needs to continue."""

from typing import Literal, NotRequired, TypedDict

from ralph_rpc.model.commands import MessageVerb
from ralph_rpc.model.config import Config
from ralph_rpc.model.far import FarPlace
from ralph_rpc.model.iteration import ErrorKind
from ralph_rpc.model.ticket import EngineJob, TicketStatus
from ralph_rpc.model.version import SchemaVersion

Status = Literal["starting", "running", "waiting", "paused", "stopping", "stopped", "completed", "error"]
StopReason = Literal[
    "marker",
    "checklist",
    "verified",
    "tickets-done",
    "max-iterations",
    "max-cost",
    "max-tokens",
    "max-time",
    "stop",
    "kill",
    "stalled",
    "blocked",
    "auth",
    "failures",
    "crash",
    "limit",
]
LoopKind = Literal["task", "tickets"]
WaitingFor = ErrorKind | Literal["restart", "disk", "merge", "queued"]
"""What a loop in status `waiting` waits for: a kind of failure to be over, a pi to be started again, room on the disk,
a merge that something is in the way of, a launcher that has not started anything yet."""

ENDED: frozenset[str] = frozenset({"stopped", "completed", "error"})
"""The statuses in which no runner is meant to live."""


class Stats(TypedDict):
    """Totals over the whole loop, across resumes."""

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
    unpricedRequests: NotRequired[int]
    """Requests whose usage nobody told: aborted, cut off, or under way when pi or the runner was killed."""


class Worktree(TypedDict):
    """The git worktree that pi works in, with `--worktree`."""

    branch: str
    path: str


class Held(TypedDict):
    """A message that has not reached the agent."""

    id: str
    command: MessageVerb
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
    unpricedRequests: NotRequired[int]


class RunningTicket(TypedDict):
    """A ticket that is being worked on, verified or merged."""

    ticket: str
    title: str
    status: TicketStatus
    doing: str
    """In a few words, for a person to read."""
    attempt: int
    iteration: int
    since: str
    cost: float
    worktree: str | None
    queuedAt: NotRequired[str]
    """Its work is done, and it waits to be merged since then."""
    run: NotRequired[RunFigures]
    far: NotRequired[FarPlace]
    """With `--launcher`: where its pi runs."""
    job: NotRequired[EngineJob]
    """With `--engine`: the job that works on it, or waits for that."""


class BatchState(TypedDict):
    """Finished tickets that the merge queue brings into the target branch together."""

    tickets: list[str]
    """In the order in which they are merged, one on top of the other."""
    trying: int
    """How many of them, from the first on, are verified or landed now; 0: the target branch's own tip is verified."""
    doing: Literal["waiting", "verifying", "landing"]
    """waiting: another verification has to end first."""
    since: str
    reds: int
    """How often verify was red for this batch; it is halved each time until the ticket at fault is known."""


class HostState(TypedDict):
    """A machine of `--hosts`."""

    host: str
    slots: int
    taken: int
    """pis that run there."""
    restedUntil: NotRequired[str]
    """It has failed, and is left alone until then."""
    reason: NotRequired[str]


class TicketsState(TypedDict):
    """The queue of a ticket loop; `ralph-rpc tickets` shows each ticket's place in it."""

    total: int
    closed: int
    withoutChanges: NotRequired[int]
    """Of those that this loop closed: how many without any change beyond their own file."""
    failed: int
    needsMerge: int
    unreadable: NotRequired[int]
    """Tickets of which nothing is known but that they are there; not in `total`."""
    undone: NotRequired[int]
    """Tickets that need a person, after an end by which nothing else was left to do; 0 until then."""
    running: list[RunningTicket]
    hosts: NotRequired[list[HostState]]
    """With `--hosts`."""
    batch: NotRequired[BatchState | None]
    """What the merge queue is at; null: nothing that takes time."""
    verifyAlone: NotRequired[bool]
    """Two verifications have disturbed each other: one runs at a time."""


class ModelOutage(TypedDict):
    """A model that does not answer; the loop waits for it, or uses another one meanwhile."""

    model: str | None
    """PROVIDER/ID of a fallback model; null: the loop's own."""
    kind: ErrorKind
    since: str
    """When it failed first."""
    until: str | None
    """No request before; null: it is not asked again under this runner."""
    words: str
    """The provider's, as one line."""


class State(TypedDict):
    """Replaced atomically by the runner; nothing else writes it while the runner lives."""

    schemaVersion: NotRequired[SchemaVersion]
    name: str
    cwd: str
    """The project: the folder that holds .ralph."""
    ralphDir: str
    """<cwd>/.ralph/<name>."""
    kind: LoopKind
    status: Status
    stopReason: StopReason | None
    error: str | None
    """One line for a person: why the loop waits or ended."""
    wasPaused: NotRequired[bool]
    """It was paused when a signal ended it; `resume --crashed` leaves it so after a reboot."""
    waitingFor: NotRequired[WaitingFor | None]
    outages: NotRequired[list[ModelOutage]]
    """The models that do not answer now; --fallback-model gives a loop more than one."""
    pid: int | None
    """The runner."""
    pidStartTime: float | None
    """Linux: clock ticks since boot (proc(5), stat field 22); elsewhere seconds since the epoch."""
    bootId: str
    """Pids mean nothing under another boot id."""
    guardPid: int | None
    guardStartTime: float | None
    piPid: int | None
    """pi; with `--launcher` the launcher, and `far` says where pi is."""
    far: NotRequired[FarPlace]
    """Where pi runs, with `--launcher`; missing while it does not."""
    piStartTime: float | None
    piVersion: str | None
    model: str | None
    provider: str | None
    iteration: int
    """Number of the current or last iteration, counted from 1; every pi run has a number of its own."""
    maxIterations: int
    """How many iterations may count (stats.iterations); 0 means no limit."""
    currentTicket: str | None
    """Ticket loops: the first of those under way; `tickets` lists all of them."""
    tickets: NotRequired[TicketsState]
    startedAt: str
    """First start of the loop; a resume keeps it."""
    updatedAt: str
    monotonicMs: NotRequired[int]
    """`updatedAt` by the machine's monotonic clock, which cannot be set: comparable under the same bootId."""
    endedAt: str | None
    nextWakeAt: str | None
    """In status `waiting`: when the loop tries again."""
    elapsedMs: int
    """Time under a runner, all runs together, without pauses; what --max-time limits."""
    stats: Stats
    consecutiveFailures: int
    unchangedIterations: int
    """Iterations in a row that changed nothing; what `stalled` counts."""
    unchangedSince: NotRequired[str | None]
    """When the first of them began."""
    restarts: list[int]
    """Epoch milliseconds of pi's recent restarts; the restart budget survives the runner."""
    lastReflection: int | None
    """The last iteration whose prompt asked for reflection."""
    lastOutcome: str | None
    lastText: str | None
    """First 500 characters of the last assistant text."""
    refusal: str | None
    """Why the last claim of completion was refused; becomes the next prompt's first words."""
    news: NotRequired[str | None]
    """What cut the last iteration off, or how it nearly claimed completion; also heads the next prompt."""
    held: list[Held]
    """Messages waiting for the next prompt. After the end: messages that expired undelivered."""
    worktree: Worktree | None
    tmpDir: str | None
    """pi's TMPDIR for this run, removed when the loop ends."""
    config: Config
