"""The whole program on a fake pi: what a real one does too rarely, too slowly or never."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.rig import FOR_WHOM_MODES_COUNT, Rig, alive, fake_rig

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


def test_folders_that_a_tool_has_closed_leave_with_the_temporary_folder(tmp_path: Path) -> None:
    close = "mkdir -p $TMPDIR/cache/one && touch $TMPDIR/cache/one/two && chmod 500 $TMPDIR/cache/one $TMPDIR/cache"
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": f"{close} && echo $TMPDIR > told"}, f"done\n{MARKER}"]])
    rig.started_by = FOR_WHOM_MODES_COUNT
    rig.start()
    assert rig.wait_end()["status"] == "completed"
    assert not Path((rig.project / "told").read_text().strip()).exists()


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


def test_nothing_that_the_agent_puts_into_the_loops_folder_stands_in_for_a_module(tmp_path: Path) -> None:
    """That folder is the runner's working folder, and the next runner starts in it."""
    rig = fake_rig(tmp_path, ["one", f"done\n{MARKER}"])
    rig.start("-n", "1")
    rig.wait_end()
    for name in ("json", "random", "orjson", "asyncio", "signal", "ralph_rpc", "ralph_runner", "sitecustomize"):
        (rig.paths.dir / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})\n")
    rig.run("resume", "x", "-n", "2")
    assert rig.wait_end()["stopReason"] == "marker"
    assert not (tmp_path / "executed").exists()
