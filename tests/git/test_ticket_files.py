"""A ticket's steps on disk, as the runner has them carried out: its commits, and what is said of odd names."""

from pathlib import Path

import pytest

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.tickets.ticket import branch_of
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import results as rp
from ralph_runner.shell.ticket_files import TicketFiles, commit_message
from tests.core.talk import config
from tests.tickets.folder import write

from .conftest import Repo

ODD = "odd \x1b[31m\nname"
SHOWN = "odd ␛[31m␊name"


@pytest.fixture
def files(repo: Repo) -> TicketFiles:
    """A loop with one ticket, whose worktree is open."""
    write(repo.path / ".tickets", "ab-1", "Sort it")
    repo.git("add", ".tickets")
    repo.git("commit", "-qm", "tickets")
    options = {"tickets": str(repo.path / ".tickets"), "worktrees": True, "into": "main", "worktreeCopy": [ODD]}
    made = TicketFiles(LoopPaths.of(repo.path, "x"), config(**options), repo.path)
    assert isinstance(made.carry_out(fx.OpenWorktree("ab-1", branch_of("x", "ab-1"))), rp.Opened)
    return made


def worktree(repo: Repo) -> Path:
    return LoopPaths.of(repo.path, "x").worktrees() / "ab-1"


def test_a_commit_is_named_by_one_harmless_line_whatever_the_title_is() -> None:
    assert commit_message("# fix\n\nTicket: other", "ab-1") == "# fix …\n\nTicket: ab-1\n"
    assert "\x1b" not in commit_message("a \x1b[31mred\x1b[0m one", "ab-1")
    assert commit_message(" \n", "ab-1") == "ab-1\n\nTicket: ab-1\n"


def test_the_ticket_is_closed_on_its_branch_and_the_users_copy_changes_with_the_merge(
    repo: Repo, files: TicketFiles
) -> None:
    own, users = worktree(repo) / ".tickets/ab-1.md", repo.path / ".tickets/ab-1.md"
    assert files.read("ab-1") == (own.read_text(), ".tickets/ab-1.md", False)
    repo.write("b", "b\n", at=worktree(repo))
    done = files.carry_out(fx.Commit("ab-1", "Sort it"))
    assert done == rp.Committed("ab-1", None, repo.git("rev-parse", "ralph/x/ab-1^{tree}"))
    assert "status: closed" in own.read_text() and "status: open" in users.read_text()
    assert files.read("ab-1")[2]
    built = files.carry_out(fx.BuildBatch((("ab-1", "Merge ab-1: Sort it"),)))
    landed = files.carry_out(fx.LandBatch(built.target, built.links[0].commit, ("ab-1",)))
    assert landed.commit == repo.git("rev-parse", "main")
    assert repo.git("log", "-1", "--format=%B", "main") == "Merge ab-1: Sort it\n\nTicket: ab-1"
    assert "status: closed" in users.read_text()


def test_without_worktrees_the_runner_tells_which_commit_it_made(repo: Repo) -> None:
    write(repo.path / ".tickets", "ab-1", "Sort it")
    repo.git("add", ".tickets")
    repo.git("commit", "-qm", "tickets")
    options = {"tickets": str(repo.path / ".tickets"), "into": "main"}
    files = TicketFiles(LoopPaths.of(repo.path, "x"), config(**options), repo.path)
    done = files.carry_out(fx.Commit("ab-1", "Sort it"))
    assert done == rp.Committed("ab-1", commit=repo.git("rev-parse", "main"))
    assert files.carry_out(fx.Commit("ab-1", "Sort it")).commit is None, "there was nothing left to commit"


def test_a_ticket_whose_users_copy_is_being_edited_is_still_committed(repo: Repo, files: TicketFiles) -> None:
    (repo.path / ".tickets/ab-1.md").write_text("---\nid: ab-1\nstat")
    assert files.carry_out(fx.Commit("ab-1", "Sort it")).problem is None
    assert "status: closed" in (worktree(repo) / ".tickets/ab-1.md").read_text()


def test_names_with_control_characters_are_inert_in_every_reason(repo: Repo, files: TicketFiles) -> None:
    assert files.copy_files("ab-1") == [f"{SHOWN} matches nothing"]
    repo.write(ODD, "ours\n", at=worktree(repo))
    files.carry_out(fx.Commit("ab-1", "Sort it"))
    repo.write(ODD, "a person's\n")
    waits = files.carry_out(fx.BuildBatch((("ab-1", "Merge"),))).waits["ab-1"]
    assert SHOWN in waits and waits.isprintable()
    repo.git("add", "-A")
    repo.git("commit", "-qm", "mine")
    conflict = files.carry_out(fx.BuildBatch((("ab-1", "Merge"),))).conflicts["ab-1"]
    assert SHOWN in conflict and "\x1b" not in conflict
    repo.git("init", "-q", f"new {ODD}", at=worktree(repo))
    repo.commit("x", "x", at=worktree(repo) / f"new {ODD}")
    problem = files.carry_out(fx.Commit("ab-1", "Sort it")).problem
    assert problem is not None and SHOWN in problem and problem.isprintable()
