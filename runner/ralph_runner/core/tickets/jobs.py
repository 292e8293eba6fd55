"""A ticket's job from claimed to closed, but for its merge; the diagram is in `core/tickets/state.py`.

Every step asks for one thing and continues when its result comes. A job that cannot continue is settled as `failed` or
`needs-merge`, with the reason in the record and as a note on the ticket; its branch and worktree stay.
"""

from ralph_rpc.clock import iso
from ralph_rpc.model.ticket import TicketRecord, TicketStatus
from ralph_rpc.tickets.standing import standing, takes_place
from ralph_rpc.tickets.ticket import Ticket, branch_of
from ralph_runner.core.results import Verified
from ralph_runner.core.tickets import away, results, verifies, workers
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets.gate import QUEUE
from ralph_runner.core.tickets.state import (
    SHARED,
    Away,
    ClosingTicket,
    Committing,
    Job,
    Merging,
    Opening,
    Queued,
    Removing,
    Returning,
    SettingUp,
    Updating,
    Working,
)
from ralph_runner.core.tickets.turn import HandedBack, Left, NotVerified, TicketTurn, job_at
from ralph_runner.core.verdict import Verdict

NOTE_CHARS = 1_000


def claim(t: TicketTurn, ticket: Ticket) -> None:
    """Takes a ticket that may start."""
    before = t.loop.settled.get(ticket.id)
    record = _new_record(t, ticket, before)
    tried = record["attempt"]
    job = Job(
        record, Opening(), tried=tried, attempts=max(tried + 1, t.loop.options.attempts), taken=before is not None
    )
    settled = {id: kept for id, kept in t.loop.settled.items() if id != ticket.id}
    t.set(jobs={**t.loop.jobs, ticket.id: job}, settled=settled)
    if t.loop.options.engine is not None:
        t.record(ticket.id, "claimed", branch=branch_of(t.loop.name, ticket.id))
        t.do(fx.MarkTicket(ticket.id, "in_progress"))
        away.send(t, ticket.id)
    elif t.loop.options.worktrees:
        t.record(ticket.id, "claimed", branch=branch_of(t.loop.name, ticket.id))
        t.do(fx.MarkTicket(ticket.id, "in_progress"))
        t.do(fx.OpenWorktree(ticket.id, branch_of(t.loop.name, ticket.id)))
    else:
        t.record(ticket.id, "claimed")
        t.do(fx.MarkTicket(ticket.id, "in_progress"))
        work(t, ticket.id)


def _new_record(t: TicketTurn, ticket: Ticket, before: TicketRecord | None) -> TicketRecord:
    """The record of a ticket that is taken up; it keeps what an earlier one says of its work."""
    new: TicketRecord = {
        "ticket": ticket.id,
        "title": ticket.title,
        "status": "orphaned" if before else "claimed",
        "attempt": before["attempt"] if before else 0,
        "sessionId": None,
        "pid": None,
        "pidStartTime": None,
        "worktreePath": before["worktreePath"] if before else None,
        "branch": before["branch"] if before else None,
        "baseCommit": before["baseCommit"] if before else None,
        "startedAt": iso(t.now.wall),
        "endedAt": None,
        "durationMs": before["durationMs"] if before else 0,
        "cost": before.get("cost", 0.0) if before else 0.0,
        "returnCode": None,
        "terminationMethod": None,
        "error": None,
    }
    if before is not None and "jobs" in before:
        new["jobs"] = before["jobs"]
    return new


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
        t.record(ticket, "merging")  # it waits for nobody any more
        # By way of its worktree, which may hold half a step; then from the commit on.
        t.do(fx.OpenWorktree(ticket, record["branch"] or branch_of(t.loop.name, ticket)))
    else:
        _commit(t, ticket)


