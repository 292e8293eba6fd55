"""A ticket's branch and its target: how they stand, the target brought in, and the merge."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.errors import RalphError
from ralph_rpc.git.calls import GitError
from ralph_rpc.git.merge import Landed, Moved, Waits, is_landed
from ralph_rpc.git.trees import Conflict
from tests.faults.snapshot import snapshot
from tests.git.ticketing import Ticket

from .conftest import Repo


def done(repo: Repo, id: str, name: str, text: str) -> Ticket:
    ticket = Ticket(repo.path, id)
    ticket.add()
    ticket.write(name, text)
    assert isinstance(ticket.commit(), str)
    return ticket


def test_a_branch_has_the_target_then_is_behind_then_in_conflict(repo: Repo) -> None:
    ticket = done(repo, "1", "a.txt", "ours\n")
    own, target = repo.git("rev-parse", f"{ticket.branch}^{{tree}}"), repo.git("rev-parse", "main")
    built = ticket.look()
    assert (built.target, [link.tree for link in built.links]) == (target, [own])
    target = repo.commit("b", "b")
    built = ticket.look()
    assert built.target == target and repo.git("show", f"{built.links[0].commit}:b") == "b"
    assert repo.git("rev-parse", "main") == target, "nothing has moved"
    repo.commit("a.txt", "theirs\n")
    repo.commit("build.txt", "theirs\n")
    assert ticket.conflict() == Conflict(("a.txt",), "CONFLICT (content): Merge conflict in a.txt")


def test_a_merge_has_two_parents_the_branch_s_tree_and_the_trailer(repo: Repo) -> None:
    ticket = done(repo, "ab-1", "b", "b\n")
    target, head = repo.git("rev-parse", "main", ticket.branch).split("\n")
    landed = ticket.land()
    assert isinstance(landed, Landed)
    assert repo.git("log", "-1", "--format=%H %P", "main") == f"{landed.commit} {target} {head}"
    assert repo.git("rev-parse", "main^{tree}") == repo.git("rev-parse", f"{head}^{{tree}}")
    assert repo.git("log", "-1", "--format=%an|%B", "main") == "Test Person|Merge ab-1\n\nTicket: ab-1"
    assert "ralph-rpc: merge ralph/x/ab-1" in repo.git("reflog", "-1", "main")
    assert "ralph-rpc: merge ralph/x/ab-1" in repo.git("reflog", "-1", "HEAD")


def test_landing_twice_says_by_which_commit_and_moves_nothing(repo: Repo) -> None:
    ticket = done(repo, "1", "b", "b\n")
    landed = ticket.land()
    other = done(repo, "2", "c", "c\n")
    assert isinstance(other.land(), Landed)
    tip = repo.git("rev-parse", "main")
    assert ticket.land() == landed and repo.git("rev-parse", "main") == tip


def test_a_branch_that_a_person_merged_has_landed(repo: Repo) -> None:
    ticket = done(repo, "1", "b", "b\n")
    repo.git("merge", "-q", "--ff-only", ticket.branch)
    assert ticket.land() == Landed(repo.git("rev-parse", ticket.branch))


def test_a_branch_without_work_moves_nothing(repo: Repo) -> None:
    ticket = Ticket(repo.path)
    base = ticket.add().commit
    assert ticket.land() == Landed(base) and repo.git("rev-parse", "main") == base


def test_nothing_is_merged_on_top_of_what_was_not_verified(repo: Repo) -> None:
    ticket = done(repo, "1", "b", "b\n")
    built = ticket.look()
    second = repo.commit("c", "c")
    assert ticket.land_built(built) == Moved(), "the target has moved on"
    built = ticket.look()
    ticket.write("more", "more")
    ticket.commit()
    assert ticket.land_built(built) == Moved(), "the branch has"
    assert repo.git("rev-parse", "main") == second


def test_the_target_is_brought_in_as_a_merge_in_the_ticket_s_worktree(repo: Repo) -> None:
    ticket = done(repo, "1", "b", "b\n")
    ticket.write("build/out", "ignored")
    repo.git("checkout", "-q", "--detach")
    head, target = repo.git("rev-parse", ticket.branch), repo.commit("c", "c\n")
    repo.git("branch", "-f", "main", target)
    repo.git("config", "merge.ff", "only")
    commit = ticket.update()
    assert isinstance(commit, str)
    assert repo.git("log", "-1", "--format=%H|%P|%s", at=ticket.path) == (
        f"{commit}|{head} {target}|Merge main into ralph/x/1"
    )
    assert (ticket.path / "c").read_text() == "c\n" and (ticket.path / "build/out").exists()
    assert repo.git("symbolic-ref", "--short", "HEAD", at=ticket.path) == ticket.branch
    assert repo.git("status", "--porcelain", at=ticket.path) == ""
    assert ticket.look().links[0].tree == repo.git("rev-parse", f"{commit}^{{tree}}") and ticket.update() == commit


def test_a_branch_without_work_just_goes_where_the_target_is(repo: Repo) -> None:
    ticket = Ticket(repo.path)
    ticket.add()
    target = repo.commit("c", "c\n")
    assert ticket.update() == target and (ticket.path / "c").exists()


def test_an_update_that_died_half_way_is_finished_before_anything_is_committed(repo: Repo) -> None:
    ticket = done(repo, "1", "b", "b\n")
    repo.commit("a.txt", "theirs\n")
    new = repo.commit("new", "n\n")
    head = repo.git("rev-parse", ticket.branch)
    updated = ticket.update()
    assert isinstance(updated, str)
    # Back to the middle of it: noted, some files written, one of them not to its end.
    repo.git("reset", "-q", "--hard", head, at=ticket.path)
    (repo.path / ".git/worktrees/1/ralph-updating").write_text(f"{ticket.branch}\n{head}\n{updated}\n")
    ticket.write("a.txt", "the")
    ticket.write("new", "")
    assert ticket.commit() is None
    assert repo.git("rev-parse", ticket.branch) == updated
    assert repo.git("status", "--porcelain", at=ticket.path) == ""
    built = ticket.look()
    assert built.target == new and built.links[0].tree == repo.git("rev-parse", f"{updated}^{{tree}}")


@pytest.mark.parametrize("noted", [True, False], ids=["noted still", "done"])
def test_work_after_an_update_is_never_taken_for_half_of_it(repo: Repo, noted: bool) -> None:
    ticket = done(repo, "1", "b", "b\n")
    head = repo.git("rev-parse", ticket.branch)
    repo.commit("c", "c\n")
    updated = ticket.update()
    if noted:
        Repo(ticket.path).commit("d", "d\n")
        (repo.path / ".git/worktrees/1/ralph-updating").write_text(f"{ticket.branch}\n{head}\n{updated}\n")
    ticket.write("b", "more\n")
    assert isinstance(ticket.commit(), str) and (ticket.path / "b").read_text() == "more\n"
    assert not (repo.path / ".git/worktrees/1/ralph-updating").exists()


def test_an_update_that_cannot_be_touches_nothing(repo: Repo) -> None:
    ticket = done(repo, "1", "a.txt", "ours\n")
    repo.commit("a.txt", "theirs\n")
    before = snapshot(ticket.path)
    conflict = ticket.update()
    assert isinstance(conflict, Conflict) and conflict.files == ("a.txt",)
    assert snapshot(ticket.path) == before and repo.git("status", "--porcelain", at=ticket.path) == ""


def test_odd_conflicts_are_named(repo: Repo) -> None:
    name = "odd \x1b[31m\nname"
    repo.commit(name, "one\n")
    ticket = done(repo, "1", name, "ours\n")
    (repo.path / name).unlink()
    repo.git("commit", "-qam", "removed")
    conflict = ticket.conflict()
    assert conflict is not None and conflict.files == (name,)
    assert "modify/delete" in conflict.text


def test_a_checkout_whose_mover_died_is_finished_by_the_next_one(repo: Repo) -> None:
    first = done(repo, "1", "b", "b\n")
    old, new = repo.git("rev-parse", "main"), first.look().links[0].commit
    note = f'{{"kind": "ralph-rpc", "branch": "main", "old": "{old}", "new": "{new}", "why": "{first.branch}"}}'
    (repo.path / ".git/index.lock").write_text(note)
    repo.write("b", "")  # cut short
    repo.write("mine", "untracked")
    second = done(repo, "2", "c", "c\n")
    assert isinstance(second.land(), Landed)
    assert repo.git("rev-parse", "main~1") == new
    assert repo.git("status", "--porcelain") == "?? mine" and (repo.path / "b").read_text() == "b\n"
    assert first.land() == Landed(new) and not (repo.path / ".git/index.lock").exists()


def test_what_a_person_did_since_a_mover_died_stays_and_is_named(repo: Repo) -> None:
    ticket = done(repo, "1", "a.txt", "ours\n")
    old, head = repo.git("rev-parse", "main", ticket.branch).split("\n")
    note = f'{{"kind": "ralph-rpc", "branch": "main", "old": "{old}", "new": "{head}", "why": "x"}}'
    (repo.path / ".git/index.lock").write_text(note)
    repo.write("a.txt", "a person's\n")
    waits = ticket.land()
    assert isinstance(waits, Waits) and "a.txt" in waits.reason
    assert repo.git("rev-parse", "main") == old and (repo.path / "a.txt").read_text() == "a person's\n"
    assert not (repo.path / ".git/index.lock").exists()


def test_one_who_leaves_the_branch_in_that_instant_keeps_their_files(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`git switch -c` changes HEAD alone, and asks no lock of the index."""
    ticket = done(repo, "1", "a.txt", "ours\n")
    repo.write("mine", "untracked")

    def left(place: Path, branch: str) -> bool:
        repo.git("symbolic-ref", "HEAD", "refs/heads/other")
        repo.git("update-ref", "refs/heads/other", branch)
        return False

    monkeypatch.setattr("ralph_rpc.git.checkout.is_on", left)
    main = repo.git("rev-parse", "main")
    assert ticket.land_built(ticket.look()) == Moved()
    assert repo.git("rev-parse", "main") == main and (repo.path / "a.txt").read_text() == "one\n"
    assert repo.git("status", "--porcelain") == "?? mine"
    assert isinstance(ticket.land(), Landed) and (repo.path / "a.txt").read_text() == "one\n"


