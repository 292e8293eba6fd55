"""The working copy of one step: the next state as it comes to be, and the effects so far.

Only `core` sees it. Every change of status goes through `status`, so that a status without its event and without a
saved state is impossible.
"""

from dataclasses import replace
from typing import Any, Literal

from ralph_rpc.model.commands import JournalState, Verb
from ralph_rpc.model.events import CommandStep
from ralph_rpc.model.state import Status
from ralph_runner.core.effects import Effect, Emit, EndPi, Finish, HandBack, Journal, Save, Send
from ralph_runner.core.mailbox import Message
from ralph_runner.core.reports import Now
from ralph_runner.core.state import Ended, Ending, Idle, Loop, Order, Phase
from ralph_runner.core.verdict import Verdict


class Turn:
    """One step's state, time and effects."""

    def __init__(self, loop: Loop, now: Now) -> None:
        self.loop = loop
        self.now = now
        self.effects: list[Effect] = []

    def set(self, **changes: Any) -> None:
        self.loop = replace(self.loop, **changes)

    def go(self, phase: Phase) -> None:
        self.loop = replace(self.loop, phase=phase)

    def do(self, *effects: Effect) -> None:
        self.effects.extend(effects)

    def send(self, command: str, mark: str = "", **members: Any) -> str:
        """Asks pi; the id of the request tells its reply apart from late ones."""
        self.set(seq=self.loop.seq + 1)
        request = f"{command}-{self.loop.seq}{mark}"
        self.do(Send(command, request, members))
        return request

    def status(self, new: Status, reason: str | None = None, next_wake: int | None = None) -> None:
        old = self.loop.status
        self.set(status=new, error=reason, next_wake=next_wake)
        if old != new:
            event: Any = {"type": "ralph_status", "at": self.now.wall, "from": old, "to": new}
            if reason is not None:
                event["reason"] = reason
            self.do(Emit(event))
        self.do(Save())

    def notice(self, level: Literal["info", "warning", "error"], message: str) -> None:
        self.do(Emit({"type": "ralph_notice", "at": self.now.wall, "level": level, "message": message}))

    def receipt(
        self, command: Message | Order, state: Literal["queued", "delivered", "expired"], reason: str | None = None
    ) -> None:
        """One step of a command: first in the journal, then as an event."""
        verb: Verb = command.verb
        again = isinstance(command, Message) and command.maybe and state == "delivered"
        journal: JournalState = "accepted" if state == "queued" else state
        iteration = self.loop.iteration if state != "expired" else None
        self.do(Journal(command.id, verb, journal, iteration, reason, again))
        event: CommandStep = {
            "type": "ralph_command", "at": self.now.wall, "id": command.id, "command": verb, "state": state,
        }  # fmt: skip
        if reason is not None:
            event["reason"] = reason
        if again:
            event["redelivered"] = True
        self.do(Emit(event))

    def conclude(self, verdict: Verdict) -> None:
        """The work at hand is over. A task loop ends with it; a worker hands its ticket back and keeps pi."""
        if self.loop.duty is None:
            self.end(verdict)
        else:
            self.go(Idle(verdict))
            self.do(HandBack(verdict), Save())

    def end(self, verdict: Verdict, graceful: bool = True) -> None:
        """The loop ends like this, as soon as pi is gone."""
        if isinstance(self.loop.phase, Ending | Ended):
            return
        self.go(Ending(verdict))
        if self.loop.pi is None:
            self.finish(verdict)
        else:
            self.status("stopping", verdict.error)
            self.do(EndPi(graceful))

    def finish(self, verdict: Verdict) -> None:
        """pi is gone: every command gets its last step, the state its last word."""
        if self.loop.duty is not None:
            self._leave(verdict)
            return
        for order in self.loop.orders:
            self.receipt(order, "delivered") if order.verb != "pause" else self.receipt(
                order, "expired", "the loop ended first"
            )
        for message in self.loop.mail:
            self.receipt(message, "expired", "the loop ended first; the text is kept in state.json")
        self.set(orders=(), stop_reason=verdict.stop_reason)
        self.status(verdict.status, verdict.error)
        self.do(
            Emit(
                {
                    "type": "ralph_loop_end",
                    "at": self.now.wall,
                    "status": verdict.status,
                    "stopReason": verdict.stop_reason,
                    "error": verdict.error,
                }
            )
        )
        self.go(Ended())
        self.do(Finish(verdict.status))

    def _leave(self, verdict: Verdict) -> None:
        """A worker is done. Commands and the last word are its loop's."""
        self.set(stop_reason=verdict.stop_reason)
        self.status(verdict.status, verdict.error)
        self.go(Ended())
        self.do(Finish(verdict.status))
