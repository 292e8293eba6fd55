"""Tickets whose agents work in jobs on an engine: what each may spend, and what becomes of what it brings. Pure.

A job works in a clone, with all attempts that its ticket has left, and pushes its branch and one record. What it may
spend of the loop's limits is reserved when it is submitted, as its own limit, and settled by its record. The record of
the ticket names the job from before it is submitted until its branch is taken over, so that a restart finds it again;
its iterations are counted once, by their number in it, however often they come. A job that is over without a record is
lost: that is not the ticket's fault.
"""

from typing import Literal, cast

from ralph_rpc.clock import iso
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.ticket import EngineJob, TicketRecord
from ralph_rpc.model.usage import Spent, spent
from ralph_rpc.tickets.ticket import branch_of
from ralph_runner.core import budget
from ralph_runner.core.effects import Save
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import results, workers
from ralph_runner.core.tickets.state import Away, Job, Taking, TicketLoop
from ralph_runner.core.tickets.turn import TicketTurn, job_at

FIRST_GAP_MS = 5_000
LONGEST_GAP_MS = 300_000
NEVER_WORKED = 3
"""Jobs for a ticket that may bring nothing, as long as none has ever brought anything."""


def out_there(loop: TicketLoop) -> dict[str, Job]:
    """The tickets that a job may be working on, or queued for."""
    return {id: job for id, job in loop.jobs.items() if isinstance(job.stage, Away) and job.stage.again is None}


def job_of(job: Job) -> EngineJob | None:
    """As its record has it."""
    return job.record.get("job")


def share(loop: TicketLoop, ticket: str) -> Spent | None:
    """What of cost and tokens a job for it may use, zero where there is no limit; None: it has to wait for others."""
    others = [job_of(job) for id, job in out_there(loop).items() if id != ticket]
    places = max(1, loop.options.rules.parallel - len(others))
    used, last = spent(loop.stats), loop.short.get(ticket, Spent())
    reserved = (
        sum((job and job["maxCost"]) or 0 for job in others),
        sum((job and job["maxTokens"]) or 0 for job in others),
    )
    found = []
    limits = (loop.config["maxCost"], loop.config["maxTokens"])
    for limit, now, held, before in zip(limits, used[:2], reserved, last[:2], strict=True):
        if limit is None:
            found.append(0.0)
            continue
        left = limit - now - held
        wanted = max(left / places, 2 * before)
        if left <= 0 or (wanted > left and others):
            return None
        found.append(min(wanted, left))
    return Spent(found[0], int(found[1]))


def send(t: TicketTurn, ticket: str) -> None:
    """Submits a job for the ticket, which has a share."""
    job, loop = t.loop.jobs[ticket], t.loop
    part = share(loop, ticket) or Spent()
    number = job.record.get("jobs", 0) + 1
    most = loop.config["maxTimeMs"]
    cost = part.cost if loop.config["maxCost"] is not None else None
    tokens = max(1, part.tokens) if loop.config["maxTokens"] is not None else None
    new: EngineJob = {
        "number": number,
        "state": "submitting",
        "id": None,
        "since": iso(t.now.wall),
        "maxCost": cost,
        "maxTokens": tokens,
    }
    t.record(ticket, "running", attempt=job.tried + 1, jobs=number, job=new)
    t.put(ticket, finished=False, landed_before=len(loop.landed))
    t.stage(ticket, Away(number))
    left = None if most is None else max(1, most - loop.elapsed_ms)
    attempts = max(1, job.attempts - job.tried)
    t.do(fx.SubmitJob(ticket, number, attempts, cost, tokens, left, _messages(t, ticket)))


def _messages(t: TicketTurn, ticket: str) -> tuple[str, ...]:
    """For the agent's first prompt: what the operator has sent, and why finished work could not be merged."""
    mail = workers.mail_for(t, ticket)
    t.set(carried={**t.loop.carried, ticket: mail})
    job = t.loop.jobs[ticket]
    told = []
    if job.conflict and job.refusal:
        into = t.loop.options.into
        told.append(
            f"The work on this ticket is done, but could not be merged into {into}:\n\n{job.refusal}\n\nUnless it says "
            f"otherwise above, merge {into} into your own branch (`git merge {into}`), resolve every conflict so that the "
            "intent of both sides is kept, run the checks, and commit the merge."
        )
    return (*told, *(message.text for message in mail))


