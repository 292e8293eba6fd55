"""All that the core remembers of a task loop. Immutable; `core/step.py` makes the next one.

A ticket loop has one of these for every pi, its workers. What a restart needs is in state.json (`core/snapshot.py`).
"""

from dataclasses import dataclass, field

from ralph_rpc.model.commands import ControlVerb, Then
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import Stats, Status, StopReason, WaitingFor
from ralph_rpc.model.usage import Spent
from ralph_runner.core.duty import Duty
from ralph_runner.core.inputs import FarRuns
from ralph_runner.core.mailbox import Mail
from ralph_runner.core.models import Outages
from ralph_runner.core.phases import Ended, Fresh, Paused, Phase
from ralph_runner.core.results import Measure


@dataclass(frozen=True, slots=True)
class PiFacts:
    """What we know of the pi that runs."""

    pid: int
    version: str | None
    clear_queue: bool = False
    settles: bool = False
    """It sends agent_settled."""
    argv: tuple[str, ...] = ()
    used: bool = False
    """It has had a prompt: its context is no longer empty."""
    open: bool = False
    """Its session has had a prompt: pi may keep that warm, at a price."""
    has_prices: bool | None = None
    """pi knows what its model costs; None: it does not say."""
    model: int = 0
    """The index of its model, see `core/models.py`."""
    memory: int = 0
    """Bytes of resident memory after its last run."""
    place: FarRuns | None = None
    """Where it runs, with a launcher."""


@dataclass(frozen=True, slots=True)
class Order:
    """A control command that has not taken effect yet."""

    id: str
    verb: ControlVerb
    then: Then = "continue"


@dataclass(frozen=True, slots=True)
class Loop:
    """The core's whole state."""

    config: Config
    task_path: str
    status: Status
    stop_reason: StopReason | None
    error: str | None
    iteration: int
    stats: Stats
    consecutive_failures: int
    """Without those that only had to wait for a provider."""
    unchanged: int
    """Iterations in a row that changed nothing."""
    restarts: tuple[int, ...]
    """When pi was started anew of late, in monotonic milliseconds."""
    last_reflection: int | None
    last_outcome: str | None
    last_text: str | None
    refusal: str | None
    elapsed_ms: int
    mail: Mail = ()
    orders: tuple[Order, ...] = ()
    phase: Phase = field(default_factory=Fresh)
    pi: PiFacts | None = None
    model: str | None = None
    provider: str | None = None
    next_wake: int | None = None
    """Epoch milliseconds, for people."""
    waiting_for: WaitingFor | None = None
    outages: Outages = ()
    refusals: int = 0
    """Requests in a row that the provider refused."""
    last_mono: int = 0
    """When the core was last called; what `elapsed_ms` has been counted up to."""
    measure: Measure | None = None
    """The project at the end of the last iteration; None: to be measured before the next."""
    unchanged_since: int | None = None
    """When the first of the unchanged iterations began, epoch milliseconds."""
    news: str | None = None
    """What the next prompt says of the last iteration: what cut it off, or how it nearly claimed completion."""
    task_seen: str | None = None
    """The task's text at the end of the last iteration."""
    price_warned: bool = False
    blind: str | None = None
    """Why --max-cost cannot see what is spent, and no other cap can end the loop."""
    last_record: Iteration | None = None
    """Of the last iteration that ended under this runner."""
    far_ran: bool = False
    """A launcher has started something under this runner."""
    losses: int = 0
    """Far sides lost in a row."""
    lost_since: int | None = None
    """Monotonic: the first of them."""
    ever_answered: bool = False
    """A model has answered at least once under this runner."""
    blocked_since: int | None = None
    """Monotonic: since when pi is held because the disk is full."""
    terminate: bool = False
    was_paused: bool = False
    """It was paused when it was told to terminate."""
    broken: str | None = None
    """Why the runner itself cannot continue."""
    seq: int = 0
    """Numbers the requests to pi."""
    duty: Duty | None = None
    """A worker's ticket; None in task loops."""
    highest: int = 0
    """The highest iteration number that any worker has taken."""
    elsewhere: Spent = field(default_factory=Spent)
    """What the other workers have used; the iterations include those under way."""

    def elapsed_at(self, mono: int) -> int:
        """The time under a runner by then; a pause does not count."""
        stands = isinstance(self.phase, Fresh | Paused | Ended)
        return self.elapsed_ms + (0 if stands else max(0, mono - self.last_mono))
