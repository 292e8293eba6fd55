"""Start-up: from whatever an earlier runner left on disk to the core's first state.

Called by the runner under the loop's lock. Every step may be repeated: a recovery that is itself killed is followed by
another. Unreadable files are set aside and reported, never replaced by empty ones; a state that cannot be read is
rebuilt from the iteration records and the log.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from ralph_rpc.clock import iso, now_ms, up_ms
from ralph_rpc.files import records
from ralph_rpc.files.atomic import Newer, Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import ENDED, RunFigures, State
from ralph_rpc.model.ticket import TicketRecord
from ralph_rpc.model.usage import at_least, at_least_totals, subtract, tokens, unpriced, with_figures
from ralph_rpc.prompts.phrases import cut_off
from ralph_runner.core import budget
from ralph_runner.core.closing import SUMMARY_CHARS
from ralph_runner.core.inputs import TOOL_ARGS
from ralph_runner.core.results import Now
from ralph_runner.core.snapshot import new_loop, resumed_loop
from ralph_runner.shell import unread, unrecorded
from ralph_runner.shell.cores import Core, TaskCore
from ralph_runner.shell.last_receipt import tell_last_receipt
from ralph_runner.shell.unrecorded import Logged

ROUNDING = 1e-9
"""Dollars by which two sums of the same numbers may differ."""


@dataclass
class Recovered:
    """What the runner starts from."""

    core: Core
    started_at: str
    crashed: bool
    """The last runner died without ending the loop; the commands that it left are carried out."""
    lost: list[Iteration] = field(default_factory=list)
    """The records of the iterations that died with the last runner; not written yet."""
    amended: list[Iteration] = field(default_factory=list)
    """Records whose file is missing or lacks what was charged after it was written; their events are in the log."""
    notes: list[str] = field(default_factory=list)


def recover(paths: LoopPaths, config: Config, task_path: str, resume: bool, wall: int) -> Recovered:
    """The core's first state. Processes of an earlier run are gone already (takeover.py). Raises OSError."""
    if not resume:
        return Recovered(_new(paths, config, task_path), iso(wall), crashed=False)
    notes: list[str] = []
    state = _read_state(paths, notes)
    done = records.read_iterations(paths)
    crashed = state is None or state["status"] not in ENDED
    if crashed:
        tell_last_receipt(paths, config)
    lost: list[Iteration] = []
    amended: list[Iteration] = []
    if crashed or (state is not None and state["status"] == "error"):
        logged = unrecorded.read(paths, config, done)
        amended = _amended(paths, logged, done)
        done = [*(r for r in done if r["iteration"] not in {a["iteration"] for a in amended}), *amended]
        lost = _lost(paths, state, logged, done, wall)
        notes += [f"iteration {record['iteration']} ended with the runner" for record in lost]
    everything = sorted([*done, *lost], key=lambda record: record["iteration"])
    if state is None:
        if not everything:
            return Recovered(_new(paths, config, task_path), iso(wall), crashed=True, notes=notes)
        state = cast(State, _rebuilt(everything, wall))
        notes.append(f"state.json was unreadable; counters rebuilt from {len(done)} iteration records")
    elif crashed or lost or amended:
        # Neither counts anything twice, and each may lack something: state.json the last second, the records old files.
        state["stats"] = at_least_totals(state["stats"], budget.total(everything))
    last = max((record["iteration"] for record in everything), default=0)
    core = _resumed(paths, config, task_path, state, last, everything, Now(up_ms(), wall))
    return Recovered(core, state.get("startedAt") or iso(wall), crashed, lost, amended, notes)


def _tickets_of(paths: LoopPaths, iterations: Sequence[Iteration] = ()) -> dict[str, TicketRecord]:
    """The dispatch records; an attempt that died with the runner is not counted, as one that died with pi is not."""
    records.forget_old_tickets(paths, now_ms())
    found = records.read_tickets(paths)
    for id, record in found.items():
        if record["status"] in ("running", "verifying") and not _has_ended(record, iterations):
            found[id] = {**record, "attempt": max(0, record["attempt"] - 1)}
    return found


