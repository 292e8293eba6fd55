"""One ticket from a Python program: launched and left alone, polled, waited for, ended; with a structured result."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc import api
from tests.rig import Rig, alive
from tests.ticket_rig import HOLD, TicketRig, does, fake_tickets

MakeRig = Callable[..., TicketRig]


@pytest.fixture
def make_rig(tmp_path: Path, ending: list[Rig]) -> MakeRig:
    def make(scripts: Mapping[str, Any] | None = None) -> TicketRig:
        rig = fake_tickets(tmp_path, scripts)
        rig.name, rig.paths = "ticket-t-1", type(rig.paths).of(rig.project, "ticket-t-1")
        rig.add("t-1")
        rig.commit()
        ending.append(rig)
        return rig

    return make


def begin(rig: TicketRig, **options: Any) -> api.TicketRun:
    return api.start_ticket("t-1", rig.project, pi=rig.pi, worktrees=True, **options)


def test_a_ticket_is_launched_at_once_polled_and_has_a_result(make_rig: MakeRig) -> None:
    rig = make_rig({"t-1": [does(HOLD)]})
    run = begin(rig)
    assert (run.ticket_id, run.loop.name) == ("t-1", "ticket-t-1")
    assert run.poll() is None
    rig.wait_held("t-1")
    assert (run.poll(), run.session_id) == (None, None)
    with pytest.raises(api.TimedOut):
        run.wait(timeout=0.2)
    assert run.poll() is None, "a wait that is over ends nothing"
    rig.let_go("t-1")
    result = run.wait(timeout=60)
    assert (result.success, result.error, result.status, result.branch) == (True, None, "closed", None)
    assert (result.ticket_id, result.return_code) == ("t-1", 0)
    assert result.session_id and run.session_id == result.session_id
    assert result.termination_method == "eof" and result.duration_ms > 0 and result.loop_dir == rig.paths.dir
    assert run.poll() == result
    rig.check_done("t-1")


def test_it_returns_before_pi_has_answered(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig()
    held = rig.project.parent / "answer"
    # Only pi itself waits; asked for its version, it answers.
    script = (
        Path(rig.pi)
        .read_text()
        .replace("FAKE_PI_SCRIPT", f"while [ ! -e {held} ]; do sleep 0.02; done\nFAKE_PI_SCRIPT")
    )
    Path(rig.pi).write_text(script.replace("#!/bin/sh\n", '#!/bin/sh\n[ "$1" = --version ] && echo 1.5.2 && exit\n'))
    run = begin(rig)
    assert (run.session_id, run.poll()) == (None, None)
    assert run.loop.status().shown == "starting"
    held.touch()
    assert run.wait(timeout=60).success


def test_one_that_fails_says_where_its_work_is(make_rig: MakeRig) -> None:
    rig = make_rig({"t-1": [[{"tool": "bash", "run": "echo half > half.txt"}, "I cannot"]]})
    result = begin(rig, attempts=1).wait(timeout=60)
    assert (result.success, result.status, result.branch) == (False, "failed", "ralph/ticket-t-1/t-1")
    assert result.error is not None and "not done after 1 attempt" in result.error


@pytest.mark.parametrize(("hang", "method"), [(True, {"eof"}), ("deaf", {"sigterm", "sigkill"})])
def test_one_is_ended_as_gently_as_its_pi_allows(make_rig: MakeRig, hang: bool | str, method: set[str]) -> None:
    rig = make_rig({"t-1": [[{"hang": hang}]]})
    run = begin(rig)
    rig.wait_dispatch("t-1", "running")
    rig.wait_event("turn_start")
    pids = [rig.state()["pid"], rig.dispatch("t-1")["pid"]]
    result = run.end()
    assert (result.success, result.error) == (False, "it was ended early")
    assert result.termination_method in method
    assert not any(alive(pid) for pid in pids) and not rig.of_mine()
    assert run.end() == run.poll(), "what has ended is not ended again"


def test_the_time_is_up_for_a_blocking_run(make_rig: MakeRig) -> None:
    rig = make_rig({"t-1": [[{"hang": True}]]})
    result = api.run_ticket("t-1", rig.project, pi=rig.pi, worktrees=True, timeout=1)
    assert (result.success, result.error, result.termination_method) == (False, "the time was up", "eof")
    assert api.find("ticket-t-1", rig.project).status().shown == "stopped"


def test_the_program_tells_by_its_exit_code_that_the_time_was_up(make_rig: MakeRig) -> None:
    rig = make_rig({"t-1": [[{"hang": True}]]})
    told = rig.run("run-ticket", "t-1", "--pi", rig.pi, "--worktrees", "--timeout", "1s", check=124)
    assert "the time was up" in told.stderr


def test_a_ticket_whose_runner_was_killed_is_no_success(make_rig: MakeRig) -> None:
    rig = make_rig({"t-1": [[{"hang": True}]]})
    run = begin(rig)
    rig.wait_event("turn_start")
    rig.kill_runner()
    result = run.end()
    assert (result.success, result.error) == (False, "crashed")
    assert not rig.of_mine(), "its guard ends pi, and that is waited for"
    assert run.session_id == result.session_id


def test_a_ticket_that_is_none_is_refused_before_anything_is_made(make_rig: MakeRig) -> None:
    rig = make_rig()
    with pytest.raises(api.UsageError, match="no such ticket"):
        api.start_ticket("t-9", rig.project, pi=rig.pi)
    assert not (rig.project / ".ralph" / "ticket-t-9").exists()


def test_a_pi_of_no_use_is_in_the_result_or_raised(make_rig: MakeRig) -> None:
    rig = make_rig()
    version = '#!/bin/sh\n[ "$1" = --version ] && echo 1.5.2 && exit\n'
    Path(rig.pi).write_text(version + "echo no key >&2; exit 3\n")
    result = begin(rig).wait(timeout=60)
    assert not result.success and result.error and result.session_id is None
    run = api.find("ticket-t-1", rig.project)
    assert run.status().shown == "error"
    with pytest.raises(api.PiUnusable):
        api.run_ticket("t-1", rig.project, name="again", pi=rig.pi, worktrees=True)
    assert not (rig.project / ".ralph" / "again").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ticket_that_is_told_to_end_ends_its_loop_and_waits_for_that(make_rig: MakeRig, number: int) -> None:
    rig = make_rig({"t-1": [does(HOLD)]})
    command = [sys.executable, "-P", "-m", "ralph_rpc", "run-ticket", "t-1", "--pi", rig.pi, "--worktrees"]
    with subprocess.Popen(command, cwd=rig.project, env=rig.env, stderr=subprocess.PIPE, text=True) as program:
        rig.wait_held("t-1")
        program.send_signal(number)
        program.communicate(timeout=60)
    assert program.returncode == 130
    state = rig.state()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop")
    assert [one["outcome"] for one in rig.records()] == ["aborted"] and rig.of_mine() == {}


INTERRUPTED_WHILE_LAUNCHING = """\
import os, signal
from ralph_rpc.cli.main import main
from ralph_rpc.loops import start
from ralph_rpc.loops.launch import launch

