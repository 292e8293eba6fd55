"""state.json of a ticket loop from the core's state, and the core's first state. Pure; the shell has the files.

A restart takes from state.json the counters only. How far each ticket came is in its dispatch record, and what is
merged in git.
"""

from collections.abc import Mapping

from ralph_rpc.clock import iso
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import RunningTicket, State, TicketsState
from ralph_rpc.model.ticket import TicketRecord
from ralph_runner.core.reports import Now
from ralph_runner.core.snapshot import NO_STATS, Facts, running_run
from ralph_runner.core.state import Loop
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
    TicketLoop,
    TicketOptions,
    Working,
)
from ralph_runner.core.tickets.workers import running_totals


def new_tickets(name: str, config: Config, records: Mapping[str, TicketRecord]) -> TicketLoop:
    """A ticket loop that has never run; `records` are there only where its state was lost."""
    return TicketLoop(
        name=name, config=config, options=TicketOptions.of(config), status="starting", iteration=0, stats=NO_STATS,
        elapsed_ms=0, settled=dict(records),
    )  # fmt: skip


def resumed_tickets(
    name: str, config: Config, state: State, last_iteration: int, records: Mapping[str, TicketRecord]
) -> TicketLoop:
    """A ticket loop that goes on."""
    settled = dict(records)
    if state["status"] in ("stopped", "error"):
        # A person who resumes after an end gives the tickets that failed a new chance.
        for id, record in records.items():
            if record["status"] == "failed":
                settled[id] = {**record, "status": "orphaned", "attempt": 0}
    return TicketLoop(
        name=name, config=config, options=TicketOptions.of(config), status="starting",
        iteration=max(state["iteration"], last_iteration), stats={**NO_STATS, **state["stats"]},
        elapsed_ms=state["elapsedMs"], settled=settled, last_outcome=state["lastOutcome"], last_text=state["lastText"],
    )  # fmt: skip


def snapshot(loop: TicketLoop, facts: Facts, now: Now) -> State:
    """state.json as of now; the running iterations' figures are included in the totals."""
    ended = loop.ended
    held = [*loop.mail, *(message for worker in loop.workers.values() for message in worker.mail)]
    tickets = _tickets(loop)
    return {
        "schemaVersion": 1, "name": facts.name, "cwd": facts.cwd, "ralphDir": facts.ralph_dir, "kind": "tickets",
        "status": loop.status, "stopReason": loop.stop_reason, "error": loop.error,
        "pid": None if ended else facts.pid, "pidStartTime": None if ended else facts.pid_start,
        "bootId": facts.boot_id, "guardPid": None, "guardStartTime": None, "piPid": None, "piStartTime": None,
        "piVersion": loop.config["piVersion"],
        "model": loop.model or loop.config["model"], "provider": loop.provider or loop.config["provider"],
        "iteration": loop.iteration, "maxIterations": loop.config["maxIterations"],
        "currentTicket": tickets["running"][0]["ticket"] if tickets["running"] else None,
        "startedAt": facts.started_at, "updatedAt": iso(now.wall), "monotonicMs": now.mono,
        "endedAt": iso(now.wall) if ended else None,
        "nextWakeAt": None if loop.next_wake is None else iso(loop.next_wake), "elapsedMs": loop.elapsed_ms,
        "stats": running_totals(loop.stats, loop.workers.values()), "consecutiveFailures": 0, "unchangedIterations": 0,
        "restarts": [], "lastReflection": None, "lastOutcome": loop.last_outcome, "lastText": loop.last_text,
        "refusal": None, "held": [{"id": m.id, "command": m.verb, "message": m.text} for m in held],
        "worktree": None, "tmpDir": facts.tmp_dir, "tickets": tickets, "config": loop.config,
    }  # fmt: skip


def _tickets(loop: TicketLoop) -> TicketsState:
    """The queue in figures, and each ticket that is under way."""
    statuses = [record["status"] for record in loop.settled.values()]
    statuses += [job.record["status"] for job in loop.jobs.values()]
    known = loop.backlog.tickets if loop.backlog is not None else {}
    return {
        "total": len(known),
        "closed": sum(ticket.status == "closed" or _is_closed(loop, ticket.id) for ticket in known.values()),
        "failed": statuses.count("failed"),
        "needsMerge": statuses.count("needs-merge"),
        "running": [_running(loop, id, job) for id, job in loop.jobs.items()],
    }


def _is_closed(loop: TicketLoop, id: str) -> bool:
    record = loop.settled.get(id) or (loop.jobs[id].record if id in loop.jobs else None)
    return record is not None and record["status"] == "closed"


def _running(loop: TicketLoop, id: str, job: Job) -> RunningTicket:
    worker = loop.workers.get(id if loop.options.worktrees else SHARED)
    run = running_run(worker) if worker is not None and isinstance(job.stage, Working) else None
    record = job.record
    cost = record.get("cost", 0.0) + (run.usage.cost if run is not None else 0.0)
    found: RunningTicket = {
        "ticket": id, "title": record["title"], "status": record["status"], "doing": _doing(job, worker),
        "attempt": record["attempt"], "iteration": job.iteration, "since": record["startedAt"], "cost": cost,
        "worktree": record["worktreePath"],
    }  # fmt: skip
    if run is not None:
        u = run.usage
        found["run"] = {
            "turns": run.turns, "toolCalls": run.tool_calls, "tokensIn": u.input, "tokensOut": u.output,
            "cacheRead": u.cache_read, "cacheWrite": u.cache_write, "cost": u.cost,
        }  # fmt: skip
    return found


def _doing(job: Job, worker: Loop | None) -> str:
    """What a person wants to know of it, in a few words."""
    match job.stage:
        case Opening():
            return "opening its worktree"
        case SettingUp():
            return "running --worktree-setup"
        case Working():
            return _working(job, worker)
        case Returning():
            return "waiting for a place to mend its merge"
        case Committing():
            return "committing what is left"
        case Queued(reason=reason):
            return f"merge waits: {reason}" if reason else "waiting to be merged"
        case Merging(step="verifying"):
            return "verifying the merged tree"
        case Merging():
            return "merging"
        case Closing():
            return "closing the ticket"
        case Removing():
            return "removing its worktree"


def _working(job: Job, worker: Loop | None) -> str:
    what = "resolving the merge" if job.conflict else "working"
    if worker is None:
        return what
    if job.record["status"] == "verifying":
        return "verifying"
    if worker.status in ("waiting", "paused"):
        return f"{worker.status}{': ' + worker.error if worker.error else ''}"
    run = running_run(worker)
    if run is None:
        return "starting pi" if worker.pi is None else what
    return f"{what}: {run.tool}" if run.tools and run.tool else what
