"""Starting pi and learning what it can. Pure; called by the step.

pi sends no greeting: the answer to `get_state` is its first sign of life. Features are found by asking, never by
version: pi that knows `clear_queue` also sends `agent_settled`.
"""

from ralph_runner.core import flow
from ralph_runner.core.effects import Emit, EndPi, StartPi
from ralph_runner.core.inputs import PiExited, Reply
from ralph_runner.core.reports import PiSpawned, SpawnFailed
from ralph_runner.core.state import Greeting, PiFacts, Spawning
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

FIRST_ANSWER_MS = 60_000
"""The oldest generation took 5 s on a loaded machine; one that has not answered by now hangs."""
PROBE_MS = 15_000


def spawn(t: Turn) -> None:
    """Asks for a pi."""
    t.go(Spawning())
    t.do(StartPi())


def spawned(t: Turn, report: PiSpawned) -> None:
    t.set(pi=PiFacts(report.pid, report.version, argv=report.argv))
    asked = flow.requested_end(t)
    if asked is not None:
        t.end(asked, graceful=False)
        return
    t.send("get_state")
    t.go(Greeting(t.now.mono + FIRST_ANSWER_MS, "get_state"))


def not_spawned(t: Turn, report: SpawnFailed) -> None:
    """By itself that is a wrong set-up, unless a pi has worked under this runner (and is being updated just now, say),
    or the machine has run out of something: then as after a crash."""
    asked = flow.requested_end(t)
    if asked is not None:
        t.end(asked)
    elif report.passing or t.loop.ever_answered:
        flow.restart(t, report.message)
    else:
        t.end(Verdict("error", "crash", report.message))


def answered(t: Turn, phase: Greeting, reply: Reply) -> None:
    """The answers to get_state, then to the probe for clear_queue."""
    if t.loop.pi is None or reply.request != phase.asked:
        return
    if phase.asked == "get_state":
        _first_answer(t, reply)
        return
    pi = t.loop.pi
    t.set(pi=PiFacts(pi.pid, pi.version, True, clear_queue=reply.success, settles=reply.success, argv=pi.argv))
    flow.next_iteration(t)


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
                f"pi cannot work: {why}. Log in with `pi`, set a provider's API key, or choose one with "
                "--provider and --model",
            )
        )
        return
    assert pi is not None
    t.set(model=name, provider=provider if isinstance(provider, str) else None)
    t.do(
        Emit(
            {
                "type": "ralph_pi_start",
                "at": t.now.wall,
                "pid": pi.pid,
                "version": pi.version,
                "argv": list(pi.argv),
            }
        )
    )
    t.send("clear_queue")
    t.go(Greeting(t.now.mono + PROBE_MS, "clear_queue"))


def late(t: Turn, phase: Greeting) -> None:
    """No answer within the deadline: the tree is ended, `exited` decides."""
    t.notice("warning", f"pi has not answered {phase.asked}; ending it")
    t.go(Greeting(t.now.mono + 10 * FIRST_ANSWER_MS, phase.asked))
    t.do(EndPi(graceful=False))


def exited(t: Turn, event: PiExited) -> None:
    """pi ended before it could be used. By itself that is a wrong set-up, unless it has worked under this runner:
    trying again would not help. Who was killed gets another chance."""
    t.set(pi=None)
    asked = flow.requested_end(t)
    why = f"pi ended before its first answer ({exit_text(event)})"
    # What we end ourselves because it hangs does not end `natural`; without a code it was the guard that died.
    killed = event.code is None or (event.code < 0 and event.method == "natural")
    if asked is not None:
        t.end(asked)
    elif killed or t.loop.ever_answered:
        flow.restart(t, why)
    else:
        t.end(Verdict("error", "crash", why))


def exit_text(event: PiExited) -> str:
    """How pi ended and the most telling line of its stderr, as one line."""
    code = event.code
    how = "killed" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
    lines = [line.strip() for line in event.stderr_tail.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    return f"{how}: {told[:300]}" if told else how
