"""Between two iterations: may the next begin, and what goes into its prompt. Pure; called by the step.

Order of the reasons, when several hold: end by request, limits, failures, pause, then the next iteration.
"""

from dataclasses import replace

from ralph_rpc.model.iteration import IterationKind
from ralph_rpc.prompt import PromptParts, build, refused
from ralph_runner.core import boot, failures, mailbox
from ralph_runner.core.effects import BeginIteration, EndPi, Journal, MeasureWork, ReadTask, Save
from ralph_runner.core.inputs import PiExited, Reply
from ralph_runner.core.reports import TaskRead, WorkMeasured
from ralph_runner.core.run import Run
from ralph_runner.core.state import Paused, Preparing, Running, Session, Verdict, Waiting
from ralph_runner.core.turn import Turn

PREPARE_MS = 60_000


def limit_reached(t: Turn) -> Verdict | None:
    """The limit that forbids another iteration, if one does."""
    config, stats = t.loop.config, t.loop.stats
    used = stats["tokensIn"] + stats["tokensOut"] + stats["cacheRead"] + stats["cacheWrite"]
    if config["maxCost"] is not None and stats["cost"] >= config["maxCost"]:
        return Verdict("stopped", "max-cost", f"${stats['cost']:.2f} spent, the limit is ${config['maxCost']:.2f}")
    if config["maxTokens"] is not None and used >= config["maxTokens"]:
        return Verdict("stopped", "max-tokens", f"{used} tokens used, the limit is {config['maxTokens']}")
    if config["maxTimeMs"] is not None and t.loop.elapsed_ms >= config["maxTimeMs"]:
        return Verdict("stopped", "max-time", f"ran for {t.loop.elapsed_ms // 1000} s, the limit is reached")
    if config["maxIterations"] and stats["iterations"] >= config["maxIterations"]:
        return Verdict("stopped", "max-iterations", f"{stats['iterations']} iterations done, the limit is reached")
    return None


def requested_end(t: Turn) -> Verdict | None:
    """The end that somebody asked for, if somebody did."""
    if t.loop.broken is not None:
        return Verdict("error", "blocked", t.loop.broken)
    if t.loop.terminate:
        return Verdict("stopped", "kill", "the runner was told to end (SIGTERM)")
    if any(o.verb == "stop" or (o.verb == "abort" and o.then == "stop") for o in t.loop.orders):
        return Verdict("stopped", "stop")
    return None


def next_iteration(t: Turn, session: Session | None = None) -> None:
    """Begins the next iteration, in a session that was asked for already if there is one, or does what comes instead."""
    verdict = requested_end(t) or limit_reached(t)
    if verdict is not None:
        t.end(verdict)
    elif any(o.verb == "pause" or (o.verb == "abort" and o.then == "pause") for o in t.loop.orders):
        pause(t)
    elif t.loop.pi is None:
        _awake(t)
        boot.spawn(t)
    else:
        _awake(t)
        prepare(t, session)


def pause(t: Turn) -> None:
    """Holds until resume; pi stays, idle. Orders to pause are carried out with this."""
    for order in t.loop.orders:
        t.receipt(order, "delivered")
    t.set(orders=(), measure=None)
    t.status("paused")
    t.go(Paused())


def wait(t: Turn, delay_ms: int, reason: str, until_wall: int | None = None) -> None:
    """Holds until a time, shown to people as `nextWakeAt`."""
    wall = t.now.wall + delay_ms if until_wall is None else until_wall
    t.set(measure=None)
    t.status("waiting", reason, next_wake=wall)
    t.go(Waiting(t.now.mono + max(0, wall - t.now.wall), wall))


def restart(t: Turn, why: str) -> None:
    """pi is gone: another one after a pause that grows, unless it went too often."""
    before = failures.recent(t.loop.restarts, t.now.mono)
    t.set(restarts=(*before, t.now.mono))
    if len(before) >= failures.RESTART_BUDGET:
        t.end(Verdict("error", "crash", f"pi ended {len(before) + 1} times within 10 minutes; last: {why}"))
    else:
        wait(t, failures.restart_delay(len(before) + 1, t.now.rand), f"{why}; starting pi again")


def prepare(t: Turn, session: Session | None = None) -> None:
    """A fresh session, the task as it is now, and where it isn't known the state of the project."""
    t.do(ReadTask())
    known = t.loop.measure is not None
    if not known:
        t.do(MeasureWork(None))
    session = session or Session(t.send("new_session"))
    phase = Preparing(t.now.mono + PREPARE_MS, session.request, session=False, measured=known)
    t.go(phase)
    if session.reply is not None:
        prepared(t, phase, session.reply)


def prepared(t: Turn, phase: Preparing, event: Reply | TaskRead | WorkMeasured) -> None:
    """One of the three is there; with the last of them the prompt goes out."""
    if isinstance(event, WorkMeasured):
        t.set(measure=event.measure)
        phase = replace(phase, measured=True)
    elif isinstance(event, TaskRead):
        if event.task is None:
            t.end(Verdict("error", "blocked", event.error))
            return
        phase = replace(phase, task=event.task, reflection=event.reflection)
    elif event.id == phase.asked:
        if not event.success or (event.data.get("cancelled") is True and t.loop.pi is not None and t.loop.pi.used):
            # An extension's veto would merge two iterations into one context: a new process has an empty one.
            t.notice("warning", f"pi gave no new session ({event.error or 'an extension refused'}); starting it anew")
            t.do(EndPi(graceful=True))
        else:
            phase = replace(phase, session=True)
    t.go(phase)
    if phase.ready:
        _prompt(t, phase)


def preparation_late(t: Turn, phase: Preparing) -> None:
    t.notice("warning", "pi did not open a session; ending it")
    t.go(replace(phase, deadline=t.now.mono + 10 * PREPARE_MS))
    t.do(EndPi(graceful=False))


def preparation_ended(t: Turn, event: PiExited) -> None:
    t.set(pi=None)
    restart(t, f"pi ended between two iterations ({boot.exit_text(event)})")


def _prompt(t: Turn, phase: Preparing) -> None:
    loop = t.loop
    assert phase.task is not None and loop.pi is not None
    number = loop.iteration + 1
    every = loop.config["reflectEvery"]
    kind: IterationKind = "reflect" if every and (loop.stats["iterations"] + 1) % every == 0 else "work"
    messages = mailbox.for_prompt(loop.mail)
    t.do(BeginIteration(number, kind))
    for message in messages:
        t.do(Journal(message.id, message.verb, "sent", number))
    t.set(
        iteration=number,
        task_seen=phase.task if loop.task_seen is None else loop.task_seen,
        mail=mailbox.move(loop.mail, frozenset(m.id for m in messages), "prompt"),
        pi=replace(loop.pi, used=True),
    )
    text = build(
        PromptParts(
            iteration=number,
            task=phase.task,
            task_path=loop.task_path,
            marker=loop.config["marker"],
            verify=loop.config["verify"],
            operator=[m.text for m in messages],
            refusal=None if loop.refusal is None else refused(loop.refusal),
            reflection=phase.reflection if kind == "reflect" else None,
        )
    )
    request = t.send("prompt", message=text)
    mono = t.now.mono
    t.go(Running(Run(number, kind, mono, t.now.wall, last_sign=mono, prompt_id=request)))
    t.do(Save())


def _awake(t: Turn) -> None:
    if t.loop.status in ("waiting", "paused"):
        t.status("running")
