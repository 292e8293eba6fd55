"""What a killed runner leaves, and what the next one makes of it."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from ralph_rpc.clock import now_ms
from ralph_rpc.files import records
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_runner.core import effects as fx
from ralph_runner.core.results import Begin, Now
from ralph_runner.shell.cores import TaskCore
from ralph_runner.shell.recover import recover
from ralph_runner.shell.ticket_core import TicketCore
from tests.cli import forged

FIGURES = {"turns": 1, "toolCalls": 2, "tokensIn": 100, "tokensOut": 10, "cacheRead": 7, "cacheWrite": 3}


def record(number: int, cost: float) -> Iteration:
    made: dict[str, Any] = {
        "iteration": number,
        "kind": "work",
        "outcome": "ok",
        "startedAt": forged.ago(60),
        "endedAt": forged.ago(30),
        "durationMs": 1000,
        **FIGURES,
        "cost": cost,
        "model": "m1",
        "provider": "fake",
        "sessionId": None,
        "sessionFile": None,
        "summary": "done",
        "steering": [],
        "eventsFrom": 0,
        "eventsTo": 1,
    }
    return cast(Iteration, made)


def killed(project: Path, **state: Any) -> LoopPaths:
    """A loop that was killed in its third iteration, which had cost 2 dollars; the first two cost 1 each."""
    totals = {"iterations": 2, "durationMs": 2000, **{name: 3 * value for name, value in FIGURES.items()}, "cost": 4.0}
    paths = forged.loop(project, **{"status": "running", "iteration": 3, "stats": totals, **state})
    for number in (1, 2):
        records.write_iteration(paths, record(number, 1.0))
    return paths


def test_the_cost_of_a_killed_iteration_is_in_its_record_and_in_the_totals(tmp_path: Path) -> None:
    paths = killed(tmp_path)
    found = recover(paths, cast(Config, forged.CONFIG), "task.md", resume=True, wall=now_ms())
    (lost,) = found.lost
    assert (lost["iteration"], lost["outcome"], lost["cost"]) == (3, "crashed", 2.0)
    assert {name: cast(dict[str, Any], lost)[name] for name in FIGURES} == FIGURES
    assert isinstance(found.core, TaskCore)
    stats = found.core.loop.stats
    assert stats["cost"] == 4.0 and stats["tokensIn"] == 300
    assert stats["iterations"] == 2  # a crash is not the task's fault


@pytest.mark.parametrize(("max_cost", "pi"), [(4.0, False), (4.5, True)])
def test_max_cost_holds_across_kills(tmp_path: Path, max_cost: float, pi: bool) -> None:
    """However often a loop is killed and started again, what it has spent counts."""
    config = cast(Config, {**forged.CONFIG, "maxCost": max_cost})
    paths = killed(tmp_path)
    recover(paths, config, "task.md", resume=True, wall=now_ms())  # this one is killed as well
    found = recover(paths, config, "task.md", resume=True, wall=now_ms())
    effects = found.core.step(Begin(), Now(10_000, now_ms()))
    assert any(isinstance(effect, fx.StartPi) for effect in effects) == pi
    if not pi:
        assert isinstance(found.core, TaskCore) and found.core.loop.stop_reason == "max-cost"


def test_max_cost_holds_across_kills_with_tickets(tmp_path: Path) -> None:
    """Each worker's iteration that was under way is lost, and each was paid for."""
    run = {**FIGURES, "cost": 1.0}
    running = [
        {
            "ticket": name,
            "title": name,
            "status": "running",
            "doing": "iteration",
            "attempt": 1,
            "iteration": number,
            "since": forged.ago(30),
            "cost": 1.0,
            "worktree": None,
            "run": run,
        }
        for name, number in (("a", 3), ("b", 4))
    ]
    tickets = {"total": 2, "closed": 0, "failed": 0, "needsMerge": 0, "running": running}
    paths = killed(tmp_path, iteration=4, kind="tickets", tickets=tickets)
    config = cast(Config, {**forged.CONFIG, "tickets": str(tmp_path), "maxCost": 4.0})
    found = recover(paths, config, "task.md", resume=True, wall=now_ms())
    assert [(one.get("ticket"), one["cost"]) for one in found.lost] == [("a", 1.0), ("b", 1.0)]
    assert isinstance(found.core, TicketCore)
    assert found.core.loop.stats["cost"] == 4.0