def close_epic(t: TicketTurn, epic: Ticket) -> None:
    """An epic whose last child is done: there is nothing to work on, only its file to change."""
    job = Job(_new_record(t, epic, t.loop.settled.get(epic.id)), ClosingTicket(), finished=True, taken=False)
    settled = {id: kept for id, kept in t.loop.settled.items() if id != epic.id}
    t.set(jobs={**t.loop.jobs, epic.id: job}, settled=settled)
    t.record(epic.id, "merging")
    if t.loop.options.worktrees:
        t.do(fx.CloseEpic(epic.id))
    else:
        _commit(t, epic.id)


def epic_travels(t: TicketTurn, result: results.EpicTravels) -> None:
    """It goes the way of finished work, so that no file in a person's checkout changes but by a merge."""
    if job_at(t, result.ticket, ClosingTicket) is None:
        return
    branch = branch_of(t.loop.name, result.ticket)
    t.stage(result.ticket, Opening())
    t.record(result.ticket, "merging", branch=branch)
    t.do(fx.OpenWorktree(result.ticket, branch))


def leave(t: TicketTurn, ticket: str, status: TicketStatus, reason: str) -> None:
    """The loop ends with the ticket half done: its file is open again, or the next loop would take it for somebody's."""
    if status == "orphaned":
        t.do(fx.MarkTicket(ticket, "open"))
    t.settle(ticket, status, reason)


def orphan(t: TicketTurn, record: TicketRecord) -> None:
    """A ticket that was under way when its runner died: it goes back to the queue, and its work is kept."""
    id = record["ticket"]
    t.set(jobs={**t.loop.jobs, id: Job(record, Working())})
    t.settle(id, "orphaned", "the runner died while it was worked on")


def opened(t: TicketTurn, result: results.Opened) -> None:
    """The worktree is there."""
    job = job_at(t, result.ticket, Opening)
    if job is None:
        return
    base = job.record["baseCommit"] if result.reused and job.record["baseCommit"] else result.base
    t.put(
        result.ticket,
        record={**job.record, "worktreePath": result.path, "baseCommit": base},
        landed_before=(job.landed_before if job.finished else 0) if result.reused else len(t.loop.landed),
    )
    command = t.loop.options.setup
    of_job = job.finished and t.loop.options.engine is not None
    if t.loop.ending is not None and not (of_job and not t.loop.at_once):
        _not_begun(t, result.ticket, "the loop ended")
    elif command is not None and not result.set_up and not of_job:
        t.stage(result.ticket, SettingUp())
        t.do(fx.SetUp(result.ticket, command, t.loop.config["toolTimeoutMs"], fresh=not result.reused))
    else:
        _continue(t, result.ticket)


def was_set_up(t: TicketTurn, result: results.WasSetUp) -> None:
    """--worktree-setup has ended."""
    if job_at(t, result.ticket, SettingUp) is None:
        return
    run = result.run
    if run is not None and run["exitCode"] != 0:
        tail = run["tail"].strip()[-300:]
        fail(t, result.ticket, f"--worktree-setup ended with exit code {run['exitCode']}: {tail or '(no output)'}")
    elif run is None or t.loop.ending is not None:
        _not_begun(t, result.ticket, "the loop ended")
    else:
        _continue(t, result.ticket)


def _not_begun(t: TicketTurn, ticket: str, reason: str) -> None:
    """No agent has worked on it in this run: it is as it was before."""
    finished = t.loop.jobs[ticket].finished
    if not finished:
        t.do(fx.MarkTicket(ticket, "open"))
    leave(t, ticket, "merging" if finished else "orphaned", reason)


def _continue(t: TicketTurn, ticket: str) -> None:
    """In its worktree, which is ready."""
    if t.loop.jobs[ticket].finished:
        _commit(t, ticket)
    else:
        work(t, ticket)


def work(t: TicketTurn, ticket: str) -> None:
    """A worker gets it, or a job on the engine."""
    if t.loop.options.engine is not None:
        away.send(t, ticket)
        return
    t.stage(ticket, Working())
    workers.give(t, ticket)
    hear(t)


