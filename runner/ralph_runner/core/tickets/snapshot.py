"""state.json of a ticket loop from the core's state, and the core's first state. Pure; the shell has the files.

A restart takes from state.json the counters only. How far each ticket came is in its dispatch record, and what is
merged in git.
"""

from collections.abc import Mapping

from ralph_rpc.clock import iso
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import BatchState, RunningTicket, State, TicketsState
from ralph_rpc.model.ticket import TicketRecord
from ralph_rpc.model.usage import NO_STATS
from ralph_runner.core import budget, models
from ralph_runner.core.results import Now
from ralph_runner.core.snapshot import Facts, far_place, running_run
from ralph_runner.core.state import Loop
from ralph_runner.core.tickets import gate
from ralph_runner.core.tickets.gate import Gate
from ralph_runner.core.tickets.state import (
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
    Taking,
    TicketLoop,
    TicketOptions,
    Updating,
    Working,
    key_of,
)
from ralph_runner.core.tickets.workers import runs_of


def new_tickets(name: str, config: Config, records: Mapping[str, TicketRecord]) -> TicketLoop:
    """A ticket loop that has never run; `records` are there only where its state was lost."""
    return TicketLoop(
        name=name,
        config=config,
        options=TicketOptions.of(config),
        status="starting",
        iteration=0,
        stats=NO_STATS,
        elapsed_ms=0,
        settled=dict(records),
    )


def resumed_tickets(
    name: str,
    config: Config,
    state: State,
    last_iteration: int,
    records: Mapping[str, TicketRecord],
    news: Mapping[str, str],
    adopted: frozenset[tuple[str, str]] = frozenset(),
) -> TicketLoop:
    """A ticket loop that continues; `news` says by ticket what cut its last iteration off, `adopted` what of jobs is
    counted.
    """
    settled = dict(records)
    if state["status"] in ("stopped", "error"):
        # A person who resumes after an end gives the tickets that failed a new chance.
        for id, record in records.items():
            if record["status"] == "failed":
                settled[id] = {**record, "status": "orphaned", "attempt": 0}
    return TicketLoop(
        name=name,
        config=config,
        options=TicketOptions.of(config),
        status="starting",
        iteration=max(state["iteration"], last_iteration),
        stats={**NO_STATS, **state["stats"]},
        elapsed_ms=state["elapsedMs"],
        settled=settled,
        gate=Gate(alone=state.get("tickets", {}).get("verifyAlone", False)),
        news=news,
        adopted=adopted,
        last_outcome=state["lastOutcome"],
        last_text=state["lastText"],
    )


def snapshot(loop: TicketLoop, facts: Facts, now: Now) -> State:
    """state.json as of now; the running iterations' figures are included in the totals."""
    ended = loop.ended
    held = [*loop.mail, *(message for worker in loop.workers.values() for message in worker.mail)]
    held += [message for mail in loop.carried.values() for message in mail]
    tickets = _tickets(loop)
    if facts.hosts is not None:
        tickets["hosts"] = facts.hosts
    return {
        "schemaVersion": 1,
        "name": facts.name,
        "cwd": facts.cwd,
        "ralphDir": facts.ralph_dir,
        "kind": "tickets",
        "status": loop.status,
        "stopReason": loop.stop_reason,
        "error": loop.error,
        "wasPaused": loop.was_paused,
        "waitingFor": loop.waiting_for,
        "outages": models.told(loop.config, loop.outages),
        "pid": None if ended else facts.pid,
        "pidStartTime": None if ended else facts.pid_start,
        "bootId": facts.boot_id,
        "guardPid": None,
        "guardStartTime": None,
        "piPid": None,
        "piStartTime": None,
        "piVersion": loop.config["piVersion"],
        "model": loop.model or loop.config["model"],
        "provider": loop.provider or loop.config["provider"],
        "iteration": loop.iteration,
        "maxIterations": loop.config["maxIterations"],
        "currentTicket": tickets["running"][0]["ticket"] if tickets["running"] else None,
        "startedAt": facts.started_at,
        "updatedAt": iso(now.wall),
        "monotonicMs": now.mono,
        "endedAt": iso(now.wall) if ended else None,
        "nextWakeAt": None if loop.next_wake is None else iso(loop.next_wake),
        "elapsedMs": loop.elapsed_at(now.mono),
        "stats": budget.with_runs(loop.stats, runs_of(loop.workers.values())),
        "consecutiveFailures": 0,
        "unchangedIterations": 0,
        "restarts": [],
        "lastReflection": None,
        "lastOutcome": loop.last_outcome,
        "lastText": loop.last_text,
        "refusal": None,
        "held": [{"id": m.id, "command": m.verb, "message": m.text} for m in held],
        "worktree": None,
        "tmpDir": facts.tmp_dir,
        "tickets": tickets,
        "config": loop.config,
    }


