"""The merge queue of a ticket loop: what is queued when it is free lands together. Pure; called by the step.

The queue has one batch at a time (`batch.py` says what is tried next). Its branches are merged on top of the target
where nobody sees it, the result is verified in a place of the queue's own, and one move of the target's ref lands it:
never a tree that was not verified. A conflict, or a red check that is the ticket's own fault, goes back to its agent; a
merge that would touch a person's files waits; where the target itself is red, everything does. Of a batch nothing is
kept on disk: a machine that dies leaves tickets whose records say `merging`, which are queued again, and found where
they have landed.
"""

from dataclasses import replace
from typing import Any

from ralph_rpc.clock import parse_iso
from ralph_rpc.model.iteration import Verify
from ralph_runner.core.effects import Emit, Save
from ralph_runner.core.tickets import batch as bt
from ralph_runner.core.tickets import doubts, gate, jobs, results, verifies
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets.batch import Batch
from ralph_runner.core.tickets.gate import QUEUE
from ralph_runner.core.tickets.state import Committing, Merging, Queued, RedTarget, TicketLoop, Updating, Working
from ralph_runner.core.tickets.turn import TicketTurn, job_at

WAIT_MS = 5_000
"""Between two looks whether a merge that had to wait can be done now."""
RED_TARGET_MS = 600_000
"""After which a red target that has not moved is verified again: what was red may lie outside of it."""
MADE_FOR = 2
"""Tickets that are worked on at one time: one alone may land without a verification of the queue's."""
NAMED = 5


def next_batch(t: TicketTurn) -> None:
    """Brings together all that is queued, in order of arrival, if the queue is free. It never waits for more to come.

    Those that come before verify begins are taken in as well. Those that come afterwards are, as long as that saves more
    waiting than it costs (`bt.should_grow`): verify is then started over with them.
    """
    if t.loop.at_once:
        return
    batch, newcomers = t.loop.batch, _newcomers(t)
    if batch is None:
        if (base := doubts.first_base(t)) is not None:
            _check(t, Batch(target=base), 0)
        elif newcomers:
            _bring_together(t)
    elif not newcomers or batch.doing != "verifying" or not bt.is_whole(batch):
        return
    elif gate.waits(t.loop.gate, QUEUE):
        verifies.forget(t, QUEUE)
        _bring_together(t, batch.first)
    elif bt.should_grow(batch, newcomers, t.loop.verify_ms, t.now.mono) and verifies.may_start_over(t, QUEUE):
        _tell(t, batch, "restarted")
        t.set(batch=replace(batch, doing="restarting"))
        verifies.cancel(t, QUEUE)


def _newcomers(t: TicketTurn) -> int:
    return sum(isinstance(job.stage, Queued) and job.stage.not_before <= t.now.mono for job in t.loop.jobs.values())


def _bring_together(t: TicketTurn, first: int | None = None) -> None:
    """All that is queued, with what is in the batch; `first` is that batch's."""
    found = sorted(
        (job.stage.arrival, ticket)
        for ticket, job in t.loop.jobs.items()
        if isinstance(job.stage, Merging) or (isinstance(job.stage, Queued) and job.stage.not_before <= t.now.mono)
    )
    for arrival, ticket in found:
        t.stage(ticket, Merging(arrival))
    t.set(batch=Batch(since=t.now.wall, formed=t.now.mono, first=t.now.mono if first is None else first))
    merges = tuple((ticket, f"Merge {ticket}: {t.loop.jobs[ticket].record['title']}") for _, ticket in found)
    t.do(fx.BuildBatch(merges))


def built(t: TicketTurn, result: results.BatchBuilt) -> None:
    """It is known how each branch stands to the target and to the others."""
    batch = t.loop.batch
    if batch is None or batch.doing != "building":
        return
    for ticket, commit in result.landed.items():
        if job_at(t, ticket, Merging) is not None:
            _close(t, ticket, commit)
    for ticket, what in result.conflicts.items():
        if job_at(t, ticket, Merging) is not None:
            _conflict(t, ticket, what)
    for ticket, reason in result.waits.items():
        if job_at(t, ticket, Merging) is not None:
            _wait(t, ticket, reason)
    for ticket, reason in result.faults.items():
        if job_at(t, ticket, Merging) is not None:
            jobs.needs_merge(t, ticket, reason)
    for ticket in result.outdated:
        job = job_at(t, ticket, Merging)
        if job is not None and isinstance(job.stage, Merging):
            t.stage(ticket, Updating(job.stage.arrival))
            t.do(fx.Update(ticket))
    # Those that conflict with one of the links stay until it is known whether that one lands.
    batch = replace(batch, links=result.links, target=result.target, tree=result.tree, size=len(result.links))
    t.set(batch=batch)
    red = t.loop.red_target
    if red is None or red.commit != result.target or not red.tickets >= set(batch.tickets):
        _continue(t)
    elif t.now.mono < red.again:
        _hold(t, batch, red)
    else:
        _check(t, batch, 0)


