"""`resume --crashed`: what died without anybody wanting it to continues, and nothing else does."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.rig import Rig, alive, fake_rig, wait_for
from tests.ticket_rig import fake_tickets, hold

pytestmark = pytest.mark.usefixtures("no_leftovers")
ROOT = Path(__file__).parents[2]
MARKER = "<promise>COMPLETE</promise>"
HOLD = [{"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}, f"done\n{MARKER}"]


def rig_of(tmp_path: Path, name: str = "x", prompts: Any = (HOLD,)) -> Rig:
    """A loop in a project of its own."""
    folder = tmp_path / f"of-{name}"
    folder.mkdir()
    rig = fake_rig(folder, list(prompts))
    rig.name = name
    rig.paths = type(rig.paths).of(rig.project, name)
    return rig


def running(rig: Rig) -> int:
    """Starts it and waits until its tool runs; the runner's pid."""
    rig.start()
    wait_for("a tool", lambda: any(e["type"] == "tool_execution_start" for e in rig.events()))
    return rig.pids()[0]


def kill_runner(rig: Rig) -> None:
    runner, guard, pi = rig.pids()
    os.kill(runner, signal.SIGKILL)
    wait_for("the end of its tree", lambda: not any(map(alive, (runner, guard, pi))))


def end(rig: Rig) -> None:
    (rig.project / "go").touch()
    assert rig.wait_end()["status"] == "completed"


def revive(rig: Rig, code: int = 0) -> dict[str, dict[str, Any]]:
    found = json.loads(rig.run("resume", "--crashed", "--json", check=code).stdout)
    return {one["name"]: one for one in found}


def test_what_was_killed_continues_and_what_a_person_or_the_loop_ended_does_not(tmp_path: Path) -> None:
    crashed, living = rig_of(tmp_path, "crashed"), rig_of(tmp_path, "living")
    stopped, failed = (
        rig_of(tmp_path, "stopped"),
        rig_of(tmp_path, "failed", ["one", [{"error": "401 Incorrect API key provided"}]]),
    )
    killed, paused = rig_of(tmp_path, "killed"), rig_of(tmp_path, "paused", ["one"])
    for rig in (crashed, living, stopped, killed):
        running(rig)
    failed.start()
    assert failed.wait_end()["status"] == "error"
    paused.start("-n", "0", "--stall-after", "0")
    paused.run("pause", "paused", "--wait")
    stopped.run("stop", "stopped", "--now", "--wait")
    killed.run("kill", "killed")
    kill_runner(crashed)
    kill_runner(paused)
    found = revive(living, 0)
    assert {name: one["result"] for name, one in found.items()} == {"crashed": "resumed", "paused": "paused"}
    assert found["crashed"]["project"] == str(crashed.project)
    assert living.run("resume", "--crashed").stdout.splitlines() == [
        f"paused ({paused.project}): paused: continue it with: ralph-rpc resume paused"
    ]
    assert [rig.state()["status"] for rig in (stopped, killed)] == ["stopped", "stopped"]
    for rig in (crashed, living):
        end(rig)
    assert [record["outcome"] for record in crashed.records()] == ["crashed", "ok"]


