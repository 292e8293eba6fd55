"""What follows a job on an engine: its work is taken over, another one is submitted, or its ticket is settled. Pure.

`away` says what a job may spend and counts what it brings; here its ticket continues, by the same steps as one that an agent
of ours has worked on.
"""

from typing import Literal

from ralph_rpc.model.ticket import EngineJob, TicketStatus
from ralph_rpc.model.usage import Spent
from ralph_runner.core.tickets import away, jobs, results
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets.state import Opening, Returning, Taking
from ralph_runner.core.tickets.turn import TicketTurn, job_at
from ralph_runner.core.verdict import Verdict


def send_again(t: TicketTurn) -> None:
    """Submits jobs for those whose last one was lost, once it is time."""
    if not t.loop.paused and t.loop.ending is None:
        for ticket in away.due(t):
            away.send(t, ticket)


def job_lost(t: TicketTurn, result: results.JobLost) -> None:
    """A job on the engine has brought nothing."""
    _after_job(t, result.ticket, away.lost(t, result), result.words)


def _after_job(t: TicketTurn, ticket: str, what: Literal["left", "returning", "error"] | None, words: str) -> None:
    """What becomes of a ticket whose job has not done it."""
    job = t.loop.jobs.get(ticket)
    if job is None or what is None:
        return
    if what == "returning":
        t.stage(ticket, Returning())
        return
    left: TicketStatus = "merging" if job.conflict else "orphaned"
    jobs.leave(t, ticket, left, "the loop ended" if what == "left" else words)
    if what == "error":
        engine = t.loop.options.engine
        t.finish_with(Verdict("error", "failures", f"{engine} does not get {ticket} done: {words}"), at_once=True)
        jobs.hurry(t)


def branch_taken(t: TicketTurn, result: results.BranchTaken) -> None:
    """The ticket's branch has what its job has pushed: the job is over, and its outcome counts."""
    job = job_at(t, result.ticket, Taking)
    if job is None or not isinstance(job.stage, Taking):
        return
    ticket, taking = result.ticket, job.stage
    if taking.outcome in ("done", "failed"):
        t.set(lost={id: count for id, count in t.loop.lost.items() if id != ticket})
    allowed = away.job_of(job)
    t.put(ticket, record={**job.record, "job": None})
    match taking.outcome:
        case "done":
            t.put(ticket, finished=True, verified=True)
            t.record(ticket, "merging")
            t.stage(ticket, Opening())
            t.do(fx.OpenWorktree(ticket, away.branch(t, ticket)))
        case "failed" if job.conflict:
            jobs.needs_merge(t, ticket, taking.error)
        case "failed":
            jobs.fail(t, ticket, taking.error)
        case "stopped":
            _stopped(t, ticket, taking, allowed)
        case "error":
            jobs.leave(t, ticket, "merging" if job.conflict else "orphaned", taking.error)
            verdict = Verdict("error", taking.stop_reason or "blocked", f"{ticket}: {taking.error}")
            t.finish_with(verdict, at_once=True)
            jobs.hurry(t)
    t.do(fx.ForgetJob(ticket, taking.number))


def _stopped(t: TicketTurn, ticket: str, taking: Taking, allowed: EngineJob | None) -> None:
    """Its job was ended before its ticket was done."""
    job = t.loop.jobs[ticket]
    limits = taking.stop_reason in ("max-cost", "max-tokens", "max-time")
    if t.loop.ending is not None:
        _after_job(t, ticket, "left", taking.error)
    elif taking.cancelled or limits:
        if allowed is not None and limits:
            t.set(short={**t.loop.short, ticket: Spent(allowed["maxCost"] or 0.0, allowed["maxTokens"] or 0)})
        t.record(ticket, "running", attempt=job.tried + 1)
        _after_job(t, ticket, "returning", taking.error)
    else:
        _after_job(t, ticket, away.wait(t, ticket, taking.error), taking.error)
