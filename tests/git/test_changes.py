"""What an iteration changed, measured without leaving a trace in the repository."""

import asyncio
import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ralph_rpc import git
from ralph_runner.core.results import Measure
from ralph_runner.shell import changes
from ralph_runner.shell.changes import Change, WorkMeter

from .conftest import Repo, new_repo


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def change(project: Path, scratch: Path, act: Callable[[], object]) -> tuple[Measure, Measure, Change]:
    """What a meter says before and after `act`, and about the difference."""

    async def measured() -> tuple[Measure, Measure, Change]:
        meter = WorkMeter(project, scratch)
        before = await meter.measure()
        act()
        after = await meter.measure()
        return before, after, await meter.compare(before, after)

    return asyncio.run(measured())


def fingerprint(folder: Path) -> dict[str, str]:
    """Content of every file below the folder; of the index also its time."""
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    status = (folder / ".git/index").stat()
    return found | {"index": f"{status.st_ino} {status.st_mtime_ns}"}


def was_walked(measure: Measure) -> bool:
    return measure.tree is not None and measure.tree.startswith("walk-")


def test_nothing_done_is_nothing_changed(repo: Repo, scratch: Path) -> None:
    repo.write("dirty.txt", "x")
    before, after, seen = change(repo.path, scratch, lambda: None)
    assert before == after
    assert seen == Change([], 0)
    assert before.head == repo.git("rev-parse", "HEAD")
    assert before.tree is not None and not was_walked(before)


def test_a_rewritten_file_of_the_same_content_is_no_change(repo: Repo, scratch: Path) -> None:
    before, after, _ = change(repo.path, scratch, lambda: repo.write("a.txt", "one\n"))
    assert before == after


def test_an_already_dirty_file_that_changes_again_is_a_change(repo: Repo, scratch: Path) -> None:
    repo.write("a.txt", "dirty")
    repo.write("new.txt", "untracked")

    def act() -> None:
        repo.write("a.txt", "DIRTY")
        repo.write("new.txt", "UNTRACKED")

    before, after, seen = change(repo.path, scratch, act)
    assert before.tree != after.tree
    assert seen == Change([], 2)


def test_a_file_changed_right_after_it_was_staged_is_seen(repo: Repo, scratch: Path) -> None:
    # Same size and same time as git remembers: only the age of the index gives it away.
    repo.git("config", "core.trustctime", "false")
    repo.git("config", "core.checkStat", "minimal")
    path = repo.write("racy.txt", "aaaa")
    past = 1_700_000_000_000_000_000
    os.utime(path, ns=(past, past))
    repo.git("add", "racy.txt")
    os.utime(repo.path / ".git/index", ns=(past, past))

    def act() -> None:
        path.write_text("bbbb")
        os.utime(path, ns=(past, past))

    _, _, seen = change(repo.path, scratch, act)
    assert seen.files_changed == 1


def test_every_kind_of_change_counts_once(repo: Repo, scratch: Path) -> None:
    repo.commit("b.txt", "b")
    repo.commit("c.txt", "c")

    def act() -> None:
        repo.write("sub/new\nline\u2028.txt", "untracked")
        (repo.path / "a.txt").unlink()
        (repo.path / "b.txt").rename(repo.path / "moved.txt")
        (repo.path / "c.txt").chmod(0o755)
        (repo.path / "link").symlink_to("/nowhere")

    _, _, seen = change(repo.path, scratch, act)
    assert seen.files_changed == 6  # a move is two


def test_commits_are_listed_oldest_first_with_the_files_they_changed(repo: Repo, scratch: Path) -> None:
    made: list[str] = []

    def act() -> None:
        made.extend([repo.commit("b.txt", "1"), repo.commit("c.txt", "2"), repo.commit("b.txt", "3")])

    before, after, seen = change(repo.path, scratch, act)
    assert seen == Change(made, 2)
    assert after.head == made[-1] != before.head


