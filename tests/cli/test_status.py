"""`status`: one loop in detail with what to do about it, or all of the project in a line each."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ralph_rpc import clock
from ralph_rpc.cli.main import run
from ralph_rpc.files.paths import LoopPaths
from tests.cli import forged
from tests.effort import examples

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detail(capsys: Capture, name: str = "api") -> tuple[str, dict[str, str]]:
    """Head line and titled lines of `status NAME`."""
    assert run(["status", name]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    return head, {line[2:12].strip(): line[14:] for line in lines}


def test_a_running_loop_tells_what_it_does_and_costs(project: Path, capsys: Capture) -> None:
    paths = forged.loop(project, alive=True)
    start = {"type": "tool_execution_start", "toolCallId": "a", "toolName": "bash", "args": {"command": "make test"}}
    forged.write_log(paths, [start | {"ralph": {"at": clock.now_ms() - 192_000, "iteration": 4}}])
    with forged.runner_of(paths):
        head, facts = detail(capsys)
    assert head == "api: running"
    assert facts.pop("runner").startswith("alive, pid ")
    assert facts == {
        "now": "bash make test (for 3m12s)",
        "iterations": "3/50 done, last: no. 4",
        "last": "ok",
        "cost": "$1.25",
        "tokens": "17.7k (12.3k in, 4.5k out; cache 900 read, 0 written)",
        "work": "9 turns, 21 tool calls",
        "elapsed": "1h02m",
        "model": "fake/m1",
        "said": "Done with step 3.",
        "files": str(paths.dir),
    }


@pytest.mark.parametrize(("ago_ms", "head"), [(0, "api: running"), (192_000, "api: running for 3m")])
def test_how_long_it_is_in_that_status_is_told_once_there_is_something_to_tell(
    project: Path, capsys: Capture, ago_ms: int, head: str
) -> None:
    paths = forged.loop(project, alive=True)
    at = clock.now_ms() - ago_ms + (60_000 if ago_ms == 0 else 0)  # a slow machine takes its time to look
    forged.write_log(paths, [{"type": "ralph_status", "at": at, "from": "starting", "to": "running"}])
    with forged.runner_of(paths):
        assert detail(capsys)[0] == head


def delta(text: str) -> dict[str, Any]:
    change = {"type": "text_delta", "contentIndex": 0, "delta": text}
    return {"type": "message_update", "assistantMessageEvent": change}


@pytest.mark.parametrize(
    ("events", "now"),
    [
        ([delta("Let me "), delta("see\n\x1b[31m")], "writing: …Let me see ␛[31m"),
        ([{"type": "auto_retry_start", "attempt": 1, "delayMs": 1, "errorMessage": "529"}], "waiting to retry: 529"),
        ([{"type": "compaction_start", "reason": "threshold"}], "compacting its context"),
        ([{"type": "agent_start"}], "waiting for the model"),
        ([], "waiting for the model"),
    ],
)
def test_what_it_does_now_comes_from_the_end_of_the_log(
    project: Path, capsys: Capture, events: list[dict[str, Any]], now: str
) -> None:
    paths = forged.loop(project, alive=True)
    forged.write_log(paths, [{"type": "x", "n": n} for n in range(1_000)] + events)
    with forged.runner_of(paths):
        assert detail(capsys)[1]["now"] == now


def test_a_waiting_loop_tells_why_since_when_and_until_when(project: Path, capsys: Capture) -> None:
    wake = clock.iso(clock.now_ms() + 200_000)
    paths = forged.loop(project, alive=True, status="waiting", error="429 rate limit", nextWakeAt=wake)
    change = {"type": "ralph_status", "at": clock.now_ms() - 61_000, "from": "running", "to": "waiting"}
    forged.write_log(paths, [change])
    with forged.runner_of(paths):
        head, facts = detail(capsys)
    assert head == "api: waiting for 1m: 429 rate limit"
    until = f"until {clock.local_time(clock.parse_iso(wake) or 0)} "
    assert facts["waits"] in [f"{until}(in 3m{seconds}s)" for seconds in (20, 19, 18, 17)]
    assert "continues by itself" in facts["what next"] and "ralph-rpc resume api" in facts["what next"]


def test_a_loop_that_waits_for_money_says_what_to_do(project: Path, capsys: Capture) -> None:
    wake = clock.iso(clock.now_ms() + 200_000)
    bill = {
        "status": "waiting",
        "waitingFor": "billing",
        "error": "billing: 402 Insufficient Balance",
        "nextWakeAt": wake,
    }
    with forged.runner_of(forged.loop(project, alive=True, **bill)):
        head, facts = detail(capsys)
    assert head.startswith("api: waiting") and "402 Insufficient Balance" in head
    assert facts["waits"].startswith("for a payment, until ")
    assert facts["what next"].startswith("pay or top up") and "ralph-rpc resume api" in facts["what next"]


def test_models_that_stepped_in_are_told_with_what_they_did(project: Path, capsys: Capture) -> None:
    config = {**forged.CONFIG, "fallbackModels": ["other/small"]}
    outage = {"model": None, "kind": "quota", "since": clock.iso(0), "until": clock.iso(0), "words": "hit your limit"}
    paths = forged.loop(project, alive=True, status="running", outages=[outage], config=config)
    for number, (provider, model) in enumerate([("own", "big"), ("other", "small"), ("other", "small")], 1):
        forged.record(paths, number, provider=provider, model=model, cost=0.5)
    with forged.runner_of(paths):
        _, facts = detail(capsys)
    assert facts["out"] == f"its own model until {clock.local_time(0)}: quota: hit your limit"
    assert facts["did"] == "other/small: 2 iterations (no. 2-3), $1.00"


@pytest.mark.parametrize(
    ("changes", "head", "hint"),
    [
        ({}, "api: crashed", "ralph-rpc resume api"),
        (
            {"status": "error", "stopReason": "auth", "error": "401 wrong key"},
            "api: error (auth): 401 wrong key",
            "valid key",
        ),
        ({"status": "error", "stopReason": "stalled"}, "api: error (stalled)", "make task.md clearer"),
        (
            {"status": "stopped", "stopReason": "max-cost"},
            "api: stopped (max-cost)",
            "ralph-rpc resume api --max-cost MORE",
        ),
        ({"status": "stopped", "stopReason": "stop"}, "api: stopped (stop)", "ralph-rpc resume api"),
    ],
)
def test_a_loop_that_does_not_run_says_what_to_do(
    project: Path, capsys: Capture, changes: dict[str, Any], head: str, hint: str
) -> None:
    forged.loop(project, **changes)
    shown, facts = detail(capsys)
    assert shown == head
    assert hint in facts["what next"]
    assert "now" not in facts


def test_a_hung_runner_and_a_paused_loop_have_their_hints(project: Path, capsys: Capture) -> None:
    hung = forged.loop(project, "hung", alive=True, updatedAt=forged.ago(90))
    paused = forged.loop(project, "paused", alive=True, status="paused")
    with forged.runner_of(hung), forged.runner_of(paused):
        assert "ralph-rpc kill hung" in detail(capsys, "hung")[1]["what next"]
        assert detail(capsys, "paused")[1]["what next"] == "ralph-rpc resume paused"


def test_messages_not_delivered_are_shown_and_called_expired_after_the_end(project: Path, capsys: Capture) -> None:
    held = [{"id": "i", "command": "steer", "message": "use\ntabs"}]
    paths = forged.loop(project, alive=True, held=held)
    with forged.runner_of(paths):
        assert detail(capsys)[1]["queued"] == "steer: use …"
    forged.loop(project, "over", status="stopped", held=held)
    assert detail(capsys, "over")[1]["expired"] == "steer: use …"


def test_commands_in_the_inbox_of_a_dead_loop_are_counted(project: Path, capsys: Capture) -> None:
    paths = forged.loop(project, status="stopped")
    (paths.inbox / "steer.json").write_text('{"message":"x"}')
    (paths.inbox / ".tmp-1").write_text("")
    assert detail(capsys)[1]["inbox"] == "1 command for the next run"


def test_json_is_the_state_with_runner_and_shown(project: Path, capsys: Capture) -> None:
    paths = forged.loop(project)
    assert run(["status", "api", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)
    state = json.loads(paths.state.read_bytes())
    assert model == state | {"runner": "dead", "shown": "crashed"}
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [model]


def test_without_a_name_every_loop_of_the_project_is_one_line(project: Path, capsys: Capture) -> None:
    first = forged.loop(project, "first", alive=True)
    forged.loop(project, "second", status="error", error="401 wrong key")
    with forged.runner_of(first):
        assert run(["status"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["first", "running", "3/50", "iterations,", "$1.25,", "1h02m;", "waiting", "for", "the", "model"],
        ["second", "error", "3/50", "iterations,", "$1.25,", "1h02m;", "401", "wrong", "key"],
    ]


def test_a_broken_state_is_a_crashed_loop_and_no_traceback(project: Path, capsys: Capture) -> None:
    forged.loop(project).state.write_bytes(b"{")
    head, facts = detail(capsys)
    assert head == "api: crashed: state.json cannot be read: it is not JSON (unexpected end of data, line 1)"
    assert facts["files"] == str(project / ".ralph" / "api")


def test_no_loop_and_an_unknown_loop_are_told(project: Path, capsys: Capture) -> None:
    assert run(["status"]) == 0
    assert "ralph-rpc start" in capsys.readouterr().err
    assert run(["status", "nope"]) == 3


EVIL = ("error", "lastText", "refusal", "lastOutcome", "model", "provider", "piVersion", "endedAt", "nextWakeAt")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=examples(40))
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_hostile_texts_of_a_state_are_printed_inert(project: Path, capsys: Capture, text: str) -> None:
    evil = f"\x1b]0;\x07\x9b\u202e{text}\n"
    paths = LoopPaths.of(project, "api")
    if not paths.dir.exists():
        forged.loop(project)
    changes: dict[str, Any] = dict.fromkeys(EVIL, evil)
    changes["held"] = [{"id": evil, "command": "steer", "message": evil}]
    changes["worktree"] = {"branch": evil, "path": evil}
    paths.state.write_text(json.dumps(forged.state(paths, **changes)))
    for args in (["status", "api"], ["status"], ["status", "api", "--json"], ["list"]):
        assert run(args) == 0
        shown = "".join(capsys.readouterr())
        assert not {char for char in shown if char != "\n" and (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0)}
        assert "\u202e" not in shown


def running(ticket: str, **more: Any) -> dict[str, Any]:
    return {
        "ticket": ticket,
        "title": f"Do {ticket}",
        "status": "running",
        "doing": "working: bash",
        "attempt": 2,
        "iteration": 5,
        "since": forged.ago(61),
        "cost": 0.5,
        "worktree": None,
    } | more


def test_a_ticket_loop_tells_of_its_queue_and_of_each_running_ticket(project: Path, capsys: Capture) -> None:
    tickets = {
        "total": 9,
        "closed": 4,
        "failed": 1,
        "needsMerge": 2,
        "running": [running("a-1"), running("b-2", attempt=1)],
    }
    paths = forged.loop(project, alive=True, kind="tickets", tickets=tickets)
    with forged.runner_of(paths):
        _, facts = detail(capsys)
    assert facts["tickets"] == "4 of 9 closed, 1 failed, 2 to be merged by hand"
    assert facts["a-1"] == "working: bash, attempt 2, $0.50, for 1m01s  (Do a-1)"
    assert facts["b-2"] == "working: bash, $0.50, for 1m01s  (Do b-2)"
    assert "now" not in facts
