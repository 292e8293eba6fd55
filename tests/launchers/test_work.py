"""`ralph-rpc work` by hand: what is pushed, also when the job is told to end, and what is said where nothing can begin."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.test_engine import engine_rig, no_job_left, workers
from tests.rig import git, wait_for

__all__ = ["no_job_left"]
pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(300)]


def work(rig: Any, *words: str, check: int | None = 0) -> Any:
    return rig.run("work", "t-1", *words, check=check)


def test_work_by_hand_pushes_branch_and_record(tmp_path: Path, isolated: Path) -> None:
    rig, _ = engine_rig(tmp_path, 1)
    done = json.loads(work(rig, "--hub", str(rig.project), "--pi", rig.pi, "--json").stdout)
    assert (done["outcome"], done["ticket"], done["error"]) == ("done", "t-1", None)
    assert rig.branches() == ["ralph/ticket-t-1/t-1"]
    (record,) = git(rig.project, "for-each-ref", "--format=%(refname) %(parent)", "refs/ralph").splitlines()
    ref, parent = record.split()
    assert ref == f"refs/ralph/ticket-t-1/records/t-1/{done['job']}"
    assert parent == git(rig.project, "rev-parse", "ralph/ticket-t-1/t-1").strip()
    assert json.loads(git(rig.project, "show", f"{ref}:record.json")) == done
    assert not list((isolated / "tmp").glob("ralph-work-*/*"))


def test_work_that_is_told_to_end_while_it_pushes_pushes_on(tmp_path: Path, isolated: Path) -> None:
    """Nobody would know what it has spent, and its work would be done again."""
    rig, _ = engine_rig(tmp_path, 1)
    hook = rig.project / ".git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch $HOME/pushing; while [ ! -e $HOME/go ]; do sleep 0.05; done\n")
    hook.chmod(0o755)
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(work, rig, "--hub", str(rig.project), "--pi", rig.pi, "--json")
        try:
            wait_for("the push", (isolated / "pushing").exists, 120)
            (pid,) = workers(isolated)
            os.kill(pid, signal.SIGTERM)
            wait_for("the signal's delivery", lambda: not _is_pending(pid, signal.SIGTERM))
        finally:
            (isolated / "go").touch()
        done = json.loads(ended.result(60).stdout)
    assert done["outcome"] == "done"
    assert git(rig.project, "for-each-ref", "refs/ralph").count("records/t-1") == 1


def _is_pending(pid: int, number: signal.Signals) -> bool:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (row.split()[1] for row in rows if row.startswith("ShdPnd:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_work_that_cannot_begin_says_so_in_one_line(tmp_path: Path) -> None:
    rig, _ = engine_rig(tmp_path, 1)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    hub = ["--hub", str(rig.project)]
    for words, code, said in (
        ([], 2, "--hub is missing"),
        (["--hub", "-x"], 2, "is no repository"),
        (["--hub", "/nowhere"], 1, "repository '/nowhere' does not exist"),
        ([*hub, "--job", "k-1"], 2, "--job needs --name"),
        ([*hub, "--dir", str(full)], 2, "is not empty"),
    ):
        told = work(rig, *words, check=code).stderr
        assert said in told and told.count("\n") == 1 and "Traceback" not in told, told
    assert (full / "mine").exists()
    gone = work(rig, *hub, "--name", "x", "--job", "k-1")
    assert "nobody waits for job k-1" in gone.stderr
