"""From one iteration to the next: may it begin, and what goes into its prompt. Pure; called by the step.

Order of the reasons, when several hold: an end that was asked for, limits, a pause, then the next iteration.
"""

from dataclasses import replace

from ralph_rpc.model.iteration import IterationKind
from ralph_rpc.model.usage import NO_STATS
from ralph_rpc.prompts import ticket as ticket_prompt
from ralph_rpc.prompts.task import PromptParts, build, refused
from ralph_runner.core import boot, exits, far, mailbox, models, policy
from ralph_runner.core.duty import Assign, Duty
from ralph_runner.core.effects import BeginIteration, EndPi, Journal, MeasureWork, ReadTask, Save
from ralph_runner.core.inputs import PiExited, Reply
from ralph_runner.core.phases import Preparing, Running, Session, Switching
from ralph_runner.core.results import TaskRead, WorkMeasured
from ralph_runner.core.run import Run
from ralph_runner.core.state import Loop
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

PREPARE_MS = 60_000


def next_iteration(t: Turn, session: Session | None = None) -> None:
    """Begins the next iteration, or does what comes instead; `session` was asked for ahead."""
    if (verdict := policy.requested_end(t)) is not None:
        t.end(verdict)
    elif policy.end_by_limit(t):
        pass
    elif any(policy.asks_for_pause(order) for order in t.loop.orders):
        policy.pause(t)
    else:
        _with_a_model(t, session)


def _with_a_model(t: Turn, session: Session | None) -> None:
    """Begins the next iteration with the first model that may be asked, or waits for one."""
    loop, worker = t.loop, policy.worker_of(t)
    choice = models.choose(loop.config, loop.outages, t.now, worker)
    if isinstance(choice, models.Wait):
        policy.wait_for_model(t, choice)
        return
    t.set(outages=models.asking(loop.config, loop.outages, choice.index, t.now, worker))
    _awake(t)
    if loop.pi is None:
        boot.spawn(t, choice.index)
    elif loop.pi.model != choice.index:
        name = models.names(loop.config)[choice.index]
        t.notice("info", f"continuing with {'its own model' if name is None else f'fallback model {name}'}")
        _replace_pi(t)
    elif policy.is_too_large(loop):
        t.notice("info", f"pi uses {loop.pi.memory >> 20} MiB of memory; replacing it by a fresh one (--pi-memory)")
        _replace_pi(t)
    else:
        prepare(t, session)


def _replace_pi(t: Turn) -> None:
    """Ends pi; the next iteration begins with another one. No failure, so it costs nothing of the restart budget."""
    t.go(Switching())
    t.do(EndPi(graceful=True))


def assign(t: Turn, event: Assign) -> None:
    """A worker takes up a ticket, or takes it up again, in a fresh session."""
    t.set(
        duty=event.duty,
        config=event.config,
        stats=NO_STATS,
        consecutive_failures=0,
        unchanged=0,
        measure=None,
        refusal=event.refusal,
        news=event.news,
        mail=(*t.loop.mail, *event.mail),
        task_seen=None,
    )
    next_iteration(t)


def prepare(t: Turn, session: Session | None = None) -> None:
    """A fresh session, the task as it is now, and where it isn't known the state of the project."""
    t.do(ReadTask())
    known = t.loop.measure is not None
    if not known:
        t.do(MeasureWork(None))
    session = session or Session(t.new_session())
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
    """pi did not answer in time: it is ended, and `preparation_ended` starts another."""
    t.notice("warning", "pi did not open a session; ending it")
    t.go(replace(phase, deadline=t.now.mono + 10 * PREPARE_MS))
    t.do(EndPi(graceful=False))


def preparation_ended(t: Turn, event: PiExited) -> None:
    """pi is gone before the prompt was out."""
    if far.exited(t, event):
        return
    t.set(pi=None)
    policy.restart(t, f"pi ended between two iterations ({exits.exit_text(event)})")


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
        pi=replace(loop.pi, used=True, open=True),
    )
    operator = [m.text for m in messages]
    text = _task_prompt(t, phase, operator) if loop.duty is None else _ticket_prompt(t, phase, loop.duty, operator)
    request = t.send("prompt", message=text)
    mono = t.now.mono
    host = loop.pi.place.host if loop.pi.place is not None else ""
    t.go(Running(Run(number, kind, mono, t.now.wall, last_sign=mono, prompt_id=request, host=host)))
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
            news=loop.news,
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
            news=loop.news,
            refusal=loop.refusal if duty.kind == "work" else None,
            conflict=loop.refusal if duty.kind == "conflict" else None,
            template=loop.config.get("promptTemplate"),
        )
    )


def _awake(t: Turn) -> None:
    if t.loop.status in ("waiting", "paused"):
        t.status("running")
