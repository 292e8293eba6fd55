"""The workers of a ticket loop: each a `Loop` with a duty, stepped here with what concerns it.

What a worker says as if it were a loop of its own (its status, its end, the receipts of control commands) stays
here; everything else is passed on, marked with its ticket. What it says of its ticket is left as news for `jobs.hear`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, cast

from ralph_rpc.model.commands import CONTROL
from ralph_rpc.model.config import Config
from ralph_rpc.model.events import RunnerEvent
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import RunFigures, Stats
from ralph_rpc.model.usage import NO_STATS, Spent, add, limits_reached, spent
from ralph_runner.core import budget
from ralph_runner.core import effects as fx
from ralph_runner.core import step as one
from ralph_runner.core.duty import Assign, Dismiss, Duty
from ralph_runner.core.inputs import FarRuns, PiExited, PiInput
from ralph_runner.core.mailbox import Mail
from ralph_runner.core.models import Outages
from ralph_runner.core.phases import Ended, Idle, Verifying, Waiting
from ralph_runner.core.results import Begin, CommandCame, PiSpawned, ShellResult, Tick
from ralph_runner.core.run import Run
from ralph_runner.core.snapshot import new_loop, running_run
from ralph_runner.core.state import Loop
from ralph_runner.core.tickets import receipts, state, verifies
from ralph_runner.core.tickets.effects import Hire, Reassign, Release, To
from ralph_runner.core.tickets.state import SHARED
from ralph_runner.core.tickets.turn import HandedBack, Left, TicketTurn
from ralph_runner.core.verdict import Verdict

_OF_A_LOOP = frozenset({"ralph_status", "ralph_loop_end"})


def key_of(t: TicketTurn, ticket: str) -> str:
    """The key of the worker that has the ticket, or will have it."""
    return state.key_of(t.loop, ticket)


def give(t: TicketTurn, ticket: str) -> None:
    """Hands a ticket, or what its last attempt lacked, to its worker; hires one where there is none."""
    job, key, loop = t.loop.jobs[ticket], key_of(t, ticket), t.loop
    kind: Literal["work", "conflict"] = "conflict" if job.conflict else "work"
    branch = job.record["branch"] if loop.options.worktrees else None
    duty = Duty(ticket, job.record["title"], job.attempts, job.tried, kind, branch)
    mail = mail_for(t, ticket)
    config: Config = {**loop.config, "stallAfter": 0, "reflectEvery": 0}
    left = {other: text for other, text in loop.news.items() if other != ticket}
    worker = loop.workers.get(key)
    if worker is not None:
        t.set(news=left)
        if key == SHARED:
            t.do(Reassign(key, ticket))
        drive(t, key, Assign(duty, config, mail, job.refusal, loop.news.get(ticket)))
        return
    worker = replace(
        new_loop(config, ""),
        duty=duty,
        mail=mail,
        refusal=job.refusal,
        news=loop.news.get(ticket),
        last_mono=t.now.mono,
    )
    t.set(workers={**loop.workers, key: worker}, news=left)
    t.do(Hire(key, ticket))
    drive(t, key, Begin())


def dismiss(t: TicketTurn, key: str) -> None:
    """The worker's pi is to end, if there is such a worker."""
    if key in t.loop.workers:
        drive(t, key, Dismiss())


