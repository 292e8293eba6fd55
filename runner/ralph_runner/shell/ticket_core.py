"""The ticket loop's core, as the shell sees it (see cores.py).

A module of its own because a task loop's pi boots while the runner is loaded: loading what only tickets need would take
processor time from pi. If the machine dies here, the state is what was last saved.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ralph_rpc.model.commands import Body, Verb
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import State
from ralph_runner.core.disk import DISK_FULL
from ralph_runner.core.results import Now
from ralph_runner.core.snapshot import Facts
from ralph_runner.core.tickets import orders, snapshot, step
from ralph_runner.core.tickets.state import TicketLoop
from ralph_runner.shell.cores import Core, has_stop


class TicketCore(Core):
    """A ticket loop's."""

    def __init__(self, loop: TicketLoop) -> None:
        self.loop = loop

    @property
    def config(self) -> Config:
        return self.loop.config

    def iteration(self) -> int:
        return self.loop.iteration

    def step(self, event: Any, now: Now) -> Sequence[Any]:
        self.loop, effects = step.step(self.loop, event, now)
        return effects

    def deadline(self) -> int | None:
        return step.next_deadline(self.loop)

    def state(self, facts: Facts, now: Now, waits_for_room: bool) -> State:
        loop = replace(self.loop, status="waiting", error=DISK_FULL) if waits_for_room else self.loop
        return snapshot.snapshot(loop, facts, now)

    def held_messages(self) -> int:
        return len(self.loop.mail) + sum(len(worker.mail) for worker in self.loop.workers.values())

    def refuses(self, verb: Verb, body: Body) -> str | None:
        return orders.refusal(self.loop, verb, body)

    def is_to_end(self) -> bool:
        return self.loop.ending is not None or has_stop(self.loop.orders)

    def give_up(self, message: str) -> None:
        self.loop = replace(self.loop, status="error", stop_reason="blocked", error=message, ended=True)