def verified(t: TicketTurn, result: results.BatchVerified) -> None:
    """verify has looked at a tree of the queue's."""
    batch = t.loop.batch
    restarting = batch is not None and batch.doing == "restarting"
    run = None if restarting else result.verify  # it was cancelled: what it may have said before that does not count
    if not verifies.counts(t, QUEUE, run) or batch is None or not (restarting or batch.doing == "verifying"):
        return
    if restarting and not t.loop.at_once:
        _bring_together(t, batch.first)
    elif run is None:
        doubts.let_go(t)
        _dissolve(t)
    elif run["exitCode"] == 0:
        if batch.count == 0:
            t.set(red_target=None, stale=True)
            t.saw_green(batch.target)
            doubts.settle(t, batch.target, is_red=False)
        if batch.links:
            t.saw_green(_tree(batch))
        _continue(t)
    elif batch.count == 0:
        _target_is_red(t, batch, run)
    else:
        _tell(t, batch, "red")
        t.set(batch=bt.was_red(batch, run))
        _continue(t)


def landed(t: TicketTurn, result: results.BatchLanded) -> None:
    """The target branch was moved, or not."""
    batch = t.loop.batch
    if batch is None or batch.doing != "landing":
        return
    if result.commit is None:
        _dissolve(t, result.waits)
        return
    _tell(t, batch, "landed", bt.was_fluke(batch))
    if bt.was_fluke(batch):
        what = "merge" if batch.count == 1 else f"merge of {_names(batch.tickets[: batch.count])}"
        t.notice("warning", f"verify was red and then green on the same {what}: it is not reliable", batch.tickets[0])
    t.set(red_target=None, stale=True)
    for link in batch.links[: batch.count]:
        if job_at(t, link.ticket, Merging) is not None:
            _close(t, link.ticket, link.commit)
    t.set(batch=bt.has_landed(batch, result.commit))
    if t.loop.config["verify"] is not None:
        t.saw_green(result.commit)
    _continue(t)


def failed(t: TicketTurn, result: results.BatchFailed) -> None:
    """git could not do a step for the whole batch: no ticket is to blame."""
    if t.loop.batch is None:
        return
    if not result.own:
        _dissolve(t, result.reason)
        return
    t.set(batch=None)
    for ticket, job in list(t.loop.jobs.items()):
        if isinstance(job.stage, Merging):
            t.settle(ticket, "merging", result.reason)


def updated(t: TicketTurn, result: results.Updated) -> None:
    """The ticket's branch is brought up to the target, or that is left to its agent."""
    job = job_at(t, result.ticket, Updating)
    if job is None or not isinstance(job.stage, Updating):
        return
    if job.stage.arrival is not None:
        if result.conflict is None:
            t.stage(result.ticket, Queued(job.stage.arrival))
        else:
            _conflict(t, result.ticket, result.conflict)
        return
    if t.loop.ending is not None:
        t.settle(result.ticket, "merging", "the loop ended")
        return
    refusal = job.refusal or ""
    if result.conflict is not None:
        refusal = f"{refusal}\n\nSince then it conflicts with `{t.loop.options.into}`:\n\n{result.conflict}"
    t.put(result.ticket, refusal=refusal, landed_before=len(t.loop.landed))
    jobs.work(t, result.ticket)


def _continue(t: TicketTurn) -> None:
    batch = t.loop.batch
    assert batch is not None
    verify = t.loop.config["verify"]
    match bt.next_move(batch, None if verify is None else t.loop.verified):
        case bt.Over():
            _dissolve(t)
        case bt.Check(count):
            _check(t, batch, count)
        case bt.Land(count):
            t.set(batch=replace(batch, doing="landing", count=count, since=t.now.wall))
            t.do(Save(), fx.LandBatch(batch.target, batch.links[count - 1].commit, batch.tickets[:count]))
        case bt.Blame():
            _blame(t, batch)


