"""pi elsewhere: the wait until a launcher has started something, and what the end of a launcher means. Pure; called by
the step, `boot`, `flow` and `closing`.

Until the far guard speaks, nothing over there runs, and no deadline but --queue-timeout holds. A far side that is lost is
no failure of pi's: the loop waits with growing gaps, as for a provider. What a person must fix ends it at once.
"""

import re
from dataclasses import replace

from ralph_runner.core import exits, policy
from ralph_runner.core.inputs import FarSaid, PiExited
from ralph_runner.core.phases import Queued
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

SHOWN_MS = 2_000
"""A launcher that has started nothing by then is shown as a wait; most are faster."""
WORD_CHARS = 200
ANOTHER_HOST_MS = 500
_PASSING = re.compile(
    r"connection (?:refused|timed out|reset|closed)|timed? ?out|no route to host|unreachable|broken pipe"
    r"|(?:unable to|cannot) (?:contact|connect)|temporar|try again|name or service|could not resolve|not responding"
    r"|closed by|kex_exchange|connection lost|node fail|server misbehaving|too many requests|i/o timeout",
    re.IGNORECASE,
)
"""What a launcher says of a network or a machine that may be back in a while."""
_PYTHON = re.compile(
    r"python3?\b.{0,80}(?:not found|no such file)|(?:not found|no such file).{0,80}python3?\b", re.IGNORECASE
)


def wait(t: Turn) -> None:
    """The launcher is there; now the far side has to speak."""
    limit = t.loop.config.get("queueTimeoutMs", 0)
    t.go(Queued(t.now.mono + SHOWN_MS, t.now.mono + limit if limit else None, t.loop.status))


def said(t: Turn, phase: Queued, event: FarSaid) -> None:
    """The launcher's last word, such as why a job is queued."""
    phase = replace(phase, word=event.text[:WORD_CHARS])
    t.go(phase)
    if t.loop.waiting_for == "queued":
        _show(t, phase)


def tick(t: Turn, phase: Queued) -> None:
    """It takes long: shown, or given up."""
    if phase.give_up is not None and t.now.mono >= phase.give_up:
        last = f"; its last word: {phase.word}" if phase.word else ""
        seconds = t.loop.config.get("queueTimeoutMs", 0) // 1000
        why = f"{_launcher(t)} has started nothing within --queue-timeout ({seconds} s){last}"
        t.end(Verdict("error", "blocked", why), graceful=False)
    elif t.loop.waiting_for != "queued":
        _show(t, phase)


def deadline(phase: Queued, shown: bool) -> int | None:
    """When `tick` is due; `shown`: the loop is shown as waiting already."""
    return phase.give_up if shown else phase.show


def exited(t: Turn, event: PiExited) -> bool:
    """Deals with the end of a launcher before pi was of use; False: it was pi's own end, as anywhere."""
    if not event.far:
        return False
    where = place(t)
    t.set(pi=None)
    asked = policy.requested_end(t)
    if asked is not None:
        t.end(asked)
    elif event.far in ("lost", "outside"):
        policy.lost(t, told(t, event, where))
    elif event.far == "elsewhere":
        policy.wait(t, ANOTHER_HOST_MS, told(t, event, where), "lost")
    else:
        _not_begun(t, event, told(t, event, where))
    return True


def _not_begun(t: Turn, event: PiExited, why: str) -> None:
    """Nothing has run. Where it has worked before, it may again; else somebody has to fix it, and is told at once."""
    worked = t.loop.ever_answered or t.loop.iteration > 0 or (t.loop.far_ran and event.far == "never")
    if event.far == "never" and worked and _PASSING.search(event.stderr_tail):
        policy.lost(t, why)
    elif worked:
        policy.restart(t, why)
    else:
        t.end(Verdict("error", "crash", why))


def told(t: Turn, event: PiExited, where: str) -> str:
    """One line for a person: where, what, and the next step. `where` is from before pi was forgotten."""
    how = exits.exit_text(event)
    match event.far:
        case "never":
            hint = "; python3 is needed there" if _PYTHON.search(event.stderr_tail) else ""
            return f"{_launcher(t)} started nothing ({how}){hint}"
        case "elsewhere":
            return f"{event.stderr_tail}; going on with another host"
        case "unusable":
            return f"pi cannot be started on {where}: {event.stderr_tail}; install it there, or say which one with --pi"
        case "outside":
            return f"pi was ended on {where} by somebody there: a time limit, a preemption, a shutdown ({how})"
        case _:
            return f"{where} was lost: the connection ended without a last word ({how})"


def place(t: Turn) -> str:
    """Where pi runs, for people."""
    pi = t.loop.pi
    host = pi.place.host if pi is not None and pi.place is not None else ""
    return f"{host} ({_launcher(t)})" if host else _launcher(t)


def _launcher(t: Turn) -> str:
    """Its name for people."""
    text = t.loop.config.get("launcher") or ""
    # Of ssh's words the last one is the machine.
    return f"ssh:{text.split()[-1].removeprefix('ssh:')}" if text.startswith("ssh:") else text.split(" ")[0].rstrip(":")


def _show(t: Turn, phase: Queued) -> None:
    word = f": {phase.word}" if phase.word else f", by {_launcher(t)}"
    t.status("waiting", f"queued{word}", waiting_for="queued")
