"""`clean`: never a loop that lives, never work or a message that is nowhere else; what stays, stays byte for byte.

Loops that live are real ones on a fake pi; their runner stands still while the folders are compared.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc import git
from ralph_rpc.cli import clean
from ralph_rpc.cli.main import run
from ralph_rpc.clock import now_ms
from ralph_rpc.errors import UsageError
from ralph_rpc.files.inbox import Inbox, drop
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.remains import processes
from ralph_rpc.machine import identity, locks
from tests.cli import forged
from tests.faults.conftest import Note
from tests.faults.snapshot import snapshot
from tests.process.trees import is_gone, until
from tests.rig import Rig, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
Capture = pytest.CaptureFixture[str]
GATE = {"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}
DONE = "<promise>COMPLETE</promise>"
WAYS: tuple[list[str], ...] = ([], ["--archive"], ["api"], ["--archive", "api"])
"""To ask for it without force."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a repository with one commit."""
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git_in(folder, "init", "-q")
    (folder / "a").write_text("one\n")
    git_in(folder, "add", "a")
    git_in(folder, "commit", "-q", "-m", "first")
    return folder


def git_in(folder: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def with_worktree(project: Path, status: str = "completed") -> LoopPaths:
    """The loop `api`, with a worktree on the branch `b`."""
    place = LoopPaths.of(project, "api").worktree
    loop = forged.loop(project, "api", status=status, worktree={"branch": "b", "path": str(place)})
    git.add_worktree(project, loop.worktree, "b")
    return loop


def cleaned(capsys: Capture, *args: str) -> dict[str, list[dict[str, Any]]]:
    """What `clean --json --yes ARGS` says that it did."""
    capsys.readouterr()
    run(["clean", "--json", "--yes", *args])
    report: dict[str, list[dict[str, Any]]] = json.loads(capsys.readouterr().out)
    return report


def stays(project: Path, isolated: Path, capsys: Capture, why: str) -> None:
    """However it is asked for without force, `api` is kept, with a reason, and not a byte changes."""
    before = snapshot(project, isolated)
    for way in WAYS:
        report = cleaned(capsys, *way)
        assert report["removed"] == [] and why in report["kept"][0]["reason"], (way, report)
        assert snapshot(project, isolated) == before


# Loops that live


@contextmanager
def standing_still(rig: Rig, pid: int) -> Iterator[None]:
    """Its runner is stopped, so that nobody but us changes a file."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it stands still")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def is_not_cleaned(rig: Rig, isolated: Path, runner: int) -> None:
    with standing_still(rig, runner):
        before = snapshot(rig.project, isolated)
        for way in (["--force"], ["--force", "--archive"]):
            rig.run("clean", "--yes", *way)
            rig.run("clean", "--yes", *way, "x", check=4)
        assert snapshot(rig.project, isolated) == before


def test_a_loop_that_runs_stays_byte_for_byte(tmp_path: Path, isolated: Path) -> None:
    rig = fake_rig(tmp_path, [[GATE, "on"], DONE])
    rig.start("--worktree", "b")
    rig.wait_event("tool_execution_start")
    (rig.paths.worktree / "work").write_text("x")
    is_not_cleaned(rig, isolated, rig.pids()[0])
    (rig.paths.worktree / "go").touch()
    assert rig.wait_end()["status"] == "completed"


def test_a_paused_loop_stays_byte_for_byte(tmp_path: Path, isolated: Path) -> None:
    rig = fake_rig(tmp_path, [[GATE, "on"], DONE])
    rig.start()
    rig.run("pause", "x")
    rig.wait_event("ralph_command", command="pause")
    (rig.project / "go").touch()
    rig.wait_status("paused")
    is_not_cleaned(rig, isolated, rig.pids()[0])
    rig.drop("resume.json")
    assert rig.wait_end()["status"] == "completed"


def test_a_starting_loop_stays_byte_for_byte(tmp_path: Path, isolated: Path) -> None:
    rig = fake_rig(tmp_path, {"start": {"delay": 3}, "prompts": [DONE]})
    command = [sys.executable, "-P", "-m", "ralph_rpc", "start", "x", "--pi", rig.pi, "-m", "Do."]
    with subprocess.Popen(command, cwd=rig.project, env=rig.env, stdout=subprocess.DEVNULL) as start:
        wait_for("its first state", lambda: rig.state().get("status") == "starting")
        is_not_cleaned(rig, isolated, rig.state()["pid"])
        assert rig.wait_end()["status"] == "completed"
        assert start.wait(60) == 0


def test_a_loop_that_is_just_being_made_stays_byte_for_byte(project: Path, isolated: Path, capsys: Capture) -> None:
    """`start` holds the lock and has written the options, and there is no state yet."""
    loop = forged.loop(project, "api")
    loop.state.unlink()
    with forged.runner_of(loop):
        before = snapshot(project, isolated)
        for way in WAYS:
            assert run(["clean", "--yes", "--force", *way]) == (4 if "api" in way else 0)
        assert snapshot(project, isolated) == before


def test_a_loop_whose_lock_is_held_is_never_removed(project: Path, capsys: Capture) -> None:
    loop = forged.loop(project, "api", status="completed")
    with forged.runner_of(loop):
        assert run(["clean", "--yes", "--force", "api"]) == 4
        assert "stop api" in capsys.readouterr().err
        assert cleaned(capsys, "--force") == {"removed": [], "kept": [], "registry": []}
    assert loop.state.exists()
    assert run(["clean", "--yes", "api"]) == 0
    assert not loop.dir.exists()


def test_a_loop_whose_processes_are_being_ended_stays(project: Path, isolated: Path, capsys: Capture) -> None:
    loop = forged.loop(project, "api")
    lock = locks.acquire(loop.tree_lock)
    assert lock is not None
    with lock:
        stays(project, isolated, capsys, "being ended")


def test_a_loop_whose_processes_still_live_stays(project: Path, isolated: Path, capsys: Capture) -> None:
    loop = forged.loop(project, "api")
    env = os.environ | {"RALPH_LOOP_DIR": str(loop.dir)}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=env, stdin=subprocess.PIPE) as process:
        stays(project, isolated, capsys, f"pid {process.pid}")
        assert process.stdin is not None
        process.stdin.close()


def test_a_loop_stays_while_a_pi_lives_that_has_no_environment(project: Path, isolated: Path, capsys: Capture) -> None:
    """So it does not carry the loop's mark; but state.json names it."""
    command = [sys.executable, "-c", "print('up', flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env={}, stdin=pipe, stdout=pipe, start_new_session=True) as pi:
        assert pi.stdout is not None and pi.stdout.readline() == b"up\n"
        loop = forged.loop(project, "api", piPid=pi.pid, piStartTime=identity.start_time(pi.pid))
        assert not processes.orphans({project})  # a loop that was not started here may name anybody's
        forged.remember(loop)
        stays(project, isolated, capsys, f"pid {pi.pid}")
        assert processes.end(processes.orphans({project})) == []
        assert pi.wait(10) == -signal.SIGTERM
    assert [one["name"] for one in cleaned(capsys, loop.name)["removed"]] == ["api"]


@contextmanager
def a_guard_at_work(loop: LoopPaths) -> Iterator[str]:
    lock = locks.acquire(loop.tree_lock)
    assert lock is not None
    with lock:
        yield "being worked on"


@contextmanager
def a_process_of_it(loop: LoopPaths) -> Iterator[str]:
    env = os.environ | {"RALPH_LOOP_DIR": str(loop.dir)}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=env, stdin=subprocess.PIPE) as process:
        yield f"pid {process.pid}"
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def a_runner_of_it(loop: LoopPaths) -> Iterator[str]:
    with forged.runner_of(loop):
        yield "being worked on"


@pytest.mark.parametrize("comes", [a_guard_at_work, a_process_of_it, a_runner_of_it])
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_what_comes_to_life_while_the_question_stands_is_not_cleaned(
    project: Path,
    isolated: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    comes: Callable[[LoopPaths], AbstractContextManager[str]],
    way: list[str],
) -> None:
    loop = forged.loop(project, "api", status="stopped")
    loop.runner_lock.touch()
    before = snapshot(project, isolated)
    with ExitStack() as stack:
        told: list[str] = []
        monkeypatch.setattr(clean, "_confirm", lambda _: told.append(stack.enter_context(comes(loop))))
        report = cleaned(capsys, "--force", *way)
        assert report["removed"] == [] and told[0] in report["kept"][0]["reason"], report
    loop.tree_lock.unlink(missing_ok=True)
    assert snapshot(project, isolated) == before


# Messages


def test_a_crashed_loop_with_messages_that_nobody_read_stays(project: Path, isolated: Path, capsys: Capture) -> None:
    loop = forged.loop(project, "api")
    drop(loop.inbox, "steer", {"message": "received"})
    (claimed,) = Inbox(loop.inbox).scan(0.0).commands
    note(loop, claimed.id, "received", body=claimed.body, file=claimed.file)
    drop(loop.inbox, "followup", {"message": "claimed only"})
    Inbox(loop.inbox).scan(0.0)
    drop(loop.inbox, "steer", {"message": "waiting"})
    drop(loop.inbox, "stop", {})  # an order is no message
    before = snapshot(project, isolated)
    for way in ([], ["api"]):
        assert "3 messages that the agent has not read" in cleaned(capsys, *way)["kept"][0]["reason"]
        assert snapshot(project, isolated) == before
    (archived,) = cleaned(capsys, "--archive")["removed"]  # loses nothing
    files = [path.read_bytes() for path in Path(archived["archivedTo"], "inbox").iterdir()]
    assert len(files) == 4 and b"received" in Path(archived["archivedTo"], "commands.jsonl").read_bytes()


def test_messages_that_have_come_to_an_end_keep_no_loop(project: Path, capsys: Capture) -> None:
    loop = forged.loop(project, "api", status="stopped")
    for id, end in (("a", "delivered"), ("b", "expired"), ("c", "rejected")):
        note(loop, id, "received", body={"message": "m"}, file=f".claimed-{id}")
        note(loop, id, end)
    assert [one["name"] for one in cleaned(capsys)["removed"]] == ["api"]


def test_messages_go_with_a_loop_only_by_force_and_that_is_said(project: Path, capsys: Capture) -> None:
    loop = forged.loop(project, "api", status="stopped")
    (loop.inbox / "steer.json").write_text('{"message": "m"}')
    assert run(["clean", "--yes"]) == 0 and loop.dir.exists()
    assert run(["clean", "--yes", "api"]) == 1 and loop.dir.exists()
    assert run(["clean", "--yes", "--force"]) == 0 and not loop.dir.exists()
    assert "LOST with it: 1 message that the agent has not read" in capsys.readouterr().out


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_a_journal_that_cannot_be_read_keeps_its_loop(
    project: Path, isolated: Path, capsys: Capture, make: Callable[[Path], None]
) -> None:
    loop = forged.loop(project, "api", status="stopped")
    make(loop.commands)
    before = snapshot(project, isolated)
    for way in ([], ["api"]):
        assert "messages that cannot be read" in cleaned(capsys, *way)["kept"][0]["reason"]
        assert snapshot(project, isolated) == before


def note(loop: LoopPaths, id: str, state: str, **members: Any) -> None:
    journal = CommandJournal.open(loop.commands)
    line: Any = {"at": now_ms(), "id": id, "command": "steer", "state": state, **members}
    journal.append(line, durable=True)
    journal.close()


# Worktrees: what is in them, and whether the loop may go


def untracked(tree: Path) -> None:
    (tree / "new").mkdir()
    (tree / "new/file").write_text("work")


def changed(tree: Path) -> None:
    (tree / "a").write_text("work")


def staged(tree: Path) -> None:
    changed(tree)
    git_in(tree, "add", "a")


def unmerged(tree: Path) -> None:
    staged(tree)
    git_in(tree, "commit", "-q", "-m", "work")


def detached(tree: Path) -> None:
    git_in(tree, "checkout", "-q", "--detach")
    unmerged(tree)


def in_a_merge(tree: Path) -> None:
    git_in(tree, "checkout", "-q", "-b", "other")
    unmerged(tree)
    git_in(tree, "checkout", "-q", "b")
    (tree / "a").write_text("otherwise")
    git_in(tree, "commit", "-q", "-a", "-m", "mine")
    subprocess.run(["git", "merge", "-q", "other"], cwd=tree, check=False, capture_output=True)


def a_repository_of_its_own(tree: Path) -> None:
    git_in(tree, "init", "-q", "inner")


def no_link_to_the_repository(tree: Path) -> None:
    (tree / ".git").unlink()


def a_link_to_a_folder(tree: Path) -> None:
    outside = tree.parents[3] / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    shutil.rmtree(tree)
    tree.symlink_to(outside)


def a_link_to_another_worktree(tree: Path) -> None:
    mine = tree.parents[3] / "mine"
    git_in(tree.parents[2], "worktree", "add", "-q", "-b", "mine", str(mine))
    shutil.rmtree(tree)
    tree.symlink_to(mine)


def a_link_that_git_has_no_memory_of(tree: Path) -> None:
    a_link_to_another_worktree(tree)
    mine = tree.readlink()
    tree.unlink()
    git_in(tree.parents[2], "worktree", "prune")
    tree.symlink_to(mine)


def a_link_to_the_user_s_checkout(tree: Path) -> None:
    shutil.rmtree(tree)
    tree.symlink_to(tree.parents[2])


def deleted_with_detached_commits(tree: Path) -> None:
    detached(tree)
    shutil.rmtree(tree)


KEPT: list[tuple[Callable[[Path], None], str]] = [
    (untracked, "1 uncommitted file"),
    (changed, "1 uncommitted file"),
    (staged, "1 uncommitted file"),
    (unmerged, "1 unmerged commit of branch 'b'"),
    (detached, "1 unmerged commit of no branch"),
    (in_a_merge, "1 uncommitted file and 1 unmerged commit of branch 'b'"),
    (a_repository_of_its_own, "1 uncommitted file"),
    (no_link_to_the_repository, "cannot be judged"),
    (a_link_to_a_folder, "a link in its place"),
    (a_link_to_another_worktree, "a link in its place"),
    (a_link_that_git_has_no_memory_of, "a link in its place"),
    (a_link_to_the_user_s_checkout, "a link in its place"),
    (deleted_with_detached_commits, "1 unmerged commit of no branch"),
]


@pytest.mark.parametrize(("work", "why"), KEPT, ids=[work.__name__ for work, _ in KEPT])
def test_a_worktree_that_holds_something_keeps_its_loop_byte_for_byte(
    project: Path, tmp_path: Path, isolated: Path, capsys: Capture, work: Callable[[Path], None], why: str
) -> None:
    loop = with_worktree(project)
    work(loop.worktree)
    outside = [path for path in (tmp_path / "outside", tmp_path / "mine") if path.exists()]
    foreign = snapshot(*outside)
    stays(project, isolated, capsys, why)
    refs, checkout = git_in(project, "for-each-ref"), snapshot(*outside, project / "a")
    assert [one["name"] for one in cleaned(capsys, "--force")["removed"]] == ["api"]
    assert not loop.dir.exists() and str(loop.worktree) not in git_in(project, "worktree", "list")
    # Even so no branch goes, and nothing that a link led to.
    assert git_in(project, "for-each-ref") == refs and snapshot(*outside, project / "a") == checkout
    assert snapshot(*outside) == foreign


def nothing(tree: Path) -> None:
    pass


def ignored(tree: Path) -> None:
    (tree / ".gitignore").write_text("out\n")
    git_in(tree, "add", ".gitignore")
    git_in(tree, "commit", "-q", "-m", "ignore")
    (tree / "out").write_text("x")
    git_in(tree.parents[2], "merge", "-q", "b")


def merged(tree: Path) -> None:
    unmerged(tree)
    git_in(tree.parents[2], "merge", "-q", "--no-ff", "-m", "merged", "b")


def detached_and_merged(tree: Path) -> None:
    detached(tree)
    git_in(tree.parents[2], "merge", "-q", git_in(tree, "rev-parse", "HEAD"))


def detached_and_saved(tree: Path) -> None:
    detached(tree)
    git_in(tree, "branch", "saved")


def deleted_by_hand(tree: Path) -> None:
    unmerged(tree)  # on a branch, which stays
    shutil.rmtree(tree)


REMOVED = [nothing, ignored, merged, detached_and_merged, detached_and_saved, deleted_by_hand]


@pytest.mark.parametrize("archive", [False, True], ids=["removed", "archived"])
@pytest.mark.parametrize("work", REMOVED, ids=[work.__name__ for work in REMOVED])
def test_a_worktree_that_holds_nothing_more_goes_and_all_else_stays_byte_for_byte(
    project: Path, capsys: Capture, work: Callable[[Path], None], archive: bool
) -> None:
    loop = with_worktree(project)
    other = forged.loop(project, "other", status="completed")
    with forged.runner_of(other):
        work(loop.worktree)
        refs = git_in(project, "for-each-ref")
        kept = [project / ".git/refs", project / ".git/HEAD", project / ".git/index", project / "a", other.dir]
        before = snapshot(*kept)
        own = {str(path.relative_to(loop.dir)) for path in loop.dir.rglob("*") if "worktree" not in path.parts}
        (report,) = cleaned(capsys, *(["--archive"] if archive else []))["removed"]
        assert snapshot(*kept) == before and git_in(project, "for-each-ref") == refs
    assert (report["name"], report["branch"]) == ("api", "b") and not loop.dir.exists()
    assert str(loop.worktree) not in git_in(project, "worktree", "list")
    assert git_in(project, "fsck", "--strict") == ""
    if archive:
        place = Path(report["archivedTo"])
        assert {str(path.relative_to(place)) for path in place.rglob("*")} >= own


def test_commits_of_a_submodule_in_a_worktree_keep_its_loop(
    project: Path, tmp_path: Path, isolated: Path, capsys: Capture
) -> None:
    """git keeps them beside its memory of the worktree, with which they would go."""
    library = tmp_path / "library"
    library.mkdir()
    for command in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "first")):
        git_in(library, *command)
    loop = with_worktree(project)
    git_in(loop.worktree, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "lib")
    git_in(loop.worktree / "lib", "commit", "-q", "--allow-empty", "-m", "only here")
    git_in(loop.worktree, "add", "lib")
    git_in(loop.worktree, "commit", "-q", "-m", "with a library")
    git_in(project, "merge", "-q", "b")
    stays(project, isolated, capsys, "its submodule lib has 1 commit")


