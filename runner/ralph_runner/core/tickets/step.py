"""(state, input, now) -> (state, effects) of a ticket loop, as `core/step.py` is of a task loop.

After every input, `_advance` looks for what can happen next: a merge, new tickets, the end.
"""

from typing import TypeAlias

from ralph_rpc.model.state import Status, WaitingFor
from ralph_rpc.model.usage import limits_reached, spent
from ralph_rpc.tickets.schedule import Plan, Row, plan
from ralph_rpc.tickets.standing import standings
from ralph_rpc.tickets.ticket import BadTicket
from ralph_runner.core import budget, models
from ralph_runner.core import step as one
from ralph_runner.core.phases import Paused
from ralph_runner.core.results import Begin, Broken, CommandCame, Now, Terminate, Tick, Verified
from ralph_runner.core.running import SHOWN_RUNNING_MS
from ralph_runner.core.state import Loop
from ralph_runner.core.tickets import (
    after_engine,
    away,
    doubts,
    jobs,
    merging,
    orders,
    receipts,
    results,
    verifies,
    workers,
)
from ralph_runner.core.tickets.effects import KeepRecord, Scan, TicketEffect
from ralph_runner.core.tickets.state import (
    Away,
    ClosingTicket,
    Committing,
    Merging,
    Queued,
    Removing,
    TicketLoop,
    waits_for,
)
from ralph_runner.core.tickets.turn import TicketTurn
from ralph_runner.core.verdict import Verdict

TicketInput: TypeAlias = results.TicketResult | Begin | Tick | CommandCame | Terminate | Broken

SCAN_MS = 2_000
"""Between two looks for new tickets; longer if a look takes long."""
UNHURRIED = 20
"""Looking may take one part in this many of the time."""
HALF_WRITTEN_MS = 3_000
"""A ticket that still cannot be read after this is not just being written."""


def step(loop: TicketLoop, event: TicketInput, now: Now) -> tuple[TicketLoop, list[TicketEffect]]:
    """The next state and what to do now."""
    t = TicketTurn(loop, now)
    if loop.ended:
        return loop, []
    _pass_time(t)
    match event:
        case Begin():
            _begin(t)
        case Tick():
            _tick(t)
        case CommandCame():
            orders.came(t, event)
        case Terminate() | Broken():
            t.set(was_paused=t.loop.status == "paused")
            orders.terminate(t, event)
        case results.From(key, told):
            if (
                not isinstance(told, Verified)
                or verifies.counts(t, key, told.verify)
                and not doubts.holds(t, key, told)
            ):
                workers.drive(t, key, told)
        case results.Scanned():
            _scanned(t, event)
        case results.Opened():
            jobs.opened(t, event)
        case results.WasSetUp():
            jobs.was_set_up(t, event)
        case results.Committed():
            jobs.committed(t, event)
        case results.Updated():
            merging.updated(t, event)
        case results.BatchBuilt():
            merging.built(t, event)
        case results.BatchCheckedOut():
            merging.checked_out(t, event)
        case results.BatchVerified():
            merging.verified(t, event)
        case results.BatchLanded():
            merging.landed(t, event)
        case results.BatchFailed():
            merging.failed(t, event)
        case results.QueueLeft():
            merging.left(t, event)
        case results.TicketClosed():
            jobs.ticket_closed(t, event)
        case results.EpicTravels():
            jobs.epic_travels(t, event)
        case results.Removed():
            jobs.removed(t, event)
        case results.RestSeen():
            jobs.rest_seen(t, event)
        case results.JobTold():
            away.told(t, event)
        case results.JobReturned():
            away.returned(t, event)
        case results.JobLost():
            after_engine.job_lost(t, event)
        case results.BranchTaken():
            after_engine.branch_taken(t, event)
        case results.JobFailed():
            jobs.failed(t, event)
    workers.wake(t, loop.outages)
    jobs.hear(t)
    _advance(t)
    return t.loop, t.effects


def next_deadline(loop: TicketLoop) -> int | None:
    """Monotonic milliseconds at which a Tick is due."""
    if loop.ended:
        return None
    found = [one.next_deadline(worker) for worker in loop.workers.values()]
    found.append(loop.next_scan)
    found += [job.stage.again for job in loop.jobs.values() if isinstance(job.stage, Away)]
    found += [job.stage.not_before for job in loop.jobs.values() if isinstance(job.stage, Queued) and job.stage.reason]
    return min((due for due in found if due is not None), default=None)


def _pass_time(t: TicketTurn) -> None:
    t.set(last_mono=t.now.mono, elapsed_ms=t.loop.elapsed_at(t.now.mono))


def _begin(t: TicketTurn) -> None:
    t.set(began=t.now.mono)
    for record in list(t.loop.settled.values()):
        left_over = record["worktreePath"] is not None and not t.loop.options.keep_worktrees
        half_removed = record["status"] == "closed" and left_over
        if half_removed or record["status"] in ("merging", "merged", "needs-merge"):
            jobs.take_up_again(t, record)
        elif record.get("job") is not None and t.loop.options.engine is not None:
            away.again(t, record)
        elif record["status"] in ("claimed", "running", "verifying"):
            jobs.orphan(t, record)
        elif record["status"] == "orphaned" and record["attempt"] == 0:
            t.do(KeepRecord(record))  # it had failed, and has a new chance: on disk too
    _look(t)