def test_an_unreadable_state_is_kept_aside_and_its_counters_come_from_the_records(tmp_path: Path) -> None:
    paths = killed(tmp_path)
    paths.state.write_text('{"torn')
    found = recover(paths, cast(Config, forged.CONFIG), "task.md", resume=True, wall=now_ms())
    assert isinstance(found.core, TaskCore)
    assert (found.core.loop.stats["cost"], found.core.loop.iteration, found.lost) == (2.0, 2, [])
    (kept,) = paths.dir.glob("state.json.broken-*")
    assert kept.read_text() == '{"torn' and any("unreadable" in note for note in found.notes)


def test_an_iteration_that_has_its_record_is_not_lost(tmp_path: Path) -> None:
    paths = killed(tmp_path)
    records.write_iteration(paths, record(3, 2.0))
    found = recover(paths, cast(Config, forged.CONFIG), "task.md", resume=True, wall=now_ms())
    assert found.lost == [] and isinstance(found.core, TaskCore)
    assert found.core.loop.stats["cost"] == 4.0
    assert json.loads((paths.iterations / "003.json").read_bytes())["outcome"] == "ok"


@pytest.mark.parametrize(
    ("status", "ended", "attempt"),
    [
        ("running", None, 1),
        ("verifying", None, 1),
        ("running", "crashed", 1),
        ("running", "ok", 2),
        ("merging", None, 2),
    ],
)
def test_an_attempt_that_died_with_the_runner_is_given_back(
    tmp_path: Path, status: str, ended: str | None, attempt: int
) -> None:
    config = {**forged.CONFIG, "tickets": "/nowhere", "attempts": 3}
    paths = forged.loop(tmp_path, kind="tickets", status="running", iteration=2)
    paths.config.write_text(json.dumps(config))
    first: Any = {**record(1, 1.0), "ticket": "a", "attempt": 1, "startedAt": forged.ago(50)}
    records.write_iteration(paths, first)
    if ended is not None:
        second: Any = {**first, "iteration": 2, "attempt": 2, "outcome": ended, "startedAt": forged.ago(40)}
        records.write_iteration(paths, second)
    ticket: Any = {
        "ticket": "a",
        "title": "A",
        "status": status,
        "attempt": 2,
        "sessionId": None,
        "pid": None,
        "pidStartTime": None,
        "worktreePath": None,
        "branch": None,
        "baseCommit": None,
        "startedAt": forged.ago(60),
        "endedAt": None,
        "durationMs": 0,
        "returnCode": None,
        "terminationMethod": None,
        "error": None,
    }
    records.write_ticket(paths, ticket)
    for _ in range(2):  # a recovery that is killed is followed by another
        core = recover(paths, cast(Config, config), "task.md", resume=True, wall=now_ms()).core
        assert isinstance(core, TicketCore)
        assert core.loop.settled["a"]["attempt"] == attempt


def logged(paths: LoopPaths, *lines: dict[str, Any], torn: bytes = b"") -> None:
    paths.events.write_bytes(
        b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines) + torn
    )


def of_pi(iteration: int, kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members, "ralph": {"at": now_ms(), "iteration": iteration}}


def begins(iteration: int, **more: Any) -> dict[str, Any]:
    return {"type": "ralph_iteration_start", "at": now_ms(), "iteration": iteration, "kind": "work", **more}


def answer(cost: float, stop: str = "toolUse") -> dict[str, Any]:
    used = {"input": 10, "output": 1, "cacheRead": 0, "cacheWrite": 0, "cost": {"total": cost}}
    return {"role": "assistant", "content": [], "usage": used, "stopReason": stop}


