"""A fault of the repository, of setup or of a person's checkout holds the loop, and is booked to no ticket."""

import shutil
from pathlib import Path

import pytest

from tests.rig import git, wait_for
from tests.ticket_rig import TicketRig, does, fake_tickets, hold

pytestmark = pytest.mark.usefixtures("no_leftovers")


def waits(rig: TicketRig, what: str) -> None:
    """The loop is shown as waiting for this."""
    wait_for(
        f"waiting: {what}\n{rig.log()}",
        lambda: rig.state().get("status") == "waiting" and what in (rig.state().get("error") or ""),
    )


def untouched(rig: TicketRig, id: str) -> None:
    record = rig.dispatch(id)
    assert record.get("attempt", 0) == 0 and record.get("status") in (None, "claimed", "orphaned"), record


@pytest.mark.parametrize("taken", ["ralph", "ralph/x"])
def test_a_branch_in_the_way_of_all_is_found_at_start_before_anything_is_made(tmp_path: Path, taken: str) -> None:
    rig = fake_tickets(tmp_path)
    rig.add("t-1")
    rig.commit()
    git(rig.project, "branch", taken)
    told = rig.begin("--worktrees", check=2).stderr
    assert "tickets cannot get worktrees here" in told and f"beside branch '{taken}'" in told
    assert not rig.paths.dir.exists() and rig.worktrees() == []
    git(rig.project, "branch", "-D", taken)
    rig.begin("--worktrees")
    rig.check_done("t-1")


def test_a_folder_that_cannot_hold_worktrees_is_found_at_start(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path)
    rig.add("t-1")
    rig.commit()
    (tmp_path / "file").touch()
    told = rig.begin("--worktrees", "--worktrees-dir", str(tmp_path / "file/below"), check=2).stderr
    assert "--worktrees-dir" in told and not rig.paths.dir.exists()


def test_what_keeps_a_worktree_from_being_made_later_holds_the_loop_and_goes_on_once_it_is_mended(
    tmp_path: Path,
) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(hold())]})
    for id in ("t-1", "t-2"):
        rig.add(id, "one")
    rig.commit()
    rig.begin("--worktrees", "--attempts", "1")
    rig.wait_held("t-1")
    git(rig.project, "branch", "ralph/x/t-2/in-the-way")
    rig.let_go("t-1")
    waits(rig, "cannot lock ref")
    untouched(rig, "t-2")
    git(rig.project, "branch", "-D", "ralph/x/t-2/in-the-way")
    rig.check_done("t-1", "t-2")
    assert rig.dispatch("t-2")["attempt"] == 1


def test_a_setup_that_fails_before_any_work_is_not_the_ticket_s_fault(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path)
    for id in ("t-1", "t-2"):
        rig.add(id, id)
    rig.commit()
    is_back = tmp_path / "is_back"
    setup = f"test -e {is_back} || {{ echo the mirror is down; exit 3; }}"
    rig.begin("--parallel", "2", "--worktree-setup", setup, "--attempts", "1")
    waits(rig, "--worktree-setup: it ended with exit code 3: the mirror is down")
    for id in ("t-1", "t-2"):
        untouched(rig, id)
    rig.run("stop", "x", "--now", "--wait")
    rig.wait_end()
    for id in ("t-1", "t-2"):
        untouched(rig, id)
    is_back.touch()
    rig.resume()
    rig.check_done("t-1", "t-2")
    assert {rig.dispatch(id)["attempt"] for id in ("t-1", "t-2")} == {1}


def test_a_target_that_is_gone_holds_the_loop_until_it_is_back(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(hold())]})
    rig.add("t-1")
    rig.commit()
    git(rig.project, "checkout", "-qb", "other")
    rig.begin("--worktrees", "--into", "main", "--attempts", "1")
    rig.wait_held("t-1")
    git(rig.project, "branch", "-m", "main", "away")
    rig.let_go("t-1")
    waits(rig, "branch 'main' is gone")
    git(rig.project, "branch", "-m", "away", "main")
    rig.wait_end()
    assert rig.dispatch("t-1")["status"] == "closed" and rig.dispatch("t-1")["attempt"] == 1


@pytest.mark.parametrize("where", ["a branch without tickets", "a branch with other tickets"])
def test_another_branch_in_the_user_s_checkout_costs_no_ticket_and_starts_none(tmp_path: Path, where: str) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(hold())]})
    git(rig.project, "branch", "without")
    rig.add("t-1", "one")
    rig.commit()
    git(rig.project, "checkout", "-qb", "with")
    (rig.project / ".tickets/t-1.md").unlink()
    rig.add("t-8", "two")
    rig.commit()
    git(rig.project, "checkout", "-q", "main")
    rig.begin("--worktrees", "--attempts", "1", "--parallel", "2")
    rig.wait_held("t-1")
    git(rig.project, "checkout", "-q", "without" if "without" in where else "with")
    rig.let_go("t-1")
    rig.wait_end()
    assert rig.dispatch("t-1")["status"] == "closed", rig.log()
    assert rig.dispatch("t-8") == {}
    git(rig.project, "checkout", "-q", "main")
    assert rig.status_of("t-1") == "closed"


def test_tickets_that_are_away_for_a_while_are_waited_for(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(hold())]}, tracked=False)
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees", "--attempts", "1")
    rig.wait_held("t-1")
    shutil.move(rig.project / ".tickets", tmp_path / "away")
    rig.let_go("t-1")
    waits(rig, "tickets")
    untouched_so_far = rig.dispatch("t-1")["status"]
    shutil.move(tmp_path / "away", rig.project / ".tickets")
    rig.check_done("t-1")
    assert untouched_so_far not in ("failed", "needs-merge")


def test_a_file_that_git_cannot_add_goes_back_to_its_agent(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does("mkfifo pipe"), does("rm pipe")]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees")
    rig.check_done("t-1")
