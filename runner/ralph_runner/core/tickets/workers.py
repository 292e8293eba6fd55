"""The workers of a ticket loop: each a `Loop` with a duty, stepped here with what concerns it.

What a worker says as if it were a loop of its own (its status, its end, the receipts of control commands) stays
here; all else passes on, marked with its ticket.
"""

from dataclasses import replace
from typing import Any, Literal, cast

from ralph_rpc.model.commands import Verb
from ralph_rpc.model.config import Config
from ralph_rpc.model.events import RunnerEvent
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import Stats
from ralph_runner.core import effects as fx
from ralph_runner.core import step as one
from ralph_runner.core.closing import counts
from ralph_runner.core.duty import Assign, Dismiss, Duty, Spent
from ralph_runner.core.inputs import PiExited, PiInput
from ralph_runner.core.mailbox import Mail
from ralph_runner.core.reports import Begin, CommandCame, PiSpawned, Report, Tick
from ralph_runner.core.snapshot import new_loop, running_run
from ralph_runner.core.state import Ended, Idle, Loop, Verifying
from ralph_runner.core.tickets import jobs, receipts
from ralph_runner.core.tickets.effects import Hire, Reassign, Release, To
from ralph_runner.core.tickets.state import SHARED, Working
from ralph_runner.core.tickets.turn import TicketTurn
from ralph_runner.core.verdict import Verdict

_CONTROL: frozenset[Verb] = frozenset({"stop", "abort", "pause", "resume"})
_OF_A_LOOP = frozenset({"ralph_status", "ralph_loop_end"})


def key_of(t: TicketTurn, ticket: str) -> str:
    """The key of the worker that has the ticket, or will have it."""
    return ticket if t.loop.options.worktrees else SHARED


def give(t: TicketTurn, ticket: str) -> None:
    """Hands a ticket, or what its last attempt lacked, to its worker; hires one where there is none."""
    job, key, loop = t.loop.jobs[ticket], key_of(t, ticket), t.loop
    kind: Literal["work", "conflict"] = "conflict" if job.conflict else "work"
    branch = job.record["branch"] if loop.options.worktrees else None
    duty = Duty(ticket, job.record["title"], job.attempts, job.tried, kind, branch)
    mail = _mail_for(t, ticket)
    config: Config = {**loop.config, "stallAfter": 0, "reflectEvery": 0}
    worker = loop.workers.get(key)
    if worker is not None:
        if key == SHARED:
            t.do(Reassign(key, ticket))
        drive(t, key, Assign(duty, config, mail, job.refusal))
        return
    worker = replace(
        new_loop(config, ""),
        duty=duty, mail=mail, refusal=job.refusal, ever_answered=loop.ever_answered, price_warned=loop.price_warned,
        last_mono=t.now.mono,
    )  # fmt: skip
    t.set(workers={**loop.workers, key: worker})
    t.do(Hire(key, ticket))
    drive(t, key, Begin())


def dismiss(t: TicketTurn, key: str) -> None:
    """The worker's pi is to end, if there is such a worker."""
    if key in t.loop.workers:
        drive(t, key, Dismiss())


def drive(t: TicketTurn, key: str, event: PiInput | Report) -> None:
    """One step of a worker, and what follows from it."""
    worker = t.loop.workers.get(key)
    if worker is None:
        return
    if isinstance(event, PiSpawned | PiExited):
        _note_pi(t, worker, event)
    worker = replace(
        worker, highest=t.loop.iteration, elsewhere=_elsewhere(t, key), elapsed_ms=t.loop.elapsed_ms, last_mono=t.now.mono
    )
    worker, effects = one.step(worker, event, t.now)
    t.set(
        workers={**t.loop.workers, key: worker},
        ever_answered=t.loop.ever_answered or worker.ever_answered,
        price_warned=t.loop.price_warned or worker.price_warned,
        model=worker.model or t.loop.model,
        provider=worker.provider or t.loop.provider,
    )
    handed_back: Verdict | None = None
    for effect in effects:
        if isinstance(effect, fx.HandBack):
            handed_back = effect.verdict
        else:
            _pass_on(t, key, worker, effect)
    if isinstance(worker.phase, Ended):
        _left(t, key, worker)
    elif handed_back is not None:
        jobs.handed_back(t, key, handed_back)


def stop_now(t: TicketTurn, key: str) -> None:
    """The worker's iteration is aborted, and it leaves."""
    drive(t, key, CommandCame("end now", "stop", {"when": "now"}, known=True))


def tick(t: TicketTurn) -> None:
    """Lets every worker act whose time has come."""
    for key in list(t.loop.workers):
        due = one.next_deadline(t.loop.workers[key])
        if due is not None and due <= t.now.mono:
            drive(t, key, Tick())


def is_idle(worker: Loop) -> bool:
    """True if it has no ticket in hand."""
    return isinstance(worker.phase, Idle)