def test_committing_what_was_there_is_a_commit_and_no_changed_file(repo: Repo, scratch: Path) -> None:
    repo.write("b.txt", "1")
    before, after, seen = change(repo.path, scratch, lambda: repo.commit("b.txt", "1"))
    assert before.tree == after.tree
    assert (len(seen.commits), seen.files_changed) == (1, 0)


def test_the_first_commit_is_a_commit(tmp_path: Path, scratch: Path) -> None:
    repo = new_repo(tmp_path / "fresh")
    before, after, seen = change(repo.path, scratch, lambda: repo.commit("a.txt", "1"))
    assert before.head is None and not was_walked(before)
    assert seen == Change([str(after.head)], 1)


def test_an_amended_commit_is_listed_and_one_that_was_taken_back_is_not(repo: Repo, scratch: Path) -> None:
    repo.commit("b.txt", "1")
    _, after, seen = change(repo.path, scratch, lambda: repo.git("commit", "-q", "--amend", "-m", "better"))
    assert seen == Change([str(after.head)], 0)
    _, _, seen = change(repo.path, scratch, lambda: repo.git("reset", "-q", "--hard", "HEAD^"))
    assert seen == Change([], 1)


def test_ignored_files_and_the_loop_s_own_are_no_change(repo: Repo, scratch: Path) -> None:
    def act() -> None:
        repo.write("build/out", "x")
        repo.write("x.log", "x")
        repo.write(".ralph/x/events.jsonl", "{}\n")

    before, after, _ = change(repo.path, scratch, act)
    assert before == after


def test_the_repository_is_left_as_it_was_to_the_byte(repo: Repo, scratch: Path) -> None:
    repo.git("config", "core.splitIndex", "true")
    repo.git("config", "core.untrackedCache", "true")
    repo.write("staged.txt", "staged")
    repo.git("add", "staged.txt")
    repo.write("a.txt", "changed")
    repo.write("new.txt", "new")
    os.utime(repo.path / ".gitignore")  # `git status` would now refresh the index
    before = fingerprint(repo.path)
    _, _, seen = change(repo.path, scratch, lambda: None)
    assert fingerprint(repo.path) == before
    repo.write("new.txt", "newer")
    before = fingerprint(repo.path)
    _, _, seen = change(repo.path, scratch, lambda: repo.write("third.txt", "3"))
    assert seen.files_changed == 1
    (repo.path / "third.txt").unlink()
    assert fingerprint(repo.path) == before


def test_a_locked_index_is_no_obstacle_and_stays_locked(repo: Repo, scratch: Path) -> None:
    lock = repo.write(".git/index.lock", "")
    before, _, seen = change(repo.path, scratch, lambda: repo.write("b.txt", "b"))
    assert not was_walked(before)
    assert seen.files_changed == 1
    assert lock.exists()


