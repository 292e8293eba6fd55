"""Between two iterations: may the next begin, and what goes into its prompt. Pure; called by the step.

Order of the reasons, when several hold: end by request, limits, failures, pause, then the next iteration.
"""

from dataclasses import replace

from ralph_rpc.model.iteration import IterationKind
from ralph_rpc.prompt import PromptParts, build, refused
from ralph_rpc.tickets import prompt as ticket_prompt
from ralph_runner.core import boot, failures, mailbox
from ralph_runner.core.duty import Assign, Duty
from ralph_runner.core.effects import BeginIteration, EndPi, Journal, MeasureWork, ReadTask, Save
from ralph_runner.core.inputs import PiExited, Reply
from ralph_runner.core.reports import TaskRead, WorkMeasured
from ralph_runner.core.run import Run
from ralph_runner.core.snapshot import NO_STATS
from ralph_runner.core.state import Loop, Paused, Preparing, Running, Session, Waiting
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

PREPARE_MS = 60_000


def limit_reached(t: Turn) -> Verdict | None:
    """The limit that forbids another iteration, if one does."""
    config, stats = t.loop.config, t.loop.stats
    elsewhere, duty = t.loop.elsewhere, t.loop.duty
    used = stats["tokensIn"] + stats["tokensOut"] + stats["cacheRead"] + stats["cacheWrite"] + elsewhere.tokens
    cost = stats["cost"] + elsewhere.cost
    if config["maxCost"] is not None and cost >= config["maxCost"]:
        return Verdict("stopped", "max-cost", f"${cost:.2f} spent, the limit is ${config['maxCost']:.2f}")
    if config["maxTokens"] is not None and used >= config["maxTokens"]:
        return Verdict("stopped", "max-tokens", f"{used} tokens used, the limit is {config['maxTokens']}")
    if config["maxTimeMs"] is not None and t.loop.elapsed_ms >= config["maxTimeMs"]:
        return Verdict("stopped", "max-time", f"ran for {t.loop.elapsed_ms // 1000} s, the limit is reached")
    done = stats["iterations"] + elsewhere.iterations
    if config["maxIterations"] and done >= config["maxIterations"]:
        return Verdict("stopped", "max-iterations", f"{done} iterations done, the limit is reached")
    if duty is not None and duty.tried + stats["iterations"] >= duty.attempts:
        return Verdict("stopped", "limit", f"not done after {duty.tried + stats['iterations']} attempts")
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
    limit = limit_reached(t)
    if (verdict := requested_end(t)) is not None:
        t.end(verdict)
    elif limit is not None:
        end_by_limit(t, limit)
    elif any(o.verb == "pause" or (o.verb == "abort" and o.then == "pause") for o in t.loop.orders):
        pause(t)
    elif t.loop.pi is None:
        _awake(t)
        boot.spawn(t)
    else:
        _awake(t)
        prepare(t, session)


def end_by_limit(t: Turn, limit: Verdict) -> None:
    """A worker whose attempts are used up hands its ticket back; every other limit is the loop's."""
    if limit.stop_reason == "limit":
        t.conclude(limit)
    else:
        t.end(limit)


def assign(t: Turn, event: Assign) -> None:
    """A worker takes up a ticket, or takes it up again, in a fresh session."""
    t.set(
        duty=event.duty, config=event.config, stats=NO_STATS, consecutive_failures=0, unchanged=0, measure=None,
        refusal=event.refusal, mail=(*t.loop.mail, *event.mail), task_seen=None,
    )  # fmt: skip
    next_iteration(t)


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
        t.conclude(Verdict("error", "crash", f"pi ended {len(before) + 1} times within 10 minutes; last: {why}"))
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
        phase = replace(phase, task=event.task, reflection=event.reflection, ticket=event.ticket)
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
    number = max(loop.iteration, loop.highest) + 1
    kind = _kind(loop)
    messages = mailbox.for_prompt(loop.mail)
    t.do(BeginIteration(number, kind, None if loop.duty is None else loop.duty.ticket))
    for message in messages:
        t.do(Journal(message.id, message.verb, "sent", number))
    t.set(
        iteration=number,
        task_seen=phase.task if loop.task_seen is None else loop.task_seen,
        mail=mailbox.move(loop.mail, frozenset(m.id for m in messages), "prompt"),
        pi=replace(loop.pi, used=True),
    )
    operator = [m.text for m in messages]
    text = _task_prompt(t, phase, operator) if loop.duty is None else _ticket_prompt(t, phase, loop.duty, operator)
    request = t.send("prompt", message=text)
    mono = t.now.mono
    t.go(Running(Run(number, kind, mono, t.now.wall, last_sign=mono, prompt_id=request)))
    t.do(Save())


def _kind(loop: Loop) -> IterationKind:
    if loop.duty is not None:
        return loop.duty.kind
    every = loop.config["reflectEvery"]
    return "reflect" if every and (loop.stats["iterations"] + 1) % every == 0 else "work"


def _task_prompt(t: Turn, phase: Preparing, operator: list[str]) -> str:
    loop = t.loop
    assert phase.task is not None
    return build(
        PromptParts(
            iteration=loop.iteration,
            task=phase.task,
            task_path=loop.task_path,
            marker=loop.config["marker"],
            verify=loop.config["verify"],
            operator=operator,
            refusal=None if loop.refusal is None else refused(loop.refusal),
            reflection=phase.reflection if _kind(loop) == "reflect" else None,
        )
    )


def _ticket_prompt(t: Turn, phase: Preparing, duty: Duty, operator: list[str]) -> str:
    loop, read = t.loop, phase.ticket
    assert phase.task is not None and read is not None
    return ticket_prompt.build(
        ticket_prompt.TicketPrompt(
            iteration=loop.iteration,
            attempt=duty.tried + loop.stats["iterations"] + 1,
            attempts=duty.attempts,
            id=duty.ticket,
            title=duty.title,
            text=phase.task,
            path=read.path,
            marker=loop.config["marker"],
            verify=loop.config["verify"],
            nonce=f"{int(t.now.rand * (1 << 52)):013x}",
            worktree=duty.branch is not None,
            branch=duty.branch,
            into=loop.config.get("into"),
            lessons=read.lessons,
            operator=operator,
            refusal=loop.refusal if duty.kind == "work" else None,
            conflict=loop.refusal if duty.kind == "conflict" else None,
            template=loop.config.get("promptTemplate"),
        )
    )


def _awake(t: Turn) -> None:
    if t.loop.status in ("waiting", "paused"):
        t.status("running")
