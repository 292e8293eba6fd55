"""(state, input, now) -> (state, effects): the whole loop, and nothing but decisions.

The shell calls `step` for every input and carries out the effects in order; `next_deadline` says when it has to
call with a Tick at the latest. The same inputs always give the same effects, so a test is a conversation.
"""

from typing import TypeAlias

from ralph_runner.core import boot, closing, flow, orders, room, running
from ralph_runner.core.duty import Assign, Dismiss
from ralph_runner.core.effects import AnswerDialog, Effect, Save
from ralph_runner.core.inputs import Dialog, LogBlocked, LogUnblocked, PiExited, PiInput, Reply
from ralph_runner.core.reports import (
    Begin,
    Broken,
    CommandCame,
    Now,
    PiSpawned,
    Report,
    SpawnFailed,
    TaskRead,
    Terminate,
    Tick,
    Verified,
    WorkMeasured,
)  # fmt: skip
from ralph_runner.core.state import (
    Closing,
    Ended,
    Ending,
    Fresh,
    Greeting,
    Loop,
    Paused,
    Preparing,
    Running,
    Spawning,
    Verifying,
    Waiting,
)  # fmt: skip
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

Input: TypeAlias = PiInput | Report


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
            turn.set(terminate=True)
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
            room.blocked(turn, event)
        case LogUnblocked():
            room.unblocked(turn)
        case _:
            _phase(turn, event)
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
        case _ if room.pauses(turn):
            found = []
        case Running(run):
            found = running.deadlines(turn, run)
        case Greeting() | Preparing() | Closing():
            found = [] if isinstance(phase, Closing) and phase.stats is not None else [phase.deadline]
        case Waiting():
            found = [phase.until_mono]
            if loop.config["maxTimeMs"] is not None:
                found.append(loop.last_mono + max(0, loop.config["maxTimeMs"] - loop.elapsed_ms))
        case _:
            found = []
    return min(found, default=None)


def _pass_time(t: Turn) -> None:
    """Counts the time under a runner; a pause does not count."""
    loop = t.loop
    spent = 0 if isinstance(loop.phase, Fresh | Paused | Ended) else max(0, t.now.mono - loop.last_mono)
    t.set(last_mono=t.now.mono, elapsed_ms=loop.elapsed_ms + spent)


def _tick(t: Turn) -> None:
    phase, mono = t.loop.phase, t.now.mono
    match phase:
        case _ if room.pauses(t):
            pass
        case Running():
            running.tick(t, phase)
        case Greeting() if mono >= phase.deadline:
            boot.late(t, phase)
        case Preparing() if mono >= phase.deadline:
            flow.preparation_late(t, phase)
        case Closing() if mono >= phase.deadline and phase.stats is None:
            closing.collect(t, phase, None)
        case Waiting() if mono >= phase.until_mono or t.now.wall >= phase.until_wall or flow.limit_reached(t):
            flow.next_iteration(t)
        case _:
            pass


def _phase(t: Turn, event: Input) -> None:
    """Inputs that mean something in one phase; elsewhere they are late and change nothing, but pi's end does."""
    phase = t.loop.phase
    if isinstance(event, PiExited):
        t.set(blocked_since=None)  # nobody is held any more, and nobody tells
    match phase, event:
        case Spawning(), PiSpawned():
            boot.spawned(t, event)
        case Spawning(), SpawnFailed():
            boot.not_spawned(t, event)
        case Greeting(), Reply():
            boot.answered(t, phase, event)
        case Spawning() | Greeting(), PiExited():
            boot.exited(t, event)
        case Preparing(), Reply() | TaskRead() | WorkMeasured():
            flow.prepared(t, phase, event)
        case Preparing(), PiExited():
            flow.preparation_ended(t, event)
        case Running(), _ if not isinstance(event, Report):
            running.event(t, phase, event)
        case Closing(), Reply() | TaskRead() | WorkMeasured():
            closing.collect(t, phase, event)
        case Closing(), PiExited():
            t.set(pi=None)
            closing.collect(t, phase, None)
        case Verifying(), Verified():
            closing.verified(t, phase, event)
        case Ending(verdict), PiExited():
            t.set(pi=None)
            t.finish(verdict)
        case _, PiExited():
            t.set(pi=None)
            t.do(Save())
        case _:
            pass
