"""(state, input, now) -> (state, effects) of a ticket loop, as `core/step.py` is of a task loop.

After every input `_advance` looks what may go on: the next merge, the next tickets, the end.
"""

from typing import TypeAlias

from ralph_rpc.tickets.schedule import Plan, Row, Standing, plan
from ralph_runner.core import step as one
from ralph_runner.core.effects import Emit, Finish, Save
from ralph_runner.core.reports import Begin, Broken, CommandCame, Now, Terminate, Tick
from ralph_runner.core.state import Loop, Paused
from ralph_runner.core.tickets import jobs, merging, orders, receipts, workers
from ralph_runner.core.tickets import reports as rp
from ralph_runner.core.tickets.effects import Scan, TicketEffect
from ralph_runner.core.tickets.state import Job, Merging, Queued, Removing, TicketLoop
from ralph_runner.core.tickets.turn import TicketTurn
from ralph_runner.core.verdict import Verdict

TicketInput: TypeAlias = rp.TicketReport | Begin | Tick | CommandCame | Terminate | Broken

SCAN_MS = 2_000
"""Between two looks for new tickets; longer where a look takes long."""
SHOWN_RUNNING_MS = 4_000
UNHURRIED = 20
"""A look may take one part in so many of the time."""


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
            orders.terminate(t, event)
        case rp.From(key, told):
            workers.drive(t, key, told)
        case rp.Scanned():
            _scanned(t, event)
        case rp.Opened():
            jobs.opened(t, event)
        case rp.WasSetUp():
            jobs.was_set_up(t, event)
        case rp.Committed():
            jobs.committed(t, event)
        case rp.Looked():
            merging.looked(t, event)
        case rp.Updated():
            merging.updated(t, event)
        case rp.MergeVerified():
            merging.merge_verified(t, event)
        case rp.Landed():
            merging.landed(t, event)
        case rp.TicketClosed():
            jobs.ticket_closed(t, event)
        case rp.Removed():
            jobs.removed(t, event)
        case rp.RestSeen():
            jobs.rest_seen(t, event)
        case rp.JobFailed():
            jobs.failed(t, event)
    _advance(t)
    return t.loop, t.effects


def next_deadline(loop: TicketLoop) -> int | None:
    """Monotonic milliseconds at which a Tick is due."""
    if loop.ended:
        return None
    found = [one.next_deadline(worker) for worker in loop.workers.values()]
    found.append(loop.next_scan)
    found += [job.stage.not_before for job in loop.jobs.values() if isinstance(job.stage, Queued) and job.stage.reason]
    return min((due for due in found if due is not None), default=None)


def standings(loop: TicketLoop) -> dict[str, Standing]:
    """What this loop's records say of the tickets, for the scheduler."""
    found: dict[str, Standing] = {}
    for id, record in loop.settled.items():
        match record["status"]:
            case "closed" | "merged":
                found[id] = "closed"
            case "failed" | "needs-merge" as status:
                found[id] = status
            case _:
                pass
    for id, job in loop.jobs.items():
        found[id] = _standing(job)
    return found


def _standing(job: Job) -> Standing:
    match job.stage:
        case Removing():
            return "closed"
        case Queued() | Merging() if merging.waits_for(job) is not None:
            return "merge-waits"
        case _:
            # Also while it is merged: a conflict gives it back to its agent, which has to have its place then.
            return "running"


def _pass_time(t: TicketTurn) -> None:
    """Counts the time under a runner; a pause does not count."""
    spent = 0 if t.loop.status == "paused" or t.loop.last_mono == 0 else max(0, t.now.mono - t.loop.last_mono)
    t.set(last_mono=t.now.mono, elapsed_ms=t.loop.elapsed_ms + spent)


def _begin(t: TicketTurn) -> None:
    t.set(began=t.now.mono)
    for record in list(t.loop.settled.values()):
        half_removed = record["status"] == "closed" and record["worktreePath"] is not None
        if half_removed or record["status"] in ("merging", "merged", "needs-merge"):
            jobs.take_up_again(t, record)
        elif record["status"] in ("claimed", "running", "verifying"):
            jobs.orphan(t, record)
    t.do(Scan())


def _tick(t: TicketTurn) -> None:
    workers.tick(t)
    if t.loop.next_scan is not None and t.now.mono >= t.loop.next_scan:
        t.set(next_scan=None)
        t.do(Scan())


def _scanned(t: TicketTurn, report: rp.Scanned) -> None:
    t.set(next_scan=t.now.mono + max(SCAN_MS, report.took_ms * UNHURRIED))
    if report.error is not None:
        t.finish_with(Verdict("error", "blocked", report.error))
    elif report.backlog is not None and report.backlog != t.loop.backlog:
        _tell_bad(t, report)
        t.set(backlog=report.backlog, stale=True)


def _tell_bad(t: TicketTurn, report: rp.Scanned) -> None:
    """Names the tickets that cannot be used, once each."""
    assert report.backlog is not None
    known = set(t.loop.backlog.bad) if t.loop.backlog is not None else set()
    for bad in report.backlog.bad:
        if bad not in known:
            t.notice("warning", f"skipped: {bad.path}, line {bad.line}: {bad.reason}")


def _advance(t: TicketTurn) -> None:
    merging.next_merge(t)
    jobs.give_places(t)
    _limit(t)
    _schedule(t)
    if t.loop.ending is not None:
        jobs.give_up_waiting(t)
    receipts.settle(t)
    orders.expire_mail(t)
    _end(t)
    _show_status(t)