def drive(t: TicketTurn, key: str, event: PiInput | ShellResult) -> None:
    """One step of a worker, and what follows from it."""
    worker = t.loop.workers.get(key)
    if worker is None:
        return
    if isinstance(event, PiSpawned | FarRuns | PiExited):
        _note_pi(t, worker, event)
    worker = replace(
        worker,
        highest=t.loop.iteration,
        # With a new duty the worker counts from zero: what it spent on the last one is the others' by then.
        elsewhere=_elsewhere(t, key, NO_STATS if isinstance(event, Assign) else worker.stats),
        elapsed_ms=t.loop.elapsed_ms,
        outages=t.loop.outages,
        # What one of them has learned of the model, all know.
        ever_answered=t.loop.ever_answered,
        price_warned=t.loop.price_warned,
        last_mono=t.now.mono,
    )
    worker, effects = one.step(worker, event, t.now)
    t.set(
        workers={**t.loop.workers, key: worker},
        ever_answered=t.loop.ever_answered or worker.ever_answered,
        price_warned=t.loop.price_warned or worker.price_warned,
        model=worker.model or t.loop.model,
        provider=worker.provider or t.loop.provider,
        stale=t.loop.stale or worker.outages != t.loop.outages,
        outages=worker.outages,
    )
    for effect in effects:
        _pass_on(t, key, worker, effect)
    if isinstance(worker.phase, Ended):
        _left(t, key, worker)


def stop_now(t: TicketTurn, key: str) -> None:
    """The worker's iteration is aborted, and it leaves."""
    drive(t, key, CommandCame("end now", "stop", {"when": "now"}, known=True))


def tick(t: TicketTurn) -> None:
    """Lets every worker act that has something due."""
    for key in list(t.loop.workers):
        due = one.next_deadline(t.loop.workers[key])
        if due is not None and due <= t.now.mono:
            drive(t, key, Tick())


def runs_of(workers: Iterable[Loop]) -> Iterator[Run]:
    """The iterations that are under way."""
    return (run for worker in workers if (run := running_run(worker)) is not None)


def wake(t: TicketTurn, before: Outages) -> None:
    """What one worker has heard of a model concerns all that wait for one."""
    if t.loop.outages != before:
        for key, worker in list(t.loop.workers.items()):
            if isinstance(worker.phase, Waiting) and worker.phase.for_model:
                drive(t, key, Tick())


def is_idle(worker: Loop) -> bool:
    """True if it has no ticket in hand."""
    return isinstance(worker.phase, Idle)


def _elsewhere(t: TicketTurn, key: str, own: Stats) -> Spent:
    """All that was used except what the worker itself counts: its own stats and its run."""
    others = budget.with_runs(t.loop.stats, runs_of(w for other, w in t.loop.workers.items() if other != key))
    return spent(others).minus(spent(own)).plus(Spent(iterations=under_way(t, key)))


def under_way(t: TicketTurn, but: str | None = None) -> int:
    """How many workers have a ticket in hand, and with it an iteration that is to count."""
    return sum(not is_idle(worker) for key, worker in t.loop.workers.items() if key != but)


def mail_for(t: TicketTurn, ticket: str) -> Mail:
    """The messages that go with the ticket: those sent to it, and those sent to none."""
    mail = tuple(m for m in t.loop.mail if t.loop.addressed.get(m.id, ticket) == ticket)
    t.set(mail=tuple(m for m in t.loop.mail if m not in mail))
    return mail


def _note_pi(t: TicketTurn, worker: Loop, event: PiSpawned | FarRuns | PiExited) -> None:
    """Which pi works on the ticket, for the record."""
    if worker.duty is None or worker.duty.ticket not in t.loop.jobs:
        return
    record = t.loop.jobs[worker.duty.ticket].record
    if isinstance(event, PiSpawned):
        t.put(worker.duty.ticket, record={**record, "pid": event.pid, "pidStartTime": event.start})
    elif isinstance(event, FarRuns):
        t.put(worker.duty.ticket, record={**record, "host": event.host})
    else:
        t.put(worker.duty.ticket, record={**record, "returnCode": event.code, "terminationMethod": event.method})