def test_hooks_and_filters_of_git_lfs_do_not_run(repo: Repo, scratch: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for hook in ("post-index-change", "pre-commit", "fsmonitor"):
        repo.write(f".git/hooks/{hook}", f"#!/bin/sh\ntouch '{ran}'\n").chmod(0o755)
    repo.git("config", "core.fsmonitor", str(repo.path / ".git/hooks/fsmonitor"))
    repo.git("config", "filter.lfs.clean", f"touch '{ran}'; cat")
    repo.git("config", "filter.lfs.required", "true")
    repo.write(".gitattributes", "*.bin filter=lfs\n")
    _, _, seen = change(repo.path, scratch, lambda: repo.write("big.bin", "x"))
    assert seen.files_changed == 1
    assert not ran.exists()


@pytest.mark.parametrize(
    "act",
    [
        lambda repo: repo.git("switch", "-q", "-c", "other/branch"),
        lambda repo: (repo.commit("b.txt", "b"), repo.git("pack-refs", "--all")),
        lambda repo: (repo.commit("b.txt", "b"), repo.git("checkout", "-q", "--detach", "HEAD^")),
        lambda repo: repo.git("switch", "-q", "--orphan", "empty"),
        lambda repo: (
            repo.git("symbolic-ref", "refs/heads/alias", "refs/heads/main") or repo.git("switch", "-q", "alias")
        ),
        lambda repo: ((repo.path / "sub").rmdir(), new_repo(repo.path / "sub").commit("inner.txt", "1")),
        lambda repo: (repo.git("worktree", "add", "-q", "-b", "w", str(repo.path / "sub")), repo.commit("b.txt", "b")),
    ],
)
def test_the_commit_is_what_git_says_however_it_came_to_be(
    repo: Repo, scratch: Path, act: Callable[[Repo], object]
) -> None:
    project = repo.path / "sub"
    project.mkdir()
    _, after, _ = change(project, scratch, lambda: act(repo))
    told = subprocess.run(["git", "rev-parse", "--verify", "-q", "HEAD"], cwd=project, capture_output=True, check=False)
    assert after.head == (told.stdout.decode().strip() or None)


def test_the_next_iteration_waits_for_two_git_commands_only(
    repo: Repo, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = git.command

    def command(args: list[str], settings: Sequence[str] = ()) -> list[str]:
        asked.append(args[0])
        return real(args, settings)

    monkeypatch.setattr(git, "command", command)
    change(repo.path, scratch, lambda: asked.append(repo.write("b.txt", "b").name))
    assert asked[asked.index("b.txt") :] == ["b.txt", "add", "ls-files"]
    change(repo.path, scratch, lambda: asked.append(repo.commit("c.txt", "c")))
    assert asked[-3:] == ["add", "ls-files", "rev-list"] and asked[-4] == repo.git("rev-parse", "HEAD")


def test_a_worktree_and_a_subfolder_are_measured_as_a_whole(repo: Repo, tree: Path, scratch: Path) -> None:
    repo.git("worktree", "add", "-q", "-b", "b", str(tree))
    repo.write("sub/x.txt", "x", at=tree)
    before, _, seen = change(tree / "sub", scratch, lambda: repo.write("y.txt", "y", at=tree))
    assert not was_walked(before)
    assert seen.files_changed == 1
    before, after, _ = change(repo.path, scratch, lambda: repo.write("y.txt", "z", at=tree))
    assert before == after  # the worktree is no part of the main checkout


def test_a_sparse_checkout_is_measured_outside_of_its_cone_too(repo: Repo, scratch: Path) -> None:
    repo.commit("in/a.txt", "a")
    repo.commit("out/b.txt", "b")
    repo.git("sparse-checkout", "set", "--cone", "--sparse-index", "in")
    assert not (repo.path / "out").exists()

    def act() -> None:
        repo.write("in/a.txt", "A")
        repo.write("out/new.txt", "new")

    before, _, seen = change(repo.path, scratch, act)
    assert not was_walked(before)
    assert seen.files_changed == 2


def test_conflicts_of_a_merge_are_content_like_any_other(repo: Repo, scratch: Path) -> None:
    repo.git("checkout", "-qb", "b")
    repo.commit("a.txt", "theirs\n")
    repo.git("checkout", "-q", "main")
    repo.commit("a.txt", "ours\n")
    _, after, seen = change(repo.path, scratch, lambda: repo.git("merge", "-q", "-s", "ours", "b"))
    assert (len(seen.commits), seen.files_changed) == (2, 0)
    repo.git("reset", "-q", "--hard", "HEAD^")

    def conflict() -> None:
        with pytest.raises(Exception, match="merge"):
            repo.git("merge", "-q", "b")

    before, after, seen = change(repo.path, scratch, conflict)
    assert not was_walked(after) and before.head == after.head
    assert seen.files_changed == 1


def submodule(repo: Repo) -> None:
    other = new_repo(repo.path.parent / "library")
    other.commit("lib.txt", "1")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.path), "lib")
    repo.git("commit", "-qm", "library")


def repository_without_a_commit_inside(repo: Repo) -> None:
    new_repo(repo.path / "lib").write("lib.txt", "1")


def broken_repository(repo: Repo) -> None:
    repo.write("lib/lib.txt", "1")
    repo.write(".git/index", "no index")


