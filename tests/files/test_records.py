"""state.json, config.json, the iteration records, and the shapes they are held to."""

import stat
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import orjson
import pytest

from ralph_rpc.clock import iso
from ralph_rpc.files import records
from ralph_rpc.files.atomic import Newer, Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.shapes import misfit
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import State
from ralph_rpc.model.ticket import TicketRecord, TicketStatus
from tests.files.crash import deaths

CONFIG: Config = {
    "model": "m",
    "provider": None,
    "thinking": None,
    "maxIterations": 50,
    "maxCost": 1,
    "maxTokens": None,
    "maxTimeMs": None,
    "iterationTimeoutMs": 0,
    "idleTimeoutMs": 900_000,
    "toolTimeoutMs": 3_600_000,
    "maxFailures": 10,
    "stallAfter": 5,
    "verify": None,
    "marker": "<promise>COMPLETE</promise>",
    "reflectEvery": 0,
    "worktree": None,
    "extensions": [],
    "skills": ["/s"],
    "approve": None,
    "uiAnswers": {"Sure?": True, "Name": "x"},
    "logSize": 1,
    "logKeep": 4,
    "pi": ["/bin/pi"],
    "piVersion": None,
    "piArgs": [],
}
STATE: State = {
    "schemaVersion": 1,
    "name": "loop",
    "cwd": "/p",
    "ralphDir": "/p/.ralph/loop",
    "kind": "task",
    "status": "running",
    "stopReason": None,
    "error": None,
    "pid": 7,
    "pidStartTime": 1,
    "bootId": "b",
    "guardPid": None,
    "guardStartTime": None,
    "piPid": None,
    "piStartTime": None,
    "piVersion": None,
    "model": None,
    "provider": None,
    "iteration": 1,
    "maxIterations": 50,
    "currentTicket": None,
    "startedAt": "",
    "updatedAt": "",
    "endedAt": None,
    "nextWakeAt": None,
    "elapsedMs": 0,
    "stats": {
        "iterations": 0,
        "turns": 0,
        "toolCalls": 0,
        "durationMs": 0,
        "tokensIn": 0,
        "tokensOut": 0,
        "cacheRead": 0,
        "cacheWrite": 0,
        "cost": 0.5,
    },
    "consecutiveFailures": 0,
    "unchangedIterations": 0,
    "restarts": [1],
    "lastReflection": None,
    "lastOutcome": None,
    "lastText": "\u2028",
    "refusal": None,
    "held": [{"id": "a", "command": "steer", "message": "m"}],
    "worktree": {"branch": "b", "path": "/p"},
    "tmpDir": None,
    "config": CONFIG,
}
ITERATION: Iteration = {
    "iteration": 1,
    "kind": "work",
    "outcome": "ok",
    "startedAt": "",
    "endedAt": "",
    "durationMs": 1,
    "turns": 1,
    "toolCalls": 0,
    "tokensIn": 1,
    "tokensOut": 1,
    "cacheRead": 0,
    "cacheWrite": 0,
    "cost": 0.1,
    "model": None,
    "provider": None,
    "sessionId": None,
    "sessionFile": None,
    "summary": "",
    "steering": [],
    "eventsFrom": 0,
    "eventsTo": 9,
}


@pytest.fixture
def paths(tmp_path: Path) -> LoopPaths:
    paths = LoopPaths.of(tmp_path, "loop")
    paths.dir.mkdir(parents=True)
    return paths


def test_a_loop_that_was_never_started_has_no_records(paths: LoopPaths) -> None:
    assert records.read_state(paths) is None
    assert records.read_config(paths) is None
    assert records.read_iterations(paths) == []


def test_what_is_written_is_read_back(paths: LoopPaths) -> None:
    records.write_state(paths, STATE)
    records.write_config(paths, CONFIG)
    assert records.read_state(paths) == STATE
    assert records.read_config(paths) == {"schemaVersion": 1, **CONFIG}
    records.write_pid(paths, 4711)
    assert paths.pid.read_text() == "4711\n"
    for path in (paths.state, paths.config, paths.pid):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_death_at_any_step_leaves_the_old_state_or_the_new(paths: LoopPaths) -> None:
    new: State = {**STATE, "iteration": 2}
    seen = []
    for _ in deaths(lambda: records.write_state(paths, new), lambda: records.write_state(paths, STATE)):
        state = records.read_state(paths)
        assert state is not None
        seen.append(state["iteration"])
    assert sorted(set(seen)) == [1, 2]


def is_readable(paths: LoopPaths) -> bool:
    try:
        records.read_state(paths)
    except Unreadable:
        return False
    return True


@pytest.mark.slow
def test_a_truncated_state_is_unreadable_at_every_byte_and_never_taken_for_none(paths: LoopPaths) -> None:
    records.write_state(paths, STATE)
    whole = paths.state.read_bytes()
    for cut in range(len(whole) - 1):
        paths.state.write_bytes(whole[:cut])
        assert not is_readable(paths), cut
    for cut in range(0, len(whole), 97):
        paths.state.write_bytes(whole[:cut] + b"\0" * (len(whole) - cut))
        assert not is_readable(paths), cut


@pytest.mark.parametrize("key", [key for key in STATE if key != "schemaVersion"])
def test_a_state_with_a_key_missing_or_wrong_is_unreadable_and_says_which(paths: LoopPaths, key: str) -> None:
    for value in ({k: v for k, v in STATE.items() if k != key}, {**STATE, key: ["no such"]}):
        paths.state.write_bytes(orjson.dumps(value))
        with pytest.raises(Unreadable) as problem:
            records.read_state(paths)
        assert f"'{key}'" in problem.value.reason