# Links, and what clean itself has made


def test_a_link_in_a_loop_s_place_is_not_followed(
    project: Path, tmp_path: Path, isolated: Path, capsys: Capture
) -> None:
    real = forged.loop(tmp_path / "other", "api", status="completed")
    (project / ".ralph").mkdir(0o700)
    (project / ".ralph/api").symlink_to(real.dir)
    before = snapshot(tmp_path, isolated)
    for force in ([], ["--force"]):
        assert "a link" in cleaned(capsys, *force)["kept"][0]["reason"]
        assert run(["clean", "api", "--yes", *force]) == 2
        assert "links are not followed" in capsys.readouterr().err
    assert snapshot(tmp_path, isolated) == before


def test_links_inside_of_a_loop_are_removed_and_not_followed(project: Path, tmp_path: Path, capsys: Capture) -> None:
    loop = forged.loop(project, "api", status="completed")
    outside = tmp_path / "outside"
    outside.mkdir(0o500)
    (loop.dir / "sessions").symlink_to(outside)
    before = snapshot(outside)
    assert len(cleaned(capsys)["removed"]) == 1
    assert snapshot(outside) == before


def test_what_only_looks_like_a_removal_that_was_begun_stays(
    project: Path, tmp_path: Path, isolated: Path, capsys: Capture
) -> None:
    outside = tmp_path / "outside"
    (outside / "sealed").mkdir(parents=True)
    (outside / "sealed").chmod(0o500)
    (project / ".ralph").mkdir(0o700)
    (project / ".ralph/.removing-link").symlink_to(outside)
    (project / ".ralph/.removing-file").write_text("x")
    before = snapshot(tmp_path, isolated)
    assert run(["clean", "--yes"]) == 0
    assert snapshot(tmp_path, isolated) == before