def _has_ended(ticket: TicketRecord, iterations: Sequence[Iteration]) -> bool:
    """Whether the ticket's last attempt came to its end, and counts."""
    return any(
        one.get("ticket") == ticket["ticket"]
        and one.get("attempt") == ticket["attempt"]
        and one["startedAt"] >= ticket["startedAt"]
        and budget.counts(one)
        for one in iterations
    )


def _new(paths: LoopPaths, config: Config, task_path: str) -> Core:
    if config.get("tickets"):
        from ralph_runner.core.tickets.snapshot import new_tickets
        from ralph_runner.shell.ticket_core import TicketCore

        return TicketCore(new_tickets(paths.name, config, _tickets_of(paths)))
    return TaskCore(new_loop(config, task_path))


def _resumed(
    paths: LoopPaths, config: Config, task_path: str, state: State, last: int, done: list[Iteration], now: Now
) -> Core:
    if config.get("tickets"):
        from ralph_runner.core.tickets.snapshot import resumed_tickets
        from ralph_runner.shell.ticket_core import TicketCore

        news = {record.get("ticket", ""): cut_off(record) for record in done}
        told = {ticket: text for ticket, text in news.items() if text is not None}
        tickets = _with_cost(_tickets_of(paths, done), done)
        adopted = frozenset((record.get("ticket", ""), record["job"]) for record in done if "job" in record)
        return TicketCore(resumed_tickets(paths.name, config, state, last, tickets, told, adopted))
    if done and (text := cut_off(done[-1])) is not None:
        state["news"] = text
    return TaskCore(resumed_loop(config, task_path, state, last, now))


def _read_state(paths: LoopPaths, notes: list[str]) -> State | None:
    try:
        return records.read_state(paths)
    except Newer:
        raise  # `resume` has refused it; a newer version has been here since
    except Unreadable as error:
        kept = records.set_aside_broken(paths.state)
        notes.append(f"state.json {error.reason}; kept as {kept.name}")
        return None


def _with_cost(tickets: dict[str, TicketRecord], done: list[Iteration]) -> dict[str, TicketRecord]:
    """The dispatch records with what the tickets' iterations have cost, those included that were lost."""
    cost: dict[str, float] = {}
    for record in done:
        if "ticket" in record:
            cost[record["ticket"]] = cost.get(record["ticket"], 0.0) + record["cost"]
    return {id: {**record, "cost": max(record.get("cost", 0.0), cost.get(id, 0.0))} for id, record in tickets.items()}


def _amended(paths: LoopPaths, logged: dict[int, Logged], done: list[Iteration]) -> list[Iteration]:
    """The records that are in the log only, or lack what pi charged after them."""
    known = {record["iteration"]: record for record in done}
    found: list[Iteration] = []
    for number, one in sorted(logged.items()):
        record = known.get(number) or (one.record if _has_no_file(paths, number) else None)
        if record is None:
            continue
        whole = with_figures(record, at_least(record, one.charged))
        if number not in known or whole["cost"] - record["cost"] > ROUNDING or tokens(whole) > tokens(record):
            found.append(whole)
    return found


