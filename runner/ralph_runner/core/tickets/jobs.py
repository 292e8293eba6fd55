"""A ticket's way from claimed to closed; the diagram is in `core/tickets/state.py`.

Every step asks for one thing and goes on when its report comes. What cannot go on is settled as `failed` or
`needs-merge`, with the reason in the record and as a note on the ticket; its branch and worktree stay.
"""

from ralph_rpc.clock import iso
from ralph_rpc.model.ticket import TicketRecord, TicketStatus
from ralph_rpc.tickets.ticket import Ticket
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import merging, workers
from ralph_runner.core.tickets import reports as rp
from ralph_runner.core.tickets.state import (
    SHARED,
    Closing,
    Committing,
    Job,
    Merging,
    Opening,
    Queued,
    Removing,
    Returning,
    SettingUp,
    Working,
)
from ralph_runner.core.tickets.turn import TicketTurn, job_at
from ralph_runner.core.verdict import Verdict

NOTE_CHARS = 1_000


def claim(t: TicketTurn, ticket: Ticket) -> None:
    """Takes a ticket that may start."""
    before = t.loop.settled.get(ticket.id)
    tried = before["attempt"] if before is not None else 0
    record: TicketRecord = {
        "ticket": ticket.id, "title": ticket.title, "status": "orphaned" if before else "claimed", "attempt": tried,
        "sessionId": None, "pid": None, "pidStartTime": None,
        "worktreePath": before["worktreePath"] if before else None, "branch": before["branch"] if before else None,
        "baseCommit": before["baseCommit"] if before else None, "startedAt": iso(t.now.wall), "endedAt": None,
        "durationMs": before["durationMs"] if before else 0, "cost": before.get("cost", 0.0) if before else 0.0,
        "returnCode": None, "terminationMethod": None, "error": None,
    }  # fmt: skip
    job = Job(record, Opening(), tried=tried, attempts=max(tried + 1, t.loop.options.attempts), taken=before is not None)
    settled = {id: kept for id, kept in t.loop.settled.items() if id != ticket.id}
    t.set(jobs={**t.loop.jobs, ticket.id: job}, settled=settled)
    if t.loop.options.worktrees:
        t.record(ticket.id, "claimed", branch=branch_of(t, ticket.id))
        t.do(fx.MarkTicket(ticket.id, "in_progress"))
        t.do(fx.OpenWorktree(ticket.id, branch_of(t, ticket.id)))
    else:
        t.record(ticket.id, "claimed")
        t.do(fx.MarkTicket(ticket.id, "in_progress"))
        _work(t, ticket.id)


def branch_of(t: TicketTurn, ticket: str) -> str:
    """The ticket's branch."""
    return f"ralph/{t.loop.name}/{ticket}"


def take_up_again(t: TicketTurn, record: TicketRecord) -> None:
    """A ticket whose work an earlier runner had finished: the merge, or what comes after it, is left."""
    ticket = record["ticket"]
    job = Job(record, Opening(), tried=record["attempt"], attempts=record["attempt"], finished=True, verified=False)
    settled = {id: kept for id, kept in t.loop.settled.items() if id != ticket}
    t.set(jobs={**t.loop.jobs, ticket: job}, settled=settled)
    if record["status"] == "closed":
        t.stage(ticket, Removing())
        _remove(t, ticket)
    elif record["status"] == "merged":
        close(t, ticket)
    elif t.loop.options.worktrees:
        # By way of its worktree, which may hold half a step; then from the commit on.
        t.do(fx.OpenWorktree(ticket, record["branch"] or branch_of(t, ticket)))
    else:
        _commit(t, ticket)


def orphan(t: TicketTurn, record: TicketRecord) -> None:
    """A ticket that was under way when its runner died: it goes back to the queue, and its work is kept."""
    id = record["ticket"]
    t.set(jobs={**t.loop.jobs, id: Job(record, Working())})
    t.settle(id, "orphaned", "the runner died while it was worked on")


def opened(t: TicketTurn, report: rp.Opened) -> None:
    """The worktree is there."""
    job = job_at(t, report.ticket, Opening)
    if job is None:
        return
    base = job.record["baseCommit"] if report.reused and job.record["baseCommit"] else report.base
    t.put(report.ticket, record={**job.record, "worktreePath": report.path, "baseCommit": base})
    command = t.loop.options.setup
    if t.loop.ending is not None:
        t.settle(report.ticket, "merging" if job.finished else "orphaned", "the loop ended first")
    elif command is not None and not report.set_up:
        t.stage(report.ticket, SettingUp())
        t.do(fx.SetUp(report.ticket, command, t.loop.config["toolTimeoutMs"]))
    else:
        _go_on(t, report.ticket)


