"""Start-up: from what is on disk, whatever an earlier runner left, to the core's first state. Runs under the lock.

Every step may be repeated: a recovery that is itself killed is followed by another. Unreadable files are set aside
and told of, never replaced by empty ones; a state that cannot be read is rebuilt from the iteration records.
"""

from dataclasses import dataclass, field
from typing import cast

from ralph_rpc.clock import iso, now_ms, up_ms
from ralph_rpc.files import records
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import ENDED, State, Stats
from ralph_rpc.model.ticket import TicketRecord
from ralph_runner.core.failures import TRANSIENT
from ralph_runner.core.reports import Now
from ralph_runner.core.snapshot import NO_STATS, new_loop, resumed_loop
from ralph_runner.shell.cores import Core, TaskCore
from ralph_runner.shell.last_receipt import tell_last_receipt


@dataclass
class Recovered:
    """What the runner begins with."""

    core: Core
    started_at: str
    crashed: bool
    """The last runner died without an end; commands left by it are honoured."""
    lost: list[Iteration] = field(default_factory=list)
    """The records of the iterations that died with the last runner; not written yet."""
    notes: list[str] = field(default_factory=list)


def recover(paths: LoopPaths, config: Config, task_path: str, resume: bool, wall: int) -> Recovered:
    """The core's first state. Processes of an earlier run are gone by now (takeover.py)."""
    if not resume:
        return Recovered(_new(paths, config, task_path), iso(wall), crashed=False)
    notes: list[str] = []
    state = _read_state(paths, notes)
    done = records.read_iterations(paths)
    last = max((r["iteration"] for r in done), default=0)
    crashed = state is None or state["status"] not in ENDED
    if crashed:
        tell_last_receipt(paths, config)
    lost: list[Iteration] = []
    if state is None:
        if not done:
            return Recovered(_new(paths, config, task_path), iso(wall), crashed=True, notes=notes)
        state = cast(State, _rebuilt(done, wall))
        notes.append(f"state.json was unreadable; counters rebuilt from {len(done)} iteration records")
    elif crashed or state["status"] == "error":
        lost = _lost_tickets(state, done, wall) if config.get("tickets") else _lost(state, done, last, wall)
        notes += [f"iteration {record['iteration']} ended with the runner" for record in lost]
    if crashed:
        state["stats"] = _sum([*done, *lost])
    last = max([last, *(record["iteration"] for record in lost)])
    core = _resumed(paths, config, task_path, state, last, Now(up_ms(), wall))
    return Recovered(core, state.get("startedAt") or iso(wall), crashed, lost, notes)


def _tickets_of(paths: LoopPaths) -> dict[str, TicketRecord]:
    records.forget_old_tickets(paths, now_ms())
    return records.read_tickets(paths)


def _new(paths: LoopPaths, config: Config, task_path: str) -> Core:
    if config.get("tickets"):
        from ralph_runner.core.tickets.snapshot import new_tickets
        from ralph_runner.shell.ticket_core import TicketCore

        return TicketCore(new_tickets(paths.name, config, _tickets_of(paths)))
    return TaskCore(new_loop(config, task_path))


def _resumed(paths: LoopPaths, config: Config, task_path: str, state: State, last: int, now: Now) -> Core:
    if config.get("tickets"):
        from ralph_runner.core.tickets.snapshot import resumed_tickets
        from ralph_runner.shell.ticket_core import TicketCore

        return TicketCore(resumed_tickets(paths.name, config, state, last, _tickets_of(paths)))
    return TaskCore(resumed_loop(config, task_path, state, last, now))


def _read_state(paths: LoopPaths, notes: list[str]) -> State | None:
    try:
        return records.read_state(paths)
    except Unreadable as error:
        kept = records.set_aside_broken(paths.state)
        notes.append(f"state.json {error.reason}; kept as {kept.name}")
        return None