def _lost(
    paths: LoopPaths, state: State | None, logged: dict[int, Logged], done: list[Iteration], wall: int
) -> list[Iteration]:
    """The records of the iterations that were under way when the runner was killed, or could write no more.

    Their figures are what the log has of them, or pi's own sessions; where the log was lost, what state.json had counted.
    """
    known = {record["iteration"] for record in done}
    counted = {} if state is None else _counted(state, done)
    tickets = records.read_tickets(paths)
    found: list[Iteration] = []
    numbers = [n for n in sorted(set(logged) | set(counted)) if n and n not in known and _has_no_file(paths, n)]
    for number in numbers:
        one, by_state = logged.get(number), counted.get(number)
        figures = by_state if one is None else one.figures if by_state is None else at_least(by_state, one.figures)
        assert figures is not None
        ticket = _ticket_of(state, number) or (None if one is None else one.ticket)
        if one is not None and one.run.started_wall:
            cwd = tickets[ticket]["worktreePath"] if ticket in tickets else None
            if cwd is not None or len(numbers) == 1:  # else nobody knows whose session is whose
                figures = at_least(figures, unread.figures(paths, one.run.started_wall, cwd))
        record = _lost_record(state, number, one, figures, wall)
        if ticket is not None:
            record["ticket"] = ticket
            record["attempt"] = max(1, tickets[ticket]["attempt"] if ticket in tickets else 1)
        if one is not None and one.tools:
            record["cutOff"] = [f"{call.name} {call.args}".strip()[:TOOL_ARGS] for call in one.tools.values()]
        found.append(record)
    return found


def _has_no_file(paths: LoopPaths, number: int) -> bool:
    """True unless there is a record that cannot be read: it is left as it is."""
    return not nofollow.exists(paths.iterations / f"{number:03d}.json")


def _counted(state: State, done: list[Iteration]) -> dict[int, RunFigures]:
    """What state.json had counted of each iteration that was under way."""
    if "tickets" in state:
        return {one["iteration"]: one["run"] for one in state["tickets"]["running"] if "run" in one}
    last = max((record["iteration"] for record in done), default=0)
    if state["kind"] == "tickets" or state["iteration"] <= last:
        return {}
    return {state["iteration"]: subtract(state["stats"], budget.total(done))}


def _ticket_of(state: State | None, number: int) -> str | None:
    running = state["tickets"]["running"] if state is not None and "tickets" in state else []
    return next((one["ticket"] for one in running if one["iteration"] == number), None)


def _lost_record(state: State | None, number: int, one: Logged | None, used: RunFigures, wall: int) -> Iteration:
    run = None if one is None else one.run
    began = None if run is None or one is None else (run.started_wall, max(run.started_wall, one.last_at))
    return {
        "iteration": number,
        "kind": "work" if run is None else run.kind,
        "outcome": "crashed",
        "error": (state and state["error"]) or "the runner was killed in the middle of this iteration",
        "errorKind": "crash",
        "startedAt": iso(began[0]) if began else state["updatedAt"] if state else iso(wall),
        "endedAt": iso(began[1]) if began else iso(wall),
        "durationMs": began[1] - began[0] if began else 0,
        "turns": used["turns"],
        "toolCalls": used["toolCalls"],
        "tokensIn": used["tokensIn"],
        "tokensOut": used["tokensOut"],
        "cacheRead": used["cacheRead"],
        "cacheWrite": used["cacheWrite"],
        "cost": used["cost"],
        "unpricedRequests": unpriced(used),
        "model": (run and run.model) or (state and state["model"]) or None,
        "provider": (run and run.provider) or (state and state["provider"]) or None,
        "sessionId": None,
        "sessionFile": None,
        "summary": run.text[-SUMMARY_CHARS:] if run else "",
        "steering": [],
        "eventsFrom": (one and one.events_from) or 0,
        "eventsTo": 0,
    }


def _rebuilt(done: list[Iteration], wall: int) -> dict[str, object]:
    """The parts of a state that `resumed_loop` needs, from the records alone."""
    spent = sum(r["durationMs"] for r in done)
    return {
        "status": "running",
        "iteration": done[-1]["iteration"],
        "stats": budget.total(done),
        "consecutiveFailures": 0,
        "unchangedIterations": 0,
        "restarts": [],
        "lastReflection": None,
        "lastOutcome": done[-1]["outcome"],
        "lastText": done[-1]["summary"],
        "refusal": None,
        "elapsedMs": spent,
        "startedAt": iso(wall),
        "bootId": "",
    }