def test_a_state_of_a_newer_version_is_unreadable_and_one_with_more_keys_is_not(paths: LoopPaths) -> None:
    paths.state.write_bytes(orjson.dumps({**STATE, "more": 1}))
    assert records.read_state(paths) == {**STATE, "more": 1}
    paths.state.write_bytes(orjson.dumps({**STATE, "schemaVersion": 2}))
    with pytest.raises(Newer, match="schemaVersion 2; this one reads 1"):
        records.read_state(paths)
    paths.state.write_bytes(orjson.dumps({**STATE, "schemaVersion": "2"}))
    with pytest.raises(Unreadable, match="'schemaVersion' has an unknown value"):
        records.read_state(paths)


def test_iterations_come_by_number_without_the_broken_ones(paths: LoopPaths) -> None:
    for n in (2, 1000, 1, 10, 999):
        records.write_iteration(paths, {**ITERATION, "iteration": n})
    assert sorted(file.name for file in paths.iterations.iterdir())[:2] == ["001.json", "002.json"]
    assert stat.S_IMODE(paths.iterations.stat().st_mode) == 0o700
    (paths.iterations / "003.json").write_text('{"iteration": 3}')
    (paths.iterations / "004.json").write_text("{")
    (paths.iterations / "005.json").mkdir()
    (paths.iterations / "notes.json").write_text("{}")
    (paths.iterations / ".tmp-1").write_text("{}")
    assert [r["iteration"] for r in records.read_iterations(paths)] == [1, 2, 10, 999, 1000]


def test_a_broken_file_is_set_aside_with_its_content(paths: LoopPaths) -> None:
    paths.state.write_text("broken")
    aside = records.set_aside_broken(paths.state)
    assert aside.name.startswith("state.json.broken-2")
    assert aside.read_text() == "broken"
    assert not paths.state.exists()


class Inner(TypedDict):
    n: int


class Shape(TypedDict):
    text: str
    number: float
    choice: Literal["a", 1]
    maybe: Inner | None
    many: list[Inner]
    table: dict[str, str | bool]
    later: NotRequired[bool]


FITTING: dict[str, Any] = {"text": "", "number": 1, "choice": "a", "maybe": None, "many": [], "table": {}}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"number": 0.5},
        {"choice": 1},
        {"maybe": {"n": 1, "more": 2}},
        {"many": [{"n": 1}, {"n": 2}]},
        {"table": {"a": "x", "b": True}},
        {"later": False},
        {"unknown": object()},
    ],
)
def test_a_value_of_its_shape_fits(change: dict[str, Any]) -> None:
    assert misfit({**FITTING, **change}, Shape) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": 1}, "'text' is of the wrong type"),
        ({"text": None}, "'text' is of the wrong type"),
        ({"number": True}, "'number' is of the wrong type"),
        ({"number": "1"}, "'number' is of the wrong type"),
        ({"choice": "b"}, "'choice' has an unknown value"),
        ({"choice": True}, "'choice' has an unknown value"),
        ({"choice": ["a"]}, "'choice' has an unknown value"),
        ({"maybe": {}}, "'n' is missing"),
        ({"maybe": []}, "'maybe' is not an object"),
        ({"many": [{"n": 1}, {"n": "2"}]}, "'n' is of the wrong type"),
        ({"many": {}}, "'many' is of the wrong type"),
        ({"many": [1]}, "'many' item is not an object"),
        ({"table": {"a": 1}}, "'table' member is of the wrong type"),
        ({"table": []}, "'table' is of the wrong type"),
        ({"later": 1}, "'later' is of the wrong type"),
    ],
)
def test_a_value_of_another_shape_is_told_what_is_wrong(change: dict[str, Any], said: str) -> None:
    assert misfit({**FITTING, **change}, Shape) == said


def test_what_is_no_object_has_no_shape() -> None:
    assert misfit([], Shape) == "it is not an object"


def ticket_record(id: str, status: TicketStatus, ended: str | None) -> TicketRecord:
    return {
        "ticket": id,
        "title": id,
        "status": status,
        "attempt": 1,
        "sessionId": None,
        "pid": None,
        "pidStartTime": None,
        "worktreePath": None,
        "branch": None,
        "baseCommit": None,
        "startedAt": iso(0),
        "endedAt": ended,
        "durationMs": 0,
        "returnCode": None,
        "terminationMethod": None,
        "error": None,
    }


def test_records_of_tickets_are_read_by_their_names_and_broken_ones_left_out(paths: LoopPaths) -> None:
    records.write_ticket(paths, ticket_record("a-1", "closed", iso(5)))
    (paths.tickets / "b-2.json").write_text("{")
    (paths.tickets / "c-3.json").write_bytes(orjson.dumps(ticket_record("other", "closed", None)))
    assert list(records.read_tickets(paths)) == ["a-1"]


def test_records_of_tickets_that_ended_long_ago_are_forgotten_unless_a_person_is_needed(paths: LoopPaths) -> None:
    now, week = 10 * records.TICKET_TTL_MS, records.TICKET_TTL_MS
    old, new = iso(now - week - 1), iso(now - week + 1)
    kept: list[tuple[str, TicketStatus, str | None]] = [
        ("new", "closed", new),
        ("merge", "needs-merge", old),
        ("run", "running", None),
        ("merging", "merging", old),
    ]
    for id, status, ended in [*kept, ("old", "closed", old), ("gone", "orphaned", old), ("bad", "failed", old)]:
        records.write_ticket(paths, ticket_record(id, status, ended))
    records.forget_old_tickets(paths, now)
    assert sorted(records.read_tickets(paths)) == sorted(id for id, _, _ in kept)