def again(t: TicketTurn, record: TicketRecord) -> None:
    """A ticket whose job an earlier runner has submitted."""
    id, known = record["ticket"], record.get("job")
    assert known is not None
    tried = record["attempt"]
    attempts = max(tried + 1, t.loop.options.attempts)
    settled = {other: kept for other, kept in t.loop.settled.items() if other != id}
    t.set(settled=settled)
    job = Job(
        {**record, "attempt": tried + 1, "status": "running"}, Away(known["number"]), tried=tried, attempts=attempts
    )
    t.set(jobs={**t.loop.jobs, id: job})
    t.record(id, "running")
    t.do(fx.FindJob(id, known["number"], known["id"]))


def told(t: TicketTurn, result: results.JobTold) -> None:
    """It is queued, or runs."""
    job = _at(t, result.ticket, result.number)
    known = job_of(job) if job is not None else None
    if job is None or known is None:
        return
    t.set(ever_queued=True)
    new: EngineJob = {**known, "state": result.state, "id": result.id or known["id"]}
    if new != known:
        t.put(result.ticket, record={**job.record, "job": new})
        t.record(result.ticket, "running")
        t.do(Save())
    if t.loop.ending is not None and result.state == "queued":
        cancel(t, result.ticket)


def returned(t: TicketTurn, result: results.JobReturned) -> None:
    """Its record has come: what was spent is counted, then its branch is taken over."""
    job = t.loop.jobs.get(result.ticket)
    if job is not None and isinstance(job.stage, Taking) and job.stage.number == result.number:
        return
    _adopt(t, result)
    job, report = _at(t, result.ticket, result.number), result.report
    if job is None or not isinstance(job.stage, Away):
        t.do(fx.ForgetJob(result.ticket, result.number))  # of a job that nobody waits for
        return
    _settle_mail(t, result.ticket, read=bool(report["iterations"]))
    error = report["error"] or report["outcome"]
    taking = Taking(result.number, report["outcome"], report["stopReason"], error, job.stage.cancelled)
    t.stage(result.ticket, taking)
    t.do(fx.TakeBranch(result.ticket, result.number))


def _settle_mail(t: TicketTurn, ticket: str, read: bool) -> None:
    """What the job was to tell its agent was told, or is still to be."""
    mail = t.loop.carried.get(ticket, ())
    t.set(carried={other: kept for other, kept in t.loop.carried.items() if other != ticket})
    if not read:
        t.set(mail=(*t.loop.mail, *mail))
        return
    for message in mail:
        t.receipt(message, "delivered")


def _adopt(t: TicketTurn, result: results.JobReturned) -> None:
    """Its iterations become ours, each once."""
    report, ticket = result.report, result.ticket
    for one in report["iterations"]:
        key = (ticket, f"{result.number}.{one['iteration']}")
        if key in t.loop.adopted:
            continue
        job = _at(t, ticket, result.number)
        number = t.loop.iteration + 1
        record: Iteration = {
            **one,
            "iteration": number,
            "ticket": ticket,
            "attempt": (job.tried if job is not None else 0) + 1,
            "host": report["host"],
            "job": key[1],
            "sessionFile": None,
            "kind": "conflict" if job is not None and job.conflict else one["kind"],
        }
        t.set(iteration=number, adopted=t.loop.adopted | {key})
        t.do(fx.AdoptIteration(record))
        workers.count(t, record)
        if job is not None:
            _attempted(t, ticket, job, record)


def _attempted(t: TicketTurn, ticket: str, job: Job, record: Iteration) -> None:
    kept, verify = job.record, record.get("verify")
    new = {
        "sessionId": record["sessionId"],
        "sessionFile": None,
        "host": record.get("host"),
        "durationMs": kept["durationMs"] + record["durationMs"],
        "cost": kept.get("cost", 0.0) + record["cost"],
    }
    t.put(
        ticket,
        # One that was aborted was ended with its job, by somebody there: that is no attempt.
        tried=job.tried + (budget.counts(record) and record["outcome"] != "aborted"),
        summary=record["summary"] or job.summary,
        iteration=record["iteration"],
        verify_exit=verify["exitCode"] if verify is not None else job.verify_exit,
        record=cast(TicketRecord, {**kept, **new}),
    )