def hear(t: TicketTurn) -> None:
    """Acts on what the workers have said; called after an input, and after a ticket was given to a worker."""
    while t.news:
        match t.news.pop(0):
            case HandedBack(key, verdict):
                _handed_back(t, key, verdict)
            case NotVerified(key):
                workers.drive(t, key, Verified(None))
            case Left(key, verdict):
                for ticket, job in list(t.loop.jobs.items()):
                    if workers.key_of(t, ticket) == key:
                        _worker_left(t, ticket, job, verdict)


def _handed_back(t: TicketTurn, key: str, verdict: Verdict) -> None:
    """A worker is done with its ticket, one way or the other."""
    ticket = next(
        (id for id, job in t.loop.jobs.items() if isinstance(job.stage, Working) and workers.key_of(t, id) == key), None
    )
    if ticket is None:
        return
    job = t.loop.jobs[ticket]
    if verdict.status == "completed":
        t.put(ticket, verified=not job.doubted)
        _commit(t, ticket)
        return
    lack = " ".join((job.refusal or "").split())[:300]
    reason = (verdict.error or verdict.stop_reason) + (f"; the last lacked: {lack}" if lack else "")
    if job.conflict:
        needs_merge(t, ticket, reason)
    else:
        fail(t, ticket, reason)


def _worker_left(t: TicketTurn, ticket: str, job: Job, verdict: Verdict) -> None:
    """Its worker's pi is gone."""
    if isinstance(job.stage, Removing):
        _remove(t, ticket)
    elif isinstance(job.stage, Working):
        # It did not hand the ticket back, so the end is not the ticket's: a stop, a limit, a pi that cannot work.
        leave(t, ticket, "orphaned", verdict.error or "the loop ended")
        if t.loop.ending is None:
            t.finish_with(verdict, at_once=verdict.status == "error")
            if verdict.status == "error":
                hurry(t)
                for other in list(t.loop.workers):
                    workers.stop_now(t, other)


def _commit(t: TicketTurn, ticket: str) -> None:
    # On disk first: after a crash, work that is done and verified is not asked for again.
    t.record(ticket, "merging")
    t.stage(ticket, Committing())
    t.do(fx.Commit(ticket, t.loop.jobs[ticket].record["title"]))


def committed(t: TicketTurn, result: results.Committed) -> None:
    """What the agent left is committed."""
    job = job_at(t, result.ticket, Committing)
    if job is None:
        return
    if result.problem is not None:
        back(t, result.ticket, result.problem)
        return
    t.put(result.ticket, record=_with_outcome(job.record, result))
    if not t.loop.options.worktrees:
        close(t, result.ticket)
    elif not t.loop.options.merge:
        _settle_with_worker(t, result.ticket, "needs-merge", f"done; its branch is {job.record['branch']} (--no-merge)")
    else:
        if job.verified and t.loop.config["verify"] is not None and result.tree is not None:
            t.saw_green(result.tree)
        _queue(t, result.ticket)


def _queue(t: TicketTurn, ticket: str) -> None:
    """Its work is done and committed: it is to be merged, and its place goes to the next one."""
    t.record(ticket, "merging", queuedAt=t.loop.jobs[ticket].record.get("queuedAt") or iso(t.now.wall))
    t.stage(ticket, Queued(t.loop.arrivals))
    t.set(arrivals=t.loop.arrivals + 1, stale=True)
    workers.dismiss(t, ticket)


def _with_outcome(record: TicketRecord, result: results.Committed) -> TicketRecord:
    """What is merged, and what is not."""
    with_it: TicketRecord = {**record}
    if result.unchanged and record["attempt"] > 0:  # an epic has no work of its own
        with_it["withoutChanges"] = True
    else:
        with_it.pop("withoutChanges", None)
    if result.left:
        with_it["leftBehind"] = list(result.left)
    else:
        with_it.pop("leftBehind", None)
    if result.commit is not None:
        with_it["commit"] = result.commit
    return with_it


def back(t: TicketTurn, ticket: str, refusal: str, update: bool = False) -> None:
    """The ticket's agent has to fix something first: `refusal`, for its next prompt."""
    if t.loop.jobs[ticket].record["error"] is not None:
        t.record(ticket, "merging")  # it waits for nobody any more
    t.put(ticket, refusal=refusal)
    t.stage(ticket, Returning(update))