def _pass_on(t: TicketTurn, key: str, worker: Loop, effect: fx.Effect) -> None:
    ticket = worker.duty.ticket if worker.duty is not None else ""
    match effect:
        case fx.Save():
            t.do(effect)
        case fx.Journal(id=id, command=verb):
            if verb not in CONTROL:
                t.do(effect)
            elif effect.state in ("delivered", "expired"):
                receipts.had_effect(t, id, key)
        case fx.Emit(event):
            if event["type"] in _OF_A_LOOP or (event["type"] == "ralph_command" and event["command"] in CONTROL):
                return
            t.do(fx.Emit(cast(RunnerEvent, {**event, "ticket": ticket})))
        case fx.BeginIteration(number):
            t.set(iteration=number)
            t.do(To(key, effect))
            _begins(t, ticket, worker, number)
        case fx.EndIteration(record):
            t.do(To(key, effect))
            count(t, record)
            _attempted(t, ticket, worker, record)
        case fx.AmendRecord(record, added):
            t.do(To(key, effect))
            _charged_late(t, record.get("ticket", ""), added)
        case fx.RunVerify(command):
            if isinstance(worker.phase, Verifying) and effect.command is not None:
                t.record(ticket, "verifying")
            if command is None:  # nothing is run
                t.do(To(key, effect))
            else:
                verifies.ask(t, key, To(key, effect))
        case fx.CancelVerify():
            verifies.cancel(t, key)
        case fx.HandBack(verdict):
            t.news.append(HandedBack(key, verdict))
        case fx.Finish():
            pass
        case _:
            t.do(To(key, effect))


def _begins(t: TicketTurn, ticket: str, worker: Loop, number: int) -> None:
    assert worker.duty is not None
    attempt = worker.duty.tried + worker.stats["iterations"] + 1
    t.put(ticket, iteration=number)
    t.record(ticket, "running", attempt=attempt)


def _attempted(t: TicketTurn, ticket: str, worker: Loop, record: Iteration) -> None:
    job = t.loop.jobs.get(ticket)
    if job is None or worker.duty is None:
        return
    kept = job.record
    verify = record.get("verify")
    t.put(
        ticket,
        tried=worker.duty.tried + worker.stats["iterations"],
        summary=record["summary"] or job.summary,
        refusal=worker.refusal,
        verify_exit=verify["exitCode"] if verify is not None else job.verify_exit,
        record={
            **kept,
            "sessionId": record["sessionId"],
            "sessionFile": record["sessionFile"],
            "durationMs": kept["durationMs"] + record["durationMs"],
            "cost": kept.get("cost", 0.0) + record["cost"],
        },
    )


def _charged_late(t: TicketTurn, ticket: str, added: RunFigures) -> None:
    """The session of an iteration that has ended was charged once more; a cap holds for that as well."""
    t.set(stats=add(t.loop.stats, added))
    job = t.loop.jobs.get(ticket)
    if job is not None:
        t.put(ticket, record={**job.record, "cost": job.record.get("cost", 0.0) + added["cost"]})
    used = spent(t.loop.stats)
    for limit in limits_reached(t.loop.config, used, t.loop.elapsed_ms):
        if limit in ("max-cost", "max-tokens"):
            t.finish_with(budget.verdict(limit, t.loop.config, used, t.loop.elapsed_ms))


def count(t: TicketTurn, record: Iteration) -> None:
    """Adds an iteration that has ended."""
    t.set(
        stats=budget.with_iteration(t.loop.stats, record),
        last_outcome=record["outcome"],
        last_text=record["summary"][:500] or t.loop.last_text,
    )


def _left(t: TicketTurn, key: str, worker: Loop) -> None:
    """The worker has ended, and its pi is gone."""
    rest = {other: w for other, w in t.loop.workers.items() if other != key}
    t.set(workers=rest, mail=(*t.loop.mail, *worker.mail))
    verifies.forget(t, key)
    t.do(Release(key))
    for order in t.loop.orders:
        receipts.had_effect(t, order.id, key)
    assert worker.stop_reason is not None
    t.news.append(Left(key, Verdict(worker.status, worker.stop_reason, worker.error)))  # type: ignore[arg-type]
