"""Commands of the operator. Pure; called by the step.

stop, abort and pause are levels: the same one twice is the same as once. An order stays in `Loop.orders`, and open
in the journal, until it has had its effect, so that the runner after a crash finds it again.
"""

from dataclasses import replace
from typing import cast

from ralph_rpc.model.commands import MESSAGES, MessageVerb, OrderVerb
from ralph_runner.core import mailbox, models, policy, running
from ralph_runner.core.effects import CancelVerify
from ralph_runner.core.mailbox import Message
from ralph_runner.core.phases import (
    Between,
    Closing,
    Ended,
    Ending,
    Fresh,
    Paused,
    Running,
    Spawning,
    Verifying,
    Waiting,
)
from ralph_runner.core.results import CommandCame
from ralph_runner.core.state import Order
from ralph_runner.core.turn import Turn


def came(t: Turn, command: CommandCame) -> None:
    """A command arrived, or (known) was found open in the journal of an earlier runner."""
    t.accepted(command)
    if command.verb in MESSAGES:
        _message(t, command)
        return
    if command.verb == "resume":
        _resume(t, command.id)
        return
    verb = cast(OrderVerb, command.verb)
    if any(known.id == command.id for known in t.loop.orders):
        return  # a stop that came when the disk was too full for its receipt, and now with it
    order = Order(command.id, verb, command.body.get("then", "continue"))
    t.set(orders=(*t.loop.orders, order))
    if order.verb == "stop":
        _stop(t, now=command.body.get("when") == "now")
    elif order.verb == "abort":
        _abort(t, order)
    else:
        _pause(t)


def _message(t: Turn, command: CommandCame) -> None:
    verb = cast(MessageVerb, command.verb)
    text = command.body.get("message", "")
    message = Message(command.id, verb, text, command.body.get("when") == "next", maybe=command.maybe)
    t.set(mail=mailbox.receive(t.loop.mail, message))
    if isinstance(t.loop.phase, Ending | Ended):
        return
    waits = not isinstance(t.loop.phase, Running) or message.next_only or t.loop.phase.run.agent != "streaming"
    if waits and not command.known:
        t.held(message)
    running.forward(t)


def _between(t: Turn) -> bool:
    """No iteration is under way or being judged, and no pi is being started: an end can come at once."""
    return not isinstance(t.loop.phase, Fresh | Spawning | Running | Closing | Verifying | Ending | Ended)


def _stop(t: Turn, now: bool) -> None:
    if _between(t):
        verdict = policy.requested_end(t)
        assert verdict is not None
        t.end(verdict)
    elif now or t.loop.blocked_since is not None:
        cut(t)


def _abort(t: Turn, order: Order) -> None:
    if isinstance(t.loop.phase, Running | Verifying):
        cut(t)
    elif not _between(t):
        return
    elif order.then == "stop":
        _stop(t, now=True)
    elif order.then == "pause":
        _pause(t)
    else:
        t.set(orders=tuple(o for o in t.loop.orders if o.id != order.id))
        t.receipt(order, "delivered", "there was no run to abort")


def cut(t: Turn) -> None:
    """Ends the run, or the verification, that is under way."""
    if isinstance(t.loop.phase, Running):
        stops = policy.requested_end(t) is not None
        running.end_run(t, "stop" if stops else "abort")
    elif isinstance(t.loop.phase, Verifying):
        t.do(CancelVerify())


def _pause(t: Turn) -> None:
    if isinstance(t.loop.phase, Waiting | Paused):
        policy.pause(t)


def _resume(t: Turn, id: str) -> None:
    pauses = tuple(order for order in t.loop.orders if policy.asks_for_pause(order))
    for order in pauses:
        t.receipt(order, "delivered", "taken back by a resume")
    t.set(orders=tuple(o for o in t.loop.orders if o not in pauses))
    t.receipt(Order(id, "resume"), "delivered")
    if isinstance(t.loop.phase, Paused | Waiting):
        t.set(outages=models.tried_anew(t.loop.outages, t.now))  # perhaps it is paid
        t.go(Between())


def terminate(t: Turn) -> None:
    """SIGTERM, or the runner itself is broken."""
    phase = t.loop.phase
    if isinstance(phase, Running):
        # Somebody waits for the end: less patience than with an abort, and none with one that had no effect yet.
        if phase.run.ending is None:
            running.end_run(t, "kill")
            phase = Running(replace(phase.run, ending="kill"))
        soon = t.now.mono + running.ABORT_MS // 2
        t.go(Running(replace(phase.run, end_deadline=min(soon, phase.run.end_deadline or soon))))
    elif isinstance(phase, Verifying):
        t.do(CancelVerify())
    elif _between(t):
        verdict = policy.requested_end(t)
        assert verdict is not None
        t.end(verdict)
