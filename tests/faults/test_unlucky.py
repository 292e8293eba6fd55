"""One unlucky look: what is out of place for a moment, or cannot be run for a moment, costs the loop nothing."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rig import Rig, fake_rig, git, wait_for
from tests.ticket_rig import HOLD, does, fake_tickets

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(240)]

MARKER = "<promise>COMPLETE</promise>"


def hold(name: str) -> dict[str, Any]:
    """A tool call that waits until the test has made the file `name`."""
    return {"tool": "bash", "run": f"touch at-{name}; while [ ! -e {name} ]; do sleep 0.02; done"}


def at(rig: Rig, name: str) -> None:
    wait_for(f"the agent at {name}\n{rig.log()}", (rig.project / f"at-{name}").exists)


def warnings(rig: Rig) -> list[str]:
    return [event["message"] for event in rig.of("ralph_notice") if event["level"] == "warning"]


def back_after(seconds: float, path: Path) -> threading.Timer:
    """Moves a file away now, and back after a time."""
    aside = path.with_name(f"{path.name}~")
    path.rename(aside)
    timer = threading.Timer(seconds, lambda: aside.rename(path))
    timer.start()
    return timer


@pytest.mark.parametrize("file", ["task.md", "reflect.md"])
def test_a_file_that_an_editor_moves_away_for_a_moment_is_looked_for_again(tmp_path: Path, file: str) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), "a"], "b", f"c\n{MARKER}"])
    rig.start("--reflect-every", "2", task="The task.\n")
    at(rig, "one")
    timer = back_after(1.0, rig.paths.dir / file)
    (rig.project / "one").touch()
    state = rig.wait_end()
    timer.join()
    assert (state["stopReason"], [r["outcome"] for r in rig.records()]) == ("marker", ["ok"] * 3), state
    assert [r["kind"] for r in rig.records()] == ["work", "reflect", "work"]
    assert warnings(rig) == []


SPOILS = {
    "deleted": "rm .ralph/x/task.md",
    "empty": "> .ralph/x/task.md",
    "a pipe": "rm .ralph/x/task.md; mkfifo .ralph/x/task.md",
    "not UTF-8": "printf '\\377\\376' > .ralph/x/task.md",
    "unreadable": "chmod 0 .ralph/x/task.md; rm .ralph/x/task.md; ln -s /nowhere/at/all .ralph/x/task.md",
}


@pytest.mark.parametrize("what", SPOILS)
def test_a_task_that_was_readable_once_continues_from_memory(tmp_path: Path, what: str) -> None:
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": SPOILS[what]}, "a"], "b", f"c\n{MARKER}"])
    rig.start(task="The one and only task.\n")
    state = rig.wait_end()
    assert (state["stopReason"], state["stats"]["iterations"]) == ("marker", 3), (state, rig.log())
    told = [warning for warning in warnings(rig) if "what was read before" in warning]
    assert len(told) == 1, warnings(rig)
    prompts = [e for e in rig.of("message_start") if e["message"]["role"] == "user"]
    assert len(prompts) == 3 and all("The one and only task." in str(prompt) for prompt in prompts)
    if what == "deleted":
        assert rig.paths.task.read_text() == "The one and only task.\n"


def test_verify_whose_guard_was_killed_is_run_again_and_refuses_nothing(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [f"a\n{MARKER}"])
    rig.start("--verify", "if [ ! -e ../once ]; then touch ../once; sleep 0.5; kill -9 $PPID; sleep 9; fi")
    state = rig.wait_end()
    assert (state["stopReason"], len(rig.records())) == ("verified", 1), rig.log()
    assert rig.records()[0]["verify"]["exitCode"] == 0


def test_a_command_that_the_shell_does_not_find_is_a_refusal(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [f"a\n{MARKER}"])
    rig.start("--verify", "no-such-command-at-all", "-n", "2")
    state = rig.wait_end()
    assert (state["stopReason"], state["stats"]["iterations"]) == ("max-iterations", 2)
    assert [record["verify"]["exitCode"] for record in rig.records()] == [127, 127]


def test_a_guard_of_pi_that_is_killed_before_it_has_started_pi_is_no_crash(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[{"exit": 3}], f"b\n{MARKER}"])
    rig.start(check=None)
    # The next pi is started in a folder that is out of place for a moment.
    wait_for("the crash", lambda: rig.of("ralph_pi_exit"))
    timer = back_after(3.0, rig.project)
    state = wait_for("the end", lambda: s if (s := _state(rig)).get("status") == "completed" else None)
    timer.join()
    assert [record["outcome"] for record in rig.records()] == ["crashed", "ok"], (state, rig.log())


def _state(rig: Rig) -> dict[str, Any]:
    return rig.state() if rig.project.exists() else {}


def test_a_folder_that_stays_away_is_named_as_what_the_loop_waits_for(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), f"a\n{MARKER}"]])
    rig.start("--worktree", "side", "--verify", "true")
    wait_for("the agent", (rig.paths.worktree / "at-one").exists)
    git_file = rig.paths.worktree
    aside = tmp_path / "aside"
    (rig.paths.worktree / "one").touch()
    git_file.rename(aside)
    state = wait_for("the reason", lambda: s if (s := rig.state())["status"] == "waiting" else None)
    assert state["waitingFor"] == "own" and "--verify cannot be run" in state["error"], state
    assert [event["to"] for event in rig.of("ralph_status")][-1] == "waiting"
    aside.rename(git_file)
    state = rig.wait_end()
    assert (state["stopReason"], state["stats"]["iterations"]) == ("verified", 1), (state, rig.log())


def test_a_stop_ends_a_loop_that_waits_for_its_own_fault(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), f"a\n{MARKER}"]])
    rig.start("--worktree", "side", "--verify", "true")
    wait_for("the agent", (rig.paths.worktree / "at-one").exists)
    aside = tmp_path / "aside"
    (rig.paths.worktree / "one").touch()
    rig.paths.worktree.rename(aside)
    rig.wait_status("waiting")
    rig.run("stop", "x")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop"), rig.log()


def test_a_lock_that_another_git_holds_is_waited_for(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(HOLD)]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees", "--verify", "test -e t-1.txt")
    rig.wait_held("t-1")
    # Held by a living process, as a lock of git's is: it must not be taken for one that was left behind.
    lock = rig.project / ".git" / "worktrees" / "t-1" / "index.lock"
    fd = os.open(lock, os.O_CREAT | os.O_WRONLY)
    timer = threading.Timer(3.0, lock.unlink, [True])
    timer.start()
    rig.let_go("t-1")
    rig.check_done("t-1")
    timer.join()
    os.close(fd)
    assert [record["outcome"] for record in rig.records()] == ["ok"]


def test_another_branch_checked_out_for_a_moment_costs_no_ticket(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(HOLD)]})
    git(rig.project, "branch", "bare")
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees", "--into", "main")
    rig.wait_held("t-1")
    git(rig.project, "switch", "-q", "bare")  # without the tickets
    rig.let_go("t-1")
    time.sleep(3)
    git(rig.project, "switch", "-q", "main")
    rig.check_done("t-1")