def _sum(done: list[Iteration]) -> Stats:
    total = cast(Stats, dict(NO_STATS))
    for r in done:
        total["iterations"] += r["outcome"] != "crashed" and r.get("errorKind") not in TRANSIENT
        total["turns"] += r["turns"]
        total["toolCalls"] += r["toolCalls"]
        total["durationMs"] += r["durationMs"]
        total["tokensIn"] += r["tokensIn"]
        total["tokensOut"] += r["tokensOut"]
        total["cacheRead"] += r["cacheRead"]
        total["cacheWrite"] += r["cacheWrite"]
        total["cost"] += r["cost"]
    return total


def _lost(state: State, done: list[Iteration], last: int, wall: int) -> list[Iteration]:
    """The record of the iteration that was running when the runner was killed, or could write no more.

    Its figures are what state.json had counted of it.
    """
    if state["iteration"] <= last:
        return []
    had, known = state["stats"], _sum(done)
    record: Iteration = {
        "iteration": state["iteration"], "kind": "work", "outcome": "crashed",
        "error": state["error"] or "the runner was killed in the middle of this iteration", "errorKind": "crash",
        "startedAt": state["updatedAt"], "endedAt": iso(wall), "durationMs": 0,
        "turns": max(0, had["turns"] - known["turns"]), "toolCalls": max(0, had["toolCalls"] - known["toolCalls"]),
        "tokensIn": max(0, had["tokensIn"] - known["tokensIn"]),
        "tokensOut": max(0, had["tokensOut"] - known["tokensOut"]),
        "cacheRead": max(0, had["cacheRead"] - known["cacheRead"]),
        "cacheWrite": max(0, had["cacheWrite"] - known["cacheWrite"]), "cost": max(0.0, had["cost"] - known["cost"]),
        "model": state["model"], "provider": state["provider"], "sessionId": None, "sessionFile": None,
        "summary": "", "steering": [], "eventsFrom": 0, "eventsTo": 0,
    }  # fmt: skip
    return [record]


def _lost_tickets(state: State, done: list[Iteration], wall: int) -> list[Iteration]:
    """As `_lost`, of every worker whose iteration was under way."""
    known = {record["iteration"] for record in done}
    lost: list[Iteration] = []
    for ticket in state["tickets"]["running"] if "tickets" in state else []:
        run = ticket.get("run")
        if run is None or ticket["iteration"] in known:
            continue
        record: Iteration = {
            "iteration": ticket["iteration"], "ticket": ticket["ticket"], "attempt": ticket["attempt"], "kind": "work",
            "outcome": "crashed", "error": state["error"] or "the runner was killed in the middle of this iteration",
            "errorKind": "crash", "startedAt": state["updatedAt"], "endedAt": iso(wall), "durationMs": 0,
            "turns": run["turns"], "toolCalls": run["toolCalls"], "tokensIn": run["tokensIn"],
            "tokensOut": run["tokensOut"], "cacheRead": run["cacheRead"], "cacheWrite": run["cacheWrite"],
            "cost": run["cost"], "model": state["model"], "provider": state["provider"], "sessionId": None,
            "sessionFile": None, "summary": "", "steering": [], "eventsFrom": 0, "eventsTo": 0,
        }  # fmt: skip
        lost.append(record)
    return lost


def _rebuilt(done: list[Iteration], wall: int) -> dict[str, object]:
    """The parts of a state that `resumed_loop` needs, from the records alone."""
    spent = sum(r["durationMs"] for r in done)
    return {
        "status": "running", "iteration": done[-1]["iteration"], "stats": _sum(done), "consecutiveFailures": 0,
        "unchangedIterations": 0, "restarts": [], "lastReflection": None, "lastOutcome": done[-1]["outcome"],
        "lastText": done[-1]["summary"], "refusal": None, "elapsedMs": spent, "startedAt": iso(wall),
        "bootId": "",
    }  # fmt: skip
