"""What the agent's shell can reach: the loop's folder, the runner and the guards. None of it ends the loop by accident."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.files.paths import LoopPaths
from tests.faults.namespace import INSIDE, run_in_namespace
from tests.rig import ENDED, Rig, alive, fake_rig, git, wait_for
from tests.ticket_rig import HOLD, does, fake_tickets

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(240)]

MARKER = "<promise>COMPLETE</promise>"


def runs(command: str) -> dict[str, Any]:
    return {"tool": "bash", "run": command}


def hold(name: str) -> dict[str, Any]:
    """A tool call that waits until the test has made the file `name` beside the project."""
    return runs(f"touch ../at-{name}; while [ ! -e ../{name} ]; do sleep 0.02; done")


def at(rig: Rig, name: str) -> None:
    wait_for(f"the agent at {name}\n{rig.log()}", (rig.project.parent / f"at-{name}").exists)


def go(rig: Rig, name: str) -> None:
    (rig.project.parent / name).touch()


def warnings(rig: Rig) -> list[str]:
    return [event["message"] for event in rig.of("ralph_notice") if event["level"] == "warning"]


CLEANS = ["clean -fdx", "clean -fdX", "clean -fdx .ralph", "clean -fdxq .", "stash -u", "stash -a"]


@pytest.mark.parametrize("command", CLEANS)
def test_an_ordinary_clean_leaves_the_loops_alone(tmp_path: Path, command: str) -> None:
    rig = fake_rig(tmp_path, [[runs("echo x > junk; echo y >> README"), hold("one"), "a"], f"b\n{MARKER}"])
    rig.start()
    at(rig, "one")
    before = {path for path in rig.paths.dir.rglob("*") if not path.name.startswith(".")}
    git(rig.project, *command.split())
    assert before <= set(rig.paths.dir.rglob("*"))
    assert (rig.project / "junk").exists() == (command in ("clean -fdX", "clean -fdx .ralph"))
    assert ".ralph" not in git(rig.project, "status", "--short")
    git(rig.project, "add", "-A")
    assert ".ralph" not in git(rig.project, "diff", "--cached", "--name-only")
    go(rig, "one")
    assert rig.wait_end()["stopReason"] == "marker"
    assert warnings(rig) == []


def test_the_clean_of_the_last_loop_takes_back_what_keeps_git_away(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [f"a\n{MARKER}"])
    exclude = rig.project / ".git" / "info" / "exclude"
    before = exclude.read_bytes()
    rig.start()
    rig.wait_end()
    assert exclude.read_bytes() != before
    assert (rig.project / ".ralph" / ".git" / "HEAD").exists()
    rig.run("clean", "--yes", "x")
    assert exclude.read_bytes() == before
    assert not (rig.project / ".ralph" / ".git").exists()


def test_a_project_in_a_folder_of_the_repository_and_without_one(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [f"a\n{MARKER}"])
    below = rig.project / "a [b]" / "c"
    below.mkdir(parents=True)
    apart = tmp_path / "apart"
    apart.mkdir()
    for project in (below, apart):
        rig.project, rig.paths = project, LoopPaths.of(project, "x")
        rig.start()
        rig.wait_end()
    git(below, "clean", "-fdx")
    assert (below / ".ralph" / "x" / "state.json").exists()
    assert git(below, "status", "--short") == ""
    assert not (apart / ".ralph" / ".git").exists()


def test_a_clean_spares_loops_also_where_git_tracks_a_file_beside_them(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), f"a\n{MARKER}"]])
    (rig.project / ".ralph").mkdir(0o700)
    (rig.project / ".ralph" / "config.toml").write_text("max-iterations = 3\n")
    git(rig.project, "add", "-f", ".ralph/config.toml")
    git(rig.project, "commit", "-qm", "settings")
    rig.start()
    at(rig, "one")
    git(rig.project, "clean", "-fdx")
    assert rig.paths.task.exists() and rig.paths.events.exists()
    assert git(rig.project, "status", "--short") == ""
    go(rig, "one")
    assert rig.wait_end()["stopReason"] == "marker"


def test_the_worktrees_of_tickets_survive_a_clean_of_the_project(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(HOLD)]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees")
    rig.wait_held("t-1")
    git(rig.project, "clean", "-fdx")
    git(rig.paths.worktrees() / "t-1", "clean", "-fdx")
    rig.let_go("t-1")
    rig.check_done("t-1")


REMOVALS = ["rm -rf .ralph", "rm -rf .ralph/x", "git clean -ffdxq", "rm -rf .ralph/x/*", "rm -rf .ralph/x/inbox"]


@pytest.mark.parametrize("command", REMOVALS)
def test_a_folder_that_the_agent_removes_is_made_again_and_the_loop_continues(tmp_path: Path, command: str) -> None:
    rig = fake_rig(
        tmp_path,
        ["first", [hold("one"), runs(command), hold("two"), "second"], [hold("three"), "third"], f"done\n{MARKER}"],
    )
    rig.start(task="Do the work.\n")
    at(rig, "one")
    pid = rig.state()["pid"]
    go(rig, "one")
    at(rig, "two")
    wait_for(f"the task\n{rig.log()}", lambda: rig.paths.task.exists() and rig.paths.state.exists())
    wait_for("the inbox", lambda: rig.paths.inbox.is_dir())
    wait_for("the journal", rig.paths.commands.exists)
    refused = rig.run("start", "x", "--pi", rig.pi, "-m", "another", check=4)
    assert "already running" in refused.stderr
    go(rig, "two")
    at(rig, "three")
    rig.run("steer", "x", "mind the gap")
    go(rig, "three")
    state = rig.wait_end()
    assert (state["stopReason"], state["stats"]["iterations"]) == ("marker", 4), (state, rig.log())
    assert rig.paths.task.read_text() == "Do the work.\n"
    assert [record["outcome"] for record in rig.records()] == ["ok"] * 4
    assert "mind the gap" in str(rig.events())
    assert rig.of("ralph_loop_start")[0]["pid"] == pid, "the log is not whole"
    lost = [warning for warning in warnings(rig) if "Lost:" in warning]
    assert len(lost) == (command != "rm -rf .ralph/x/inbox"), rig.log()
    assert rig.of_mine() == {}


def test_no_second_start_runs_beside_a_runner_whose_folder_is_gone(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), f"a\n{MARKER}"]])
    rig.start()
    at(rig, "one")
    pid = rig.state()["pid"]
    os.kill(pid, signal.SIGSTOP)  # so that it cannot make the folder again
    try:
        shutil.rmtree(rig.project / ".ralph")
        refused = rig.run("start", "x", "--pi", rig.pi, "-m", "another", check=4)
        assert "already running" in refused.stderr
    finally:
        os.kill(pid, signal.SIGCONT)
    go(rig, "one")
    wait_for("the state", rig.paths.state.exists)
    assert rig.wait_end()["stopReason"] == "marker"


def test_a_loop_whose_folder_is_gone_for_good_is_shown_as_that(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), "a"]])
    rig.start()
    at(rig, "one")
    runner = rig.state()["pid"]
    os.kill(runner, signal.SIGKILL)
    wait_for("the end", lambda: not alive(runner))
    wait_for("pi's end", lambda: not rig.of_mine())
    shutil.rmtree(rig.project / ".ralph")
    row = [line for line in rig.run("list", "--all").stdout.splitlines() if line.startswith("x ")]
    assert "gone" in row[0] and "crashed" not in row[0]
    told = rig.run("status", "x", check=3).stderr
    assert str(rig.paths.dir) in told and "is gone" in told


def test_a_project_that_is_moved_while_its_loop_runs_is_called_moved(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), "a"]])
    rig.start()
    at(rig, "one")
    runner = rig.state()["pid"]
    there = tmp_path / "elsewhere"
    rig.project.rename(there)
    old, rig.project, rig.paths = rig.project, there, LoopPaths.of(there, "x")
    wait_for(f"the reason\n{rig.log()}", lambda: rig.state()["status"] == "waiting" and rig.state())
    assert f"was moved to {rig.paths.dir}" in rig.state()["error"]
    assert rig.state()["waitingFor"] == "own"
    os.kill(runner, signal.SIGKILL)
    wait_for("the end", lambda: not alive(runner))
    told = rig.run("status", "x").stdout
    assert f"moved or copied here from {old}" in told and "killed or crashed" not in told


def test_a_project_that_is_moved_and_comes_back_is_worked_on(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), "a"], f"b\n{MARKER}"])
    rig.start()
    at(rig, "one")
    there = tmp_path / "elsewhere"
    rig.project.rename(there)
    wait_for("the reason", lambda: "waiting" in (there / ".ralph" / "x" / "state.json").read_text())
    there.rename(rig.project)
    wait_for("the running", lambda: rig.state()["status"] == "running")
    go(rig, "one")
    assert rig.wait_end()["stopReason"] == "marker"


KILLS = [
    "kill $(cat .ralph/x/pid)",
    "/bin/kill $(cat .ralph/x/pid)",
    "kill -QUIT $(cat .ralph/x/pid)",
    "kill -USR1 $(cat .ralph/x/pid); kill -ALRM $(cat .ralph/x/pid)",
    "setsid sh -c 'kill $(cat .ralph/x/pid)' & sleep 0.5",
    "python3 -c 'import os; os.kill(int(open(\".ralph/x/pid\").read()), 15)'",
    "kill $(grep -o '\"guardPid\": [0-9]*' .ralph/x/state.json | cut -d' ' -f2)",
    "for i in 1 2 3 4 5 6 7 8; do /bin/kill $(cat .ralph/x/pid); done",
]
"""Each signals by a number that the loop itself wrote: a test must never end processes by a name that others may have."""


@pytest.mark.parametrize("command", KILLS)
def test_a_signal_from_inside_the_loop_ends_nothing(tmp_path: Path, command: str) -> None:
    rig = fake_rig(tmp_path, [[runs(command), hold("one"), "a"], f"b\n{MARKER}"])
    rig.start()
    at(rig, "one")
    _, _, pi = rig.pids()
    go(rig, "one")
    check_unharmed(rig)
    assert {event["pid"] for event in rig.of("ralph_pi_start")} == {pi}


def check_unharmed(rig: Rig) -> None:
    state = wait_for("the end", lambda: s if (s := rig.state()).get("status") in ENDED else None)
    assert (state["stopReason"], len(rig.records())) == ("marker", 2), (state, rig.log())
    assert [record["outcome"] for record in rig.records()] == ["ok", "ok"]


NAMED = ["pkill python", "pkill -f ralph_runner", "killall -q python python3 ralph-runner", "pkill -QUIT -f guard"]


@pytest.mark.parametrize("command", NAMED)
def test_an_agent_that_ends_processes_by_name_ends_neither_runner_nor_guard(tmp_path: Path, command: str) -> None:
    rig = fake_rig(tmp_path, [[runs(f"if {INSIDE}; then touch ran; {command}; fi; sleep 1"), "a"], f"b\n{MARKER}"])
    # The fake pi is python as well: under another name it is meant as little as the real one.
    node = tmp_path / "node"
    node.symlink_to(Path(sys.executable).resolve())
    pi = Path(rig.pi)
    pi.write_text(pi.read_text().replace(f"exec {sys.executable} ", f"exec {node} "))
    run_in_namespace(rig)
    assert (rig.project / "ran").exists(), "nothing was ended"
    if "ralph_runner" in command:
        assert [warning for warning in warnings(rig) if "from inside the loop" in warning], rig.log()
    check_unharmed(rig)


def test_a_signal_from_inside_is_told(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[runs("kill $(cat .ralph/x/pid)"), f"b\n{MARKER}"]])
    rig.start()
    rig.wait_end()
    assert [warning for warning in warnings(rig) if "from inside the loop" in warning], rig.log()


def test_the_same_signal_from_outside_ends_the_loop(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), "a"]])
    rig.start()
    at(rig, "one")
    # By a process that is gone in the next instant.
    subprocess.run(["sh", "-c", f"kill {rig.state()['pid']}"], check=True)
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "kill")