def _look(t: TicketTurn) -> None:
    t.set(next_scan=None, looking_idle=not t.loop.jobs)
    t.do(Scan())


def _tick(t: TicketTurn) -> None:
    workers.tick(t)
    if t.loop.next_scan is not None and t.now.mono >= t.loop.next_scan:
        _look(t)


def _scanned(t: TicketTurn, result: results.Scanned) -> None:
    t.set(next_scan=t.now.mono + max(SCAN_MS, result.took_ms * UNHURRIED), looked=t.loop.looking_idle)
    if result.error is not None:
        t.finish_with(Verdict("error", "blocked", result.error))
    elif result.backlog is not None and result.backlog != t.loop.backlog:
        _tell_bad(t, result)
        t.set(backlog=result.backlog, stale=True)
        orders.address(t)


def _tell_bad(t: TicketTurn, result: results.Scanned) -> None:
    """Names the tickets that cannot be used, once each."""
    assert result.backlog is not None
    known = set(t.loop.backlog.bad) if t.loop.backlog is not None else set()
    for bad in result.backlog.bad:
        if bad not in known:
            t.notice("warning", f"skipped: {bad.path}, line {bad.line}: {bad.reason}")


def _advance(t: TicketTurn) -> None:
    merging.next_batch(t)
    merging.make_place(t)
    if not merging.is_held(t.loop):
        jobs.give_places(t)
        after_engine.send_again(t)
    _limit(t)
    _schedule(t)
    if t.loop.ending is not None:
        jobs.give_up_waiting(t)
    receipts.settle(t)
    orders.expire_mail(t)
    _end(t)
    _show_status(t)


def _limit(t: TicketTurn) -> None:
    """Iterations and time of the whole loop, where no worker is left to see them; the other limits are the workers'.

    Jobs on an engine see none of the others'.
    """
    if workers.under_way(t):
        return
    used = spent(t.loop.stats)
    for limit in limits_reached(t.loop.config, used, t.loop.elapsed_ms):
        if limit in ("max-iterations", "max-time") or t.loop.options.engine is not None:
            t.finish_with(budget.verdict(limit, t.loop.config, used, t.loop.elapsed_ms))


def _schedule(t: TicketTurn) -> None:
    """Starts what may start."""
    loop = t.loop
    if not loop.stale or loop.backlog is None or loop.paused or loop.ending is not None or loop.paused_for is not None:
        return
    if merging.is_held(loop):
        return
    t.set(stale=False)
    found = the_plan(loop)
    for id in found.close:
        if t.loop.options.worktrees or not t.loop.jobs:
            jobs.close_epic(t, loop.backlog.tickets[id])
    for id in found.start:
        if not t.loop.options.worktrees and t.loop.jobs:
            break  # an epic's file is being committed there
        if isinstance(models.choose(loop.config, t.loop.outages, t.now), models.Wait):
            # The provider is one for all: whoever has a ticket asks whether it is back; if nobody has, time decides.
            t.set(stale=True)
            break
        if t.loop.options.engine is not None and away.share(t.loop, id) is None:
            t.set(stale=True)  # what others have reserved may come back
            break
        if _has_iterations(t):
            jobs.claim(t, loop.backlog.tickets[id])
    if found.finished and not t.loop.jobs:
        _finish(t, found)


def _finish(t: TicketTurn, found: Plan) -> None:
    """Ends the loop, if nothing is left to do by a look at the tickets that is new enough to tell."""
    unread = _unread(t.loop)
    if not t.loop.looked:
        t.set(stale=True)
        if t.loop.next_scan is not None:
            _look(t)
        return
    since = t.loop.unread_since if t.loop.unread_since is not None else t.now.mono
    if unread and t.now.mono < since + HALF_WRITTEN_MS:
        t.set(stale=True, unread_since=since)
        return
    left = _left(t.loop, found)
    t.set(undone=len(left) + len(unread))
    t.finish_with(_verdict(t.loop, found, left, unread))


def _has_iterations(t: TicketTurn) -> bool:
    # A ticket whose worktree is still being made will also have one, and so may one that comes back from its merge.
    over = Committing | Queued | Merging | ClosingTicket | Removing
    coming = sum(not isinstance(job.stage, over) for job in t.loop.jobs.values())
    return budget.allows_iteration(t.loop.config, t.loop.stats["iterations"] + max(workers.under_way(t), coming))


def the_plan(loop: TicketLoop) -> Plan:
    """Which tickets may start now, and why the others may not."""
    assert loop.backlog is not None
    # By the records, as `ralph-rpc tickets` does: each is on disk before the step that it announces.
    records = {**loop.settled, **{id: job.record for id, job in loop.jobs.items()}}
    return plan(loop.backlog, standings(records, has_runner=True), loop.options.rules)


