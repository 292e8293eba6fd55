"""What the core can ask of the shell. Carried out in order; every outcome comes back as an input."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ralph_rpc.model.commands import JournalState, Verb
from ralph_rpc.model.events import RunnerEvent
from ralph_rpc.model.iteration import Iteration, IterationKind
from ralph_rpc.model.state import RunFigures
from ralph_runner.core.results import Measure, Members
from ralph_runner.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class StartPi:
    """Spawn pi -> PiSpawned or SpawnFailed."""

    model: str | None = None
    """PROVIDER/ID of a fallback model; None: as the loop's options say."""


@dataclass(frozen=True, slots=True)
class EndPi:
    """End pi and its tree -> PiExited. Graceful: EOF first; otherwise SIGTERM at once. Both end in a sweep."""

    graceful: bool


@dataclass(frozen=True, slots=True)
class Send:
    """One request to pi -> Reply with this id, or nothing ever."""

    command: str
    id: str
    members: Members = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnswerDialog:
    """Answer an extension's dialog."""

    id: str
    members: Members


@dataclass(frozen=True, slots=True)
class ReadTask:
    """-> TaskRead."""


@dataclass(frozen=True, slots=True)
class MeasureWork:
    """-> WorkMeasured, compared with `before` where given."""

    before: Measure | None
    ignored_since: int | None = None
    """Epoch milliseconds: if nothing else differs, also look whether an ignored file was written since then."""


@dataclass(frozen=True, slots=True)
class RunVerify:
    """Look whether the claim can count, and run the command -> Verified."""

    command: str | None
    """None: there is none; a ticket's claim is looked at all the same."""
    timeout_ms: int
    said: str = ""
    """What the last message says beside the claim."""


@dataclass(frozen=True, slots=True)
class CancelVerify:
    """End the running verify command -> Verified(None)."""


@dataclass(frozen=True, slots=True)
class BeginIteration:
    """The lines of pi from here on belong to this iteration."""

    iteration: int
    kind: IterationKind
    ticket: str | None = None


@dataclass(frozen=True, slots=True)
class EndIteration:
    """Write the record and its event; the shell fills in the offsets of the log."""

    record: Iteration


@dataclass(frozen=True, slots=True)
class AmendRecord:
    """Write the record of the last iteration again: its session was charged once more, by `added`."""

    record: Iteration
    added: RunFigures


@dataclass(frozen=True, slots=True)
class Journal:
    """One step of a command, on disk before the next effect is carried out."""

    id: str
    command: Verb
    state: JournalState
    iteration: int | None = None
    reason: str | None = None
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Emit:
    """Append an event of the runner's."""

    event: RunnerEvent


@dataclass(frozen=True, slots=True)
class Save:
    """state.json and the registry no longer tell the truth. Lazy: within a second is soon enough."""

    lazy: bool = False


@dataclass(frozen=True, slots=True)
class HandBack:
    """A worker is done with its ticket, one way or the other."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Finish:
    """The loop has ended and pi is gone: leave. `how` decides what happens to the registry entry."""

    how: Literal["stopped", "completed", "error"]


Effect: TypeAlias = (
    StartPi
    | EndPi
    | Send
    | AnswerDialog
    | ReadTask
    | MeasureWork
    | RunVerify
    | CancelVerify
    | BeginIteration
    | EndIteration
    | AmendRecord
    | Journal
    | Emit
    | Save
    | HandBack
    | Finish
)
