"""Starting pi and learning what it can. Pure; called by the step.

pi sends no greeting: the answer to `get_state` is its first sign of life. Features are found by asking, never by
version: pi that knows `clear_queue` also sends `agent_settled`.
"""

from dataclasses import replace

from ralph_rpc.model import pi as pi_lines
from ralph_rpc.model.events import PiStart
from ralph_runner.core import budget, exits, far, models, policy
from ralph_runner.core.effects import Emit, EndPi, StartPi
from ralph_runner.core.failures import Failure
from ralph_runner.core.inputs import FarRuns, PiExited, Reply
from ralph_runner.core.phases import Between, Greeting, Queued, Spawning
from ralph_runner.core.results import PiSpawned, SpawnFailed
from ralph_runner.core.state import PiFacts
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

FIRST_ANSWER_MS = 60_000
"""The oldest generation took 5 s on a loaded machine; one that has not answered by now hangs."""
PROBE_MS = 15_000


def spawn(t: Turn, model: int) -> None:
    """Asks for a pi with the model of this index."""
    t.go(Spawning(model))
    t.do(StartPi(models.names(t.loop.config)[model]))


def spawned(t: Turn, phase: Spawning, result: PiSpawned) -> None:
    """The process is there. An end that was asked for meanwhile is also its end."""
    t.set(pi=PiFacts(result.pid, result.version, argv=result.argv, model=phase.model))
    asked = policy.requested_end(t)
    if asked is not None:
        t.end(asked, graceful=False)
        return
    if t.loop.config.get("launcher") is not None:
        far.wait(t)
        return
    t.send("get_state")
    t.go(Greeting(t.now.mono + FIRST_ANSWER_MS, "get_state"))


def reached(t: Turn, phase: Queued, event: FarRuns) -> None:
    """The far guard has spoken: pi's own deadlines begin."""
    assert t.loop.pi is not None
    t.set(pi=replace(t.loop.pi, place=event), far_ran=True)
    if t.loop.waiting_for == "queued":
        t.status(phase.before)
    t.send("get_state")
    t.go(Greeting(t.now.mono + FIRST_ANSWER_MS, "get_state"))


def not_spawned(t: Turn, result: SpawnFailed) -> None:
    """A wrong set-up, unless a pi has worked under this runner (and is being updated just now, say), or the machine has
    run out of something: then as after a crash."""
    asked = policy.requested_end(t)
    if asked is not None:
        t.end(asked)
    elif result.fence_ms:
        policy.wait(t, result.fence_ms, result.message, "lost")
    elif result.own:
        t.end(Verdict("error", "blocked", result.message))
    elif result.passing or t.loop.ever_answered:
        policy.restart(t, result.message)
    else:
        t.end(Verdict("error", "crash", result.message))


def answered(t: Turn, phase: Greeting, reply: Reply) -> None:
    """The answers to get_state, then to the probe for clear_queue."""
    if t.loop.pi is None or reply.request != phase.asked:
        return
    if phase.asked == "get_state":
        _first_answer(t, reply)
        return
    pi = t.loop.pi
    t.set(pi=replace(pi, clear_queue=reply.success, settles=reply.success))
    t.go(Between())


def _first_answer(t: Turn, reply: Reply) -> None:
    pi = t.loop.pi
    model = reply.data.get("model")
    name, provider = (model.get("id"), model.get("provider")) if isinstance(model, dict) else (None, None)
    if not reply.success or not isinstance(name, str) or name == "unknown" or provider == "unknown":
        why = reply.error or "it has no model"
        t.end(
            Verdict(
                "error",
                "auth",
                f"pi cannot work: {why}. Log in with `ralph-rpc pi`, set a provider's API key, or choose one with "
                "--provider and --model",
            )
        )
        return
    assert pi is not None
    t.set(model=name, provider=provider if isinstance(provider, str) else None)
    priced = pi_lines.has_prices(reply.data)
    t.set(pi=replace(pi, has_prices=priced))
    if priced is False and budget.cap_is_blind(t.loop.config):
        _no_prices(t, pi.model, f"{provider}/{name}")
        return
    started: PiStart = {
        "type": "ralph_pi_start",
        "at": t.now.wall,
        "pid": pi.pid,
        "version": pi.version,
        "argv": list(pi.argv),
    }
    if (launcher := t.loop.config.get("launcher")) is not None and pi.place is not None:
        started["launcher"], started["host"] = launcher, pi.place.host
    t.do(Emit(started))
    t.send("clear_queue")
    t.go(Greeting(t.now.mono + PROBE_MS, "clear_queue"))


def _no_prices(t: Turn, index: int, model: str) -> None:
    """--max-cost cannot see what this model costs: no prompt is sent to it."""
    why = budget.no_prices(model)
    if index == 0:
        t.end(Verdict("error", "max-cost", why))
        return
    t.notice("error", f"fallback model {models.names(t.loop.config)[index]} is left out: {why}")
    t.set(outages=models.unusable(t.loop.config, t.loop.outages, index, Failure("refused", why), t.now))
    t.go(Between())


def late(t: Turn, phase: Greeting) -> None:
    """No answer within the deadline: the tree is ended, `exited` decides."""
    t.notice("warning", f"pi has not answered {phase.asked}; ending it")
    t.go(Greeting(t.now.mono + 10 * FIRST_ANSWER_MS, phase.asked))
    t.do(EndPi(graceful=False))


def exited(t: Turn, event: PiExited) -> None:
    """pi ended before it could be used. That is a wrong set-up, which trying again would not help, unless a pi has worked
    under this runner. One that was killed gets another chance."""
    if far.exited(t, event):
        return
    t.set(pi=None)
    asked = policy.requested_end(t)
    why = f"pi ended before its first answer ({exits.exit_text(event)})"
    # What we end ourselves because it hangs does not end `natural`; without a code it was the guard that died.
    killed = event.code is None or (event.code < 0 and event.method == "natural")
    if asked is not None:
        t.end(asked)
    elif killed or t.loop.ever_answered:
        policy.restart(t, why)
    else:
        t.end(Verdict("error", "crash", why))