def _check(t: TicketTurn, batch: Batch, count: int) -> None:
    """Verifies a tree, by way of the queue's place: until that has it, a batch that is still whole takes in who comes."""
    if t.loop.at_once:
        _dissolve(t)
        return
    batch = replace(batch, doing="preparing", count=count, since=t.now.wall)
    t.set(batch=batch)
    t.do(fx.CheckOutBatch(_commit(batch)))


def make_place(t: TicketTurn) -> None:
    """The queue's own place is made as soon as two agents work, so that nobody waits for it when they are done."""
    if (
        t.loop.config["verify"] is None
        or not t.loop.options.merge
        or t.loop.place != "not made"
        or t.loop.ending is not None
    ):
        return
    bases = [job.record["baseCommit"] for job in t.loop.jobs.values() if isinstance(job.stage, Working)]
    if len(bases) >= MADE_FOR and bases[0] is not None:
        t.set(place="may be there")
        t.do(fx.CheckOutBatch(bases[0]))


def checked_out(t: TicketTurn, result: results.BatchCheckedOut) -> None:
    """The queue's own place has the tree that is to be verified."""
    batch, verify = t.loop.batch, t.loop.config["verify"]
    if batch is None or batch.doing != "preparing" or verify is None or result.commit != _commit(batch):
        return
    if t.loop.at_once:
        _dissolve(t)
        return
    if batch.count and bt.is_whole(batch) and _newcomers(t):
        _bring_together(t, batch.first)
        return
    batch = replace(batch, doing="verifying", since=t.now.wall)
    t.set(batch=batch)
    t.do(Save())
    _tell(t, batch, "verifying")
    tickets = batch.tickets[: batch.count]
    lenders = tickets or batch.tickets or tuple(t.loop.doubts)
    verifies.ask(t, QUEUE, fx.VerifyBatch(tickets, verify, t.loop.config["toolTimeoutMs"], lenders))


def _blame(t: TicketTurn, batch: Batch) -> None:
    """The first of the batch goes back to its agent; those behind it are queued again, with all that came meanwhile."""
    assert batch.output is not None
    ticket, run, into = batch.links[0].ticket, batch.output, t.loop.options.into
    job = job_at(t, ticket, Merging)
    if job is not None:
        others = [other for other in t.loop.landed[job.landed_before :] if other != ticket]
        came = f", with {_names(others)}" if others else ""
        tail = run["tail"].strip() or "(no output)"
        what = (
            f"`{into}` was merged into your branch, because others had changed it{came}; then `{run['command']}` ended "
            f"with exit code {run['exitCode']}. The end of its output:\n\n{tail}\n\n({_where(t)})"
        )
        _conflict(t, ticket, what, update=True)
    _dissolve(t)


def _where(t: TicketTurn) -> str:
    """In what the queue verifies, for one who wonders what is missing there."""
    if t.loop.options.setup is not None:
        return "This ran in a worktree of the merge queue's, set up by --worktree-setup, not in your directory."
    return (
        "This ran in a worktree of the merge queue's, not in your directory: "
        "nothing that git ignores was there but installed packages."
    )


def _target_is_red(t: TicketTurn, batch: Batch, run: Verify) -> None:
    """Nobody is blamed: everything waits until the target has moved, or a ticket comes that repairs it."""
    said = " ".join(run["tail"].split())[-200:] or "(no output)"
    into = t.loop.options.into
    reason = (
        f"{into} does not pass `{run['command']}` by itself (exit code {run['exitCode']}), so no ticket is to blame; "
        f"fix it on {into}{'' if t.loop.options.setup else ', or give --worktree-setup if verify lacks something in a fresh worktree'}"
        f". The end of its output: {said}"
    )
    _tell(t, batch, "target-red")
    t.notice("warning", f"merges wait: {reason}")
    before = t.loop.red_target
    known = before.tickets if before is not None and before.commit == batch.target else frozenset[str]()
    red = RedTarget(batch.target, known | set(batch.tickets), reason, t.now.mono + RED_TARGET_MS)
    t.set(red_target=red)
    _hold(t, batch, red)
    doubts.settle(t, batch.target, is_red=True)