class Unheard(subprocess.Popen[bytes]):
    """A git that is killed when it has done its work, once: whoever waits for it hears of the signal alone."""

    words = ""

    def communicate(self, *args: Any, **kwargs: Any) -> tuple[bytes, bytes]:
        told = super().communicate(*args, **kwargs)
        assert isinstance(self.args, list)
        if not Unheard.words or f" {Unheard.words} " not in f" {' '.join(map(str, self.args))} ":
            return told
        Unheard.words = ""
        self.returncode = -signal.SIGKILL
        return b"", b""


IN_A_MOVE = (
    "worktree list",
    "status --porcelain=v2",
    "diff-tree -r",
    "update-index -q --refresh",
    "read-tree -m -u",
    "symbolic-ref --quiet HEAD",
    "update-ref -m",
    "rev-parse --quiet --verify HEAD^{commit}",
)


@pytest.mark.parametrize("words", IN_A_MOVE)
def test_a_git_that_was_killed_has_answered_nothing_and_may_have_done_its_work(
    repo: Repo, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To take back the files of a checkout whose branch had moved would undo the merge with the next commit there."""
    ticket = done(repo, "1", "a.txt", "ours\n")
    repo.write("mine", "untracked")
    built = ticket.look()
    monkeypatch.setattr(subprocess, "Popen", Unheard)
    Unheard.words = words
    try:
        ticket.land_built(built)
    except GitError as error:
        assert error.returncode == -signal.SIGKILL and "killed by signal 9" in error.message
    assert Unheard.words == "", "it was met"
    if repo.git("rev-parse", "main") != built.target:
        assert (repo.path / "a.txt").read_text() == "ours\n" and repo.git("status", "--porcelain") == "?? mine"
    assert isinstance(ticket.land(), Landed)
    assert repo.git("rev-list", "--count", "--first-parent", "--merges", "main") == "1"
    assert (repo.path / "a.txt").read_text() == "ours\n" and repo.git("status", "--porcelain") == "?? mine"
    assert not (repo.path / ".git/index.lock").exists()


def test_recovery_knows_what_has_landed(repo: Repo) -> None:
    ticket = Ticket(repo.path)
    base = ticket.add().commit

    def landed() -> bool:
        return is_landed(repo.path, ticket.branch, "main", base)

    assert not landed()
    ticket.write("b", "b")
    ticket.commit()
    assert not landed()
    repo.commit("c", "c")
    assert isinstance(ticket.land(), Landed)
    assert landed()
    ticket.remove()
    assert not landed()


def test_a_branch_that_is_gone_is_said_in_one_line(repo: Repo) -> None:
    ticket = done(repo, "1", "b", "b\n")
    repo.git("update-ref", "-d", f"refs/heads/{ticket.branch}")
    assert "branch 'ralph/x/1' is gone (restore it:" in ticket.look().faults[ticket.branch]
    repo.git("checkout", "-q", "--detach")
    repo.git("branch", "-q", "-D", "main")
    with pytest.raises(RalphError, match="'main' is gone") as gone:
        ticket.look()
    assert gone.value.hint


def test_a_stale_lock_of_a_ref_is_removed_when_no_git_lives(repo: Repo) -> None:
    ticket = done(repo, "1", "b", "b\n")
    for name in ("refs/heads/main.lock", "HEAD.lock", "packed-refs.lock", "refs/heads/ralph/x/1.lock"):
        (repo.path / ".git" / name).touch()
    assert isinstance(ticket.land(), Landed) and ticket.remove() is None
    assert subprocess.run(["git", "fsck"], cwd=repo.path, check=True).returncode == 0
