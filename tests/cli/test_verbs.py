"""stop, abort, pause, steer, followup, kill and wait, against a stand-in for the runner."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ralph_rpc.errors import RalphError
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.loops import kill
from ralph_rpc.machine import identity, locks
from tests.cli import forged
from tests.cli.stage import Stage, until

pytestmark = pytest.mark.usefixtures("no_leftovers")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.end()


def delivered(stage: Stage, name: str = "api") -> list[str]:
    events = [orjson.loads(line) for line in stage.paths(name).events.read_bytes().splitlines()]
    return [event["command"] for event in events if event.get("state") == "delivered"]


def waiting(stage: Stage, name: str = "api") -> list[dict[str, str]]:
    """The commands that lie in an inbox that nobody reads."""
    return [orjson.loads(file.read_bytes()) for file in sorted(stage.paths(name).inbox.glob("*.json"))]


def test_stop_with_wait_returns_when_the_loop_has_ended(stage: Stage) -> None:
    stage.start("-m", "x")
    stage.run("stop", "api", "--wait")
    assert stage.state()["status"] == "stopped"
    assert not locks.is_held(stage.paths().runner_lock), "a start right after it would be refused"


def test_stop_ends_the_others_when_one_does_not_run(stage: Stage) -> None:
    stage.start("-m", "x", name="a")
    stage.start("-m", "x", "--share-checkout", name="b")
    forged.loop(stage.project, "dead", status="running")
    told = stage.run("stop", "a", "dead", "b", "--wait", code=6)
    assert "'dead' is not running (crashed)" in told.stderr and "ralph-rpc resume dead" in told.stderr
    assert [stage.state(name)["status"] for name in "ab"] == ["stopped", "stopped"]


def test_stop_all_ends_every_running_loop_of_the_project(stage: Stage) -> None:
    assert "no loop of this project is running" in stage.run("stop", "--all").stdout
    stage.start("-m", "x", name="a")
    stage.start("-m", "x", "--share-checkout", name="b")
    stage.run("stop", "--all", "--now", "--wait")
    assert [stage.state(name)["status"] for name in "ab"] == ["stopped", "stopped"]
    stage.run("stop", "a", "--all", code=2)


@pytest.mark.parametrize("status", ["stopped", "completed", "error"])
def test_stop_of_what_has_ended_is_no_error(stage: Stage, status: str) -> None:
    forged.loop(stage.project, "api", status=status)
    assert stage.run("stop", "api", "--wait").stdout == f"api: not running ({status}) ({stage.project})\n"
    [told] = orjson.loads(stage.run("stop", "api", "--json").stdout)
    assert (told["id"], told["state"]) == (None, status)
    assert not waiting(stage)


@pytest.mark.parametrize("args", [["abort", "api"], ["pause", "api"], ["stop", "api", "--now"], ["kill", "api"]])
def test_an_order_to_a_loop_that_does_not_run_is_refused(stage: Stage, args: list[str]) -> None:
    forged.loop(stage.project, "api", status="running")
    told = stage.run(*args, code=6).stderr
    assert "not running (crashed)" in told and "ralph-rpc resume api" in told
    assert not waiting(stage)


def test_orders_carry_what_they_were_given(stage: Stage) -> None:
    paths = forged.loop(stage.project, "api", alive=True)
    with forged.runner_of(paths):
        stage.run("abort", "api", "--then", "pause")
        stage.run("stop", "api")
        stage.run("followup", "api", "--next", "and", "then")
    bodies = sorted((body["type"], body.get("then"), body.get("when"), body.get("message")) for body in waiting(stage))
    assert bodies == [
        ("abort", "pause", None, None),
        ("followup", None, "next", "and then"),
        ("stop", None, "iteration", None),
    ]


def test_a_message_comes_from_arguments_or_stdin(stage: Stage) -> None:
    stage.start("-m", "x")
    stage.run("steer", "api", "look", "at", "é", "--wait")
    stage.run("steer", "api", "--wait", stdin="two\nlines\n")
    stage.run("followup", "api", "-", "--wait", stdin="by dash")
    stage.run("steer", "api", "--wait", "--", "--not-an-option")
    assert delivered(stage) == ["steer", "steer", "followup", "steer"]


@pytest.mark.parametrize("stdin", [b"", b" \n", b"gr\xfcn", b"x" * (2 << 20)])
def test_a_message_that_is_none_is_not_sent(stage: Stage, stdin: bytes) -> None:
    paths = forged.loop(stage.project, "api", alive=True)
    with forged.runner_of(paths):
        stage.run("steer", "api", code=2, stdin=stdin)
        stage.run("steer", "api", " ", code=2)
        stage.run("steer", "api", os.fsdecode(b"gr\xfcn"), code=2)
    assert not waiting(stage)


def test_on_a_terminal_the_editor_asks_for_the_message(stage: Stage) -> None:
    paths = forged.loop(stage.project, "api", alive=True)
    editor = stage.tmp / "editor"
    editor.write_text("#!/bin/sh\nsleep 0.1\nprintf 'from the editor\\n' > \"$1\"\ntouch -d '1 hour' \"$1\"\n")
    editor.chmod(0o755)
    with forged.runner_of(paths):
        code, shown = stage.on_terminal("steer", "api", EDITOR=str(editor))
    assert code == 0, shown
    assert [body["message"] for body in waiting(stage)] == ["from the editor"]


def test_a_message_for_a_stopped_loop_is_kept_and_that_is_said(stage: Stage) -> None:
    forged.loop(stage.project, "api", status="stopped")
    told = stage.run("steer", "api", "later").stdout
    assert "not running (stopped)" in told and "ralph-rpc resume api" in told
    assert [body["message"] for body in waiting(stage)] == ["later"]
    stage.run("steer", "api", "later", "--wait", code=6)
    assert len(waiting(stage)) == 1


def test_a_message_for_a_completed_loop_is_refused(stage: Stage) -> None:
    forged.loop(stage.project, "api", status="completed")
    assert "ralph-rpc start api" in stage.run("followup", "api", "more", code=6).stderr
    assert not waiting(stage)


def test_wait_tells_why_a_command_was_not_delivered(stage: Stage) -> None:
    stage.start("-m", "x")
    assert "steer rejected: not today" in stage.run("steer", "api", "refuse", "--wait", code=1).stderr
    assert "not delivered yet" in stage.run("steer", "api", "never", "--wait", "--timeout", "0.2s", code=124).stderr
    assert "--timeout needs --wait" in stage.run("steer", "api", "never", "--timeout", "1s", code=2).stderr
    assert "expected a duration" in stage.run("steer", "api", "x", "--wait", "--timeout", "soon", code=2).stderr


def test_a_waiting_steer_notices_that_the_runner_died(stage: Stage) -> None:
    stage.start("-m", "x")
    command = stage.command("steer", "api", "never", "--wait")
    process = subprocess.Popen(
        command, cwd=stage.project, env=stage.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: b"accepted" in stage.paths().events.read_bytes())
    os.kill(stage.state()["pid"], signal.SIGKILL)
    assert b"is gone" in process.communicate(timeout=30)[1]
    assert process.returncode == 6


def test_kill_lets_the_runner_say_its_last_word(stage: Stage) -> None:
    stage.start("-m", "x")
    pid = stage.state()["pid"]
    assert "by force" not in stage.run("kill", "api").stdout
    assert identity.start_time(pid) is None
    assert (stage.state()["status"], stage.state()["stopReason"]) == ("stopped", "kill")


def test_kill_corrects_the_files_of_a_runner_that_would_not_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill, "TERM_PATIENCE_S", 0.3)
    stage.start("-m", "x", env={"STAND_IN": "deaf"})
    pid = stage.state()["pid"]
    assert kill.kill(stage.paths()) is True
    assert identity.start_time(pid) is None
    state = stage.state()
    assert (state["status"], state["stopReason"], state["pid"]) == ("stopped", "kill", None) and state["endedAt"]
    assert not list(registry_dir().iterdir())
    stage.run("resume", "api")


def test_kill_never_signals_another_process_that_got_the_pid(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill, "LEAVE_S", 0.1)
    paths = forged.loop(stage.project, "api", pid=os.getppid(), pidStartTime=1.0)
    with forged.runner_of(paths), pytest.raises(RalphError, match="cannot be signalled"):
        kill.kill(paths)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(["completed"], 0), (["completed", "stopped"], 10), (["stopped", "error", "completed"], 1), (["running"], 1)],
)
def test_wait_tells_the_worst_outcome(stage: Stage, statuses: list[str], code: int) -> None:
    names = [f"loop{number}" for number, _ in enumerate(statuses)]
    for name, status in zip(names, statuses, strict=True):
        forged.loop(stage.project, name, status=status)
    told = stage.run("wait", *names, code=code).stdout
    assert len(told.splitlines()) == len(statuses)
    as_json = orjson.loads(stage.run("wait", *names, "--json", code=code).stdout)
    shown = ["crashed" if status == "running" else status for status in statuses]
    assert [as_json[name]["status"] for name in names] == shown


def test_wait_blocks_until_the_end(stage: Stage) -> None:
    stage.start("-m", "x")
    assert "is still running" in stage.run("wait", "api", "--timeout", "0.1", code=124).stderr
    process = subprocess.Popen(stage.command("wait", "api"), cwd=stage.project, env=stage.env, stdout=subprocess.PIPE)
    stage.run("stop", "api")
    assert b"api: stopped" in process.communicate(timeout=30)[0]
    assert process.returncode == 10


def test_wait_any_returns_with_the_first_that_has_ended(stage: Stage) -> None:
    forged.loop(stage.project, "done", status="completed")
    assert "no loop of this project is running" in stage.run("wait", "--any", code=6).stderr
    assert "no loop of this project is running" in stage.run("wait", "--all", code=6).stderr
    lives = forged.loop(stage.project, "lives", alive=True)
    with forged.runner_of(lives):
        assert stage.run("wait", "--any", "lives", "done").stdout == "done: completed\n"
        assert "'lives' is still running" in stage.run("wait", "--any", "--timeout", "0.1", code=124).stderr
        assert "'lives' is still running" in stage.run("wait", "--all", "--timeout", "0.1", code=124).stderr
        stage.run("wait", "--any", "--all", code=2)


def test_what_was_sent_is_told_as_json(stage: Stage) -> None:
    stage.start("-m", "x")
    sent = orjson.loads(stage.run("steer", "api", "hello", "--wait", "--json").stdout)
    assert (sent["name"], sent["project"], sent["command"]) == ("api", str(stage.project), "steer")
    receipts = [orjson.loads(line) for line in stage.paths().events.read_bytes().splitlines()]
    assert sent["id"] in [event.get("id") for event in receipts if event.get("state") == "delivered"]
    assert sent["state"] == "delivered"
    assert orjson.loads(stage.run("pause", "api", "--json").stdout)["state"] == "sent"
    [stopped] = orjson.loads(stage.run("stop", "--json", "--now", "--wait").stdout)
    assert (stopped["command"], stopped["state"]) == ("stop", "delivered") and stopped["id"]
    assert orjson.loads(stage.run("steer", "api", "later", "--json").stdout)["state"] == "kept"


def test_a_message_can_be_an_option_but_not_stand_twice(stage: Stage) -> None:
    paths = forged.loop(stage.project, "api", alive=True)
    with forged.runner_of(paths):
        stage.run("steer", "api", "-m", "by option")
        assert "stands twice" in stage.run("steer", "api", "one", "-m", "two", code=2).stderr
    assert [body["message"] for body in waiting(stage)] == ["by option"]


def test_resume_of_a_paused_loop_waits_and_tells_as_json(stage: Stage) -> None:
    stage.start("-m", "x")
    stage.run("pause", "--wait")
    until(lambda: stage.state()["status"] == "paused")
    told = orjson.loads(stage.run("resume", "--wait", "--json").stdout)
    assert (told["command"], told["state"], told["project"]) == ("resume", "delivered", str(stage.project))
    assert delivered(stage) == ["pause", "resume"]
