"""The merge of a ticket's branch: one at a time, and never of a tree that was not verified. Pure; part of a job's way.

The target is looked at; where it has moved it is brought into the ticket's branch first, and what comes out is verified;
then the branch lands. A conflict, or a red check, goes back to the agent; a merge that would touch a person's files waits.
"""

from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import jobs, workers
from ralph_runner.core.tickets import reports as rp
from ralph_runner.core.tickets.state import Job, Merging, Queued
from ralph_runner.core.tickets.turn import TicketTurn, job_at

WAIT_MS = 5_000
"""Between two looks whether a merge that had to wait can be done now."""


def next_merge(t: TicketTurn) -> None:
    """Gives the merge queue's place to the next that may have it, in order of arrival."""
    if any(isinstance(job.stage, Merging) for job in t.loop.jobs.values()) or t.loop.at_once:
        return
    for ticket, job in t.loop.jobs.items():
        if isinstance(job.stage, Queued) and job.stage.not_before <= t.now.mono:
            t.stage(ticket, Merging("looking"))
            t.do(fx.LookAtTarget(ticket))
            return


def waits_for(job: Job) -> str | None:
    """Why its merge cannot be done now, if it cannot; also while it is tried once more."""
    match job.stage:
        case Queued(reason=reason):
            return reason
        case Merging():
            return job.record["error"]
        case _:
            return None


def looked(t: TicketTurn, report: rp.Looked) -> None:
    """It is known how the branch stands to the target."""
    job = job_at(t, report.ticket, Merging)
    if job is None:
        return
    if report.standing == "ready" and (job.verified or t.loop.config["verify"] is None):
        _land(t, report.ticket, report.target)
    elif report.standing == "ready":
        _verify_merge(t, report.ticket)
    elif report.standing == "behind":
        t.stage(report.ticket, Merging("updating", report.target))
        t.do(fx.Update(report.ticket))
    else:
        _conflict(t, report.ticket, report.conflict)


def updated(t: TicketTurn, report: rp.Updated) -> None:
    """The target is merged into the ticket's branch: what comes out has never been verified."""
    job = job_at(t, report.ticket, Merging)
    if job is None:
        return
    if report.conflict is not None:
        _conflict(t, report.ticket, report.conflict)
        return
    t.put(report.ticket, verified=False)
    _verify_merge(t, report.ticket)


def _verify_merge(t: TicketTurn, ticket: str) -> None:
    verify = t.loop.config["verify"]
    if verify is None:
        t.stage(ticket, Merging("looking"))
        t.do(fx.LookAtTarget(ticket))
    elif t.loop.at_once:
        t.stage(ticket, Queued())
    else:
        t.stage(ticket, Merging("verifying"))
        t.do(fx.VerifyMerge(ticket, verify, t.loop.config["toolTimeoutMs"]))


def merge_verified(t: TicketTurn, report: rp.MergeVerified) -> None:
    """verify has looked at the merged tree."""
    if job_at(t, report.ticket, Merging) is None:
        return
    verify = report.verify
    if verify is None:
        t.stage(report.ticket, Queued())
    elif verify["exitCode"] == 0:
        # Not landed right away: a person may have moved the target meanwhile.
        t.put(report.ticket, verified=True, verify_exit=0)
        t.stage(report.ticket, Merging("looking"))
        t.do(fx.LookAtTarget(report.ticket))
    else:
        tail = verify["tail"].strip() or "(no output)"
        into = t.loop.options.into
        _conflict(
            t,
            report.ticket,
            f"`{into}` was merged into your branch, since others had changed it; then `{verify['command']}` ended with "
            f"exit code {verify['exitCode']}. Its output ends:\n\n{tail}",
        )


def _land(t: TicketTurn, ticket: str, target: str) -> None:
    t.stage(ticket, Merging("landing", target))
    title = t.loop.jobs[ticket].record["title"]
    t.do(fx.Land(ticket, target, f"Merge {ticket}: {title}"))


def landed(t: TicketTurn, report: rp.Landed) -> None:
    """The target branch was moved, or not."""
    job = job_at(t, report.ticket, Merging)
    if job is None:
        return
    if report.commit is not None:
        t.record(report.ticket, "merged", mergeCommit=report.commit)
        jobs.close(t, report.ticket)
    elif report.waits is not None:
        if job.record["error"] != report.waits:
            t.record(report.ticket, "merging", report.waits)
            t.notice("warning", f"the merge of {report.ticket} waits: {report.waits}", report.ticket)
        t.stage(report.ticket, Queued(t.now.mono + WAIT_MS, report.waits))
        # It may wait all night: another one gets its place.
        workers.dismiss(t, report.ticket)
        t.set(stale=True)
    else:
        t.stage(report.ticket, Merging("looking"))
        t.do(fx.LookAtTarget(report.ticket))


def _conflict(t: TicketTurn, ticket: str, what: str) -> None:
    """Back to the agent, which has as many attempts at the merge as it had at the work."""
    job = t.loop.jobs[ticket]
    if not job.conflict:
        t.put(ticket, conflict=True, attempts=job.tried + t.loop.options.attempts)
    elif job.tried >= job.attempts:
        jobs.needs_merge(t, ticket, " ".join(what.split())[:300])
        return
    jobs.back(t, ticket, what)