def running_totals(done: Stats, workers: Any) -> Stats:
    """`done` with what the workers' running iterations have used so far."""
    total = dict(done)
    for worker in workers:
        if (run := running_run(worker)) is not None:
            u = run.usage
            figures = {
                "turns": run.turns, "toolCalls": run.tool_calls, "tokensIn": u.input, "tokensOut": u.output,
                "cacheRead": u.cache_read, "cacheWrite": u.cache_write, "cost": u.cost,
            }  # fmt: skip
            for name, figure in figures.items():
                total[name] += figure  # type: ignore[operator]
    return total  # type: ignore[return-value]


def _elsewhere(t: TicketTurn, key: str) -> Spent:
    """All that was used, but for what the worker itself counts: its stats and its run."""
    own = t.loop.workers[key].stats
    others = running_totals(t.loop.stats, [w for other, w in t.loop.workers.items() if other != key])
    tokens = sum(others[name] - own[name] for name in ("tokensIn", "tokensOut", "cacheRead", "cacheWrite"))
    iterations = others["iterations"] - own["iterations"] + under_way(t, key)
    return Spent(others["cost"] - own["cost"], tokens, iterations)


def under_way(t: TicketTurn, but: str | None = None) -> int:
    """How many workers have a ticket in hand, and with it an iteration that is to count."""
    return sum(not is_idle(worker) for key, worker in t.loop.workers.items() if key != but)


def _mail_for(t: TicketTurn, ticket: str) -> Mail:
    """The messages that go with the ticket: those sent to it, and those sent to none."""
    mail = tuple(m for m in t.loop.mail if t.loop.addressed.get(m.id, ticket) == ticket)
    t.set(mail=tuple(m for m in t.loop.mail if m not in mail))
    return mail


def _note_pi(t: TicketTurn, worker: Loop, event: PiSpawned | PiExited) -> None:
    """Which pi works on the ticket, for the record."""
    if worker.duty is None or worker.duty.ticket not in t.loop.jobs:
        return
    record = t.loop.jobs[worker.duty.ticket].record
    if isinstance(event, PiSpawned):
        t.put(worker.duty.ticket, record={**record, "pid": event.pid, "pidStartTime": event.start})
    else:
        t.put(worker.duty.ticket, record={**record, "returnCode": event.code, "terminationMethod": event.method})


def _pass_on(t: TicketTurn, key: str, worker: Loop, effect: fx.Effect) -> None:
    ticket = worker.duty.ticket if worker.duty is not None else ""
    match effect:
        case fx.Save():
            t.do(effect)
        case fx.Journal(id=id, command=verb):
            if verb not in _CONTROL:
                t.do(effect)
            elif effect.state in ("delivered", "expired"):
                receipts.had_effect(t, id, key)
        case fx.Emit(event):
            if event["type"] in _OF_A_LOOP or (event["type"] == "ralph_command" and event["command"] in _CONTROL):
                return
            t.do(fx.Emit(cast(RunnerEvent, {**event, "ticket": ticket})))
        case fx.BeginIteration(number):
            t.set(iteration=number)
            t.do(To(key, effect))
            _begins(t, ticket, worker, number)
        case fx.EndIteration(record):
            t.do(To(key, effect))
            _count(t, record)
            _attempted(t, ticket, worker, record)
        case fx.RunVerify():
            if isinstance(worker.phase, Verifying):
                t.record(ticket, "verifying")
            t.do(To(key, effect))
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
            **kept, "sessionId": record["sessionId"], "sessionFile": record["sessionFile"],
            "durationMs": kept["durationMs"] + record["durationMs"], "cost": kept.get("cost", 0.0) + record["cost"],
        },
    )  # fmt: skip


def _count(t: TicketTurn, record: Iteration) -> None:
    """Adds an iteration that has ended; the worker's own count tells whether it counts as one."""
    before = t.loop.stats
    names = ("turns", "toolCalls", "durationMs", "tokensIn", "tokensOut", "cacheRead", "cacheWrite", "cost")
    added: Any = {name: before[name] + record[name] for name in names}  # type: ignore[literal-required]
    t.set(
        stats={**before, **added, "iterations": before["iterations"] + counts(record)},
        last_outcome=record["outcome"],
        last_text=record["summary"][:500] or t.loop.last_text,
    )


def _left(t: TicketTurn, key: str, worker: Loop) -> None:
    """The worker has ended, and its pi is gone."""
    rest = {other: w for other, w in t.loop.workers.items() if other != key}
    t.set(workers=rest, mail=(*t.loop.mail, *worker.mail))
    t.do(Release(key))
    for order in t.loop.orders:
        receipts.had_effect(t, order.id, key)
    assert worker.stop_reason is not None
    verdict = Verdict(worker.status, worker.stop_reason, worker.error)  # type: ignore[arg-type]
    for ticket, job in list(t.loop.jobs.items()):
        if key_of(t, ticket) == key:
            jobs.worker_left(t, ticket, job, verdict, was_working=isinstance(job.stage, Working))
