"""A person switches to the target branch in the very moment in which it moves."""

import subprocess
import time
from pathlib import Path

import pytest

from ralph_rpc.git import alone
from ralph_rpc.git.merge import Landed, Moved, Waits, land

from .conftest import Repo


@pytest.fixture
def built(repo: Repo) -> tuple[str, str]:
    """main and a commit upon it that changes b.txt; the checkout is on `side`, and a switch to main stops halfway."""
    repo.commit(".gitattributes", "a.txt filter=held\n")
    repo.commit("b.txt", "old\n")
    old = repo.git("rev-parse", "main")
    repo.git("checkout", "-qb", "work")
    new = repo.commit("b.txt", "new\n")
    repo.git("checkout", "-q", "main")
    repo.git("checkout", "-qb", "side")
    repo.commit("a.txt", "side\n")
    held, go = repo.path.parent / "held", repo.path.parent / "go"
    repo.git("config", "filter.held.smudge", f"touch '{held}'; while [ ! -e '{go}' ]; do sleep 0.02; done; cat")
    return old, new


def test_a_switch_that_has_begun_is_never_left_with_old_files_under_a_new_commit(
    repo: Repo, built: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = built
    monkeypatch.setattr("ralph_rpc.git.checkout.INDEX_PATIENCE_S", 0.2)
    switch = subprocess.Popen(["git", "switch", "-q", "main"], cwd=repo.path)
    while not (repo.path.parent / "held").exists():
        time.sleep(0.02)
    assert land(repo.path, "main", old, new, ["work"]) == Waits(f"a git command is running in {repo.path}")
    (repo.path.parent / "go").touch()
    assert switch.wait(60) == 0
    found = land(repo.path, "main", old, new, ["work"])
    assert found == Landed(new)
    assert repo.git("status", "--porcelain") == "?? .ralph/" or repo.git("status", "--porcelain") == ""
    assert (repo.path / "b.txt").read_text() == "new\n" and repo.git("rev-parse", "HEAD") == new


def test_a_checkout_that_arrives_while_the_locks_are_taken_moves_along(
    repo: Repo, built: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = built
    (repo.path.parent / "go").touch()
    real = alone._is_arriving

    def late(*args: object) -> bool:
        (repo.path / ".git/HEAD").write_text("ref: refs/heads/main\n")
        return real(*args)  # type: ignore[arg-type]

    repo.git("checkout", "-q", "main")
    repo.git("symbolic-ref", "HEAD", "refs/heads/side2")
    repo.git("update-ref", "refs/heads/side2", old)
    with monkeypatch.context() as patched:
        patched.setattr(alone, "_is_arriving", late)
        assert land(repo.path, "main", old, new, ["work"]) == Moved()
    assert land(repo.path, "main", old, new, ["work"]) == Landed(new)
    assert (repo.path / "b.txt").read_text() == "new\n"


def test_a_checkout_that_git_has_been_told_to_take_for_bare_is_waited_for(repo: Repo, built: tuple[str, str]) -> None:
    old, new = built
    (repo.path.parent / "go").touch()
    repo.git("checkout", "-q", "main")
    repo.git("config", "core.bare", "true")
    found = land(repo.path, "main", old, new, ["work"])
    assert isinstance(found, Waits) and "core.bare" in found.reason
    assert repo.git("rev-parse", "main") == old
    repo.git("config", "core.bare", "false")
    assert land(repo.path, "main", old, new, ["work"]) == Landed(new)
    assert (repo.path / "b.txt").read_text() == "new\n"


def test_a_lock_that_a_dead_process_of_ours_left_is_removed_and_one_of_nobody_s_is_no_obstacle(
    repo: Repo, built: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = built
    monkeypatch.setattr("ralph_rpc.git.checkout.INDEX_PATIENCE_S", 0.1)
    lock = Path(repo.git("rev-parse", "--absolute-git-dir")) / "index.lock"
    lock.write_bytes(alone._MARK)
    assert land(repo.path, "main", old, new, ["work"]) == Landed(new) and not lock.exists()
    lock.write_bytes(b"")
    newer = repo.git("commit-tree", f"{new}^{{tree}}", "-p", new, "-m", "more")
    assert land(repo.path, "main", new, newer, ["work"]) == Landed(newer) and lock.exists()