def give_places(t: TicketTurn) -> None:
    """Lets agents fix what could not be merged, as far as there are places, before new tickets start."""
    if t.loop.paused or t.loop.ending is not None:
        return
    for ticket, job in list(t.loop.jobs.items()):
        taken = sum(_has_place(other) for other in t.loop.jobs.values())
        worker = t.loop.workers.get(workers.key_of(t, ticket))
        is_free = worker is None or workers.is_idle(worker)  # else its pi is about to end
        if not isinstance(job.stage, Returning) or not is_free or taken >= t.loop.options.rules.parallel:
            continue
        if t.loop.options.engine is not None and away.share(t.loop, ticket) is None:
            continue
        t.record(ticket, "running")  # now, as it is the record that says who has a place
        if job.stage.update:
            t.stage(ticket, Updating())
            t.do(fx.Update(ticket))
        else:
            work(t, ticket)


def _has_place(job: Job) -> bool:
    return not isinstance(job.stage, Returning) and takes_place(standing(job.record, has_runner=True))


def close(t: TicketTurn, ticket: str) -> None:
    """The work is in; the ticket is to be closed in its source."""
    t.stage(ticket, ClosingTicket())
    t.do(fx.CloseTicket(ticket))


def ticket_closed(t: TicketTurn, result: results.TicketClosed) -> None:
    """Only its worker and worktree are left to remove."""
    job = job_at(t, result.ticket, ClosingTicket)
    if job is None:
        return
    t.record(result.ticket, "closed", endedAt=iso(t.now.wall))
    if job.record.get("withoutChanges"):
        why = " ".join(job.summary.split())[:200]
        t.notice("info", f"{result.ticket} is closed without changes{f': {why}' if why else ''}", result.ticket)
    _remember(t, result.ticket)
    t.set(stale=True)
    if not t.loop.options.worktrees:
        kept = t.loop.jobs[result.ticket].record
        t.put(result.ticket, record={**kept, "returnCode": 0, "terminationMethod": "natural"})
        t.do(fx.KeepRecord(t.loop.jobs[result.ticket].record))
        t.drop(result.ticket)
        return
    t.stage(result.ticket, Removing())
    if result.ticket in t.loop.workers:
        workers.dismiss(t, result.ticket)
    else:
        _remove(t, result.ticket)


def _remove(t: TicketTurn, ticket: str) -> None:
    t.do(fx.KeepRecord(t.loop.jobs[ticket].record))
    if t.loop.options.keep_worktrees:
        t.drop(ticket)
    else:
        t.do(fx.RemoveWorktree(ticket))


def removed(t: TicketTurn, result: results.Removed) -> None:
    """The worktree is gone, or has to stay."""
    job = job_at(t, result.ticket, Removing)
    if job is None:
        return
    if result.kept is not None:
        t.notice("warning", f"the worktree of {result.ticket} stays: {result.kept}", result.ticket)
    else:
        t.put(result.ticket, record={**job.record, "worktreePath": None})
        t.do(fx.KeepRecord(t.loop.jobs[result.ticket].record))
    t.drop(result.ticket)


def failed(t: TicketTurn, result: results.JobFailed) -> None:
    """A step could not be carried out: git or the ticket source says why."""
    job = t.loop.jobs.get(result.ticket)
    if job is None:
        return
    if result.own and isinstance(job.stage, Opening):
        _not_begun(t, result.ticket, result.reason)
        return
    if result.own and not isinstance(job.stage, ClosingTicket | Removing):
        done = isinstance(job.stage, Queued | Merging | Committing | Updating)
        leave(t, result.ticket, "merging" if done else "orphaned", result.reason)
        return
    match job.stage:
        case Queued() | Merging() | Updating():
            needs_merge(t, result.ticket, result.reason)
        case ClosingTicket() if t.loop.options.worktrees and job.record["status"] == "merging":
            fail(t, result.ticket, result.reason)  # an epic, in which nothing is merged
        case ClosingTicket():
            # The work is in; only the tracker does not know.
            t.notice("error", f"{result.ticket} is merged, but cannot be closed: {result.reason}", result.ticket)
            ticket_closed(t, results.TicketClosed(result.ticket))
        case Removing():
            removed(t, results.Removed(result.ticket, result.reason))
        case _:
            fail(t, result.ticket, result.reason)


