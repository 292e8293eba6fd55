"""The whole program on a fake pi: what a real one does too rarely, too slowly or never."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.rig import Rig, alive, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"
GATE = {"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}


def outcomes(rig: Rig) -> list[str]:
    return [r["outcome"] for r in rig.records()]


@pytest.mark.parametrize("generation", ["new", "old"])
def test_a_loop_runs_to_its_limit(tmp_path: Path, generation: str) -> None:
    rig = fake_rig(tmp_path, ["one", [{"tool": "bash", "run": "echo x > made"}, "two"]], generation)
    rig.start("-n", "2")
    assert rig.wait_end()["stopReason"] == "max-iterations"
    assert outcomes(rig) == ["ok", "ok"] and rig.records()[1]["filesChanged"] == 1
    assert rig.registry() == [] and rig.of_mine() == {}


@pytest.mark.parametrize("command", ["prompt", "get_session_stats", "clear_queue", "steer"])
def test_a_request_that_is_refused_does_not_hang_the_loop(tmp_path: Path, command: str) -> None:
    script = {"prompts": [[{"wait": 0.3}, "answer"]], "commands": {command: {"refuse": "not today", "times": 1}}}
    rig = fake_rig(tmp_path, script)
    rig.start("-n", "1", "--max-failures", "3")
    if command == "steer":
        rig.drop("steer.json", '{"id": "s", "message": "hello"}')
    state = rig.wait_end()
    assert state["status"] == "stopped", state
    assert rig.records()


@pytest.mark.parametrize("command", ["prompt", "new_session", "get_session_stats", "get_state"])
def test_an_answer_that_comes_twice_is_taken_once(tmp_path: Path, command: str) -> None:
    rig = fake_rig(tmp_path, {"prompts": ["one", "two"], "commands": {command: {"twice": True}}})
    rig.start("-n", "2")
    rig.wait_end()
    assert outcomes(rig) == ["ok", "ok"]


@pytest.mark.parametrize("end", [{"exit": 3}, {"torn": '{"type":"message_up'}])
def test_a_pi_that_ends_in_the_middle_is_replaced(tmp_path: Path, end: dict[str, Any]) -> None:
    rig = fake_rig(tmp_path, [["begun", end], f"again\n{MARKER}"])
    rig.start()
    assert rig.wait_end()["status"] == "completed"
    assert outcomes(rig) == ["crashed", "ok"]
    assert len(rig.of("ralph_pi_start")) == 2


def test_a_deaf_pi_is_killed_when_it_is_to_stop(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": "deaf"}]])
    rig.start()
    rig.run("stop", "x", "--now")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop")
    assert rig.of("ralph_pi_exit")[-1]["terminationMethod"] in ("sigterm", "sigkill")


def test_a_hostile_inbox_is_rejected_with_reasons_and_the_loop_goes_on(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["hello", GATE, "on"], f"done\n{MARKER}"])
    rig.start()
    bad = {
        "steer.json": "{not json", "steer-1.json": "[]", "steer-2.json": '{"message": ""}', "fly.json": "{}",
        "stop-1.json": '{"when": "later"}', "followup.json": '{"type": "steer", "message": "x"}',
    }  # fmt: skip
    for name, text in bad.items():
        rig.drop(name, text)
    (rig.paths.inbox / "steer-3.json").write_bytes(b'{"message": "\xff"}')
    (rig.paths.inbox / "steer-4.json").symlink_to("/etc/passwd")
    (rig.paths.inbox / "steer-5.json").mkdir()
    os.mkfifo(rig.paths.inbox / "steer-6.json")
    (rig.paths.inbox / "steer-7.json").write_bytes(b"{" + b" " * (2 << 20) + b"}")
    wait_for("11 rejected", lambda: len(list(rig.paths.rejected.glob("*.reason"))) == 11, timeout=15)
    (rig.project / "go").touch()
    assert rig.wait_end()["status"] == "completed"
    for reason in rig.paths.rejected.glob("*.reason"):
        assert reason.read_text().strip().count("\n") == 0
    assert not [p for p in rig.paths.inbox.iterdir() if p.name != "rejected"]


def test_a_stale_stop_is_set_aside_by_a_fresh_start_and_a_message_is_not(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [f"done\n{MARKER}"])
    rig.start()
    rig.wait_end()
    rig.drop("stop.json")
    rig.drop("steer.json", '{"id": "early", "message": "from before"}')
    rig.start("-n", "2")
    assert rig.wait_end()["status"] == "completed"
    assert (rig.paths.rejected / "stop.json.reason").exists()
    assert rig.steps("early")[-1] == "delivered"
    assert any(rig.project.glob(".ralph/.archive/x-*/state.json"))


def test_a_task_file_that_turns_unreadable_ends_the_loop_with_one_line(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["hello", GATE, "more"]])
    rig.start()
    rig.paths.task.write_bytes(b"\xff\xfe\x00")
    (rig.project / "go").touch()
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("error", "blocked")
    assert "not UTF-8" in state["error"]
    rig.paths.task.write_text("mended")
    rig.run("resume", "x", "-n", "2")
    assert rig.wait_end()["stopReason"] == "max-iterations"


def test_an_unreadable_state_is_set_aside_and_rebuilt(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["a", "b"])
    rig.start("-n", "1")
    rig.wait_end()
    rig.paths.state.write_text('{"torn')
    rig.run("resume", "x", "-n", "2")
    state = rig.wait_end()
    assert state["stats"]["iterations"] == 2
    assert list(rig.paths.dir.glob("state.json.broken-*"))


def test_sigterm_to_the_runner_ends_everything_in_order(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}]])
    rig.start()
    runner, guard, pi = rig.pids()
    rig.kill(runner, signal.SIGTERM)
    assert rig.wait_end()["stopReason"] == "kill"
    assert not alive(guard) and not alive(pi)
    assert outcomes(rig) == ["aborted"]


def test_no_secret_of_the_environment_is_written_down(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [f"done\n{MARKER}"])
    rig.env["ANTHROPIC_API_KEY"] = "canary-5c1f"
    rig.start()
    rig.wait_end()
    found = [p for p in (*rig.paths.dir.rglob("*"), *Path(rig.env["RALPH_HOME"]).rglob("*")) if p.is_file()]
    assert found and not [p for p in found if b"canary-5c1f" in p.read_bytes()]


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_folders_are_private_under_any_umask(tmp_path: Path, mask: int) -> None:
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": "touch made"}, f"done\n{MARKER}"]])
    before = os.umask(mask)
    try:
        rig.start()
    finally:
        os.umask(before)
    rig.wait_end()
    for path in (rig.paths.dir.parent, *rig.paths.dir.rglob("*")):
        want = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o777 == want, path
    # What the agent makes is the user's, under the user's umask.
    assert (rig.project / "made").stat().st_mode & 0o777 == 0o666 & ~mask


def test_every_file_meets_its_schema(tmp_path: Path) -> None:
    from ralph_rpc.model.schemas import validator

    rig = fake_rig(tmp_path, [["hello", {"wait": 1.0}, "more"], {"refuse": "529 overloaded"}, f"done\n{MARKER}"])
    rig.start("--verify", "true")
    rig.drop("steer.json", '{"message": "hello"}')
    entry = rig.registry()[0]
    rig.wait_end()
    validator("registry").validate_python(entry, strict=True)
    validator("state").validate_json(rig.paths.state.read_bytes())
    validator("config").validate_json(rig.paths.config.read_bytes())
    for path in rig.paths.iterations.iterdir():
        validator("iteration").validate_json(path.read_bytes())
    for line in rig.paths.commands.read_bytes().splitlines():
        validator("journal").validate_json(line)
    own = [e for e in rig.events() if e["type"].startswith("ralph_")]
    assert {e["type"] for e in own} >= {"ralph_loop_start", "ralph_verify", "ralph_command", "ralph_iteration_end"}
    for event in own:
        validator("event").validate_python(event, strict=True)
    for event in rig.events():
        if not event["type"].startswith("ralph_"):
            validator("stamp").validate_python(event["ralph"], strict=True)
