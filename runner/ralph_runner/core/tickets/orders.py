"""Commands of the operator to a ticket loop. Pure; called by its step.

A message goes to the worker of its ticket, or to the only one that works; where several do, it is refused before it
is taken (`refusal`), with the list. stop, abort and pause concern all workers.
"""

from dataclasses import replace
from typing import cast

from ralph_rpc.model.commands import MESSAGES, Body, MessageVerb, OrderVerb, Verb
from ralph_rpc.tickets.ticket import named
from ralph_runner.core import mailbox, policy
from ralph_runner.core.mailbox import Message
from ralph_runner.core.phases import Running, Verifying
from ralph_runner.core.results import Broken, CommandCame, Terminate
from ralph_runner.core.state import Loop, Order
from ralph_runner.core.tickets import away, jobs, workers
from ralph_runner.core.tickets.state import Merging, SettingUp, TicketLoop, Working
from ralph_runner.core.tickets.turn import TicketTurn
from ralph_runner.core.verdict import Verdict


def refusal(loop: TicketLoop, verb: Verb, body: Body) -> str | None:
    """Why a message cannot be taken; None if it can."""
    if verb not in MESSAGES:
        return None
    ticket = body.get("ticket")
    working = _working(loop)
    if ticket is None:
        if len(working) < 2:
            return None
        return f'{len(working)} tickets are being worked on ({", ".join(working)}): say which with "ticket" (--ticket)'
    meant = _meant(loop, ticket)
    if len(meant) > 1:
        return f"{len(meant)} tickets have {ticket!r} in their id: {', '.join(meant[:5])}; say more of it"
    ticket = meant[0] if meant else ticket
    if ticket in loop.jobs:
        return None
    if loop.backlog is not None and ticket not in loop.backlog.tickets:
        return f"there is no ticket {ticket!r}; see: ralph-rpc tickets"
    record = loop.settled.get(ticket)
    if record is not None and record["status"] == "closed":
        return f"ticket {ticket} is closed"
    return None


def _meant(loop: TicketLoop, part: str) -> list[str]:
    """The tickets that have this id, or this in their id; at first among those that are under way."""
    known = {**loop.jobs, **loop.settled, **(loop.backlog.tickets if loop.backlog is not None else {})}
    return [part] if part in known else named(part, loop.jobs) or named(part, known)


def _whole(loop: TicketLoop, part: str) -> str:
    meant = _meant(loop, part)
    return meant[0] if len(meant) == 1 else part


def address(t: TicketTurn) -> None:
    """Messages that came before the tickets were known get the whole ids of theirs."""
    t.set(addressed={id: _whole(t.loop, ticket) for id, ticket in t.loop.addressed.items()})


def _working(loop: TicketLoop) -> list[str]:
    return [id for id, job in loop.jobs.items() if isinstance(job.stage, Working)]


def came(t: TicketTurn, command: CommandCame) -> None:
    """A command arrived, or (known) was found open in the journal of an earlier runner."""
    if command.verb in MESSAGES:
        _message(t, command)
        return
    t.accepted(command)
    if command.verb == "resume":
        _resume(t, command)
        return
    if any(known.id == command.id for known in t.loop.orders):
        return
    verb = cast(OrderVerb, command.verb)
    order = Order(command.id, verb, command.body.get("then", "continue"))
    t.set(orders=(*t.loop.orders, order))
    ends = order.verb == "stop" or order.then == "stop"
    if ends:
        at_once = order.verb == "abort" or command.body.get("when") == "now"
        t.finish_with(Verdict("stopped", "stop"), at_once=at_once)
        if at_once:
            jobs.hurry(t)
    elif policy.asks_for_pause(order):
        t.set(paused=True)
    if order.verb == "abort":
        for ticket in away.out_there(t.loop):
            away.cancel(t, ticket)
    keys = frozenset(key for key, worker in t.loop.workers.items() if _concerns(order, worker))
    t.set(pending={**t.loop.pending, order.id: keys})
    for key in keys:
        workers.drive(t, key, replace(command, known=True))


def _concerns(order: Order, worker: Loop) -> bool:
    """Idle workers are left out: they do nothing, and start nothing by themselves."""
    if order.verb == "abort" and order.then == "continue":
        return isinstance(worker.phase, Running | Verifying)
    return not workers.is_idle(worker)


def _message(t: TicketTurn, command: CommandCame) -> None:
    ticket = command.body.get("ticket")
    if ticket is not None:
        ticket = _whole(t.loop, ticket)
        t.set(addressed={**t.loop.addressed, command.id: ticket})
    working = _working(t.loop)
    aim = ticket if ticket is not None else working[0] if len(working) == 1 else None
    key = None if aim is None or aim not in working else workers.key_of(t, aim)
    if key is not None and key in t.loop.workers:
        workers.drive(t, key, command)
        return
    t.accepted(command)
    verb = cast(MessageVerb, command.verb)
    message = Message(command.id, verb, command.body.get("message", ""), maybe=command.maybe)
    t.set(mail=mailbox.receive(t.loop.mail, message))
    if not command.known:
        t.held(message)


def _resume(t: TicketTurn, command: CommandCame) -> None:
    pauses = tuple(order for order in t.loop.orders if policy.asks_for_pause(order))
    for order in pauses:
        t.receipt(order, "delivered", "taken back by a resume")
    t.set(orders=tuple(o for o in t.loop.orders if o not in pauses), paused=False, stale=True)
    t.receipt(Order(command.id, "resume"), "delivered")
    if t.loop.red_target is not None:
        t.set(red_target=replace(t.loop.red_target, again=t.now.mono))
    for key in list(t.loop.workers):
        workers.drive(t, key, replace(command, known=True))


def terminate(t: TicketTurn, event: Terminate | Broken) -> None:
    """SIGTERM, or the runner itself is broken."""
    if isinstance(event, Broken):
        t.set(ending=Verdict("error", "blocked", event.message))
    t.finish_with(Verdict("stopped", "kill", "the runner was told to end (SIGTERM)"), at_once=True)
    jobs.hurry(t)
    for key in list(t.loop.workers):
        workers.drive(t, key, event)


def expire_mail(t: TicketTurn) -> None:
    """Messages to tickets that are closed expire: no agent will read them."""
    gone = tuple(
        m
        for m in t.loop.mail
        if (ticket := t.loop.addressed.get(m.id)) is not None
        and ticket in t.loop.settled
        and t.loop.settled[ticket]["status"] == "closed"
    )
    for message in gone:
        t.receipt(message, "expired", f"ticket {t.loop.addressed[message.id]} was closed first")
    t.set(mail=tuple(m for m in t.loop.mail if m not in gone))


def in_merge(loop: TicketLoop) -> bool:
    """True while git or a command works for a ticket, which a pause lets come to its end."""
    return any(isinstance(job.stage, Merging | SettingUp) for job in loop.jobs.values())
