"""(state, input, now) -> (state, effects): the whole loop, and nothing but decisions.

The shell calls `step` for every input and carries out the effects in order; `next_deadline` says when a Tick is due.
The same inputs always give the same effects, so a test is a conversation.
"""

from typing import TypeAlias

from ralph_runner.core import boot, budget, charges, closing, disk, far, flow, late, orders, running
from ralph_runner.core.duty import Assign, Dismiss
from ralph_runner.core.effects import AnswerDialog, Effect, Save
from ralph_runner.core.inputs import Dialog, FarRuns, FarSaid, LogBlocked, LogUnblocked, PiExited, PiInput, Reply
from ralph_runner.core.phases import (
    Between,
    Closing,
    Ending,
    Greeting,
    Preparing,
    Queued,
    Running,
    Spawning,
    Switching,
    Verifying,
    Waiting,
)
from ralph_runner.core.results import (
    Begin,
    Broken,
    CommandCame,
    Now,
    PiSpawned,
    ShellResult,
    SpawnFailed,
    TaskRead,
    Terminate,
    Tick,
    Verified,
    WorkMeasured,
)
from ralph_runner.core.run import NOTHING
from ralph_runner.core.state import Loop
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

Input: TypeAlias = PiInput | ShellResult


def step(loop: Loop, event: Input, now: Now) -> tuple[Loop, list[Effect]]:
    """The next state and what to do now."""
    turn = Turn(loop, now)
    _pass_time(turn)
    match event:
        case Begin():
            flow.next_iteration(turn)
        case Assign():
            flow.assign(turn, event)
        case Dismiss():
            turn.end(Verdict("stopped", "stop"))
        case Tick():
            _tick(turn)
        case CommandCame():
            orders.came(turn, event)
        case Terminate():
            turn.set(terminate=True, was_paused=turn.loop.status == "paused")
            orders.terminate(turn)
        case Broken(message):
            turn.set(broken=turn.loop.broken or message)
            orders.terminate(turn)
        case Dialog():
            given = answer(turn.loop, event)
            turn.do(AnswerDialog(event.id, given))
            how = "cancelled" if "cancelled" in given else "answered by --ui-answers"
            turn.notice("info", f"an extension's dialog was {how}: {event.title[:200]!r}")
        case LogBlocked():
            disk.blocked(turn, event)
        case LogUnblocked():
            disk.unblocked(turn)
        case _:
            _phase(turn, event)
    if isinstance(turn.loop.phase, Between):
        flow.next_iteration(turn, turn.loop.phase.session)
    return turn.loop, turn.effects


def answer(loop: Loop, dialog: Dialog) -> dict[str, str | bool]:
    """The members of the answer to an extension's dialog: the operator's by title, otherwise cancelled."""
    given = loop.config["uiAnswers"].get(dialog.title)
    if given is None:
        return {"cancelled": True}
    if dialog.method == "confirm":
        return {"confirmed": given if isinstance(given, bool) else given.lower() in ("yes", "true", "y")}
    return {"value": str(given)}


def next_deadline(loop: Loop) -> int | None:
    """Monotonic milliseconds at which a Tick is due; None: only an input can change anything."""
    phase, turn = loop.phase, Turn(loop, Now(loop.last_mono, 0))
    match phase:
        case _ if disk.pauses(turn):
            found = []
        case Running(run):
            found = running.deadlines(turn, run)
        case Queued():
            due = far.deadline(phase, loop.waiting_for == "queued")
            found = [] if due is None else [due]
        case Greeting() | Preparing() | Closing():
            # The deadline is pi's: what else is awaited then, the shell looks after.
            given = (
                phase.stats is not None
                if isinstance(phase, Closing)
                else isinstance(phase, Preparing) and phase.session
            )
            found = [] if given else [phase.deadline]
        case Waiting():
            time_up = budget.deadline(loop)
            found = [phase.until_mono] if time_up is None else [phase.until_mono, time_up]
        case _:
            found = []
    return min(found, default=None)


def _pass_time(t: Turn) -> None:
    t.set(last_mono=t.now.mono, elapsed_ms=t.loop.elapsed_at(t.now.mono))


def _tick(t: Turn) -> None:
    phase, mono = t.loop.phase, t.now.mono
    match phase:
        case _ if disk.pauses(t):
            pass
        case Running():
            running.tick(t, phase)
        case Queued() if mono >= (far.deadline(phase, t.loop.waiting_for == "queued") or mono + 1):
            far.tick(t, phase)
        case Greeting() if mono >= phase.deadline:
            boot.late(t, phase)
        case Preparing() if mono >= phase.deadline and not phase.session:
            flow.preparation_late(t, phase)
        case Closing() if mono >= phase.deadline and phase.stats is None:
            closing.collect(t, phase, None)
        case Waiting() if (
            phase.for_model  # nothing is asked again too early: it is looked up who may ask now
            or mono >= phase.until_mono
            or t.now.wall >= phase.until_wall
            or budget.forbids_iteration(t.loop)
        ):
            flow.next_iteration(t)
        case _:
            pass


def _phase(t: Turn, event: Input) -> None:
    """Inputs that mean something in one phase; elsewhere they are late and change nothing, but pi's end does."""
    phase = t.loop.phase
    if not isinstance(phase, Running) and (used := charges.usage_of(event)) != NOTHING:
        late.charged(t, used)
        return
    if isinstance(event, PiExited):
        t.set(blocked_since=None)  # no pi is held any more, and LogUnblocked does not come
    match phase, event:
        case Spawning(), PiSpawned():
            boot.spawned(t, phase, event)
        case Queued(), FarRuns():
            boot.reached(t, phase, event)
        case Queued(), FarSaid():
            far.said(t, phase, event)
        case Spawning(), SpawnFailed():
            boot.not_spawned(t, event)
        case Greeting(), Reply():
            boot.answered(t, phase, event)
        case Spawning() | Queued() | Greeting(), PiExited():
            boot.exited(t, event)
        case Preparing(), Reply() | TaskRead() | WorkMeasured():
            flow.prepared(t, phase, event)
        case Preparing(), PiExited():
            flow.preparation_ended(t, event)
        case Running(), _ if not isinstance(event, ShellResult):
            running.event(t, phase, event)
        case Closing(), Reply() | TaskRead() | WorkMeasured():
            closing.collect(t, phase, event)
        case Closing(), PiExited():
            t.set(pi=None)
            closing.collect(t, phase, None)
        case Verifying(), Reply():
            closing.session_opened(t, phase, event)
        case Verifying(), Verified():
            closing.verified(t, phase, event)
        case Switching(), PiExited():
            t.set(pi=None)
            flow.next_iteration(t)
        case Ending(verdict), PiExited():
            t.set(pi=None)
            t.finish(verdict)
        case _, PiExited():
            t.set(pi=None)
            t.do(Save())
        case _:
            pass