def _hold(t: TicketTurn, batch: Batch, red: RedTarget) -> None:
    t.set(batch=None)
    for ticket in batch.tickets:
        job = job_at(t, ticket, Merging)
        if job is not None:
            _wait(t, ticket, red.reason, told=True)


def _dissolve(t: TicketTurn, reason: str | None = None) -> None:
    """What is left of the batch is queued again, where `reason` says so only for a while."""
    t.set(batch=None)
    waiting = [ticket for ticket, job in t.loop.jobs.items() if isinstance(job.stage, Merging)]
    for number, ticket in enumerate(waiting):
        if reason is None:
            _queue_again(t, ticket)
        else:
            _wait(t, ticket, reason, told=number > 0)


def _queue_again(t: TicketTurn, ticket: str) -> None:
    job = job_at(t, ticket, Merging)
    if job is not None and isinstance(job.stage, Merging):
        t.stage(ticket, Queued(job.stage.arrival))


def _wait(t: TicketTurn, ticket: str, reason: str, told: bool = False) -> None:
    """It is tried again later; it may wait all night, and so counts no more against what may pile up."""
    job = t.loop.jobs[ticket]
    assert isinstance(job.stage, Merging)
    if job.record["error"] != reason:
        t.record(ticket, "merging", reason)
        if not told:
            t.notice("warning", f"the merge of {ticket} waits: {reason}", ticket)
    t.stage(ticket, Queued(job.stage.arrival, t.now.mono + WAIT_MS, reason))
    t.set(stale=True)


def has_left(t: TicketTurn) -> bool:
    """Nothing is left to merge; True once the queue's own place is gone."""
    if not t.loop.options.worktrees or not t.loop.options.merge:
        return True
    if t.loop.place in ("not made", "may be there"):  # an earlier runner may have made it
        t.set(place="going")
        t.do(fx.LeaveQueue())
    return t.loop.place == "gone"


def left(t: TicketTurn, result: results.QueueLeft) -> None:
    """The queue's own place is gone, or has to stay."""
    t.set(place="gone")
    if result.kept is not None:
        t.notice("warning", f"the merge queue's worktree stays: {result.kept}")


def is_held(loop: TicketLoop) -> bool:
    """Nothing is started on a red target, as long as there is something that waits for it."""
    waiting = Committing | Queued | Merging
    return loop.red_target is not None and any(isinstance(job.stage, waiting) for job in loop.jobs.values())


def _close(t: TicketTurn, ticket: str, commit: str) -> None:
    t.set(landed=(*t.loop.landed, ticket))
    t.record(ticket, "merged", mergeCommit=commit, **_waited(t, ticket))
    jobs.close(t, ticket)


def _waited(t: TicketTurn, ticket: str) -> dict[str, Any]:
    """The ticket leaves the queue: what its record says of the time in it."""
    record = t.loop.jobs[ticket].record
    since = parse_iso(record.get("queuedAt") or "")
    now = max(0, t.now.wall - since) if since is not None else 0
    return {"queuedAt": None, "waitedMs": record.get("waitedMs", 0) + now}


def _conflict(t: TicketTurn, ticket: str, what: str, update: bool = False) -> None:
    """Back to the agent, which has as many attempts at the merge as it had at the work."""
    job = t.loop.jobs[ticket]
    t.put(ticket, record={**job.record, **_waited(t, ticket)})
    if not job.conflict:
        t.put(ticket, conflict=True, attempts=job.tried + t.loop.options.attempts)
    elif job.tried >= job.attempts:
        jobs.needs_merge(t, ticket, " ".join(what.split())[:300])
        return
    jobs.back(t, ticket, what, update)


def _commit(batch: Batch) -> str:
    """What is verified, or to be verified."""
    return batch.links[batch.count - 1].commit if batch.count else batch.target


def _tree(batch: Batch) -> str:
    return batch.links[batch.count - 1].tree if batch.count else batch.tree


def _tell(t: TicketTurn, batch: Batch, state: str, fluke: bool = False) -> None:
    event = {"type": "ralph_batch", "at": t.now.wall, "tickets": list(batch.tickets[: batch.count]), "state": state}
    if state != "verifying":
        event["durationMs"] = max(0, t.now.wall - batch.since)
    if fluke:
        event["fluke"] = True
    t.do(Emit(event))  # type: ignore[arg-type]


def _names(tickets: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(tickets) - NAMED} more" if len(tickets) > NAMED else ""
    return ", ".join(tickets[:NAMED]) + more
