"""What a worker of a ticket loop has in hand. Values only; `core/tickets` gives and takes it."""

from dataclasses import dataclass
from typing import Literal

from ralph_rpc.model.config import Config
from ralph_runner.core.mailbox import Mail


@dataclass(frozen=True, slots=True)
class Duty:
    """A worker's ticket."""

    ticket: str
    title: str
    attempts: int
    """The number of the last attempt that it may make."""
    tried: int = 0
    """Attempts made before this duty, in earlier runs or before a conflict."""
    kind: Literal["work", "conflict"] = "work"
    """conflict: the work is done, but cannot be merged as it is."""
    branch: str | None = None
    """The ticket's own, in a worktree of its own; None: the agent works in the project itself."""
    forgiven: int = 0
    """Refusals that used up no attempt, as the agent had to be told something first."""


@dataclass(frozen=True, slots=True)
class Assign:
    """Input of a worker: it gets a ticket, or once more the one it handed back."""

    duty: Duty
    config: Config
    mail: Mail = ()
    refusal: str | None = None
    """Why what it made of the ticket was not taken; the next prompt's first words."""
    news: str | None = None
    """What cut its last iteration at this ticket off."""


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Input of a worker: it is no longer needed, pi is to end."""
