"""Commands of the operator to a ticket loop. Pure; called by its step.

A message goes to the worker of its ticket, or to the only one that works; where several do, it is refused before it
is taken (`refusal`), with the list. stop, abort and pause concern all workers.
"""

from dataclasses import replace
from typing import Any, Literal, cast

from ralph_rpc.model.commands import Body, Verb
from ralph_rpc.model.events import CommandStep
from ralph_runner.core import mailbox
from ralph_runner.core.effects import Emit
from ralph_runner.core.mailbox import Message, MessageVerb
from ralph_runner.core.reports import Broken, CommandCame, Terminate
from ralph_runner.core.state import Order, Running, Verifying
from ralph_runner.core.tickets import jobs, receipts, workers
from ralph_runner.core.tickets.state import Merging, SettingUp, TicketLoop, Working
from ralph_runner.core.tickets.turn import TicketTurn
from ralph_runner.core.verdict import Verdict


def refusal(loop: TicketLoop, verb: Verb, body: Body) -> str | None:
    """Why a message cannot be taken; None if it can."""
    if verb not in ("steer", "followup"):
        return None
    ticket = body.get("ticket")
    working = _working(loop)
    if ticket is None:
        if len(working) < 2:
            return None
        return f"{len(working)} tickets are being worked on ({', '.join(working)}): say which with \"ticket\" (--ticket)"
    if ticket in loop.jobs:
        return None
    if loop.backlog is not None and ticket not in loop.backlog.tickets:
        return f"there is no ticket {ticket!r}; see: ralph-rpc tickets"
    record = loop.settled.get(ticket)
    if record is not None and record["status"] == "closed":
        return f"ticket {ticket} is closed"
    return None


def _working(loop: TicketLoop) -> list[str]:
    return [id for id, job in loop.jobs.items() if isinstance(job.stage, Working)]


def came(t: TicketTurn, command: CommandCame) -> None:
    """A command arrived, or (known) was found open in the journal of an earlier runner."""
    if command.verb in ("steer", "followup"):
        _message(t, command)
        return
    _accepted(t, command)
    if command.verb == "resume":
        _resume(t, command)
        return
    if any(known.id == command.id for known in t.loop.orders):
        return
    verb = cast(Literal["stop", "abort", "pause"], command.verb)
    order = Order(command.id, verb, command.body.get("then", "continue"))
    t.set(orders=(*t.loop.orders, order))
    ends = order.verb == "stop" or order.then == "stop"
    if ends:
        at_once = order.verb == "abort" or command.body.get("when") == "now"
        t.finish_with(Verdict("stopped", "stop"), at_once=at_once)
        if at_once:
            jobs.hurry(t)
    elif order.verb == "pause" or order.then == "pause":
        t.set(paused=True)
    keys = frozenset(key for key, worker in t.loop.workers.items() if _concerns(order, worker))
    t.set(pending={**t.loop.pending, order.id: keys})
    for key in keys:
        workers.drive(t, key, replace(command, known=True))


def _concerns(order: Order, worker: Any) -> bool:
    """Idle workers need not be told: they do nothing, and start nothing by themselves."""
    if order.verb == "abort" and order.then == "continue":
        return isinstance(worker.phase, Running | Verifying)
    return not workers.is_idle(worker)


def _accepted(t: TicketTurn, command: CommandCame) -> None:
    if command.known:
        return
    event: CommandStep = {
        "type": "ralph_command", "at": t.now.wall, "id": command.id, "command": command.verb, "state": "accepted",
    }  # fmt: skip
    if "message" in command.body:
        event["message"] = command.body["message"]
    if "ticket" in command.body:
        event["ticket"] = command.body["ticket"]
    t.do(Emit(event))


def _message(t: TicketTurn, command: CommandCame) -> None:
    ticket = command.body.get("ticket")
    if ticket is not None:
        t.set(addressed={**t.loop.addressed, command.id: ticket})
    working = _working(t.loop)
    aim = ticket if ticket is not None else working[0] if len(working) == 1 else None
    key = None if aim is None or aim not in working else workers.key_of(t, aim)
    if key is not None and key in t.loop.workers:
        workers.drive(t, key, command)
        return
    _accepted(t, command)
    verb = cast(MessageVerb, command.verb)
    message = Message(command.id, verb, command.body.get("message", ""), maybe=command.maybe)
    t.set(mail=mailbox.receive(t.loop.mail, message))
    if not command.known:
        t.do(
            Emit({"type": "ralph_command", "at": t.now.wall, "id": message.id, "command": verb, "state": "queued"})
        )


def _resume(t: TicketTurn, command: CommandCame) -> None:
    pauses = tuple(o for o in t.loop.orders if o.verb == "pause" or (o.verb == "abort" and o.then == "pause"))
    for order in pauses:
        receipts.tell(t, order, "delivered", "taken back by a resume")
    t.set(orders=tuple(o for o in t.loop.orders if o not in pauses), paused=False, stale=True)
    receipts.tell(t, Order(command.id, "resume"), "delivered")
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
    """Messages to tickets that are closed reach nobody any more."""
    gone = tuple(
        m for m in t.loop.mail
        if (ticket := t.loop.addressed.get(m.id)) is not None
        and ticket in t.loop.settled and t.loop.settled[ticket]["status"] == "closed"
    )  # fmt: skip
    for message in gone:
        receipts.tell(t, message, "expired", f"ticket {t.loop.addressed[message.id]} was closed first")
    t.set(mail=tuple(m for m in t.loop.mail if m not in gone))


def in_merge(loop: TicketLoop) -> bool:
    """True while git or a command works for a ticket, which a pause lets come to its end."""
    return any(isinstance(job.stage, Merging | SettingUp) for job in loop.jobs.values())