def fail(t: TicketTurn, ticket: str, reason: str) -> None:
    """Its agents could not do it: it is set aside with the reason."""
    t.do(fx.MarkTicket(ticket, "open", f"ralph-rpc ({t.loop.name}) gave up: {reason}"[:NOTE_CHARS]))
    _settle_with_worker(t, ticket, "failed", reason)
    if not t.loop.options.worktrees:
        # The next ticket would work on top of what this one left, and commit it.
        t.set(paused_for=ticket)
        t.do(fx.LookAtRest(ticket))


def rest_seen(t: TicketTurn, result: results.RestSeen) -> None:
    """What a failed ticket left in the project itself."""
    t.set(paused_for=None)
    if result.rest is not None:
        reason = (
            f"{result.ticket} failed and left {result.rest} in the project; keep or discard that, then resume "
            "(with --worktrees the other tickets would not have been held up)"
        )
        t.finish_with(Verdict("error", "failures", reason))


def needs_merge(t: TicketTurn, ticket: str, reason: str) -> None:
    """The work is done, and a person has to merge it."""
    branch = t.loop.jobs[ticket].record["branch"]
    note = f"ralph-rpc ({t.loop.name}): done on branch {branch}, but not merged: {reason}"
    t.do(fx.MarkTicket(ticket, "open", note[:NOTE_CHARS]))
    _settle_with_worker(t, ticket, "needs-merge", reason)


def _settle_with_worker(t: TicketTurn, ticket: str, status: TicketStatus, reason: str) -> None:
    """Remembered like one that is closed; a worker of its own leaves with it."""
    key = workers.key_of(t, ticket)
    t.record(ticket, status, reason, endedAt=iso(t.now.wall))
    _remember(t, ticket)
    t.drop(ticket)
    if key != SHARED:
        workers.dismiss(t, key)


def _remember(t: TicketTurn, ticket: str) -> None:
    job = t.loop.jobs[ticket]
    if job.record["attempt"] or job.record["status"] != "closed":  # else an epic, at which nobody has worked
        t.do(fx.Remember(job.record, job.summary, job.iteration, job.verify_exit))


def hurry(t: TicketTurn) -> None:
    """The loop ends at once: what no answer is awaited for is given up; its work is kept."""
    for ticket, job in list(t.loop.jobs.items()):
        match job.stage:
            case Queued():
                t.drop(ticket)
            case SettingUp():
                t.do(fx.CancelSetUp(ticket))
            case Away():
                away.cancel(t, ticket)
            case _:
                pass
    if t.loop.batch is not None and t.loop.batch.doing == "verifying":
        verifies.cancel(t, QUEUE)


def give_up_waiting(t: TicketTurn) -> None:
    """The loop ends: a merge that waits for a person, or for its agent, is left for the next run."""
    for ticket, job in list(t.loop.jobs.items()):
        if isinstance(job.stage, Returning):
            leave(t, ticket, "merging" if job.conflict else "orphaned", "the loop ended")
            workers.dismiss(t, ticket)
        elif isinstance(job.stage, Away) and job.stage.again is not None:
            leave(t, ticket, "orphaned", job.stage.reason or "the loop ended")
        elif isinstance(job.stage, Away) and (known := away.job_of(job)) is not None and known["state"] == "queued":
            away.cancel(t, ticket)  # it has not begun, and may not for hours
        elif isinstance(job.stage, Queued) and (job.stage.reason is not None or t.loop.at_once):
            t.drop(ticket)
            workers.dismiss(t, ticket)
