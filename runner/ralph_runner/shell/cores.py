"""A core as the shell sees it, and the task loop's; the ticket loop's is in ticket_core.py.

Runner, performer and intake know only `Core`. A core's state is a value, kept here and replaced at each step. If the
machine dies here, the state is what was last saved.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from ralph_rpc.model.commands import Body, Verb
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import State
from ralph_runner.core import snapshot as task_snapshot
from ralph_runner.core import step as task_step
from ralph_runner.core.disk import DISK_FULL
from ralph_runner.core.phases import Ended
from ralph_runner.core.results import Now
from ralph_runner.core.snapshot import Facts
from ralph_runner.core.state import Loop, Order


class Feed(Protocol):
    """Takes inputs for a core: from pi, from the inbox, or the outcome of an effect."""

    def __call__(self, *inputs: Any) -> None: ...


class Core(ABC):
    """The part that decides, with its state."""

    @property
    @abstractmethod
    def config(self) -> Config: ...

    @abstractmethod
    def iteration(self) -> int:
        """The highest number that an iteration has had."""

    @abstractmethod
    def step(self, event: Any, now: Now) -> Sequence[Any]:
        """The effects that follow from an input."""

    @abstractmethod
    def deadline(self) -> int | None:
        """Monotonic milliseconds at which a Tick is due."""

    @abstractmethod
    def state(self, facts: Facts, now: Now, waits_for_room: bool) -> State:
        """state.json as of now."""

    @abstractmethod
    def held_messages(self) -> int:
        """How many messages wait for the model."""

    @abstractmethod
    def refuses(self, verb: Verb, body: Body) -> str | None:
        """Why a command cannot be taken, for a person; None if it can."""

    @abstractmethod
    def is_to_end(self) -> bool:
        """True if the end was asked for."""

    @abstractmethod
    def give_up(self, message: str) -> None:
        """The shell cannot continue: the loop ends in error, whatever its core would decide."""


class TaskCore(Core):
    """A task loop's."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    @property
    def config(self) -> Config:
        return self.loop.config

    def iteration(self) -> int:
        return self.loop.iteration

    def step(self, event: Any, now: Now) -> Sequence[Any]:
        self.loop, effects = task_step.step(self.loop, event, now)
        return effects

    def deadline(self) -> int | None:
        return task_step.next_deadline(self.loop)

    def state(self, facts: Facts, now: Now, waits_for_room: bool) -> State:
        loop = replace(self.loop, status="waiting", error=DISK_FULL) if waits_for_room else self.loop
        return task_snapshot.snapshot(loop, facts, now)

    def held_messages(self) -> int:
        return len(self.loop.mail)

    def refuses(self, verb: Verb, body: Body) -> str | None:
        if "ticket" in body:
            return 'this loop has no tickets: leave "ticket" (--ticket) out'
        return None

    def is_to_end(self) -> bool:
        loop = self.loop
        return loop.terminate or loop.broken is not None or has_stop(loop.orders)

    def give_up(self, message: str) -> None:
        self.loop = replace(self.loop, status="error", stop_reason="blocked", error=message, phase=Ended())


def has_stop(orders: tuple[Order, ...]) -> bool:
    """True if somebody asked for the end."""
    return any(order.verb == "stop" for order in orders)
