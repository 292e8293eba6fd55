"""What an agent leaves uncommitted: what becomes of it, and when the agent has to put it right."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ralph_rpc.git.copying import copy_into
from ralph_rpc.git.merge import Landed
from ralph_rpc.git.trees import Conflict
from ralph_rpc.git.uncommitted import Refused, commit_leftovers, drop_uncommitted
from tests.faults.snapshot import snapshot
from tests.git.ticketing import Ticket

from .conftest import Repo, new_repo


@pytest.fixture
def ticket(repo: Repo) -> Ticket:
    """A ticket whose worktree has just been made; `a.txt` is in it, logs and `build/` are ignored."""
    ticket = Ticket(repo.path)
    ticket.add()
    return ticket


def test_all_that_is_not_ignored_becomes_one_commit_with_the_ticket_s_trailer(repo: Repo, ticket: Ticket) -> None:
    repo.git("config", "status.showUntrackedFiles", "no")
    before = repo.git("rev-parse", "HEAD", at=ticket.path)
    repo.write("staged", "s", at=ticket.path)
    repo.git("add", "staged", at=ticket.path)
    ticket.write("staged", "and changed")
    ticket.write("new folder/*[a]\nb", "odd")
    ticket.write("noise.log", "ignored")
    (ticket.path / "a.txt").unlink()
    (ticket.path / "link").symlink_to("nowhere")
    (ticket.path / "tool").write_text("#!/bin/sh\n")
    (ticket.path / "tool").chmod(0o755)
    commit = ticket.commit()
    assert isinstance(commit, str) and repo.git("rev-parse", ticket.branch) == commit
    assert repo.git("rev-parse", f"{commit}^") == before
    assert repo.git("log", "-1", "--format=%an %ae|%B", commit) == (
        "Test Person test@example.invalid|Work on ab-1\n\nTicket: ab-1"
    )
    assert repo.git("log", "-1", "--format=%(trailers:key=Ticket,valueonly)", commit) == "ab-1"
    changes = repo.git("diff", "--no-renames", "--name-status", "-z", before, commit).split("\0")
    assert dict(zip(changes[1::2], changes[::2], strict=False)) == {
        "a.txt": "D",
        "link": "A",
        "new folder/*[a]\nb": "A",
        "staged": "A",
        "tool": "A",
    }
    assert repo.git("show", f"{commit}:staged") == "and changed"
    assert repo.git("status", "--porcelain", at=ticket.path) == ""
    assert ticket.commit() is None


def test_a_file_that_takes_the_place_of_a_folder_is_committed_and_the_other_way_round(
    repo: Repo, ticket: Ticket
) -> None:
    ticket.write("b/c", "1")
    assert isinstance(ticket.commit(), str)
    (ticket.path / "b/c").unlink()
    (ticket.path / "b").rmdir()
    ticket.write("b", "a file now")
    (ticket.path / "a.txt").unlink()
    ticket.write("a.txt/in", "a folder now")
    commit = ticket.commit()
    assert isinstance(commit, str)
    assert repo.git("ls-tree", "-r", "--name-only", commit).split() == [".gitignore", "a.txt/in", "b"]


def test_nothing_of_ralph_s_own_is_committed_though_an_agent_staged_it(repo: Repo, ticket: Ticket) -> None:
    ticket.write(".ralph/x/state.json", "{}")
    ticket.write("sub/.ralph/y", "y")
    assert ticket.commit() is None
    repo.git("add", "-A", at=ticket.path)
    ticket.write("work", "w")
    assert isinstance(ticket.commit(), str)
    assert repo.git("ls-tree", "-r", "--name-only", ticket.branch).split() == [".gitignore", "a.txt", "work"]
    assert isinstance(ticket.land(), Landed) and ticket.remove() is None


def test_files_that_were_copied_in_are_not_the_ticket_s_work(repo: Repo, ticket: Ticket) -> None:
    repo.write(".env", "secret")
    said = copy_into(ticket.path, repo.path, [".env"])
    assert said == [".env is not ignored by git: an agent might commit it"]
    assert ticket.commit() is None
    ticket.write("work", "w")
    assert isinstance(ticket.commit(), str)
    assert repo.git("ls-tree", "-r", "--name-only", ticket.branch).split() == [".gitignore", "a.txt", "work"]
    assert isinstance(ticket.land(), Landed) and ticket.remove() is None and not ticket.path.exists()


def test_a_title_like_a_comment_is_kept(repo: Repo, ticket: Ticket) -> None:
    ticket.write("work", "w")
    assert isinstance(commit_leftovers(ticket.path, ticket.branch, ticket.message("#12: fix")), str)
    assert repo.git("log", "-1", "--format=%s", ticket.branch) == "#12: fix"


def test_no_hook_no_signature_and_no_template_of_the_user_s_has_a_say(
    repo: Repo, ticket: Ticket, tmp_path: Path
) -> None:
    for name in ("pre-commit", "commit-msg", "prepare-commit-msg", "reference-transaction"):
        repo.write(f".git/hooks/{name}", f"#!/bin/sh\ntouch '{tmp_path}/ran'\nexit 1\n").chmod(0o755)
    repo.git("config", "commit.gpgSign", "true")
    repo.git("config", "commit.template", "/nowhere")
    repo.git("config", "core.safecrlf", "true")
    repo.git("config", "core.autocrlf", "true")
    ticket.write("work", "mixed\r\nends\n")
    assert isinstance(ticket.commit(), str) and isinstance(ticket.land(), Landed)
    assert not (tmp_path / "ran").exists()


def in_conflict(ticket: Ticket) -> Repo:
    """The agent has merged, as it was told, and there are conflicts."""
    repo, tree = Repo(ticket.project), Repo(ticket.path)
    tree.commit("a.txt", "ours\n")
    repo.commit("a.txt", "theirs\n")
    with pytest.raises(subprocess.CalledProcessError):
        tree.git("merge", "-q", "main")
    return tree


def unresolved(ticket: Ticket) -> str:
    in_conflict(ticket)
    return "a merge has conflicts in a.txt"


def resolved_only_in_name(ticket: Ticket) -> str:
    in_conflict(ticket).git("add", "-A")
    return "conflict markers are left in a.txt"


def on_no_branch(ticket: Ticket) -> str:
    tree = Repo(ticket.path)
    tree.git("checkout", "-q", "--detach")
    return f"not on a branch but at {tree.commit('b', 'b')[:12]}"


def on_another_branch(ticket: Ticket) -> str:
    tree = Repo(ticket.path)
    tree.git("checkout", "-qb", "my-own")
    tree.commit("b", "b")
    return "on branch my-own: switch to ralph/x/ab-1"


def in_a_rebase(ticket: Ticket) -> str:
    tree = in_conflict(ticket)
    tree.git("merge", "--abort")
    with pytest.raises(subprocess.CalledProcessError):
        tree.git("rebase", "-q", "main")
    return "a rebase is under way"


def a_repository_in_it(ticket: Ticket) -> str:
    new_repo(ticket.path / "vendor/lib").commit("x", "x")
    return "vendor/lib/ is a git repository of its own"


def a_repository_in_it_that_is_staged(ticket: Ticket) -> str:
    a_repository_in_it(ticket)
    Repo(ticket.path).git("add", "-A")
    return "vendor/lib is a git repository of its own"


def a_lost_link(ticket: Ticket) -> str:
    (ticket.path / ".git").unlink()
    return "broken"


REFUSED = [
    unresolved,
    resolved_only_in_name,
    on_no_branch,
    on_another_branch,
    in_a_rebase,
    a_repository_in_it,
    a_repository_in_it_that_is_staged,
    a_lost_link,
]


@pytest.mark.parametrize("situation", REFUSED, ids=[situation.__name__ for situation in REFUSED])
def test_what_a_machine_might_get_wrong_is_for_the_agent_and_nothing_is_lost(
    repo: Repo, ticket: Ticket, situation: Callable[[Ticket], str]
) -> None:
    ticket.write("unsaved", "work")
    expected = situation(ticket)
    before, refs = snapshot(ticket.path), repo.git("for-each-ref")
    refused = ticket.commit()
    assert isinstance(refused, Refused) and expected in refused.reason and "\n" not in refused.reason
    assert snapshot(ticket.path) == before and repo.git("for-each-ref") == refs
    assert ticket.remove() is not None and snapshot(ticket.path) == before


def test_a_merge_whose_conflicts_are_resolved_is_concluded(repo: Repo, ticket: Ticket) -> None:
    tree = in_conflict(ticket)
    ticket.write("a.txt", "both\n")
    tree.git("add", "a.txt")
    commit = ticket.commit()
    assert isinstance(commit, str)
    assert len(repo.git("log", "-1", "--format=%P", commit).split()) == 2
    assert isinstance(ticket.land(), Landed) and repo.git("show", "main:a.txt") == "both"


def test_a_merge_that_changes_nothing_in_the_end_is_concluded_too(repo: Repo, ticket: Ticket) -> None:
    tree = in_conflict(ticket)
    tree.git("checkout", "-q", "--ours", "a.txt")
    tree.git("add", "a.txt")
    assert isinstance(ticket.commit(), str) and isinstance(ticket.land(), Landed)
    assert repo.git("show", "main:a.txt") == "ours"


def test_markers_and_clones_that_an_agent_committed_never_reach_the_target(repo: Repo, ticket: Ticket) -> None:
    tree = in_conflict(ticket)
    tree.git("commit", "-qam", "all done")
    found = ticket.land()
    assert isinstance(found, Conflict) and found.files == ("a.txt",) and "conflict markers" in found.text
    tree.commit("a.txt", "both\n")
    new_repo(ticket.path / "clone").commit("x", "x")
    tree.git("add", "clone")
    tree.git("commit", "-qm", "with a clone")
    found = ticket.land()
    assert isinstance(found, Conflict) and found.files == ("clone",)
    tree.git("rm", "-q", "--cached", "clone")
    tree.git("commit", "-qm", "without it")
    assert isinstance(ticket.land(), Landed)


def test_a_text_about_conflicts_is_no_conflict(repo: Repo, ticket: Ticket) -> None:
    assert isinstance(ticket.run("help.md", "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> main\n"), Landed)
    second = Ticket(repo.path, "ab-2")
    second.add()
    repo.commit("other", "x\n")
    second.write("heading.rst", "Heading\n=======\n")
    assert isinstance(second.commit(), str)
    Repo(second.path).git("merge", "-q", "main")
    assert isinstance(second.land(), Landed)


def test_what_a_verification_leaves_is_dropped_and_nothing_else(repo: Repo, ticket: Ticket) -> None:
    repo.write(".env", "secret")
    copy_into(ticket.path, repo.path, [".env"])
    ticket.write("work", "w")
    ticket.commit()
    ticket.write("work", "reformatted")
    ticket.write("reports/coverage.xml", "x")
    ticket.write("build/out", "ignored")
    drop_uncommitted(ticket.path)
    assert repo.git("status", "--porcelain", at=ticket.path) == "?? .env"
    assert (ticket.path / "work").read_text() == "w" and (ticket.path / "build/out").exists()
    assert ticket.commit() is None