def _limit(t: TicketTurn) -> None:
    """Iterations and time of the whole loop, where no worker is left to see them; the other limits are the workers'."""
    if workers.under_way(t):
        return
    most, longest = t.loop.config["maxIterations"], t.loop.config["maxTimeMs"]
    if most and t.loop.stats["iterations"] >= most:
        t.finish_with(Verdict("stopped", "max-iterations", f"{most} iterations done, the limit is reached"))
    elif longest is not None and t.loop.elapsed_ms >= longest:
        t.finish_with(Verdict("stopped", "max-time", f"ran for {t.loop.elapsed_ms // 1000} s, the limit is reached"))


def _schedule(t: TicketTurn) -> None:
    """Starts what may start."""
    loop = t.loop
    if not loop.stale or loop.backlog is None or loop.paused or loop.ending is not None or loop.paused_for is not None:
        return
    t.set(stale=False)
    found = the_plan(loop)
    for id in found.start:
        if _has_iterations(t):
            jobs.claim(t, loop.backlog.tickets[id])
    if found.finished and not t.loop.jobs:
        t.finish_with(_verdict(t.loop, found))


def _has_iterations(t: TicketTurn) -> bool:
    most = t.loop.config["maxIterations"]
    # A ticket whose worktree is still being made will have one, too.
    coming = sum(not isinstance(job.stage, Removing) for job in t.loop.jobs.values())
    return not most or t.loop.stats["iterations"] + max(workers.under_way(t), coming) < most


def the_plan(loop: TicketLoop) -> Plan:
    """Which tickets may start now, and why the others may not."""
    assert loop.backlog is not None
    options = loop.options
    return plan(
        loop.backlog, standings(loop), parallel=options.parallel, allow_untagged=options.allow_untagged, only=options.only
    )


def _verdict(loop: TicketLoop, found: Plan) -> Verdict:
    """Nothing can start any more: everything is closed, or a person is needed."""
    left = [row for row in found.rows if row.state != "done"]
    by_wish = [row for row in left if row.state == "needs-merge" and not loop.options.merge]
    left = [row for row in left if row not in by_wish]
    if loop.options.only is not None:
        left = [row for row in left if row.id in loop.options.only]
    if not left:
        return Verdict("completed", "tickets-done")
    told = "; ".join(_told(loop, row) for row in left[:3])
    more = f"; and {len(left) - 3} more" if len(left) > 3 else ""
    kind = "failures" if any(row.state == "failed" for row in left) else "blocked"
    count = f"{len(left)} ticket{'s' if len(left) > 1 else ''} need{'' if len(left) > 1 else 's'} a person"
    return Verdict("error", kind, f"{count}: {told}{more}")  # type: ignore[arg-type]


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
    if t.loop.jobs or t.loop.workers:
        return
    for order in t.loop.orders:
        receipts.tell(t, order, "expired" if order.verb == "pause" else "delivered", None)
    for message in t.loop.mail:
        receipts.tell(t, message, "expired", "the loop ended first; the text is kept in state.json")
    t.set(orders=(), ended=True, stop_reason=verdict.stop_reason)
    _status(t, verdict.status, verdict.error)
    t.do(
        Emit(
            {
                "type": "ralph_loop_end", "at": t.now.wall, "status": verdict.status,
                "stopReason": verdict.stop_reason, "error": verdict.error,
            }
        ),
        Finish(verdict.status),
    )  # fmt: skip


def _show_status(t: TicketTurn) -> None:
    """The loop's status is what its workers and jobs add up to."""
    loop = t.loop
    if loop.ended:
        return
    active = [worker for worker in loop.workers.values() if not workers.is_idle(worker)]
    waiting = [reason for job in loop.jobs.values() if (reason := merging.waits_for(job)) is not None]
    if loop.ending is not None:
        _status(t, "stopping", loop.ending.error)
    elif loop.paused and all(isinstance(worker.phase, Paused) for worker in active) and not orders.in_merge(loop):
        _status(t, "paused", None)
    elif active and all(worker.status == "waiting" for worker in active):
        wakes = [worker.next_wake for worker in active if worker.next_wake is not None]
        _status(t, "waiting", active[0].error, min(wakes, default=None))
    elif not active and waiting and len(waiting) == len(loop.jobs):
        _status(t, "waiting", waiting[0])
    elif loop.status == "starting" and not _has_begun(t, active):
        pass
    else:
        _status(t, "running", None)


def _has_begun(t: TicketTurn, active: list[Loop]) -> bool:
    """A model has answered; or worktrees are being made, which takes longer than a person wants to wait for a start."""
    if t.loop.stats["turns"] > 0 or any(worker.status == "running" for worker in active):
        return True
    return not active and bool(t.loop.jobs) and t.now.mono - t.loop.began >= SHOWN_RUNNING_MS


def _status(t: TicketTurn, new: str, reason: str | None, next_wake: int | None = None) -> None:
    loop = t.loop
    if (loop.status, loop.error, loop.next_wake) == (new, reason, next_wake):
        return
    t.set(status=new, error=reason, next_wake=next_wake)
    if loop.status != new:
        event = {"type": "ralph_status", "at": t.now.wall, "from": loop.status, "to": new}
        if reason is not None:
            event["reason"] = reason
        t.do(Emit(event))  # type: ignore[arg-type]
    t.do(Save())