def test_the_archive_stays_byte_for_byte(project: Path, capsys: Capture) -> None:
    archive = project / ".ralph/.archive"
    for _ in range(2):
        forged.loop(project, "api", status="completed")
        assert len(cleaned(capsys, "--archive")["removed"]) == 1
    forged.loop(project, "api", status="completed")
    before = snapshot(archive)
    for way in ([], ["--force"]):
        cleaned(capsys, *way)
        assert snapshot(archive) == before
    assert run(["clean", "--yes", ".archive"]) == 2  # no name for a loop
    assert snapshot(archive) == before and len(list(archive.iterdir())) == 2


# The user's checkout, with a whole loop beside it


def dirty(project: Path) -> None:
    (project / "README").write_text("half of a sentence")
    (project / "untracked").write_text("x")
    git_in(project, "add", "README")
    (project / "README").write_text("and another")


def on_no_branch(project: Path) -> None:
    git_in(project, "checkout", "-q", "--detach")


def in_the_middle_of_a_merge(project: Path) -> None:
    git_in(project, "checkout", "-q", "-b", "theirs")
    (project / "README").write_text("theirs")
    git_in(project, "commit", "-q", "-a", "-m", "theirs")
    git_in(project, "checkout", "-q", "main")
    (project / "README").write_text("ours")
    git_in(project, "commit", "-q", "-a", "-m", "ours")
    assert subprocess.run(["git", "merge", "-q", "theirs"], cwd=project, check=False, capture_output=True).returncode


