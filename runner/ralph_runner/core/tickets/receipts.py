"""Receipts of control commands, which concern all workers at once: told when the last of them has obeyed."""

from typing import Literal

from ralph_rpc.model.commands import JournalState
from ralph_rpc.model.events import CommandStep
from ralph_runner.core.effects import Emit, Journal
from ralph_runner.core.mailbox import Message
from ralph_runner.core.state import Order
from ralph_runner.core.tickets.turn import TicketTurn


def tell(
    t: TicketTurn, command: Order | Message, state: Literal["queued", "delivered", "expired"], reason: str | None = None
) -> None:
    """One step of a command: first in the journal, then as an event."""
    journal: JournalState = "accepted" if state == "queued" else state
    t.do(Journal(command.id, command.verb, journal, None, reason))
    event: CommandStep = {
        "type": "ralph_command", "at": t.now.wall, "id": command.id, "command": command.verb, "state": state,
    }  # fmt: skip
    if reason is not None:
        event["reason"] = reason
    t.do(Emit(event))


def had_effect(t: TicketTurn, id: str, key: str) -> None:
    """A worker has obeyed an order, or has left."""
    left = t.loop.pending.get(id)
    if left is not None:
        t.set(pending={**t.loop.pending, id: left - {key}})


def settle(t: TicketTurn) -> None:
    """Receipts for the orders that all workers have obeyed; a stop's comes with the end of the loop."""
    for order in t.loop.orders:
        if order.verb != "stop" and order.then != "stop" and not t.loop.pending.get(order.id):
            tell(t, order, "delivered")
            t.set(
                orders=tuple(o for o in t.loop.orders if o.id != order.id),
                pending={id: keys for id, keys in t.loop.pending.items() if id != order.id},
            )
