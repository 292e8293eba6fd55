"""Receipts of control commands, which concern all workers at once: given when the last of them has obeyed."""

from ralph_runner.core.tickets.turn import TicketTurn


def had_effect(t: TicketTurn, id: str, key: str) -> None:
    """A worker has obeyed an order, or has left."""
    left = t.loop.pending.get(id)
    if left is not None:
        t.set(pending={**t.loop.pending, id: left - {key}})


def settle(t: TicketTurn) -> None:
    """Receipts for the orders that all workers have obeyed; a stop's comes with the end of the loop."""
    for order in t.loop.orders:
        if order.verb != "stop" and order.then != "stop" and not t.loop.pending.get(order.id):
            t.receipt(order, "delivered")
            t.set(
                orders=tuple(o for o in t.loop.orders if o.id != order.id),
                pending={id: keys for id, keys in t.loop.pending.items() if id != order.id},
            )
