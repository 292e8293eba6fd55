"""What the shell tells the core: what came of its effects, and what happens beside pi (`core/inputs.py`). Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ralph_rpc.model.commands import Body, Verb
from ralph_rpc.model.iteration import Verify
from ralph_runner.core.duty import Assign, Dismiss


@dataclass(frozen=True, slots=True)
class Now:
    """The time of an input."""

    mono: int
    """Milliseconds of a clock that never jumps: what deadlines are measured with."""
    wall: int
    """Epoch milliseconds: what people and providers mean."""
    rand: float = 0.5
    """From 0 to 1, for jitter."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The first input: the runner holds the lock, the files are repaired."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline may have passed."""


@dataclass(frozen=True, slots=True)
class PiSpawned:
    """pi's process exists; it has not answered yet."""

    pid: int
    version: str | None
    argv: tuple[str, ...]
    start: float = 0.0
    """As state.json has it."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """pi could not be executed."""

    message: str
    passing: bool = False
    """Of the machine, not of pi: no process, memory or file to be had just then."""
    own: bool = False
    """pi was never tried: what starts it could not be run in ten minutes of trying."""
    fence_ms: int = 0
    """pi was not started: one that an earlier launcher has started may still be running, or no host has a slot. To be tried
    again after so long."""


@dataclass(frozen=True, slots=True)
class TicketRead:
    """What a worker's prompt needs in addition to the ticket's text."""

    path: str
    """As the agent sees it."""
    closed: bool
    lessons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskRead:
    """task.md and reflect.md as they are now; `task` None: unreadable, `error` says why in one line."""

    task: str | None
    reflection: str | None = None
    error: str = ""
    ticket: TicketRead | None = None
    """For a worker: what goes with the ticket's text, which is `task`."""


@dataclass(frozen=True, slots=True)
class Measure:
    """The project's content at one moment: HEAD and the hash of the whole work tree."""

    head: str | None
    tree: str | None


@dataclass(frozen=True, slots=True)
class WorkMeasured:
    """The project now, and what changed since the measure that was asked about."""

    measure: Measure
    commits: tuple[str, ...] = ()
    files_changed: int = 0
    wrote_ignored: bool = False
    """A file that git ignores was written since the moment that was asked about."""
    pi_memory: int = 0
    """Bytes of resident memory that pi itself has; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The verify command has ended; None: it was cancelled, or was not run."""

    verify: Verify | None
    own: str | None = None
    """Why it could not be run in ten minutes of trying: a fault of this program or machine."""
    refusal: str | None = None
    """What the agent has to look at before its claim counts; it is told once, and that uses up no attempt."""
    passed: bool = False
    """There is no command, and nothing speaks against the claim."""


@dataclass(frozen=True, slots=True)
class CommandCame:
    """A command whose receipt is durable."""

    id: str
    verb: Verb
    body: Body
    known: bool = False
    """Taken up by an earlier runner; its receipt has been shown."""
    maybe: bool = False
    """It had been sent to a pi whose runner died before the next step was on disk."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM: end the loop now, cleanly."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The runner cannot continue (its folder is gone, a file cannot be written): one line why."""

    message: str


ShellResult: TypeAlias = (
    Begin
    | Tick
    | PiSpawned
    | SpawnFailed
    | TaskRead
    | WorkMeasured
    | Verified
    | CommandCame
    | Terminate
    | Broken
    | Assign
    | Dismiss
)

Members: TypeAlias = Mapping[str, Any]