def lost(t: TicketTurn, result: results.JobLost) -> Literal["left", "returning", "error"] | None:
    """It is over without a record. Says what is to become of its ticket: None, it is submitted again by itself."""
    job = _at(t, result.ticket, result.number)
    if job is None or not isinstance(job.stage, Away) or job.stage.again is not None:
        return None
    known, ticket = job_of(job), result.ticket
    t.do(fx.ForgetJob(ticket, result.number))
    _settle_mail(t, ticket, read=False)
    began = known is not None and (
        known["state"] == "active" or (known["state"] == "queued" and not job.stage.cancelled)
    )
    if known is not None and began and not result.refused:
        _adopt_loss(t, result, known)
    t.put(ticket, record={**t.loop.jobs[ticket].record, "job": None})
    if t.loop.ending is not None:
        return "left"
    if job.stage.cancelled:
        return "returning"
    if result.refused and not t.loop.ever_queued:
        return "error"
    return wait(t, ticket, result.words)


def wait(t: TicketTurn, ticket: str, words: str) -> Literal["error"] | None:
    """Submits another one after a while; "error" where that was tried often enough."""
    count = t.loop.lost.get(ticket, 0) + 1
    t.set(lost={**t.loop.lost, ticket: count})
    # What has never worked will not work at the tenth time.
    most = max(1, t.loop.config["maxFailures"]) if t.loop.stats["turns"] else NEVER_WORKED
    if count >= most:
        return "error"
    gap = min(FIRST_GAP_MS << (count - 1), LONGEST_GAP_MS)
    job = t.loop.jobs[ticket]
    t.record(ticket, "running", words, job=None, attempt=job.tried + 1)
    t.notice(
        "warning", f"the job of {ticket} is lost, and another one is submitted in {gap // 1000} s: {words}", ticket
    )
    t.stage(ticket, Away(job.record.get("jobs", 0), again=t.now.mono + gap, reason=words))
    return None


def _adopt_loss(t: TicketTurn, result: results.JobLost, known: EngineJob) -> None:
    """Of a job that ran and said nothing, nobody knows what it has spent."""
    ended = iso(t.now.wall)
    key, number = (result.ticket, f"{result.number}.lost"), t.loop.iteration + 1
    if key in t.loop.adopted:
        return
    record: Iteration = {
        "iteration": number,
        "ticket": result.ticket,
        "attempt": t.loop.jobs[result.ticket].tried + 1,
        "job": key[1],
        "kind": "work",
        "outcome": "crashed",
        "error": result.words,
        "errorKind": "lost",
        "startedAt": known["since"],
        "endedAt": ended,
        "durationMs": 0,
        "turns": 0,
        "toolCalls": 0,
        "tokensIn": 0,
        "tokensOut": 0,
        "cacheRead": 0,
        "cacheWrite": 0,
        "cost": 0.0,
        "unpricedRequests": 1,
        "model": None,
        "provider": None,
        "sessionId": None,
        "sessionFile": None,
        "summary": "",
        "steering": [],
        "eventsFrom": 0,
        "eventsTo": 0,
    }
    t.set(iteration=number, adopted=t.loop.adopted | {key})
    t.do(fx.AdoptIteration(record))
    workers.count(t, record)


def cancel(t: TicketTurn, ticket: str) -> None:
    """Calls its job off, if one is out there and was not told yet."""
    job = t.loop.jobs.get(ticket)
    if job is not None and isinstance(job.stage, Away) and job.stage.again is None and not job.stage.cancelled:
        t.stage(ticket, Away(job.stage.number, cancelled=True))
        t.do(fx.CancelJob(ticket, job.stage.number))


def due(t: TicketTurn) -> list[str]:
    """The tickets for which another job is to be submitted now."""
    return [
        id
        for id, job in t.loop.jobs.items()
        if isinstance(job.stage, Away)
        and job.stage.again is not None
        and job.stage.again <= t.now.mono
        and share(t.loop, id) is not None
    ]


def branch(t: TicketTurn, ticket: str) -> str:
    """The ticket's own."""
    return t.loop.jobs[ticket].record["branch"] or branch_of(t.loop.name, ticket)


def _at(t: TicketTurn, ticket: str, number: int) -> Job | None:
    job = job_at(t, ticket, Away)
    return job if job is not None and isinstance(job.stage, Away) and job.stage.number == number else None
