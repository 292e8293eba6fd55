"""The lock of the repository, and the gits that a dead holder leaves at work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ralph_rpc.git import calls
from ralph_rpc.git.calls import GitError
from ralph_rpc.git.repository import list_worktrees, repository_lock
from tests.rig import wait_for

from .conftest import Repo

pytestmark = pytest.mark.usefixtures("no_leftovers")

HOLDER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from ralph_rpc.git.repository import repository_lock
with repository_lock(Path(sys.argv[2])) as repo:
    repo.run(["hang"], timeout=600)
"""


def test_a_git_that_a_dead_holder_left_at_work_is_waited_for_and_then_ended(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ralph_rpc.git.repository.OWNER_PATIENCE_S", 0.5)
    begun = tmp_path / "pid"
    repo.git("config", "alias.hang", f"!echo $$ > '{begun}.new'; mv '{begun}.new' '{begun}'; exec sleep 600")
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-P", "-c", HOLDER, str(root), str(repo.path)]) as holder:
        wait_for("git at work", begun.exists)
        orphan = psutil.Process(int(begun.read_text()))
        os.kill(holder.pid, signal.SIGKILL)
    assert orphan.is_running()
    began = time.monotonic()
    with repository_lock(repo.path):
        assert time.monotonic() - began >= 0.4
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert (repo.path / ".git/ralph-rpc.lock").read_bytes() == b""


def test_gits_of_others_are_left_alone(repo: Repo) -> None:
    (repo.path / ".git/ralph-rpc.lock").write_bytes(b"held\n")
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=repo.path, stdin=subprocess.PIPE) as other:
        with repository_lock(repo.path):
            assert other.poll() is None
        assert other.stdin is not None
        other.stdin.close()


def half_made(repo: Repo) -> Path:
    """A worktree as another git has it for an instant while it adds one: the file is there, and still empty."""
    made = repo.path / ".git/worktrees/w"
    made.mkdir(parents=True)
    (made / "gitdir").write_text("/nowhere/.git\n")
    (made / "HEAD").write_text("ref: refs/heads/main\n")
    (made / "commondir").touch()
    return made


def test_a_worktree_that_is_just_being_added_is_waited_for(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    made = half_made(repo)
    tries = 0

    def run(*args: Any, **more: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 3:
            (made / "commondir").write_text("../..\n")
        return calls.run(*args, **more)

    monkeypatch.setattr("ralph_rpc.git.repository.run", run)
    assert [tree.path for tree in list_worktrees(repo.path)] == [repo.path, Path("/nowhere")]
    assert tries == 3


def test_a_worktree_that_nobody_finishes_is_named(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ralph_rpc.git.repository.HALF_MADE_PATIENCE_S", 0.0)
    half_made(repo)
    with pytest.raises(GitError, match=r"failed to read \.git/worktrees/w/commondir") as told:
        list_worktrees(repo.path)
    assert told.value.is_passing and "remove .git/worktrees/w" in told.value.hint
