"""A log that cannot be written: a full disk holds pi, and with it the run. Pure; called by the step.

Where the disk is full the loop waits, and no deadline passes that pi, held as it is, cannot meet. The end of a run
cannot be read then, so a stop does not wait for it. Any other failure of the log ends the loop.
"""

from dataclasses import replace

from ralph_runner.core import orders, policy
from ralph_runner.core.effects import Save
from ralph_runner.core.inputs import LogBlocked
from ralph_runner.core.phases import Ended, Ending, Greeting, Preparing, Running, Waiting
from ralph_runner.core.turn import Turn

DISK_FULL = "the disk is full (or a quota); waiting for free space"


def blocked(t: Turn, event: LogBlocked) -> None:
    """pi is held from now on."""
    if isinstance(t.loop.phase, Ending | Ended):
        return
    if not event.is_full:
        t.set(broken=t.loop.broken or f"events.jsonl cannot be written: {event.error}; fix it, then resume")
        orders.terminate(t)
        return
    t.set(blocked_since=t.now.mono)
    if t.loop.status in ("starting", "running"):
        t.status("waiting", DISK_FULL, waiting_for="disk")
    else:
        t.set(error=DISK_FULL)
        t.do(Save())
    if policy.requested_end(t) is not None:
        orders.cut(t)


def unblocked(t: Turn) -> None:
    """pi is read again; its deadlines are later by the time that it was held."""
    since, phase = t.loop.blocked_since, t.loop.phase
    if since is None:
        return
    held = t.now.mono - since
    t.set(blocked_since=None)
    match phase:
        case Greeting() | Preparing():
            t.go(replace(phase, deadline=phase.deadline + held))
        case Running(run):
            # As if the run had begun later: an --iteration-timeout is for what pi does.
            nudge = None if run.nudge_deadline is None else run.nudge_deadline + held
            later = replace(run, started_mono=run.started_mono + held, expect_until=run.expect_until + held)
            t.go(Running(replace(later, last_sign=t.now.mono, nudge_deadline=nudge)))
        case _:
            pass
    if isinstance(phase, Ending | Ended):
        return
    if t.loop.status == "waiting" and not isinstance(phase, Waiting):
        t.status("running")
    elif t.loop.error == DISK_FULL:
        t.set(error=None)
        t.do(Save())


def pauses(t: Turn) -> bool:
    """True if pi is held in a phase whose deadlines are pi's to meet."""
    match t.loop.phase:
        case Running(run):
            return t.loop.blocked_since is not None and run.ending is None
        case Greeting() | Preparing():
            return t.loop.blocked_since is not None
        case _:
            return False
