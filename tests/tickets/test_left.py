"""What a ticket loop leaves behind for a person, and what `clean` and `doctor` make of it."""

from pathlib import Path

import pytest

from tests.rig import FOR_WHOM_MODES_COUNT, git
from tests.ticket_rig import TicketRig, does, fake_tickets

pytestmark = pytest.mark.usefixtures("no_leftovers")


@pytest.fixture
def rig(tmp_path: Path) -> TicketRig:
    """A loop that has set t-1 aside, with work in its worktree that nobody has committed, and closed t-2."""
    rig = fake_tickets(tmp_path, {"t-1": [[{"tool": "bash", "run": "echo half > half.txt"}, "not done"]]})
    rig.add("t-1", "cli")
    rig.add("t-2", "docs")
    rig.commit()
    rig.begin("--worktrees", "--attempts", "1", check=None)  # it may have ended before `start` looks
    state = rig.wait_end()
    assert state["status"] == "error" and "t-1: failed" in state["error"]
    return rig


def test_work_that_is_not_merged_is_kept_until_it_is_given_up(rig: TicketRig) -> None:
    worktree = rig.paths.worktrees() / "t-1"
    assert (worktree / "half.txt").read_text() == "half\n"
    kept = rig.run("clean", "x", "--yes", check=1)
    assert "2 uncommitted files (t-1)" in kept.stdout
    assert (worktree / "half.txt").exists()
    rig.run("clean", "x", "--yes", "--force")
    assert not worktree.exists() and not rig.paths.dir.exists()
    assert rig.branches() == ["ralph/x/t-1"], "branches stay"
    assert rig.worktrees() == []


def test_what_is_merged_is_no_reason_to_keep_a_loop(rig: TicketRig) -> None:
    worktree = rig.paths.worktrees() / "t-1"
    git(worktree, "add", "-A")
    git(worktree, "commit", "-qm", "by hand")
    git(rig.project, "merge", "-q", "--no-edit", "ralph/x/t-1")
    rig.run("clean", "x", "--yes")
    assert not rig.paths.dir.exists() and rig.worktrees() == []


def test_a_new_start_goes_on_with_the_work_that_was_left(rig: TicketRig) -> None:
    folder = rig.paths.project.parent / "scripts" / "t-1.json"
    folder.unlink()
    rig.begin("--worktrees")
    state = rig.wait_end()
    assert state["status"] == "completed", state["error"]
    assert rig.on_main("half.txt") == "half\n", "it was committed with the rest"
    assert (rig.paths.dir.parent / ".archive").is_dir()


CLOSES = "mkdir -p cache/one && touch cache/one/two && chmod 500 cache/one cache"
"""As Go leaves its module cache."""


def test_folders_that_an_agent_has_closed_go_with_its_worktree(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(CLOSES)]})
    (rig.project / ".gitignore").write_text("cache/\n")
    rig.add("t-1")
    rig.commit()
    rig.started_by = FOR_WHOM_MODES_COUNT
    rig.begin("--worktrees")
    rig.check_done("t-1")


@pytest.mark.parametrize("lost", [False, True], ids=["known to git", "forgotten by git"])
def test_clean_removes_a_worktree_with_folders_that_an_agent_has_closed(tmp_path: Path, lost: bool) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [[{"tool": "bash", "run": CLOSES}, "not done"]]})
    rig.add("t-1")
    rig.commit()
    rig.started_by = FOR_WHOM_MODES_COUNT
    rig.begin("--worktrees", "--attempts", "1", check=None)  # it may have ended before `start` looks
    rig.wait_end()
    if lost:
        (rig.paths.worktrees() / "t-1" / ".git").unlink()
    kept = rig.run("clean", "x", "--yes", check=1).stdout
    assert ("its worktree has content that cannot be judged" if lost else "2 uncommitted files (t-1)") in kept
    rig.run("clean", "x", "--yes", "--force")
    assert not rig.paths.dir.exists() and rig.worktrees() == []


def test_a_git_lock_that_a_killed_git_left_in_a_tickets_worktree_is_found(rig: TicketRig) -> None:
    gitdir = Path(git(rig.paths.worktrees() / "t-1", "rev-parse", "--absolute-git-dir").strip())
    (gitdir / "index.lock").touch()
    told = rig.run("doctor", "--fix", check=None).stdout
    assert "index.lock" in told
    assert not (gitdir / "index.lock").exists()


def test_a_failed_ticket_has_its_reason_as_a_note_and_is_tried_anew_by_resume(rig: TicketRig) -> None:
    note = "gave up: not done after 1 attempts"
    assert note in (rig.paths.worktrees() / "t-1/.tickets/t-1.md").read_text()
    assert git(rig.project, "status", "--porcelain") == "", "the user's copy would be in the way of the merge"
    (rig.paths.project.parent / "scripts" / "t-1.json").unlink()
    rig.resume()
    assert rig.wait_end()["status"] == "completed"
    assert rig.dispatch("t-1")["status"] == "closed"


def one_after_the_other(tmp_path: Path, leaves: str) -> TicketRig:
    """Without worktrees; t-1 fails after this command."""
    rig = fake_tickets(tmp_path, {"usual": [[{"tool": "bash", "run": leaves}, "not done"]]})
    rig.add("t-1")
    rig.add("t-2")
    rig.commit()
    rig.begin("--attempts", "1", check=None)  # it may have ended before `start` looks
    return rig


def test_without_worktrees_a_failed_ticket_that_left_nothing_holds_up_nobody(tmp_path: Path) -> None:
    state = one_after_the_other(tmp_path, "true").wait_end()
    assert "2 tickets need a person: t-1: failed" in state["error"]


def test_without_worktrees_work_of_a_failed_ticket_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    rig = one_after_the_other(tmp_path, "echo half > half.txt")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("error", "failures")
    assert "t-1 failed and left 1 uncommitted file in the project" in state["error"]
    assert rig.dispatch("t-2") == {}
    assert (rig.project / "half.txt").read_text() == "half\n"