def _tickets(loop: TicketLoop) -> TicketsState:
    """The queue in figures, and each ticket that is under way."""
    records = [*loop.settled.values(), *(job.record for job in loop.jobs.values())]
    statuses = [record["status"] for record in records]
    known = loop.backlog.tickets if loop.backlog is not None else {}
    found: TicketsState = {
        "total": len(known),
        "closed": sum(ticket.status == "closed" or _is_closed(loop, ticket.id) for ticket in known.values()),
        "failed": statuses.count("failed"),
        "needsMerge": statuses.count("needs-merge"),
        "unreadable": len(loop.backlog.unread) if loop.backlog is not None else 0,
        "undone": loop.undone,
        "running": [_running(loop, id, job) for id, job in loop.jobs.items()],
        "batch": _batch(loop),
        "verifyAlone": loop.gate.alone,
    }
    if without := sum(record["status"] == "closed" and record.get("withoutChanges", False) for record in records):
        found["withoutChanges"] = without
    return found


def _is_closed(loop: TicketLoop, id: str) -> bool:
    record = loop.settled.get(id) or (loop.jobs[id].record if id in loop.jobs else None)
    return record is not None and record["status"] == "closed"


def _running(loop: TicketLoop, id: str, job: Job) -> RunningTicket:
    worker = loop.workers.get(key_of(loop, id))
    run = running_run(worker) if worker is not None and isinstance(job.stage, Working) else None
    record = job.record
    cost = record.get("cost", 0.0) + (run.usage.cost if run is not None else 0.0)
    found: RunningTicket = {
        "ticket": id,
        "title": record["title"],
        "status": record["status"],
        "doing": _doing(loop, id, job, worker),
        "attempt": record["attempt"],
        "iteration": job.iteration,
        "since": record["startedAt"],
        "cost": cost,
        "worktree": record["worktreePath"],
    }
    if (queued := record.get("queuedAt")) is not None:
        found["queuedAt"] = queued
    if worker is not None and worker.pi is not None and (place := far_place(worker.pi)) is not None:
        found["far"] = place
    if (out_there := record.get("job")) is not None:
        found["job"] = out_there
    if run is not None:
        found["run"] = budget.figures_of(run)
    return found


def _merging(id: str, loop: TicketLoop) -> str:
    """Where it is in the batch."""
    batch = loop.batch
    if batch is None or batch.doing in ("building", "restarting"):
        return "merging"
    if id not in batch.tickets:
        return "waiting to be merged: it conflicts with one that comes before it"
    place = batch.tickets.index(id)
    if batch.doing == "landing":
        return "landing" if place < batch.count else "waiting to be merged"
    if batch.count == 0:
        return f"waiting: {loop.options.into} itself is being verified"
    if place >= batch.count:
        return f"waiting to be merged: verify is red for {len(batch.tickets)} together, half of them are tried first"
    waits = "waiting to verify" if gate.waits(loop.gate, gate.QUEUE) else "verifying"
    others = batch.count - 1
    return f"{waits} the merged tree{f', with {others} more' if others else ''}"


def _batch(loop: TicketLoop) -> BatchState | None:
    """What the merge queue is at, if it is at anything that takes its time."""
    batch = loop.batch
    if batch is None or batch.doing in ("building", "restarting"):
        return None
    waits = batch.doing == "verifying" and gate.waits(loop.gate, gate.QUEUE)
    return {
        "tickets": list(batch.tickets),
        "trying": batch.count,
        "doing": "landing" if batch.doing == "landing" else "waiting" if waits else "verifying",
        "since": iso(batch.since),
        "reds": batch.reds,
    }


def _doing(loop: TicketLoop, id: str, job: Job, worker: Loop | None) -> str:
    """What a person wants to know of it, in a few words."""
    match job.stage:
        case Opening():
            return "opening its worktree"
        case SettingUp():
            return "running --worktree-setup"
        case Working():
            return _working(loop, job, worker)
        case Away():
            return _away(loop, job, job.stage)
        case Taking():
            return "taking over its branch"
        case Returning():
            return "waiting for a place to fix its merge"
        case Committing():
            return "committing what is left"
        case Updating():
            return "being brought up to date for its agent"
        case Queued(reason=reason):
            return f"merge waits: {reason}" if reason else "waiting to be merged"
        case Merging():
            return _merging(id, loop)
        case ClosingTicket():
            return "closing the ticket"
        case Removing():
            return "removing its worktree"


def _away(loop: TicketLoop, job: Job, stage: Away) -> str:
    engine, known = loop.options.engine, job.record.get("job")
    if stage.again is not None or known is None:
        return f"its job is lost, another one follows: {stage.reason}"
    name = f"{engine} (job {known['id']})" if known["id"] else engine
    if stage.cancelled:
        return f"its job on {name} was told to end"
    if known["state"] == "active":
        return f"{'resolving the merge' if job.conflict else 'working'} on {name}"
    return f"queued on {name}" if known["state"] == "queued" else f"being submitted to {engine}"


def _working(loop: TicketLoop, job: Job, worker: Loop | None) -> str:
    what = "resolving the merge" if job.conflict else "working"
    if worker is None:
        return what
    if job.record["status"] == "verifying":
        return "waiting to verify" if gate.waits(loop.gate, key_of(loop, job.record["ticket"])) else "verifying"
    if worker.status in ("waiting", "paused"):
        return f"{worker.status}{': ' + worker.error if worker.error else ''}"
    run = running_run(worker)
    if worker.pi is not None and worker.pi.place is not None:
        what += f" on {worker.pi.place.host}"
    if run is None:
        return "starting pi" if worker.pi is None else what
    return f"{what}: {run.tools[-1].name}" if run.tools else what