def test_a_machine_that_shuts_down_ends_a_loop_that_continues_after_the_boot(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    runner = running(rig)
    os.kill(runner, signal.SIGTERM)
    assert rig.wait_end()["stopReason"] == "kill"
    assert revive(rig) == {}  # the machine is still the same
    state = rig.state()
    rig.paths.state.write_text(json.dumps({**state, "bootId": "another boot"}))
    assert revive(rig)["x"]["result"] == "resumed"
    end(rig)


def test_a_loop_that_was_paused_when_the_machine_shut_down_stays_so(tmp_path: Path) -> None:
    tasks, tickets = (
        rig_of(tmp_path, "tasks", ["one"]),
        fake_tickets(tmp_path, {"a": [[{"tool": "bash", "run": hold()}, "one"]]}),
    )
    tickets.add("a")
    tickets.commit()
    tasks.start("-n", "0", "--stall-after", "0")
    tickets.begin("--parallel", "2")
    tickets.wait_held("a")
    tickets.run("pause", "x")
    tickets.let_go("a")
    tasks.run("pause", "tasks")
    for rig in (tasks, tickets):
        rig.wait_status("paused")
        os.kill(rig.state()["pid"], signal.SIGTERM)
        assert rig.wait_end()["stopReason"] == "kill"
        rig.paths.state.write_text(json.dumps({**rig.state(), "bootId": "another boot"}))
    assert {name: one["result"] for name, one in revive(tasks).items()} == {"tasks": "paused", "x": "paused"}
    tasks.run("resume", "tasks")
    tasks.wait_status("running")
    assert not tasks.state()["wasPaused"]
    tasks.run("stop", "tasks", "--now", "--wait")


def test_two_at_once_resume_each_loop_once(tmp_path: Path) -> None:
    rigs = [rig_of(tmp_path, name) for name in ("one", "two")]
    for rig in rigs:
        running(rig)
        kill_runner(rig)
    results: list[dict[str, dict[str, Any]]] = []
    threads = [threading.Thread(target=lambda: results.append(revive(rigs[0]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("one", "two"):
        told = [found[name]["result"] for found in results if name in found]
        assert told.count("resumed") == 1 and set(told) <= {"resumed", "running"}
    for rig in rigs:
        end(rig)
        assert len(rig.of("ralph_loop_start")) == 2


def test_a_loop_that_is_not_there_or_of_a_newer_version_is_named_and_skipped(tmp_path: Path) -> None:
    gone, newer, good = (rig_of(tmp_path, name) for name in ("gone", "newer", "good"))
    for rig in (gone, newer, good):
        running(rig)
        kill_runner(rig)
    gone.project.rename(tmp_path / "unmounted")
    newer.paths.state.write_text(json.dumps({**newer.state(), "schemaVersion": 2}))
    registry = Path(good.env["RALPH_HOME"]) / "registry"
    (registry / "--later.json").write_text('{"schemaVersion": 2}')
    found = revive(good, 1)
    assert {name: one["result"] for name, one in found.items()} == {
        "gone": "skipped",
        "newer": "skipped",
        "--later.json": "skipped",
        "good": "resumed",
    }
    assert str(gone.paths.dir) in found["gone"]["reason"]
    assert all("newer ralph-rpc" in found[name]["reason"] for name in ("newer", "--later.json"))
    end(good)


def test_it_stands_alone(tmp_path: Path) -> None:
    rig = rig_of(tmp_path)
    assert rig.run("resume", "--crashed").stdout == "no loop has crashed\n"
    assert json.loads(rig.run("resume", "--crashed", "--json").stdout) == []
    for more in (["x"], ["--max-cost", "1"], ["--foreground"], ["--project", str(rig.project)]):
        assert "--crashed stands alone" in rig.run("resume", "--crashed", *more, check=2).stderr
    assert "there is no loop in this project" in rig.run("resume", check=3).stderr


def test_the_node_that_a_loop_was_started_with_is_used_where_the_path_of_a_boot_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ralph_rpc.loops.which_pi import with_stored_pi
    from ralph_rpc.options.resolve import resolve

    node, script = tmp_path / "node", tmp_path / "cli.js"
    node.write_text("#!/bin/sh\necho v24.0.0\n")
    node.chmod(0o755)
    script.write_text("")
    (tmp_path / "package.json").write_text(
        '{"name": "@x/pi-coding-agent", "version": "1.5.2", "engines": {"node": ">=99"}}'
    )
    monkeypatch.setenv("PATH", "/nowhere")
    stored = {**resolve({}, tmp_path, {}).config, "pi": [str(node), str(script)]}
    found = with_stored_pi(stored)  # type: ignore[arg-type]
    assert (found["pi"], found["piVersion"]) == ([str(node), str(script)], "1.5.2")


# What the documentation gives to a machine that boots.

GUIDE = (ROOT / "docs" / "running-for-weeks.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    return found[1]


def stand_in(folder: Path) -> Path:
    """A `ralph-rpc` that writes down how it was called."""
    program = folder / "bin" / "ralph-rpc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{folder}/called\n')
    program.chmod(0o755)
    return program


def test_the_cron_line_calls_it_at_boot(tmp_path: Path) -> None:
    (line,) = block("crontab").splitlines()
    when, _, command = line.partition(" ")
    assert when == "@reboot" and "%" not in command
    program = stand_in(tmp_path)
    (tmp_path / ".bash_profile").write_text(f"PATH={program.parent}:$PATH\n")
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-c", command], check=True, env=env, cwd=tmp_path)
    assert (tmp_path / "called").read_text() == "resume --crashed\n"


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "ralph-rpc.service"
    unit.write_text(block("ini"))
    lines = [line for line in unit.read_text().splitlines() if line and line[0] not in "#["]
    settings = dict(line.split("=", 1) for line in lines)
    assert settings["Type"] == "oneshot" and settings["KillMode"] == "process" and settings["RemainAfterExit"] == "yes"
    program = stand_in(tmp_path)
    (tmp_path / ".bash_profile").write_text(f"PATH={program.parent}:$PATH\n")
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-c", settings["ExecStart"]], check=True, env=env)
    assert (tmp_path / "called").read_text() == "resume --crashed\n"
    if shutil.which("systemd-analyze"):
        env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        command = ["systemd-analyze", "--user", "verify", str(unit)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
        assert "ralph-rpc.service:" not in done.stderr, done.stderr
