"""The worktree of a ticket: made, taken up again with what is in it, prepared, removed if nothing is lost."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ralph_rpc import git
from ralph_rpc.errors import UsageError
from ralph_rpc.git import remove_worktree
from ralph_rpc.git.calls import GitError
from ralph_rpc.git.copying import copy_into
from ralph_rpc.git.merge import Landed
from ralph_rpc.git.ticket_trees import Base
from tests.git.ticketing import Ticket

from .conftest import Repo, new_repo


@pytest.fixture
def ticket(repo: Repo) -> Ticket:
    return Ticket(repo.path)


def test_a_new_worktree_begins_at_the_target_not_at_what_is_checked_out(repo: Repo, ticket: Ticket) -> None:
    repo.git("config", "branch.autoSetupMerge", "always")
    main = repo.git("rev-parse", "main")
    repo.git("checkout", "-qb", "elsewhere")
    repo.commit("b", "b")
    assert ticket.add() == Base(main, reused=False)
    assert git.head(ticket.path) == main
    listed = repo.git("worktree", "list", "--porcelain")
    assert "branch refs/heads/ralph/x/ab-1\nlocked ralph-rpc x" in listed
    with pytest.raises(subprocess.CalledProcessError):
        repo.git("config", f"branch.{ticket.branch}.merge")
    assert not (repo.path / ".git/index.lock").exists()


def test_a_worktree_with_work_in_it_is_taken_up_as_it_is(repo: Repo, ticket: Ticket) -> None:
    base = ticket.add().commit
    repo.commit("b", "b")
    Repo(ticket.path).commit("done", "d")
    ticket.write("half", "h")
    repo.git("worktree", "unlock", str(ticket.path))
    # A git that was killed in there.
    (repo.path / ".git/worktrees/ab-1/index.lock").touch()
    assert ticket.add() == Base(base, reused=True)
    assert (ticket.path / "half").read_text() == "h"
    assert "locked ralph-rpc x" in repo.git("worktree", "list", "--porcelain")
    assert isinstance(ticket.commit(), str)


def test_a_lock_of_a_git_that_lives_is_respected(repo: Repo, ticket: Ticket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ralph_rpc.git.repository.OWNER_PATIENCE_S", 0.3)
    ticket.add()
    ticket.write("work", "w")
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=ticket.path, stdin=subprocess.PIPE) as living:
        lock = repo.path / ".git/worktrees/ab-1/index.lock"
        lock.touch()
        with pytest.raises(git.GitError, match="index.lock"):
            ticket.commit()
        assert lock.exists()
        assert living.stdin is not None
        living.stdin.close()
    assert isinstance(ticket.commit(), str)


def test_a_branch_without_work_of_its_own_begins_where_the_target_is_now(repo: Repo, ticket: Ticket) -> None:
    ticket.add()
    shutil.rmtree(ticket.path)
    now = repo.commit("b", "b")
    assert ticket.add() == Base(now, reused=False)
    assert (ticket.path / "b").exists()


def test_an_unfinished_worktree_is_made_anew(repo: Repo, ticket: Ticket) -> None:
    ticket.add()
    (ticket.path / "a.txt").unlink()
    (repo.path / ".git/worktrees/ab-1/locked").write_text("initializing")
    assert not ticket.add().reused
    assert (ticket.path / "a.txt").exists() and repo.git("status", "--porcelain", at=ticket.path) == ""


def something_else(repo: Repo, ticket: Ticket) -> str:
    ticket.write("precious", "mine")
    return "not a worktree"


def a_link(repo: Repo, ticket: Ticket) -> str:
    ticket.path.parent.mkdir(parents=True)
    ticket.path.symlink_to(repo.path)
    return "not a worktree"


def checked_out_elsewhere(repo: Repo, ticket: Ticket) -> str:
    repo.git("worktree", "add", "-q", "-b", ticket.branch, "../elsewhere")
    return "checked out at"


def no_target(repo: Repo, ticket: Ticket) -> str:
    ticket.into = "nowhere"
    return "branch 'nowhere' is gone"


def a_lost_link(repo: Repo, ticket: Ticket) -> str:
    ticket.add()
    (ticket.path / ".git").unlink()
    return "not an intact worktree"


def deleted_with_commits_of_no_branch(repo: Repo, ticket: Ticket) -> str:
    ticket.add()
    on_no_branch(Repo(ticket.path))
    shutil.rmtree(ticket.path)
    return "1 unmerged commit of no branch"


@pytest.mark.parametrize(
    "obstacle",
    [something_else, a_link, checked_out_elsewhere, no_target, a_lost_link, deleted_with_commits_of_no_branch],
)
def test_what_is_not_ours_is_never_replaced(
    repo: Repo, ticket: Ticket, obstacle: Callable[[Repo, Ticket], str]
) -> None:
    expected = obstacle(repo, ticket)
    before = {path for path in repo.path.rglob("*") if ".git" not in path.parts}
    with pytest.raises((UsageError, GitError), match=expected) as refused:
        ticket.add()
    assert refused.value.hint
    assert {path for path in repo.path.rglob("*") if ".git" not in path.parts} == before


def test_merged_work_goes_with_its_branch_and_a_second_time_is_fine(repo: Repo, ticket: Ticket) -> None:
    assert isinstance(ticket.run("work", "w"), Landed)
    ticket.write("build/out", "ignored")
    assert ticket.remove() is None
    assert not ticket.path.exists() and repo.branches() == {"main"}
    assert ticket.remove() is None
    assert not list((repo.path / ".git").glob("worktrees/*"))


def test_a_branch_without_work_goes_too(repo: Repo, ticket: Ticket) -> None:
    ticket.add()
    assert ticket.remove() is None and repo.branches() == {"main"}


def unmerged(tree: Repo) -> str:
    tree.commit("b", "b")
    return "main does not contain all commits"


def changed(tree: Repo) -> str:
    tree.write("a.txt", "changed")
    return "1 uncommitted file: a.txt"


def untracked(tree: Repo) -> str:
    tree.git("config", "status.showUntrackedFiles", "no")
    tree.write("new/1", "x")
    tree.write("new/2", "x")
    return "2 uncommitted files: new/1"


def on_another_branch(tree: Repo) -> str:
    tree.git("checkout", "-qb", "other")
    return "it is on other"


def on_no_branch(tree: Repo) -> str:
    tree.git("checkout", "-q", "--detach")
    tree.commit("b", "b")
    return "it is on no branch"


def deleted_while_on_no_branch(tree: Repo) -> str:
    on_no_branch(tree)
    shutil.rmtree(tree.path)
    return "deleted while it was not on"


def a_submodule(tree: Repo) -> str:
    """With a commit that only its module has."""
    module = Repo(Path(tree.git("rev-parse", "--absolute-git-dir")) / "modules/libs/one")
    module.path.mkdir(parents=True)
    module.git("init", "-q", "--bare")
    made = module.git("commit-tree", module.git("hash-object", "-wt", "tree", "/dev/null"), "-m", "only here")
    module.git("update-ref", "refs/heads/main", made)
    return "its submodule libs/one has 1 commit that would go with it"


@pytest.mark.parametrize(
    "work", [unmerged, changed, untracked, on_another_branch, on_no_branch, deleted_while_on_no_branch, a_submodule]
)
def test_a_worktree_that_holds_something_stays_and_says_why(
    repo: Repo, ticket: Ticket, work: Callable[[Repo], str]
) -> None:
    ticket.add()
    expected = work(Repo(ticket.path))
    refs, listed = repo.git("for-each-ref"), repo.git("worktree", "list", "--porcelain")
    before = sorted(ticket.path.rglob("*"))
    why = ticket.remove()
    assert why is not None and expected in why
    assert repo.git("for-each-ref") == refs and repo.git("worktree", "list", "--porcelain") == listed
    assert sorted(ticket.path.rglob("*")) == before


def test_a_removal_that_was_interrupted_is_finished(repo: Repo, ticket: Ticket) -> None:
    assert isinstance(ticket.run("work", "w"), Landed)
    (repo.path / ".git/worktrees/ab-1/ralph-removing").touch()
    (ticket.path / ".git").unlink()
    (ticket.path / "work").unlink()
    assert ticket.remove() is None and not ticket.path.exists() and repo.branches() == {"main"}
    ticket.add()
    (repo.path / ".git/worktrees/ab-1/ralph-removing").touch()
    (ticket.path / "work").unlink()
    assert not ticket.add().reused and (ticket.path / "work").exists()


def test_clean_removes_a_ticket_s_worktree_in_spite_of_our_lock(repo: Repo, ticket: Ticket) -> None:
    ticket.add()
    remove_worktree(repo.path, ticket.path)
    assert not ticket.path.exists()


def test_named_untracked_files_come_along(repo: Repo, ticket: Ticket) -> None:
    repo.write(".gitignore", "*.log\nbuild/\n.env*\nnode_modules/\n")
    repo.git("commit", "-qam", "ignore")
    repo.write(".env", "secret").chmod(0o600)
    repo.write(".env.local", "more")
    repo.write("node_modules/x/index.js", "x")
    (repo.path / "node_modules/link").symlink_to("x/index.js")
    (repo.path / "node_modules/out").symlink_to(repo.path.parent)
    repo.write("a.txt", "edited by a person")
    ticket.add()
    ticket.write(".env.local", "the agent's own")
    assert copy_into(ticket.path, repo.path, [".env*", "node_modules", "a.txt"]) == []
    assert (ticket.path / ".env").read_text() == "secret"
    assert (ticket.path / ".env").stat().st_mode & 0o777 == 0o600
    assert (ticket.path / ".env.local").read_text() == "the agent's own"
    assert (ticket.path / "node_modules/x/index.js").read_text() == "x"
    assert str((ticket.path / "node_modules/link").readlink()) == "x/index.js"
    assert (ticket.path / "node_modules/out").is_symlink()
    assert (ticket.path / "a.txt").read_text() == "one\n"
    assert sorted(path.name for path in ticket.path.parent.iterdir()) == ["ab-1"]
    (ticket.path / ".env").write_text("changed by the agent")
    assert copy_into(ticket.path, repo.path, [".env"]) == []
    assert (ticket.path / ".env").read_text() == "changed by the agent"


def test_what_cannot_be_copied_is_named_and_nothing_leads_out(repo: Repo, ticket: Ticket) -> None:
    outside = repo.path.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (repo.path / "build").symlink_to(outside)
    os.mkfifo(repo.path / "pipe.log")
    new_repo(repo.path / "lib").commit("x", "x")
    repo.write(".ralph/x/state.json", "{}")
    ticket.add()
    said = copy_into(
        ticket.path,
        repo.path,
        ["../outside/secret", str(outside), "build/secret", "none*", "pipe.log", "lib", ".ralph", "x\x1b[31m"],
    )
    assert [line.partition(" ")[0] for line in said][:2] == ["../outside/secret", str(outside)]
    assert "may lead outside" in said[0] and "may lead outside" in said[1]
    assert any(line.startswith("none* matches nothing") for line in said)
    assert {path.name for path in ticket.path.iterdir()} == {".git", ".gitignore", "a.txt"}


def test_a_project_in_a_subfolder_gets_its_files_where_it_lies(repo: Repo) -> None:
    repo.commit("packages/one/code", "c")
    repo.write("packages/one/.env.log", "secret")
    project = repo.path / "packages/one"
    ticket = Ticket(project)
    ticket.add()
    assert copy_into(ticket.path, project, ["*.log"]) == []
    assert (ticket.path / "packages/one/.env.log").read_text() == "secret"
    assert ticket.commit() is None
