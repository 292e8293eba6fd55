"""What forbids or delays the next iteration: an end that was asked for, a limit, a pause, a wait, a pi that is gone.

Pure; called by all that decide what comes next. It never begins an iteration; `core/flow.py` does.
"""

from ralph_rpc.model.state import WaitingFor
from ralph_runner.core import budget, failures, models
from ralph_runner.core.phases import Paused, Waiting
from ralph_runner.core.state import Loop, Order
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

PI_MEMORY = 1 << 30
"""What a loop that was started by an older version allows pi, in bytes."""


def requested_end(t: Turn) -> Verdict | None:
    """The end that was asked for, if one was."""
    if t.loop.broken is not None:
        return Verdict("error", "blocked", t.loop.broken)
    if t.loop.terminate:
        return Verdict("stopped", "kill", "the runner was told to end (SIGTERM)")
    if any(o.verb == "stop" or (o.verb == "abort" and o.then == "stop") for o in t.loop.orders):
        return Verdict("stopped", "stop")
    if t.loop.blind is not None:
        return Verdict("error", "max-cost", t.loop.blind)
    return None


def asks_for_pause(order: Order) -> bool:
    """True for a pause, and for an abort that is to be followed by one."""
    return order.verb == "pause" or (order.verb == "abort" and order.then == "pause")


def end_by_limit(t: Turn) -> bool:
    """Ends the work if a limit forbids another iteration; False: none does.

    A worker whose attempts are used up hands its ticket back; every other limit is the loop's.
    """
    limit = budget.forbids_iteration(t.loop)
    if limit is None:
        return False
    if limit.stop_reason == "limit":
        t.conclude(limit)
    else:
        t.end(limit)
    return True


def pause(t: Turn) -> None:
    """Holds until resume; pi stays, idle. Orders to pause are carried out with this."""
    for order in t.loop.orders:
        t.receipt(order, "delivered")
    t.set(orders=(), measure=None)
    t.leave_session()
    t.status("paused")
    t.go(Paused())


def wait(t: Turn, delay_ms: int, reason: str, waiting_for: WaitingFor) -> None:
    """Holds until a time, shown to people as `nextWakeAt`. The project may change meanwhile: it is measured anew."""
    wall = t.now.wall + delay_ms
    t.set(measure=None)
    t.leave_session()
    t.status("waiting", reason, wall, waiting_for)
    t.go(Waiting(t.now.mono + delay_ms, wall))


def wait_for_model(t: Turn, wait: models.Wait) -> None:
    """Holds until a model may be asked again, or ends the loop where that is too long."""
    outage = wait.outage
    too_long = models.waits_too_long(t.loop.config, wait, t.now)
    if too_long is not None:
        t.end(Verdict("error", "failures", too_long))
        return

    t.set(measure=None)
    t.leave_session()
    t.status("waiting", f"{outage.kind}: {outage.words}", outage.until, outage.kind)
    t.go(Waiting(outage.until_mono, outage.until, for_model=True))


def is_too_large(loop: Loop) -> bool:
    """Whether pi's memory has grown past --pi-memory."""
    most = loop.config.get("piMemory", PI_MEMORY)
    return loop.pi is not None and most > 0 and loop.pi.memory > most


def worker_of(t: Turn) -> str:
    """The name by which this worker is known where several ask for a model; "" in a task loop."""
    return "" if t.loop.duty is None else t.loop.duty.ticket


def lost(t: Turn, why: str) -> None:
    """The far side is gone: tried again with growing gaps, as long as --max-wait allows."""
    since = t.now.mono if t.loop.lost_since is None else t.loop.lost_since
    t.set(losses=t.loop.losses + 1, lost_since=since)
    most = t.loop.config.get("maxWaitMs", models.MAX_WAIT_MS)
    if most and t.now.mono - since >= most:
        t.end(Verdict("error", "failures", f"{why}; longer than --max-wait ({most // 1000} s) allows"))
    else:
        wait(t, failures.backoff(t.loop.losses, "lost", t.now.rand), f"lost: {why}", "lost")


def restart(t: Turn, why: str) -> None:
    """pi is gone: another one after a wait that grows, unless pi was lost too often."""
    before = failures.recent(t.loop.restarts, t.now.mono)
    t.set(restarts=(*before, t.now.mono))
    if len(before) >= failures.RESTART_BUDGET:
        t.conclude(Verdict("error", "crash", f"pi ended {len(before) + 1} times within 10 minutes; last: {why}"))
    else:
        wait(t, failures.restart_delay(len(before) + 1, t.now.rand), f"{why}; starting pi again", "restart")
