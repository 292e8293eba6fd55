"""What one step tells the world: the next state as it comes to be, the effects so far, and the events, notices and
receipts that task loops and ticket loops write alike.

The base of both turns (`core/turn.py`, `core/tickets/turn.py`). A status changes only through `status`, and a command
gets a receipt only through `receipt`, so that a status without its event and a saved state, or a receipt without its
line in the journal, is impossible.
"""

from dataclasses import replace
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from ralph_rpc.model.commands import Verb
from ralph_rpc.model.events import CommandStep
from ralph_rpc.model.state import Status, StopReason, WaitingFor
from ralph_runner.core.effects import Effect, Emit, Finish, Journal, Save
from ralph_runner.core.mailbox import Mail, Message
from ralph_runner.core.results import CommandCame, Now
from ralph_runner.core.state import Order
from ralph_runner.core.verdict import Verdict

Receipt = Literal["queued", "delivered", "expired"]


class LoopState(Protocol):
    """What both kinds of loop remember in the same way; a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def status(self) -> Status: ...
    @property
    def error(self) -> str | None: ...
    @property
    def stop_reason(self) -> StopReason | None: ...
    @property
    def next_wake(self) -> int | None: ...
    @property
    def waiting_for(self) -> WaitingFor | None: ...
    @property
    def orders(self) -> tuple[Order, ...]: ...
    @property
    def mail(self) -> Mail: ...


StateT = TypeVar("StateT", bound=LoopState)
MoreEffectsT = TypeVar("MoreEffectsT")


class Desk(Generic[StateT, MoreEffectsT]):
    """One step's state, time and effects."""

    def __init__(self, loop: StateT, now: Now) -> None:
        self.loop = loop
        self.now = now
        self.effects: list[Effect | MoreEffectsT] = []

    def set(self, **changes: Any) -> None:
        """The state with these changes."""
        self.loop = replace(self.loop, **changes)

    def do(self, *effects: Effect | MoreEffectsT) -> None:
        """Asks the shell for these, in this order, after all that was asked before."""
        self.effects.extend(effects)

    def status(
        self,
        new: Status,
        reason: str | None = None,
        next_wake: int | None = None,
        waiting_for: WaitingFor | None = None,
    ) -> None:
        """What the loop is doing now; `reason` is one line for a person, `next_wake` epoch milliseconds."""
        old = self.loop.status
        self.set(status=new, error=reason, next_wake=next_wake, waiting_for=waiting_for)
        if old != new:
            event: Any = {"type": "ralph_status", "at": self.now.wall, "from": old, "to": new}
            if reason is not None:
                event["reason"] = reason
            self.do(Emit(event))
        self.do(Save())

    def notice(self, level: Literal["info", "warning", "error"], message: str, ticket: str | None = None) -> None:
        """Something that a person should know."""
        event: Any = {"type": "ralph_notice", "at": self.now.wall, "level": level, "message": message}
        if ticket is not None:
            event["ticket"] = ticket
        self.do(Emit(event))

    def accepted(self, command: CommandCame) -> None:
        """A command arrived. One that an earlier runner had received has been shown already."""
        if command.known:
            return
        event = self._step(command.id, command.verb, "accepted")
        if "message" in command.body:
            event["message"] = command.body["message"]
        if "ticket" in command.body:
            event["ticket"] = command.body["ticket"]
        self.do(Emit(event))

    def held(self, message: Message) -> None:
        """A message waits for the next prompt. It has not left the runner, so the journal has nothing to note."""
        self.do(Emit(self._step(message.id, message.verb, "queued")))

    def receipt(self, command: Message | Order, state: Receipt, reason: str | None = None) -> None:
        """One step of a command: first in the journal, then as an event."""
        again = isinstance(command, Message) and command.maybe and state == "delivered"
        iteration = self.receipt_iteration() if state != "expired" else None
        self.do(Journal(command.id, command.verb, state, iteration, reason, again))
        event = self._step(command.id, command.verb, state)
        if reason is not None:
            event["reason"] = reason
        if again:
            event["redelivered"] = True
        self.do(Emit(event))

    def receipt_iteration(self) -> int | None:
        """The iteration that a receipt given now belongs to; None: to none of its own."""
        return None

    def close_books(self, verdict: Verdict) -> None:
        """The loop has ended, and no pi is left: every command gets its last step, and the state its last word."""
        for order in self.loop.orders:
            if order.verb == "pause":
                self.receipt(order, "expired", "the loop ended")
            else:
                self.receipt(order, "delivered")
        for message in self.loop.mail:
            self.receipt(message, "expired", "the loop ended; the text is kept in state.json")
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
            ),
            Finish(verdict.status),
        )

    def _step(self, id: str, verb: Verb, state: Literal["accepted", "queued", "delivered", "expired"]) -> CommandStep:
        return {"type": "ralph_command", "at": self.now.wall, "id": id, "command": verb, "state": state}