def moved_on_meanwhile(project: Path) -> None:
    git_in(project, "commit", "-q", "--allow-empty", "-m", "a later one")


CHECKOUTS = [dirty, on_no_branch, in_the_middle_of_a_merge, moved_on_meanwhile]


@pytest.mark.parametrize("make", CHECKOUTS, ids=[make.__name__ for make in CHECKOUTS])
def test_row_41_the_user_s_checkout_is_never_touched(
    tmp_path: Path, make: Callable[[Path], None], figure: Note
) -> None:
    """Neither by a loop with a worktree that commits in it, nor by its crash, nor by cleaning it up."""
    work = {"tool": "bash", "run": "echo x > made && git add made && git commit -qm work"}
    rig = fake_rig(tmp_path, [[work, GATE, "on"], DONE])
    make(rig.project)
    own = (".ralph", "worktrees", "ralph-rpc.lock")
    before = snapshot(rig.project, but=own)
    mine = {path: content for path, content in before.items() if "/.git/" not in path or "/refs/heads" in path}
    index = (rig.project / ".git/index").read_bytes(), (rig.project / ".git/HEAD").read_bytes()
    rig.start("--worktree", "loop-branch")
    rig.wait_event("tool_execution_end")
    runner, guard, _ = rig.pids()
    rig.kill(runner)
    until(lambda: is_gone(guard), "the guard has ended the tree")
    rig.run("doctor", "--fix", check=None)
    rig.run("clean", "--yes")
    assert rig.paths.state.exists()  # its commit is in no other branch
    rig.run("clean", "--yes", "--force")
    assert not rig.paths.dir.exists()
    after = snapshot(rig.project)
    assert {path: after.get(path) for path in mine} == mine
    assert ((rig.project / ".git/index").read_bytes(), (rig.project / ".git/HEAD").read_bytes()) == index
    assert git_in(rig.project, "log", "--format=%s", "loop-branch").startswith("work\n")
    figure(f"{len(mine)} files and refs of the user's, index and HEAD: the same to the byte")