def warm(iteration: int, cost: float) -> dict[str, Any]:
    return of_pi(iteration, "entry_appended", entry={"type": "usage", "kind": "cache_warm", **answer(cost)})


def found_by(paths: LoopPaths) -> Any:
    return recover(paths, cast(Config, forged.CONFIG), "task.md", resume=True, wall=now_ms())


def test_a_lost_iteration_is_counted_from_the_log_where_that_has_more_than_the_state(tmp_path: Path) -> None:
    paths = killed(tmp_path)
    logged(
        paths,
        begins(3),
        of_pi(3, "agent_start"),
        of_pi(3, "turn_start"),
        of_pi(3, "message_end", message=answer(2.0)),
        warm(3, 0.25),
        of_pi(3, "message_end", message=answer(1.0)),
        of_pi(3, "turn_start"),
    )
    found = found_by(paths)
    (lost,) = found.lost
    assert (lost["cost"], lost["turns"], lost.get("unpricedRequests")) == (3.25, 2, 1)
    assert found.core.loop.stats["cost"] == 5.25


def test_each_of_several_workers_lost_iterations_is_counted_from_the_log(tmp_path: Path) -> None:
    paths = killed(tmp_path, kind="tickets", iteration=2)
    config = cast(Config, {**forged.CONFIG, "tickets": str(tmp_path)})
    logged(
        paths,
        begins(3, ticket="a"),
        begins(4, ticket="b"),
        of_pi(4, "message_end", message=answer(1.0)),
        of_pi(3, "message_end", message=answer(2.0)),
        of_pi(4, "message_end", message=answer(0.5)),
    )
    found = recover(paths, config, "task.md", resume=True, wall=now_ms())
    assert [(one["iteration"], one.get("ticket"), one["cost"]) for one in found.lost] == [(3, "a", 2.0), (4, "b", 1.5)]


@pytest.mark.parametrize("cut", [-1, -40])
def test_a_torn_last_line_counts_by_its_usage_or_as_a_request_that_nobody_prices(tmp_path: Path, cut: int) -> None:
    paths = killed(tmp_path)
    line = json.dumps({"type": "message_end", "message": answer(0.75)}, separators=(",", ":")).encode()
    torn = line[:cut] if cut == -1 else line[: line.index(b'"cost"')]
    logged(
        paths,
        begins(3),
        of_pi(3, "turn_start"),
        of_pi(3, "message_end", message=answer(2.0)),
        of_pi(3, "turn_start"),
        torn=torn,
    )
    (lost,) = found_by(paths).lost
    assert (lost["cost"], lost.get("unpricedRequests")) == ((2.75, 0) if cut == -1 else (2.0, 1))
    (again,) = found_by(paths).lost
    assert again["cost"] == lost["cost"], "recovery may itself be killed"


def test_what_was_charged_after_a_record_is_added_to_it_once(tmp_path: Path) -> None:
    paths = killed(tmp_path, iteration=2)
    logged(paths, begins(2), of_pi(2, "message_end", message=answer(1.0)), warm(2, 0.5))
    for record in found_by(paths).amended:
        records.write_iteration(paths, record)
    found = found_by(paths)
    assert not found.lost and not found.amended
    assert json.loads((paths.iterations / "002.json").read_bytes())["cost"] == 1.5


def test_a_record_whose_file_was_not_written_is_taken_from_the_log(tmp_path: Path) -> None:
    paths = killed(tmp_path)
    event = {"type": "ralph_iteration_end", "at": now_ms(), **record(3, 2.5)}
    logged(paths, begins(3), of_pi(3, "message_end", message=answer(2.5)), event)
    found = found_by(paths)
    assert not found.lost and [(one["iteration"], one["outcome"]) for one in found.amended] == [(3, "ok")]
    assert found.core.loop.stats["iterations"] == 3


def test_a_record_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    paths = killed(tmp_path)
    (paths.iterations / "003.json").write_text("{torn")
    logged(paths, begins(3), of_pi(3, "message_end", message=answer(2.5)))
    found = found_by(paths)
    assert not found.lost and not found.amended
