"""The worktree of a loop: when it is refused, what it becomes, what a removal would lose."""

import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ralph_rpc import git
from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.git import GitError, add_worktree, check_worktree, remove_worktree, worktree_risk
from ralph_rpc.machine import locks

from .conftest import Repo, new_repo


def everything_below(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*")}


def test_a_new_branch_starts_at_head_and_follows_no_remote(repo: Repo, tree: Path) -> None:
    repo.git("config", "branch.autoSetupMerge", "always")
    check_worktree(repo.path, tree, "loop/x")
    add_worktree(repo.path, tree, "loop/x")
    assert repo.git("symbolic-ref", "--short", "HEAD", at=tree) == "loop/x"
    assert git.head(tree) == git.head(repo.path)
    assert (tree / "a.txt").read_text() == "one\n"
    with pytest.raises(subprocess.CalledProcessError):
        repo.git("config", "branch.loop/x.merge")


def test_an_existing_branch_is_checked_out_as_it_is(repo: Repo, tree: Path) -> None:
    repo.git("checkout", "-qb", "feature")
    tip = repo.commit("b.txt", "two\n")
    repo.git("checkout", "-q", "main")
    repo.git("tag", "feature")  # a tag of the same name, elsewhere, must not win
    add_worktree(repo.path, tree, "feature")
    assert git.head(tree) == tip
    assert (tree / "b.txt").exists()


def test_a_worktree_of_the_same_branch_is_kept_with_all_that_is_in_it(repo: Repo, tree: Path) -> None:
    add_worktree(repo.path, tree, "b")
    repo.write("unsaved.txt", "work", at=tree)
    check_worktree(repo.path, tree, "b")
    add_worktree(repo.path, tree, "b")
    assert (tree / "unsaved.txt").read_text() == "work"


def test_a_worktree_whose_folder_was_deleted_is_made_again(repo: Repo, tree: Path) -> None:
    add_worktree(repo.path, tree, "b")
    tip = repo.commit("kept.txt", "kept", at=tree)
    shutil.rmtree(tree)
    check_worktree(repo.path, tree, "b")
    add_worktree(repo.path, tree, "b")
    assert git.head(tree) == tip
    assert (tree / "kept.txt").exists()


def test_a_worktree_that_was_never_finished_is_made_anew(repo: Repo, tree: Path) -> None:
    add_worktree(repo.path, tree, "b")
    (tree / "a.txt").unlink()
    # What a `git worktree add` that was killed leaves behind.
    (repo.path / ".git/worktrees/worktree/locked").write_text("initializing")
    add_worktree(repo.path, tree, "b")
    assert (tree / "a.txt").exists()
    assert "locked" not in repo.git("worktree", "list", "--porcelain")


def no_repository(repo: Repo, tree: Path) -> str:
    shutil.rmtree(repo.path / ".git")
    return "not a git repository"


def no_commit(repo: Repo, tree: Path) -> str:
    shutil.rmtree(repo.path / ".git")
    repo.git("init", "-q")
    return "no commit yet"


def checked_out_here(repo: Repo, tree: Path) -> str:
    repo.git("checkout", "-qb", "b")
    return f"checked out at {repo.path}"


def checked_out_elsewhere(repo: Repo, tree: Path) -> str:
    repo.git("worktree", "add", "-q", "-b", "b", str(repo.path / "other"))
    return f"checked out at {repo.path / 'other'}"


def checked_out_in_a_folder_that_is_gone(repo: Repo, tree: Path) -> str:
    checked_out_elsewhere(repo, tree)
    shutil.rmtree(repo.path / "other")
    return f"checked out at {repo.path / 'other'}"


def a_folder_in_the_way(repo: Repo, tree: Path) -> str:
    repo.write("precious.txt", "mine", at=tree)
    return "exists and is not a worktree"


def a_dangling_link_in_the_way(repo: Repo, tree: Path) -> str:
    tree.symlink_to("nowhere")
    return "exists and is not a worktree"


def another_branch_in_it(repo: Repo, tree: Path) -> str:
    repo.git("worktree", "add", "-q", "-b", "other", str(tree))
    return "is on branch 'other'"


def a_detached_head_in_it(repo: Repo, tree: Path) -> str:
    repo.git("worktree", "add", "-q", "--detach", str(tree))
    return "is on no branch"


def a_worktree_that_lost_its_link(repo: Repo, tree: Path) -> str:
    repo.git("worktree", "add", "-q", "-b", "b", str(tree))
    (tree / ".git").unlink()
    return "exists and is not a worktree"


def a_branch_where_a_folder_must_be(repo: Repo, tree: Path) -> str:
    repo.git("branch", "b/c")
    return "cannot exist beside branch 'b/c'"


@pytest.mark.parametrize(
    "obstacle",
    [
        no_repository,
        no_commit,
        checked_out_here,
        checked_out_elsewhere,
        checked_out_in_a_folder_that_is_gone,
        a_folder_in_the_way,
        a_dangling_link_in_the_way,
        another_branch_in_it,
        a_detached_head_in_it,
        a_worktree_that_lost_its_link,
        a_branch_where_a_folder_must_be,
    ],
)
def test_a_worktree_that_cannot_be_is_refused_before_anything_is_made(
    repo: Repo, tree: Path, obstacle: Callable[[Repo, Path], str]
) -> None:
    expected = obstacle(repo, tree)
    before = everything_below(repo.path)
    with pytest.raises(UsageError) as refused:
        check_worktree(repo.path, tree, "b")
    assert everything_below(repo.path) == before
    assert expected in refused.value.message
    assert refused.value.hint
    with pytest.raises(UsageError):
        add_worktree(repo.path, tree, "b")
    assert everything_below(repo.path) - before <= {".git/ralph-rpc.lock"}


@pytest.mark.parametrize(
    "name", ["", "-b", "a..b", "a b", "HEAD", "@{-1}", "x.lock", "a/", "a\nb", "a\0b", "\udcff", "a~1"]
)
def test_a_name_that_is_no_branch_name_is_refused(repo: Repo, tree: Path, name: str) -> None:
    repo.git("checkout", "-qb", "previous")
    repo.git("checkout", "-q", "main")
    with pytest.raises(UsageError, match="not a valid branch name"):
        check_worktree(repo.path, tree, name)


def test_an_old_git_is_refused(repo: Repo, tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho git version 2.37.9\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    with pytest.raises(UsageError, match="older than 2.38"):
        check_worktree(repo.path, tree, "b")


def test_a_missing_git_is_one_line_with_a_hint(repo: Repo, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repo.path))
    with pytest.raises(GitError, match="git is not installed") as refused:
        check_worktree(repo.path, tree, "b")
    assert "install" in refused.value.hint
    assert not git.is_repo(repo.path)


def test_no_hook_runs_and_no_variable_of_the_caller_counts(
    repo: Repo, tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hook = repo.write(".git/hooks/post-checkout", f"#!/bin/sh\ntouch '{tmp_path}/hook-ran'\nexit 1\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    add_worktree(repo.path, tree, "b")
    assert (tree / "a.txt").exists()
    assert not (tmp_path / "hook-ran").exists()


def test_a_command_that_does_not_end_is_ended(repo: Repo) -> None:
    repo.git("config", "alias.hang", "!exec sleep 600")
    with pytest.raises(GitError, match="did not finish within 0.2 s"):
        git.run(["hang"], repo.path, timeout=0.2)


def test_a_failure_names_the_command_its_code_and_the_last_words(repo: Repo) -> None:
    with pytest.raises(GitError) as failed:
        git.run(["checkout", "no-such-branch"], repo.path)
    assert failed.value.command == "checkout no-such-branch"
    assert failed.value.returncode == 1
    assert "no-such-branch" in failed.value.reason and "\n" not in failed.value.message
    assert git.run(["checkout", "no-such-branch"], repo.path, check=False).code == 1


def test_the_root_and_head_are_none_outside_of_a_repository(tmp_path: Path, repo: Repo) -> None:
    assert git.toplevel(tmp_path) is None and git.head(tmp_path) is None and not git.is_repo(tmp_path)
    sub = repo.path / "sub"
    sub.mkdir()
    assert git.toplevel(sub) == repo.path and git.is_repo(sub)
    empty = new_repo(tmp_path / "empty")
    assert git.is_repo(empty.path) and git.head(empty.path) is None
    assert git.head(tmp_path / "missing") is None


def nothing(repo: Repo, tree: Path) -> None:
    pass


def an_ignored_file(repo: Repo, tree: Path) -> None:
    repo.write("build/out.bin", "x", at=tree)


def an_untracked_file(repo: Repo, tree: Path) -> None:
    repo.write("new\nname.txt", "x", at=tree)


def untracked_files_that_status_is_told_to_hide(repo: Repo, tree: Path) -> None:
    repo.git("config", "status.showUntrackedFiles", "no")
    repo.write("new/1", "x", at=tree)
    repo.write("new/2", "x", at=tree)


def a_staged_file(repo: Repo, tree: Path) -> None:
    repo.write("new.txt", "x", at=tree)
    repo.git("add", "new.txt", at=tree)


def a_changed_file(repo: Repo, tree: Path) -> None:
    repo.write("a.txt", "changed", at=tree)


def a_deleted_file(repo: Repo, tree: Path) -> None:
    (tree / "a.txt").unlink()


def an_unmerged_commit(repo: Repo, tree: Path) -> None:
    repo.commit("new.txt", "x", at=tree)


def a_merged_commit(repo: Repo, tree: Path) -> None:
    repo.commit("new.txt", "x", at=tree)
    repo.git("merge", "-q", "--no-ff", "-m", "merged", "b")


def a_commit_that_a_detached_main_checkout_has(repo: Repo, tree: Path) -> None:
    repo.commit("new.txt", "x", at=tree)
    repo.git("checkout", "-q", "--detach", "b")


def a_commit_in_another_branch(repo: Repo, tree: Path) -> None:
    repo.commit("new.txt", "x", at=tree)
    repo.git("branch", "saved", "b")


def a_pushed_commit(repo: Repo, tree: Path) -> None:
    repo.commit("new.txt", "x", at=tree)
    remote = repo.path.parent / "remote.git"
    repo.git("init", "-q", "--bare", str(remote))
    repo.git("remote", "add", "origin", str(remote))
    repo.git("push", "-q", "origin", "b")


def a_commit_of_a_detached_head(repo: Repo, tree: Path) -> None:
    repo.git("checkout", "-q", "--detach", at=tree)
    repo.commit("new.txt", "x", at=tree)


def both(repo: Repo, tree: Path) -> None:
    an_unmerged_commit(repo, tree)
    an_untracked_file(repo, tree)


def a_lost_link(repo: Repo, tree: Path) -> None:
    (tree / ".git").unlink()


def a_deleted_folder(repo: Repo, tree: Path) -> None:
    shutil.rmtree(tree)


RISKS: list[tuple[Callable[[Repo, Path], None], str | None]] = [
    (nothing, None),
    (an_ignored_file, None),
    (an_untracked_file, "1 uncommitted file"),
    (untracked_files_that_status_is_told_to_hide, "2 uncommitted files"),
    (a_staged_file, "1 uncommitted file"),
    (a_changed_file, "1 uncommitted file"),
    (a_deleted_file, "1 uncommitted file"),
    (an_unmerged_commit, "1 unmerged commit of branch 'b'"),
    (a_merged_commit, None),
    (a_commit_that_a_detached_main_checkout_has, None),
    (a_commit_in_another_branch, None),
    (a_pushed_commit, None),
    (a_commit_of_a_detached_head, "1 unmerged commit of no branch"),
    (both, "1 uncommitted file and 1 unmerged commit of branch 'b'"),
    (a_lost_link, "content that cannot be judged, as it is not an intact worktree of this repository"),
    (a_deleted_folder, None),
]


@pytest.mark.parametrize(("situation", "risk"), RISKS, ids=[situation.__name__ for situation, _ in RISKS])
def test_a_worktree_is_removed_only_if_that_loses_nothing(
    repo: Repo, tree: Path, situation: Callable[[Repo, Path], None], risk: str | None
) -> None:
    add_worktree(repo.path, tree, "b")
    situation(repo, tree)
    tip = repo.git("rev-parse", "b")
    assert worktree_risk(repo.path, tree) == risk
    if risk is not None:
        before = everything_below(tree)
        with pytest.raises(GitError) as refused:
            remove_worktree(repo.path, tree)
        assert risk in refused.value.message
        assert everything_below(tree) == before
        remove_worktree(repo.path, tree, force=True)
    else:
        remove_worktree(repo.path, tree)
    assert not tree.exists()
    assert str(tree) not in repo.git("worktree", "list", "--porcelain")
    assert repo.git("rev-parse", "b") == tip
    remove_worktree(repo.path, tree)  # a second time is fine


def test_removing_one_worktree_leaves_git_s_memory_of_others_alone(repo: Repo, tree: Path) -> None:
    add_worktree(repo.path, tree, "b")
    unmounted = repo.path / "on a disk that is not here"
    repo.git("worktree", "add", "-q", "-b", "c", str(unmounted))
    unmounted.rename(repo.path / "away")
    shutil.rmtree(tree)
    remove_worktree(repo.path, tree)
    listed = repo.git("worktree", "list", "--porcelain")
    assert str(unmounted) in listed and str(tree) not in listed


def test_a_worktree_that_a_person_locked_is_removed_only_by_force(repo: Repo, tree: Path) -> None:
    add_worktree(repo.path, tree, "b")
    repo.git("worktree", "lock", "--reason", "mine", str(tree))
    with pytest.raises(GitError, match="is locked"):
        remove_worktree(repo.path, tree)
    assert tree.exists()
    remove_worktree(repo.path, tree, force=True)
    assert not tree.exists()


def test_worktrees_are_added_one_after_the_other(repo: Repo) -> None:
    failures: list[Exception] = []

    def add(number: int) -> None:
        try:
            add_worktree(repo.path, repo.path / f".ralph/l{number}/worktree", f"loop/{number}")
        except (RalphError, OSError) as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert repo.branches() == {"main", *(f"loop/{number}" for number in range(6))}


def test_a_held_repository_lock_is_waited_for_and_then_reported(
    repo: Repo, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ralph_rpc.git.repository.LOCK_PATIENCE_S", 0.05)
    lock = locks.acquire(repo.path / ".git/ralph-rpc.lock")
    assert lock is not None
    with lock, pytest.raises(GitError, match="another ralph-rpc"):
        add_worktree(repo.path, tree, "b")
    assert not tree.exists()


def test_a_project_in_a_subfolder_and_in_a_worktree_of_its_own_works(repo: Repo, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    repo.git("worktree", "add", "-q", "-b", "side", str(linked))
    project = linked / "packages/one"
    project.mkdir(parents=True)
    tree = project / ".ralph/x/worktree"
    add_worktree(project, tree, "b")
    assert (tree / "a.txt").exists()
    assert worktree_risk(project, tree) is None
    remove_worktree(project, tree)
    assert not tree.exists()