@pytest.mark.parametrize("pruned", [False, True], ids=["deleted", "deleted-and-pruned"])
def test_row_43_a_worktree_that_was_deleted_is_made_again(tmp_path: Path, pruned: bool, figure: Note) -> None:
    work = {"tool": "bash", "run": "echo x > made && git add made && git commit -qm work"}
    rig = fake_rig(tmp_path, [[work, "on"], [{"tool": "bash", "run": "test -e made"}, DONE]])
    rig.start("--worktree", "b", "-n", "1")
    assert rig.wait_end()["stopReason"] == "max-iterations"
    shutil.rmtree(rig.paths.worktree)
    if pruned:
        git_in(rig.project, "worktree", "prune")
    rig.run("resume", "x", "-n", "2")
    assert rig.wait_end()["status"] == "completed"
    assert (rig.paths.worktree / "made").read_text() == "x\n"
    assert git_in(rig.paths.worktree, "status", "--porcelain") == ""
    figure("made again on its branch, with the work that was committed")


def test_row_43_commits_on_no_branch_are_not_forgotten_with_a_deleted_worktree(
    project: Path, capsys: Capture, figure: Note
) -> None:
    """git's memory of the worktree is all that holds them, so nothing replaces it until they have a branch."""
    loop = with_worktree(project)
    detached(loop.worktree)
    commit = git_in(loop.worktree, "rev-parse", "HEAD")
    shutil.rmtree(loop.worktree)
    with pytest.raises(UsageError, match="1 unmerged commit of no branch") as refused:
        git.add_worktree(project, loop.worktree, "b")
    git_in(project, "gc", "--quiet", "--prune=now")
    assert refused.value.hint == f"git branch NAME {commit}"
    git_in(project, "branch", "saved", commit)
    git.add_worktree(project, loop.worktree, "b")
    assert (loop.worktree / "a").read_text() == "one\n"
    figure("refused until the commits have a branch")