def _left(loop: TicketLoop, found: Plan) -> list[Row]:
    """The tickets that are not done, and should be. An epic is left only where its children do not say why."""
    return [
        row
        for row in found.rows
        if row.state != "done"
        and row.left_out is None
        and not (row.is_epic and row.state == "waiting")
        and (row.state != "needs-merge" or loop.options.merge)
    ]


def _unread(loop: TicketLoop) -> tuple[BadTicket, ...]:
    """Tickets that cannot be read, and may be among those that the loop should do."""
    assert loop.backlog is not None
    only = loop.options.rules.choice.only
    return tuple(one for one in loop.backlog.unread if only is None or one.id in only)


def _verdict(loop: TicketLoop, found: Plan, left: list[Row], unread: tuple[BadTicket, ...]) -> Verdict:
    """Nothing can start any more: everything is closed, or a person is needed."""
    if not (left or unread):
        claimed = [row.id for row in found.rows if row.state != "done" and row.left_out and row.left_out.is_claimed]
        return Verdict("completed", "tickets-done", _others(claimed) if claimed else None)
    told = [f"{one.place} cannot be read: {one.reason}" for one in unread] + [_told(loop, row) for row in left]
    count = len(told)
    more = f"; and {count - 3} more" if count > 3 else ""
    kind = "failures" if any(row.state == "failed" for row in left) else "blocked"
    need = f"{count} ticket{'s' if count > 1 else ''} need{'' if count > 1 else 's'} a person"
    return Verdict("error", kind, f"{need}: {'; '.join(told[:3])}{more}")  # type: ignore[arg-type]


def _others(claimed: list[str]) -> str:
    more = f" and {len(claimed) - 3} more" if len(claimed) > 3 else ""
    return f"all but what others work on: {', '.join(claimed[:3])}{more}"


def _told(loop: TicketLoop, row: Row) -> str:
    record = loop.settled.get(row.id)
    reason = row.reason or (record["error"] if record is not None else None)
    return f"{row.id}: {row.state}{f', {reason}' if reason else ''}"


def _end(t: TicketTurn) -> None:
    """Ends the loop when nothing runs any more."""
    verdict = t.loop.ending
    if verdict is None or t.loop.ended:
        return
    if not t.loop.jobs:
        for key, worker in list(t.loop.workers.items()):
            if workers.is_idle(worker):
                workers.dismiss(t, key)
    if t.loop.jobs or t.loop.workers or not merging.has_left(t):
        return
    t.set(ended=True)
    t.close_books(verdict)


def _show_status(t: TicketTurn) -> None:
    """The loop's status is what its workers and jobs add up to."""
    loop = t.loop
    if loop.ended or loop.place == "going":
        return
    active = [worker for worker in loop.workers.values() if not workers.is_idle(worker)]
    waiting = [reason for job in loop.jobs.values() if (reason := waits_for(job)) is not None]
    out_there = [known for job in away.out_there(loop).values() if (known := away.job_of(job)) is not None]
    if loop.ending is not None:
        _status(t, "stopping", loop.ending.error)
    elif (
        loop.paused
        and all(isinstance(worker.phase, Paused) for worker in active)
        and not orders.in_merge(loop)
        and not out_there
    ):
        _status(t, "paused", None)
    elif active and all(worker.status == "waiting" for worker in active):
        first = min(active, key=lambda worker: worker.next_wake or 0)
        _status(t, "waiting", first.error, first.next_wake, first.waiting_for)
    elif out_there and len(out_there) == len(loop.jobs) and all(job["state"] == "queued" for job in out_there):
        count = len(out_there)
        words = f"{count} job{'s are' if count > 1 else ' is'} queued on {loop.options.engine}"
        _status(t, "waiting", words, None, "queued")
    elif not active and waiting and len(waiting) == len(loop.jobs):
        _status(t, "waiting", waiting[0], None, "merge")
    elif not loop.jobs and isinstance(wait := models.choose(loop.config, loop.outages, t.now), models.Wait):
        _status(t, "waiting", f"{wait.outage.kind}: {wait.outage.words}", wait.outage.until, wait.outage.kind)
    elif loop.status == "starting" and not _has_begun(t, active):
        pass
    else:
        _status(t, "running", None)


def _has_begun(t: TicketTurn, active: list[Loop]) -> bool:
    """A model has answered; or worktrees are being made, which takes longer than a person wants to wait for a start."""
    if t.loop.stats["turns"] > 0 or any(worker.status == "running" for worker in active):
        return True
    if t.loop.options.engine is not None:
        return t.loop.ever_queued
    return not active and bool(t.loop.jobs) and t.now.mono - t.loop.began >= SHOWN_RUNNING_MS


def _status(
    t: TicketTurn, new: Status, reason: str | None, next_wake: int | None = None, waiting_for: WaitingFor | None = None
) -> None:
    """As `t.status`, but what is shown already is not saved again."""
    if (t.loop.status, t.loop.error, t.loop.next_wake) != (new, reason, next_wake):
        t.status(new, reason, next_wake, waiting_for)