def interrupted(*args, **options):
    launched = launch(*args, **options)
    os.kill(os.getpid(), signal.SIGTERM)
    return launched

start.launch = interrupted
main()
"""


@pytest.mark.parametrize("verb", ["run-ticket t-1", "start ticket-t-1 --tickets --foreground"])
def test_a_command_that_is_told_to_end_while_it_launches_leaves_no_loop(make_rig: MakeRig, verb: str) -> None:
    """Its order to stop is there before the runner has looked into its inbox for the first time."""
    rig = make_rig({"t-1": [does(HOLD)]})
    command = [sys.executable, "-P", "-c", INTERRUPTED_WHILE_LAUNCHING, *verb.split(), "--pi", rig.pi, "--worktrees"]
    done = subprocess.run(
        command, cwd=rig.project, env=rig.env, timeout=90, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr, done
    assert rig.state()["status"] == "stopped" and rig.of_mine() == {}


def test_with_no_merge_done_is_a_success_and_says_the_branch(make_rig: MakeRig) -> None:
    rig = make_rig()
    done = rig.run("run-ticket", "t-1", "--pi", rig.pi, "--worktrees", "--no-merge")
    assert "t-1: done, on branch ralph/ticket-t-1/t-1," in done.stdout
    assert not rig.merges() and "ralph/ticket-t-1/t-1" in rig.branches()


def test_with_no_merge_what_is_not_done_is_no_success(make_rig: MakeRig) -> None:
    rig = make_rig({"t-1": ["I give up"]})
    done = rig.run(
        "run-ticket", "t-1", "--pi", rig.pi, "--worktrees", "--no-merge", "--attempts", "1", "--json", check=1
    )
    assert json.loads(done.stdout)["success"] is False
