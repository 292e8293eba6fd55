"""Tickets merged while people, other runners and a failing machine are at work (rows 40-43)."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ralph_rpc.git.merge import Landed, Moved, Waits
from ralph_rpc.git.trees import Conflict
from tests.faults import git_victim, git_worker
from tests.faults.conftest import Note
from tests.faults.snapshot import Content, snapshot
from tests.faults.tiers import FULL_S, times
from tests.git.ticketing import Ticket
from tests.rig import git

pytestmark = pytest.mark.usefixtures("no_leftovers")

TRAILERS = "--format=%(trailers:key=Ticket,valueonly,separator=)"
FILES = {"a": "one\n", "gone": "x\n", "keep": "k\n", "other": "o\n", "dir/in": "i\n", ".gitignore": "*.log\n"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose main branch is checked out, and a loop's folder in it."""
    folder = tmp_path / "web"
    folder.mkdir()
    git(folder, "init", "-q")
    for name, text in FILES.items():
        write(folder, name, text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    write(folder, ".ralph/.gitignore", "*\n")
    return folder


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def ready(project: Path) -> Ticket:
    """A ticket that changes a file, removes one, and adds two, one of them in spite of .gitignore."""
    ticket = Ticket(project)
    ticket.add()
    ticket.write("a", "two\n")
    ticket.write("new/b", "b\n")
    (ticket.path / "gone").unlink()
    ticket.write("made.log", "log\n")
    git(ticket.path, "add", "-f", "made.log")
    assert isinstance(ticket.commit(), str)
    return ticket


def of_person(project: Path) -> dict[str, Content]:
    """All that a person has in the checkout, to the byte: files, what is staged, the branch they are on."""
    files = {
        path: content
        for path, content in snapshot(project, but=("index",)).items()
        if ".git" not in Path(path).relative_to(project).parts and ".ralph" not in Path(path).parts
    }
    staged = git(project, "ls-files", "--stage", "-z").encode()
    return files | {"index": (0, staged), "HEAD": (0, (project / ".git/HEAD").read_bytes())}


# What does not meet the merge stays as it is, and the merge goes on


def nothing(project: Path) -> None:
    pass


def changed_elsewhere(project: Path) -> None:
    write(project, "keep", "edited\n")


def staged_and_changed_again_elsewhere(project: Path) -> None:
    write(project, "keep", "staged\n")
    git(project, "add", "keep")
    write(project, "keep", "and edited\n")


def new_files_and_removed_ones_elsewhere(project: Path) -> None:
    write(project, "mine/untracked", "u\n")
    write(project, "mine.log", "ignored\n")
    write(project, "staged", "s\n")
    git(project, "add", "staged")
    (project / "other").unlink()
    git(project, "rm", "-q", "dir/in")


def all_of_it_there_already(project: Path) -> None:
    """As if the machine had died when the files were new and nothing else was."""
    write(project, "a", "two\n")
    write(project, "new/b", "b\n")
    write(project, "made.log", "log\n")
    (project / "gone").unlink()


def all_of_it_staged_already(project: Path) -> None:
    all_of_it_there_already(project)
    git(project, "add", "-A", "-f", "a", "new", "made.log", "gone")


def only_touched(project: Path) -> None:
    os.utime(project / "a", (1, 1))


GOES_ON = [
    nothing,
    changed_elsewhere,
    staged_and_changed_again_elsewhere,
    new_files_and_removed_ones_elsewhere,
    all_of_it_there_already,
    all_of_it_staged_already,
    only_touched,
]
OF_TICKET = {"a", "gone", "new", "new/b", "made.log"}


@pytest.mark.parametrize("situation", GOES_ON, ids=[situation.__name__ for situation in GOES_ON])
def test_row_41_a_checkout_goes_along_and_keeps_what_the_merge_does_not_meet(
    project: Path, situation: Callable[[Path], None], figure: Note
) -> None:
    ticket = ready(project)
    situation(project)
    before = of_person(project)
    names = git(project, "diff", "--cached", "--name-only").split()
    landed = ticket.land()
    assert isinstance(landed, Landed)
    assert git(project, "rev-parse", "main").strip() == landed.commit
    after = of_person(project)
    ours = {str(project), *(str(project / name) for name in OF_TICKET), "index"}
    assert {p: c for p, c in after.items() if p not in ours} == {p: c for p, c in before.items() if p not in ours}
    # Of the ticket all is there, and what was staged of other files is still staged, nothing else.
    assert git(project, "diff", "HEAD", "--name-only", "--", *OF_TICKET) == ""
    assert set(git(project, "diff", "--cached", "--name-only").split()) == set(names) - OF_TICKET
    assert ticket.land() == landed and git(project, "rev-parse", "main").strip() == landed.commit
    assert ticket.remove() is None and git(project, "fsck", "--strict") == ""
    figure("merged, the rest to the byte")


# What would be lost makes it wait


def changed_in_the_way(project: Path) -> str:
    write(project, "a", "mine\n")
    return "a"


def staged_in_the_way(project: Path) -> str:
    write(project, "a", "mine\n")
    git(project, "add", "a")
    return "a"


def staged_in_the_way_though_the_file_is_new_already(project: Path) -> str:
    staged_in_the_way(project)
    write(project, "a", "two\n")
    return "a"


def deleted_in_the_way(project: Path) -> str:
    (project / "a").unlink()
    return "a"


def untracked_in_the_way(project: Path) -> str:
    write(project, "new/b", "mine\n")
    return "new/b"


def a_file_where_a_folder_must_be(project: Path) -> str:
    write(project, "new", "mine\n")
    return "new"


def a_folder_where_a_file_must_be(project: Path) -> str:
    write(project, "new/b/c.log", "mine\n")
    return "new/b/c.log"


def a_link_to_elsewhere_where_a_folder_must_be(project: Path) -> str:
    (project.parent / "elsewhere").mkdir()
    write(project.parent, "elsewhere/b", "mine\n")
    (project / "new").symlink_to(project.parent / "elsewhere")
    return "new"


def ignored_in_the_way(project: Path) -> str:
    write(project, "made.log", "mine\n")
    return "made.log"


def changed_though_it_will_be_removed(project: Path) -> str:
    write(project, "gone", "still needed\n")
    return "gone"


def changed_in_secret(project: Path) -> str:
    git(project, "update-index", "--skip-worktree", "a")
    write(project, "a", "mine\n")
    return "a"


def a_merge_is_under_way(project: Path) -> str:
    git(project, "checkout", "-qb", "side")
    write(project, "keep", "theirs\n")
    git(project, "commit", "-qam", "side")
    git(project, "checkout", "-q", "main")
    write(project, "keep", "ours\n")
    git(project, "commit", "-qam", "main")
    with pytest.raises(Exception, match="merge"):
        git(project, "merge", "side")
    return "a merge"


def a_cherry_pick_is_under_way(project: Path) -> str:
    a_merge_is_under_way(project)
    git(project, "merge", "--abort")
    with pytest.raises(Exception, match="cherry-pick"):
        git(project, "cherry-pick", "side")
    return "a cherry-pick"


def a_rebase_is_under_way(project: Path) -> str:
    a_merge_is_under_way(project)
    git(project, "merge", "--abort")
    with pytest.raises(Exception, match="rebase"):
        git(project, "rebase", "side")
    return "a rebase of main"


def a_bisect_is_under_way(project: Path) -> str:
    git(project, "commit", "-qm", "more", "--allow-empty")
    git(project, "bisect", "start", "HEAD", "HEAD~1")
    return "a bisect of main"


def git_is_at_work(project: Path) -> str:
    (project / ".git/index.lock").touch()
    return "remove"


def checked_out_twice(project: Path) -> str:
    git(project, "worktree", "add", "-qf", str(project.parent / "second"), "main")
    return "more than once"


def changed_in_a_second_checkout(project: Path) -> str:
    git(project, "checkout", "-qb", "elsewhere")
    git(project, "worktree", "add", "-q", str(project.parent / "second"), "main")
    write(project.parent, "second/a", "mine\n")
    return "second: a"


WAITS = [
    changed_in_the_way,
    staged_in_the_way,
    staged_in_the_way_though_the_file_is_new_already,
    deleted_in_the_way,
    untracked_in_the_way,
    a_file_where_a_folder_must_be,
    a_folder_where_a_file_must_be,
    a_link_to_elsewhere_where_a_folder_must_be,
    ignored_in_the_way,
    changed_though_it_will_be_removed,
    changed_in_secret,
    a_merge_is_under_way,
    a_cherry_pick_is_under_way,
    a_rebase_is_under_way,
    a_bisect_is_under_way,
    git_is_at_work,
    checked_out_twice,
    changed_in_a_second_checkout,
]


@pytest.mark.parametrize("situation", WAITS, ids=[situation.__name__ for situation in WAITS])
def test_row_41_a_merge_that_would_lose_something_waits_and_changes_nothing(
    project: Path, situation: Callable[[Path], str], figure: Note
) -> None:
    ticket = ready(project)
    expected = situation(project)
    others = [path for path in (project.parent / "second", project.parent / "elsewhere") if path.exists()]
    before, main = of_person(project), git(project, "rev-parse", "main")
    held = {path.name for path in (project / ".git").iterdir()}
    foreign = snapshot(*others)
    waits = ticket.land()
    assert isinstance(waits, Waits) and expected in waits.reason and "\n" not in waits.reason
    assert git(project, "rev-parse", "main") == main
    assert of_person(project) == before and snapshot(*others) == foreign
    assert {path.name for path in (project / ".git").iterdir()} == held
    figure("waits, all to the byte")


# Where no checkout has the branch, only the branch moves


def on_no_branch(project: Path) -> None:
    git(project, "checkout", "-q", "--detach")
    write(project, "a", "mine\n")


def on_another_branch(project: Path) -> None:
    git(project, "checkout", "-qb", "elsewhere")
    write(project, "a", "mine\n")
    git(project, "add", "a")


def in_a_checkout_that_was_deleted(project: Path) -> None:
    on_another_branch(project)
    git(project, "worktree", "add", "-q", str(project.parent / "second"), "main")
    shutil.rmtree(project.parent / "second")


APART = [on_no_branch, on_another_branch, in_a_checkout_that_was_deleted]


@pytest.mark.parametrize("situation", APART, ids=[situation.__name__ for situation in APART])
def test_row_41_where_the_target_is_not_checked_out_only_its_branch_moves(
    project: Path, situation: Callable[[Path], None], figure: Note
) -> None:
    ticket = ready(project)
    situation(project)
    before = of_person(project)
    landed = ticket.land()
    assert isinstance(landed, Landed) and git(project, "rev-parse", "main").strip() == landed.commit
    assert of_person(project) == before
    figure("merged, all to the byte")


def test_row_41_a_second_checkout_of_the_target_goes_along(project: Path) -> None:
    ticket = ready(project)
    git(project, "checkout", "-qb", "elsewhere")
    second = project.parent / "second"
    git(project, "worktree", "add", "-q", str(second), "main")
    write(second, "keep", "mine\n")
    before = of_person(project)
    assert isinstance(ticket.land(), Landed)
    assert git(second, "status", "--porcelain") == " M keep\n" and (second / "new/b").read_text() == "b\n"
    assert of_person(project) == before


@pytest.mark.parametrize("checked_out", [True, False], ids=["checked out", "not checked out"])
def test_row_41_a_target_that_a_person_has_moved_in_between_is_merged_with_not_overwritten(
    project: Path, checked_out: bool
) -> None:
    ticket = ready(project)
    built = ticket.look()
    write(project, "keep", "committed in between\n")
    git(project, "commit", "-qam", "mine")
    if not checked_out:
        git(project, "checkout", "-q", "--detach")
    mine = git(project, "rev-parse", "main").strip()
    before = of_person(project)
    assert ticket.land_built(built) == Moved()
    assert git(project, "rev-parse", "main").strip() == mine and of_person(project) == before
    assert isinstance(ticket.land(), Landed)
    assert git(project, "merge-base", "main", mine).strip() == mine
    assert git(project, "show", "main:keep") == "committed in between\n"


def test_row_41_a_conflict_changes_neither_the_checkout_nor_the_ticket_s_worktree(project: Path) -> None:
    ticket = ready(project)
    write(project, "a", "another\n")
    git(project, "commit", "-qam", "mine")
    before, tree = of_person(project), snapshot(ticket.path)
    conflict = ticket.land()
    assert isinstance(conflict, Conflict) and conflict.files == ("a",) and "CONFLICT" in conflict.text
    assert ticket.update() == conflict
    assert of_person(project) == before and snapshot(ticket.path) == tree
    assert git(ticket.path, "status", "--porcelain") == ""
    assert ticket.remove() is not None and git(project, "rev-parse", ticket.branch)


# Many at once


WORKERS = 8


@times(quick=1, full=50)
def test_row_40_runners_that_merge_into_one_branch_at_once_lose_nothing(
    project: Path, count: int, figure: Note
) -> None:
    """A person asks for the status all the time, which takes the index lock of the checkout, too."""
    write(project, "keep", "edited\n")
    argv = [sys.executable, "-P", git_worker.__file__, str(project)]
    running = [
        subprocess.Popen([*argv, f"w{worker}", str(count)], stderr=subprocess.PIPE, text=True)
        for worker in range(WORKERS)
    ]
    while any(worker.poll() is None for worker in running):
        git(project, "status", "--porcelain")
    failures = [worker.stderr.read() for worker in running if worker.stderr is not None and worker.returncode]
    for worker in running:
        worker.communicate()
    assert failures == []
    ids = sorted(f"w{worker}-{number}" for worker in range(WORKERS) for number in range(count))
    trailers = git(project, "log", "--first-parent", "--merges", TRAILERS)
    assert sorted(trailers.split()) == ids
    assert sorted(path.name for path in (project / "by").iterdir()) == ids
    assert git(project, "status", "--porcelain") == " M keep\n"
    assert git(project, "fsck", "--strict", "--no-dangling") == ""
    assert git(project, "branch", "--format=%(refname:short)") == "main\n"
    figure(f"{WORKERS} runners x {count} tickets: 0 lock errors, 0 lost commits")


# The worktree deleted, or forgotten by git


def deleted(project: Path, ticket: Ticket) -> None:
    shutil.rmtree(ticket.path)


def deleted_and_pruned(project: Path, ticket: Ticket) -> None:
    shutil.rmtree(ticket.path)
    git(project, "worktree", "unlock", str(ticket.path))
    git(project, "worktree", "prune", "--expire=now")
    assert str(ticket.path) not in git(project, "worktree", "list")


def removed_by_git(project: Path, ticket: Ticket) -> None:
    git(project, "worktree", "remove", "-f", "-f", str(ticket.path))


def deleted_with_all_of_the_loop(project: Path, ticket: Ticket) -> None:
    shutil.rmtree(project / ".ralph")


LOST = [deleted, deleted_and_pruned, removed_by_git, deleted_with_all_of_the_loop]


@pytest.mark.parametrize("loss", LOST, ids=[loss.__name__ for loss in LOST])
def test_row_43_a_ticket_s_worktree_that_is_gone_is_made_again_with_its_commits(
    project: Path, loss: Callable[[Path, Ticket], None], figure: Note
) -> None:
    ticket = ready(project)
    base = git(project, "rev-parse", "main").strip()
    loss(project, ticket)
    again = ticket.add()
    assert (again.commit, again.reused) == (base, True)
    assert (ticket.path / "a").read_text() == "two\n" and git(ticket.path, "status", "--porcelain") == ""
    assert isinstance(ticket.land(), Landed) and ticket.remove() is None
    figure("made again")


def test_row_43_a_worktree_that_cannot_be_reached_for_a_while_is_not_pruned(project: Path, tmp_path: Path) -> None:
    ticket = ready(project)
    ticket.write("unsaved", "work\n")
    ticket.path.rename(tmp_path / "away")
    git(project, "worktree", "prune", "--expire=now")
    git(project, "gc", "--quiet", "--prune=now")
    (tmp_path / "away").rename(ticket.path)
    assert ticket.add().reused and (ticket.path / "unsaved").read_text() == "work\n"


# Killed at any instant, and done again (git_victim.py)


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as the victim finds it, to be copied; a person has edits in it, elsewhere."""
    folder = tmp_path_factory.mktemp("seed") / "web"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "Test Person")
    git(folder, "config", "user.email", "test@example.invalid")
    for id in TICKETS:
        for number in range(git_victim.FILES):
            write(folder, f"{id}/old{number}", "old\n")
            write(folder, f"{id}/gone{number}", "gone\n")
    write(folder, "keep", "k\n")
    write(folder, "other", "o\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    write(folder, ".ralph/.gitignore", "*\n")
    write(folder, "keep", "edited\n")
    write(folder, "other", "staged\n")
    git(folder, "add", "other")
    write(folder, "untracked", "u\n")
    return folder


TICKETS = ("ab-1", "ab-2")
OF_PERSON = "M  other\n M keep\n?? untracked\n"


def victim(project: Path, *order: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", git_victim.__file__, str(project), *order]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=100)


def check_all_is_merged_once(project: Path) -> None:
    """Each ticket by one merge, nothing of a person's changed, nothing left behind."""
    trailers = git(project, "log", "--first-parent", "--merges", TRAILERS, "main")
    assert sorted(trailers.split()) == list(TICKETS)
    for id in TICKETS:
        texts = {"old": f"changed by {id}\n{git_victim.BIG}", "new/": f"made by {id}\n{git_victim.BIG}"}
        for number in range(git_victim.FILES):
            for name, text in texts.items():
                assert (project / f"{id}/{name}{number}").read_text() == text
            assert not (project / f"{id}/gone{number}").exists()
    assert sorted(git(project, "status", "--porcelain").splitlines()) == sorted(OF_PERSON.splitlines())
    assert git(project, "fsck", "--strict", "--no-dangling") == ""
    assert git(project, "branch", "--format=%(refname:short)") == "main\n"
    assert len(git(project, "worktree", "list").splitlines()) == 1
    assert not list((project / ".ralph/x/worktrees").iterdir())
    left = [path for path in (project / ".git").rglob("*") if path.suffix in (".lock", ".index", ".new", ".move")]
    assert left == [project / ".git/ralph-rpc.lock"] and left[0].read_bytes() == b""


@times(quick=2, full=100)
def test_row_42_killed_at_any_line_of_ours_and_done_again_all_is_merged_once(
    seed: Path, tmp_path: Path, count: int, figure: Note
) -> None:
    lines = whole_run(seed, tmp_path)[0]
    chance = random.Random(42)
    for round in range(count):
        project = shutil.copytree(seed, tmp_path / str(round), symlinks=True)
        fatal = chance.randint(1, lines)
        assert victim(project, "line", str(fatal)).returncode == -signal.SIGKILL, fatal
        again = victim(project)
        assert again.returncode == 0, f"line {fatal}\n{again.stderr}"
        check_all_is_merged_once(project)
        shutil.rmtree(project)
    figure(f"{count} of {lines} lines: each merged once, nothing lost")


@times(quick=2, full=100)
def test_row_42_a_git_killed_at_any_instant_and_done_again_all_is_merged_once(
    seed: Path, tmp_path: Path, count: int, figure: Note
) -> None:
    gits = whole_run(seed, tmp_path)[1]
    chance = random.Random(42)
    for round in range(count):
        project = shutil.copytree(seed, tmp_path / str(round), symlinks=True)
        fatal, after = chance.randint(1, gits), chance.uniform(0, 0.008)
        victim(project, "git", str(fatal), str(after))  # which goes on, or says that git failed
        again = victim(project)
        assert again.returncode == 0, f"git {fatal} after {after}\n{again.stderr}"
        check_all_is_merged_once(project)
        shutil.rmtree(project)
    figure(f"{count} kills of {gits} gits: each merged once, nothing lost")


@pytest.mark.full
@pytest.mark.timeout(FULL_S)
def test_row_42_a_git_killed_at_its_very_end_and_done_again_all_is_merged_once(
    seed: Path, tmp_path: Path, figure: Note
) -> None:
    """Those that move the target are killed so in every run (tests/git/test_merge.py)."""
    gits = whole_run(seed, tmp_path)[1]
    for fatal in range(1, gits + 1):
        project = shutil.copytree(seed, tmp_path / str(fatal), symlinks=True)
        victim(project, "end", str(fatal))
        again = victim(project)
        assert again.returncode == 0, f"git {fatal}\n{again.stderr}"
        check_all_is_merged_once(project)
        shutil.rmtree(project)
    figure(f"each of {gits} gits: each merged once, nothing lost")


def whole_run(seed: Path, tmp_path: Path) -> tuple[int, int]:
    """How many lines of ours and how many gits it takes where nothing dies."""
    project = shutil.copytree(seed, tmp_path / "whole", symlinks=True)
    done = victim(project)
    assert done.returncode == 0, done.stderr
    check_all_is_merged_once(project)
    lines, gits = done.stdout.split()
    return int(lines), int(gits)