def was_set_up(t: TicketTurn, report: rp.WasSetUp) -> None:
    """--worktree-setup has ended."""
    if job_at(t, report.ticket, SettingUp) is None:
        return
    run = report.run
    if run is not None and run["exitCode"] != 0:
        tail = run["tail"].strip()[-300:]
        _fail(t, report.ticket, f"--worktree-setup ended with exit code {run['exitCode']}: {tail or '(no output)'}")
    elif run is None or t.loop.ending is not None:
        finished = t.loop.jobs[report.ticket].finished
        t.settle(report.ticket, "merging" if finished else "orphaned", "the loop ended first")
    else:
        _go_on(t, report.ticket)


def _go_on(t: TicketTurn, ticket: str) -> None:
    """In its worktree, which is ready."""
    if t.loop.jobs[ticket].finished:
        _commit(t, ticket)
    else:
        _work(t, ticket)


def _work(t: TicketTurn, ticket: str) -> None:
    t.stage(ticket, Working())
    workers.give(t, ticket)


def handed_back(t: TicketTurn, key: str, verdict: Verdict) -> None:
    """A worker is done with its ticket, one way or the other."""
    ticket = next((id for id, job in t.loop.jobs.items() if isinstance(job.stage, Working) and workers.key_of(t, id) == key), None)
    if ticket is None:
        return
    job = t.loop.jobs[ticket]
    if verdict.status == "completed":
        t.put(ticket, verified=True)
        _commit(t, ticket)
        return
    lack = " ".join((job.refusal or "").split())[:300]
    reason = (verdict.error or verdict.stop_reason) + (f"; the last lacked: {lack}" if lack else "")
    if job.conflict:
        needs_merge(t, ticket, reason)
    else:
        _fail(t, ticket, reason)


def worker_left(t: TicketTurn, ticket: str, job: Job, verdict: Verdict, was_working: bool) -> None:
    """Its worker's pi is gone."""
    if isinstance(job.stage, Removing):
        _remove(t, ticket)
    elif was_working:
        # It did not hand the ticket back, so the end is not the ticket's: a stop, a limit, a pi that cannot work.
        t.settle(ticket, "orphaned", verdict.error or "the loop ended first")
        if t.loop.ending is None:
            t.finish_with(verdict, at_once=verdict.status == "error")
            if verdict.status == "error":
                hurry(t)
                for key in list(t.loop.workers):
                    workers.stop_now(t, key)


def _commit(t: TicketTurn, ticket: str) -> None:
    # On disk first: after a crash, work that is done and verified is not asked for again.
    t.record(ticket, "merging")
    t.stage(ticket, Committing())
    t.do(fx.Commit(ticket, t.loop.jobs[ticket].record["title"]))


def committed(t: TicketTurn, report: rp.Committed) -> None:
    """What the agent left is committed."""
    job = job_at(t, report.ticket, Committing)
    if job is None:
        return
    if report.problem is not None:
        back(t, report.ticket, report.problem)
    elif not t.loop.options.worktrees:
        close(t, report.ticket)
    elif not t.loop.options.merge:
        _settle_with_worker(t, report.ticket, "needs-merge", f"done; its branch is {job.record['branch']} (--no-merge)")
    else:
        t.stage(report.ticket, Queued())


def back(t: TicketTurn, ticket: str, refusal: str) -> None:
    t.put(ticket, refusal=refusal)
    t.stage(ticket, Returning())


def give_places(t: TicketTurn) -> None:
    """Lets agents mend what could not be merged, as far as there are places, before new tickets start."""
    if t.loop.paused or t.loop.ending is not None:
        return
    for ticket, job in list(t.loop.jobs.items()):
        taken = sum(_has_place(other) for other in t.loop.jobs.values())
        worker = t.loop.workers.get(workers.key_of(t, ticket))
        is_free = worker is None or workers.is_idle(worker)  # else its pi is about to end
        if isinstance(job.stage, Returning) and is_free and taken < t.loop.options.parallel:
            _work(t, ticket)


def _has_place(job: Job) -> bool:
    """Until it is merged: a conflict gives it back to its agent. But a merge may wait all night."""
    return merging.waits_for(job) is None and not isinstance(job.stage, Returning | Removing)


def close(t: TicketTurn, ticket: str) -> None:
    t.stage(ticket, Closing())
    t.do(fx.CloseTicket(ticket))