def no_repository(repo: Repo) -> None:
    repo.write("lib/lib.txt", "1")
    (repo.path / ".git").rename(repo.path.parent / "git of before")


@pytest.mark.parametrize("case", [submodule, repository_without_a_commit_inside, broken_repository, no_repository])
def test_where_git_cannot_answer_names_sizes_and_times_are_compared(
    repo: Repo, scratch: Path, case: Callable[[Repo], None]
) -> None:
    case(repo)
    repo.write("node_modules/x.js", "x")
    before, after, _ = change(repo.path, scratch, lambda: repo.write("node_modules/x.js", "y"))
    assert was_walked(before) and before == after

    def act() -> None:
        repo.write("lib/lib.txt", "2")
        (repo.path / "link").symlink_to(".")
        (repo.path / "a.txt").rename(repo.path / "a b\n.txt")

    _, after, seen = change(repo.path, scratch, act)
    assert was_walked(after)
    assert seen.files_changed == 4
    assert (after.head is None) == (case is no_repository)


def test_a_measure_that_takes_too_long_is_a_walk_from_then_on(
    repo: Repo, scratch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho $$ >> '{calls}'\nexec sleep 600\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(changes, "TIME_LIMIT_S", 0.3)
    monkeypatch.setattr("ralph_rpc.git.head", lambda _: None)
    before, after, seen = change(repo.path, scratch, lambda: repo.write("b.txt", "b"))
    assert was_walked(before) and was_walked(after)
    assert seen == Change([], 1)
    pids = [int(line) for line in calls.read_text().split()]
    assert len(pids) == 1  # git was asked once, not waited for again
    assert not Path(f"/proc/{pids[0]}").exists()


def test_two_fingerprints_of_different_kinds_are_one_changed_file(repo: Repo, scratch: Path) -> None:
    away = repo.path.parent / "git of before"
    before, after, seen = change(repo.path, scratch, lambda: (repo.path / ".git").rename(away))
    assert not was_walked(before) and was_walked(after)
    assert seen == Change([], 1)


def test_a_scratch_folder_that_cannot_be_written_only_costs_the_count(repo: Repo, tmp_path: Path) -> None:
    scratch = tmp_path / "a file"
    scratch.write_text("")
    before, after, seen = change(repo.path, scratch, lambda: repo.write("b.txt", "b"))
    assert was_walked(before) and before != after
    assert seen.files_changed == 1
    before, after, _ = change(repo.path, scratch, lambda: None)
    assert before == after


def test_scratch_does_not_grow_with_the_number_of_measures(repo: Repo, scratch: Path) -> None:
    async def many() -> Change:
        meter = WorkMeter(repo.path, scratch)
        before = await meter.measure()
        for number in range(8):
            repo.write("untracked.txt", f"content {number}")
            before = await meter.measure()
        repo.write("untracked.txt", "last")
        return await meter.compare(before, await meter.measure())

    assert asyncio.run(many()) == Change([], 1)
    assert len(list(scratch.iterdir())) == changes.SNAPSHOTS_KEPT


def test_a_path_with_separators_and_quotes_is_measured(tmp_path: Path, scratch: Path) -> None:
    repo = new_repo(tmp_path / 'a:b"c\\d')
    repo.commit("a.txt", "a")
    before, _, seen = change(repo.path, scratch, lambda: repo.write("a.txt", "b"))
    assert not was_walked(before)
    assert seen.files_changed == 1


def test_the_event_loop_goes_on_while_a_measure_runs(repo: Repo, scratch: Path) -> None:
    for number in range(200):
        repo.write(f"many/{number}.txt", f"{number}")

    async def measured() -> int:
        ticks = 0
        task = asyncio.create_task(WorkMeter(repo.path, scratch).measure())
        while not task.done():
            await asyncio.sleep(0)
            ticks += 1
        assert not was_walked(await task)
        return ticks

    assert asyncio.run(measured()) > 100  # a handful if each git were waited for