def ticket_closed(t: TicketTurn, report: rp.TicketClosed) -> None:
    """All is done but to tidy up."""
    job = job_at(t, report.ticket, Closing)
    if job is None:
        return
    t.record(report.ticket, "closed", endedAt=iso(t.now.wall))
    _remember(t, report.ticket)
    t.set(stale=True)
    if not t.loop.options.worktrees:
        kept = t.loop.jobs[report.ticket].record
        t.put(report.ticket, record={**kept, "returnCode": 0, "terminationMethod": "natural"})
        t.do(fx.KeepRecord(t.loop.jobs[report.ticket].record))
        t.drop(report.ticket)
        return
    t.stage(report.ticket, Removing())
    if report.ticket in t.loop.workers:
        workers.dismiss(t, report.ticket)
    else:
        _remove(t, report.ticket)


def _remove(t: TicketTurn, ticket: str) -> None:
    t.do(fx.KeepRecord(t.loop.jobs[ticket].record), fx.RemoveWorktree(ticket))


def removed(t: TicketTurn, report: rp.Removed) -> None:
    """The worktree is gone, or has to stay."""
    job = job_at(t, report.ticket, Removing)
    if job is None:
        return
    if report.kept is not None:
        t.notice("warning", f"the worktree of {report.ticket} stays: {report.kept}", report.ticket)
    else:
        t.put(report.ticket, record={**job.record, "worktreePath": None})
        t.do(fx.KeepRecord(t.loop.jobs[report.ticket].record))
    t.drop(report.ticket)


def failed(t: TicketTurn, report: rp.JobFailed) -> None:
    """A step could not be carried out: git or the ticket source says why."""
    job = t.loop.jobs.get(report.ticket)
    if job is None:
        return
    match job.stage:
        case Queued() | Merging():
            needs_merge(t, report.ticket, report.reason)
        case Closing():
            # The work is in; only the tracker does not know.
            t.notice("error", f"{report.ticket} is merged, but cannot be closed: {report.reason}", report.ticket)
            ticket_closed(t, rp.TicketClosed(report.ticket))
        case Removing():
            removed(t, rp.Removed(report.ticket, report.reason))
        case _:
            _fail(t, report.ticket, report.reason)


def _fail(t: TicketTurn, ticket: str, reason: str) -> None:
    t.do(fx.MarkTicket(ticket, "open", f"ralph-rpc ({t.loop.name}) gave up: {reason}"[:NOTE_CHARS]))
    _settle_with_worker(t, ticket, "failed", reason)
    if not t.loop.options.worktrees:
        # The next ticket would work on top of what this one left, and commit it.
        t.set(paused_for=ticket)
        t.do(fx.LookAtRest(ticket))


def rest_seen(t: TicketTurn, report: rp.RestSeen) -> None:
    """What a failed ticket left in the project itself."""
    t.set(paused_for=None)
    if report.rest is not None:
        reason = (
            f"{report.ticket} failed and left {report.rest} in the project; keep or discard that, then resume "
            "(with --worktrees the others would have gone on)"
        )
        t.finish_with(Verdict("error", "failures", reason))


def needs_merge(t: TicketTurn, ticket: str, reason: str) -> None:
    branch = t.loop.jobs[ticket].record["branch"]
    note = f"ralph-rpc ({t.loop.name}): done on branch {branch}, but not merged: {reason}"
    t.do(fx.MarkTicket(ticket, "open", note[:NOTE_CHARS]))
    _settle_with_worker(t, ticket, "needs-merge", reason)


def _settle_with_worker(t: TicketTurn, ticket: str, status: TicketStatus, reason: str) -> None:
    """Remembered like one that is closed; a ticket with a worker of its own takes it along."""
    key = workers.key_of(t, ticket)
    t.record(ticket, status, reason, endedAt=iso(t.now.wall))
    _remember(t, ticket)
    t.drop(ticket)
    if key != SHARED:
        workers.dismiss(t, key)


def _remember(t: TicketTurn, ticket: str) -> None:
    job = t.loop.jobs[ticket]
    t.do(fx.Remember(job.record, job.summary, job.iteration, job.verify_exit))


def hurry(t: TicketTurn) -> None:
    """The loop ends at once: what waits for nobody's answer is given up; its work is kept."""
    for ticket, job in list(t.loop.jobs.items()):
        match job.stage:
            case Queued():
                t.drop(ticket)
            case Merging("verifying"):
                t.do(fx.CancelVerifyMerge(ticket))
            case SettingUp():
                t.do(fx.CancelVerifyMerge(ticket))
            case _:
                pass


def give_up_waiting(t: TicketTurn) -> None:
    """The loop ends: a merge that waits for a person, or for its agent, is left for the next run."""
    for ticket, job in list(t.loop.jobs.items()):
        if isinstance(job.stage, Returning):
            t.settle(ticket, "merging" if job.conflict else "orphaned", "the loop ended first")
            workers.dismiss(t, ticket)
        elif isinstance(job.stage, Queued) and (job.stage.reason is not None or t.loop.at_once):
            t.drop(ticket)
            workers.dismiss(t, ticket)
