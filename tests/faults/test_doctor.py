"""`doctor`: every fault that it knows is made for real, found without being touched, fixed, and gone afterwards.

What it must not do as well: touch a loop that lives, end a process that is nobody's orphan, or lose a command.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from ralph_rpc import git
from ralph_rpc.checks import machine
from ralph_rpc.checks.finding import Place
from ralph_rpc.cli.doctor import CHECKS
from ralph_rpc.clock import now_ms
from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.files.inbox import Inbox, drop
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops.remains import processes
from ralph_rpc.machine import locks
from tests.cli import forged
from tests.cli.examined import Capture, Finding, examined, install_pi, of, private_loop, troubles
from tests.faults.conftest import Note
from tests.faults.snapshot import snapshot
from tests.faults.tiers import times
from tests.process.trees import is_gone, new_token, nothing_of, survivors, until
from tests.rig import alive, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
GATE = {"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}
DONE = "<promise>COMPLETE</promise>"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a repository with one commit. pi is on PATH."""
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    install_pi(tmp_path, monkeypatch)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return folder


def mounted(where: Path, *mount: str) -> Iterator[Path]:
    """A file system at `where`, or a skipped test."""
    done = subprocess.run(["mount", *mount, str(where)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


# Faults: each makes one thing wrong in a project with the ended loop `api`, and says what must hold after the repair


Mended = Callable[[], object]


def a_ralph_folder_open_to_others(loop: LoopPaths) -> Mended:
    loop.dir.parent.chmod(0o755)
    return lambda: mode(loop.dir.parent) == 0o700


def an_inbox_that_anyone_may_write_to(loop: LoopPaths) -> Mended:
    loop.inbox.chmod(0o777)
    return lambda: mode(loop.inbox) == 0o700


def an_inbox_closed_to_its_owner(loop: LoopPaths) -> Mended:
    loop.inbox.chmod(0o500)
    return lambda: mode(loop.inbox) == 0o700


def a_log_that_anyone_may_read(loop: LoopPaths) -> Mended:
    forged.write_log(loop, [{"type": "agent_end"}])
    loop.events.chmod(0o644)
    return lambda: mode(loop.events) == 0o600


def a_registry_open_to_others(_: LoopPaths) -> Mended:
    registry_dir().mkdir(parents=True)
    registry_dir().chmod(0o755)
    return lambda: mode(registry_dir()) == 0o700


def an_entry_of_an_ended_loop(loop: LoopPaths) -> Mended:
    path = forged.register("done", forged.entry(loop.project, "api", status="stopped"))
    return lambda: not path.exists()


def an_entry_of_a_loop_whose_folder_is_gone(loop: LoopPaths) -> Mended:
    path = forged.register("gone", forged.entry(loop.project / "nowhere", "gone"))
    return lambda: not path.exists() and not (loop.project / "nowhere").exists()


def an_entry_that_names_a_folder_of_no_loop(loop: LoopPaths) -> Mended:
    """An entry is written by anyone; no lock is to be made where it says."""
    outside = loop.project / "src"
    outside.mkdir()
    path = forged.register("evil", forged.entry(loop.project, "src", ralphDir=str(outside)))
    return lambda: not path.exists() and list(outside.iterdir()) == []


def an_entry_that_a_power_loss_left_empty(_: LoopPaths) -> Mended:
    path = forged.register("broken", bytes(100))
    return lambda: not path.exists()


def a_temporary_folder_of_a_dead_runner(loop: LoopPaths) -> Mended:
    folder = Path(os.environ["TMPDIR"]) / f"ralph-{loop.name}-x7"
    (folder / "sealed").mkdir(0o500, parents=True)
    loop.state.write_bytes(orjson.dumps(forged.state(loop, status="stopped", tmpDir=str(folder))))
    return lambda: not folder.exists()


def a_temporary_folder_of_a_runner_killed_before_its_first_state(loop: LoopPaths) -> Mended:
    folder = killed_at_its_start(loop, TMPDIR=os.environ["TMPDIR"])
    return lambda: not folder.exists()


def a_state_that_was_never_finished(loop: LoopPaths) -> Mended:
    path, state = killed_writer(loop.dir), loop.state.read_bytes()
    return lambda: not path.exists() and loop.state.read_bytes() == state


def a_registry_entry_that_was_never_finished(_: LoopPaths) -> Mended:
    registry_dir().mkdir(parents=True, mode=0o700)
    path = killed_writer(registry_dir())
    return lambda: not path.exists()


def a_torn_event(loop: LoopPaths) -> Mended:
    return torn_log(loop, b'{"type":"message_upd')


def an_event_log_that_ends_in_zeros(loop: LoopPaths) -> Mended:
    return torn_log(loop, b'{"type":"mess' + bytes(5000))


def torn_log(loop: LoopPaths, tail: bytes) -> Mended:
    forged.write_log(loop, [{"type": "agent_end"}])
    loop.events.chmod(0o600)
    whole = loop.events.read_bytes()
    loop.events.write_bytes(whole + tail)

    def is_fixed() -> bool:
        first, *rest = loop.events.read_bytes().splitlines(keepends=True)
        kept = {"type": "ralph_unparsed", "raw": tail.rstrip(b"\0").decode()}
        return first == whole and [orjson.loads(line) for line in rest] == [kept] and rest[0].endswith(b"\n")

    return is_fixed


def a_torn_journal(loop: LoopPaths) -> Mended:
    line = b'{"at":1,"id":"a","command":"steer","state":"received","body":{"message":"m"},"file":"f"}\n'
    loop.commands.write_bytes(line + line[:40])
    loop.commands.chmod(0o600)

    def is_fixed() -> bool:
        (aside,) = loop.dir.glob("commands.jsonl.torn-*")
        return (loop.commands.read_bytes(), aside.read_bytes(), mode(aside)) == (line, line[:40], 0o600)

    return is_fixed


def a_message_that_was_taken_and_not_received(loop: LoopPaths) -> Mended:
    id = drop(loop.inbox, "steer", {"message": "first"})
    (loop.inbox / "steer.json").write_text('{"message": "second"}')
    Inbox(loop.inbox).scan(0.0)  # and then its runner dies
    assert len(list(loop.inbox.glob(".claimed-*"))) == 2

    def is_fixed() -> bool:
        names = [path.name for path in loop.inbox.iterdir() if path.name != "rejected"]
        found = Inbox(loop.inbox).scan(0.0)
        told = [(command.verb, command.body) for command in found.commands]
        assert told == [("steer", {"message": "first"}), ("steer", {"message": "second"})] and not found.rejected
        return found.commands[0].id == id and all(name.startswith("steer-") for name in names)

    return is_fixed


def a_message_that_was_never_finished(loop: LoopPaths) -> Mended:
    path = killed_writer(loop.inbox)
    half = path.read_bytes()

    def is_fixed() -> bool:
        aside = loop.rejected / path.name.removeprefix(".")
        reason = aside.with_name(f"{aside.name}.reason").read_text()
        return not path.exists() and aside.read_bytes() == half and "send the command again" in reason

    return is_fixed


def a_worktree_of_a_loop_that_is_gone(loop: LoopPaths) -> Mended:
    gone = LoopPaths.of(loop.project, "gone")
    gone.dir.mkdir(mode=0o700)
    git.add_worktree(loop.project, gone.worktree, "b")
    tip = git.head(gone.worktree)
    shutil.rmtree(gone.dir)

    def is_fixed() -> bool:
        listed = git.run(["worktree", "list"], loop.project).out.decode()
        return "gone" not in listed and git.run(["rev-parse", "b"], loop.project).line == tip

    return is_fixed


def a_git_that_was_killed_in_a_worktree(loop: LoopPaths) -> Mended:
    git.add_worktree(loop.project, loop.worktree, "b")
    (loop.worktree / "a").write_text("x")
    env = os.environ | {"GIT_EDITOR": "sleep 300;:"}
    subprocess.run(["git", "add", "a"], cwd=loop.worktree, check=True)
    commit = ["git", "commit", "-q", "-a"]
    with subprocess.Popen(commit, cwd=loop.worktree, env=env, start_new_session=True) as process:
        lock = Path(git.run(["rev-parse", "--absolute-git-dir"], loop.worktree).line, "index.lock")
        try:
            wait_for("git's lock", lock.exists)
            assert troubles(findings_of(loop)) == []  # in use
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert subprocess.run([*commit, "-m", "m"], cwd=loop.worktree, check=False, capture_output=True).returncode
    return lambda: subprocess.run([*commit, "-m", "m"], cwd=loop.worktree, check=True)


def a_merge_killed_before_the_checkout_moved(loop: LoopPaths) -> Mended:
    return killed_merge(loop, "_read_tree")


def a_merge_killed_when_the_checkout_had_moved(loop: LoopPaths) -> Mended:
    return killed_merge(loop, "move_ref")


def killed_merge(loop: LoopPaths, where: str) -> Mended:
    """Of the branch `topic` into the checked out `main`; its runner is killed where it would do this."""
    project = loop.project
    git.run(["switch", "-q", "-c", "topic"], project)
    (project / "new").write_text("of the ticket\n")
    git.run(["add", "new"], project)
    git.run(["commit", "-q", "-m", "work"], project)
    git.run(["switch", "-q", "main"], project)
    code = f"""if True:
        import os, signal, sys
        from pathlib import Path
        from ralph_rpc.git import batch, checkout, merge
        checkout.{where} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        built = batch.build_batch(Path.cwd(), "main", [batch.Part("topic", "Merge topic")])
        sys.exit(str(merge.land(Path.cwd(), "main", built.target, built.links[-1].commit, ["topic"])))
    """
    command = [sys.executable, "-P", "-c", code]
    assert subprocess.run(command, cwd=project, check=False).returncode == -signal.SIGKILL
    assert b'"kind": "ralph-rpc"' in (project / ".git/index.lock").read_bytes()
    assert (project / "new").exists() == (where == "move_ref")

    def is_fixed() -> bool:
        merged = git.run(["log", "--format=%s", "-1"], project).line == "Merge topic"
        return merged and git.run(["status", "--porcelain", "--untracked-files=no"], project).line == ""

    return is_fixed


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def killed_writer(folder: Path) -> Path:
    """What a process that is killed in the middle of its write leaves; it died a while ago."""
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from ralph_rpc.files import atomic
        whole = atomic.write_all
        def half(fd, data):
            whole(fd, data[:20])
            os.kill(os.getpid(), signal.SIGKILL)
        atomic.write_all = half
        atomic.write_atomic(Path(sys.argv[1]) / "steer-1.json", b'{"message": "half of it is missing"}')
    """
    subprocess.run([sys.executable, "-c", code, str(folder)], check=False, env=forged.program()[1])
    (path,) = folder.glob(".tmp-*")
    long_ago(path)
    return path


def killed_at_its_start(loop: LoopPaths, **env: str) -> Path:
    """The temporary folder of a runner that is killed where it would start pi; something lies in it."""
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from ralph_rpc.files import records
        from ralph_rpc.files.paths import LoopPaths
        from ralph_runner.shell import takeover
        loop = LoopPaths(Path(sys.argv[1]))
        takeover.spawn = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        takeover.take_over(loop, records.read_config(loop), resume=False)
    """
    there = set(Path(env["TMPDIR"]).glob("ralph-*"))
    command = [sys.executable, "-P", "-c", code, str(loop.dir)]
    done = subprocess.run(command, check=False, env=os.environ | env, cwd=loop.project)
    assert done.returncode == -signal.SIGKILL
    (folder,) = set(Path(env["TMPDIR"]).glob("ralph-*")) - there
    (folder / "file").touch()
    return folder


def long_ago(path: Path) -> None:
    then = time.time() - 3600
    os.utime(path, (then, then))


FAULTS = [
    (a_ralph_folder_open_to_others, "permissions"),
    (an_inbox_that_anyone_may_write_to, "permissions"),
    (an_inbox_closed_to_its_owner, "permissions"),
    (a_log_that_anyone_may_read, "permissions"),
    (a_registry_open_to_others, "permissions"),
    (an_entry_of_an_ended_loop, "registry"),
    (an_entry_of_a_loop_whose_folder_is_gone, "registry"),
    (an_entry_that_names_a_folder_of_no_loop, "registry"),
    (an_entry_that_a_power_loss_left_empty, "registry"),
    (a_temporary_folder_of_a_dead_runner, "temp"),
    (a_temporary_folder_of_a_runner_killed_before_its_first_state, "temp"),
    (a_state_that_was_never_finished, "temp"),
    (a_registry_entry_that_was_never_finished, "temp"),
    (a_torn_event, "logs"),
    (an_event_log_that_ends_in_zeros, "logs"),
    (a_torn_journal, "logs"),
    (a_message_that_was_taken_and_not_received, "inbox"),
    (a_message_that_was_never_finished, "inbox"),
    (a_worktree_of_a_loop_that_is_gone, "worktrees"),
    (a_git_that_was_killed_in_a_worktree, "worktrees"),
    (a_merge_killed_before_the_checkout_moved, "worktrees"),
    (a_merge_killed_when_the_checkout_had_moved, "worktrees"),
]


def findings_of(loop: LoopPaths) -> list[Finding]:
    command, env = forged.program("doctor", "--json")
    done = subprocess.run(command, env=env, cwd=loop.project, capture_output=True, check=False)
    findings: list[Finding] = orjson.loads(done.stdout)
    return findings


@pytest.mark.parametrize(("make", "check"), FAULTS, ids=[make.__name__ for make, _ in FAULTS])
def test_a_fault_is_found_then_mended_then_gone(
    project: Path, isolated: Path, capsys: Capture, make: Callable[[LoopPaths], Mended], check: str
) -> None:
    loop = private_loop(project, status="stopped")
    assert troubles(examined(capsys)[1]) == []
    is_mended = make(loop)
    before = snapshot(project, isolated)
    _, findings = examined(capsys)
    found = troubles(findings)
    assert found and {finding["check"] for finding in found} == {check}
    assert all(finding["hint"] and not finding["fixed"] for finding in found)
    assert snapshot(project, isolated) == before  # only looked
    code, findings = examined(capsys, "--fix")
    assert (code, troubles(findings)) == (0, [])
    assert len([finding for finding in findings if finding["fixed"]]) == len(found)
    after = snapshot(project, isolated)
    assert troubles(examined(capsys, "--fix")[1]) == []
    assert snapshot(project, isolated) == after  # nothing left to do
    assert is_mended()


# What it must leave alone


def test_a_living_loop_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    """With all that looks like a fault in it. Its runner is stopped meanwhile, so nobody else changes anything."""
    rig = fake_rig(tmp_path, [[GATE, "on"], DONE])
    rig.start("--worktree", "b")
    rig.wait_event("tool_execution_start")
    rig.drop("steer.json", '{"message": "go on"}')
    wait_for("the receipt", lambda: rig.paths.commands.exists() and b"received" in rig.paths.commands.read_bytes())
    runner, guard, pi = rig.pids()
    os.kill(runner, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it stands still")
    tmp = Path(rig.state()["tmpDir"])
    with rig.paths.events.open("ab") as log:
        log.write(b'{"type":"half of a l')
    rig.paths.inbox.chmod(0o750)
    rig.paths.config.chmod(0o644)
    for path in (
        rig.paths.inbox / ".claimed-1-0123abcd-steer.json",
        rig.paths.dir / ".tmp-1",
        rig.paths.inbox / ".tmp-1",
    ):
        path.write_text("{}")
        long_ago(path)
    lock = Path(git.run(["rev-parse", "--absolute-git-dir"], rig.paths.worktree).line, "index.lock")
    lock.touch()
    before = snapshot(rig.project, isolated, tmp)
    shown = rig.run("doctor", "--fix", "--json", check=None)
    fixed = [finding["message"] for finding in orjson.loads(shown.stdout) if finding["fixed"]]
    assert fixed == []
    assert snapshot(rig.project, isolated, tmp) == before
    assert alive(runner) and alive(guard) and alive(pi)
    # Undone, it goes on as if nothing had been.
    size = rig.paths.events.stat().st_size - len(b'{"type":"half of a l')
    os.truncate(rig.paths.events, size)
    for path in rig.paths.inbox.glob(".*-*"):
        path.unlink()
    lock.unlink()
    os.kill(runner, signal.SIGCONT)
    (rig.paths.worktree / "go").touch()
    assert rig.wait_end()["status"] == "completed"


def test_a_file_that_is_being_written_is_left_to_its_writer(project: Path, capsys: Capture) -> None:
    loop = private_loop(project, status="stopped")
    fresh, slow = loop.inbox / ".tmp-fresh", loop.inbox / ".tmp-slow"
    fresh.write_text("{")
    with slow.open("w") as file:
        file.write("{")
        file.flush()
        long_ago(slow)
        assert troubles(examined(capsys, "--fix")[1]) == []
        assert fresh.exists() and slow.exists()
    assert len(troubles(examined(capsys)[1])) == 1


def test_a_command_that_has_its_receipt_is_not_given_back(project: Path, capsys: Capture) -> None:
    """It is in the journal, from where it is taken up: given back it would be carried out twice."""
    loop = private_loop(project, status="running")
    (loop.inbox / "steer.json").write_text('{"message": "once"}')
    (claimed,) = Inbox(loop.inbox).scan(0.0).commands
    journal = CommandJournal.open(loop.commands)
    journal.append(
        {
            "at": now_ms(),
            "id": claimed.id,
            "command": "steer",
            "state": "received",
            "body": claimed.body,
            "file": claimed.file,
        },
        durable=True,
    )
    journal.close()
    assert [finding["check"] for finding in troubles(examined(capsys, "--fix")[1])] == ["loops"]  # it has crashed
    assert claimed.path.exists()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_log_that_is_no_plain_file_is_told_of_and_never_opened(project: Path, capsys: Capture, kind: str) -> None:
    loop = private_loop(project, status="stopped")
    outside = project / "outside"
    outside.write_bytes(b"no line")
    outside.chmod(0o600)
    if kind == "link":
        loop.events.symlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(loop.events, 0o600)
    else:
        loop.events.mkdir(0o700)
    for options in ((), ("--fix",)):
        (found,) = troubles(examined(capsys, *options)[1])
        assert (found["check"], found["level"]) == ("logs", "fail") and str(loop.events) in found["message"]
    assert outside.read_bytes() == b"no line"


def test_worktrees_with_something_in_them_are_only_told_of(project: Path, capsys: Capture) -> None:
    full, detached = LoopPaths.of(project, "full"), LoopPaths.of(project, "detached")
    private_loop(project, status="stopped")
    for loop in (full, detached):
        loop.dir.mkdir(mode=0o700)
        git.add_worktree(project, loop.worktree, f"b-{loop.name}")
    (full.worktree / "work").write_text("x")
    for command in (["checkout", "-q", "--detach"], ["commit", "-q", "--allow-empty", "-m", "on no branch"]):
        git.run(command, detached.worktree)
    commit = git.head(detached.worktree)
    shutil.rmtree(detached.dir)
    found = troubles(examined(capsys, "--fix")[1])
    assert len(found) == 2 and not any(finding["fixed"] for finding in found)
    assert any("1 unmerged commit of no branch" in finding["hint"] for finding in found)
    assert (full.worktree / "work").read_text() == "x"
    git.run(["gc", "--prune=now", "--quiet"], project)
    git.run(["branch", "saved", str(commit)], project)  # still there
    assert len(troubles(examined(capsys, "--fix")[1])) == 1


def test_a_merge_that_is_under_way_is_left_to_its_runner(project: Path, isolated: Path, capsys: Capture) -> None:
    loop = private_loop(project, status="stopped")
    is_mended = a_merge_killed_when_the_checkout_had_moved(loop)
    lock = locks.acquire(project / ".git/ralph-rpc.lock")
    assert lock is not None
    with lock:
        before = snapshot(project, isolated)
        assert troubles(examined(capsys, "--fix")[1]) == [] and snapshot(project, isolated) == before
    assert examined(capsys, "--fix")[0] == 0 and is_mended()


def test_a_merge_cut_short_where_somebody_has_gone_on_since_is_given_up(project: Path, capsys: Capture) -> None:
    loop = private_loop(project, status="stopped")
    a_merge_killed_before_the_checkout_moved(loop)
    commit = git.run(["commit-tree", "main^{tree}", "-p", "main", "-m", "mine"], project).line
    git.run(["update-ref", "refs/heads/main", commit], project)
    (found,) = [finding for finding in examined(capsys, "--fix")[1] if finding["fixed"]]
    assert "merges again" in found["message"] and git.head(project) == commit
    assert not (project / ".git/index.lock").exists() and not (project / "new").exists()


OF_LOOPS = [
    an_inbox_that_anyone_may_write_to,
    an_inbox_closed_to_its_owner,
    a_temporary_folder_of_a_dead_runner,
    a_temporary_folder_of_a_runner_killed_before_its_first_state,
    a_torn_event,
    an_event_log_that_ends_in_zeros,
    a_torn_journal,
    a_message_that_was_taken_and_not_received,
    a_message_that_was_never_finished,
    a_git_that_was_killed_in_a_worktree,
]


@pytest.mark.parametrize("make", OF_LOOPS, ids=[make.__name__ for make in OF_LOOPS])
def test_a_loop_that_has_come_to_life_since_it_was_looked_at_is_not_mended(
    project: Path, isolated: Path, make: Callable[[LoopPaths], Mended]
) -> None:
    loop = private_loop(project, status="stopped")
    make(loop)
    place = Place(project, [loop])
    found = [finding for check in CHECKS for finding in check(place) if finding.level != "ok" and finding.repair]
    assert found
    with forged.runner_of(loop):
        before = snapshot(project, isolated)
        for finding in found:
            assert finding.repair is not None
            with pytest.raises(AlreadyRunning):
                finding.repair()
        assert snapshot(project, isolated) == before


# Processes


TREE = "sleep TOKEN & setsid sleep TOKEN & (trap '' TERM; setsid sleep TOKEN) & sh -c 'env -i /bin/sleep TOKEN; true' & wait"
"""Background, detached, deaf, and one with its environment wiped below a shell that has its own."""
IN_TREE = 5
"""Processes with the token in their command line that hold nothing but it, and the shell that waits."""


@times(quick=1, full=20)
def test_processes_of_a_dead_runner_are_found_and_ended(tmp_path: Path, figure: Note, count: int) -> None:
    """Runner and guard are killed at once, so that neither cleans up after the other."""
    ended, slowest = 0, 0.0
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended_now, took = end_a_tree(folder)
        ended, slowest = ended + ended_now, max(slowest, took)
    figure(
        f"{count} runners killed with their guards: {ended} processes found and ended, 0 left, longest {slowest:.1f} s"
    )


def end_a_tree(folder: Path) -> tuple[int, float]:
    token = new_token()
    with nothing_of(token):
        rig = fake_rig(folder, [[{"tool": "bash", "run": TREE.replace("TOKEN", token)}], DONE])
        rig.start()
        wait_for("the whole tree", lambda: len(sleepers(token)) == IN_TREE - 1)
        runner, guard, _ = rig.pids()
        for sig in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (guard, runner):
                os.kill(pid, sig)
        until(lambda: is_gone(runner) and is_gone(guard), "they are dead")
        found = of(orjson.loads(rig.run("doctor", "--json", check=None).stdout), "orphans")
        assert len(found) == 1 and "dead runner of x" in found[0]["message"]
        assert len(sleepers(token)) == IN_TREE - 1  # only looked
        before = len(survivors(token))
        began = time.monotonic()
        (fixed,) = of(orjson.loads(rig.run("doctor", "--fix", "--json", check=None).stdout), "orphans")
        took = time.monotonic() - began
        assert fixed["fixed"] and survivors(token) == {} and rig.of_mine() == {}
        (again,) = of(orjson.loads(rig.run("doctor", "--fix", "--json", check=None).stdout), "orphans")
        assert (again["level"], again["fixed"]) == ("ok", False)
        rig.run("resume", "x")  # nothing stands in its way
        assert rig.wait_end()["status"] == "completed"
        return before, took


def sleepers(token: str) -> list[int]:
    return [pid for pid, command in survivors(token).items() if "sh" not in command.split()[0]]


def test_orphans_are_ended_and_the_living_spared(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERM_S", 0.3)
    dead, live, ending = (private_loop(project, name) for name in ("dead", "live", "ending"))
    vanished = LoopPaths.of(project, "vanished")
    elsewhere = LoopPaths.of(project.parent / "other", "api")
    with (
        marked(dead) as orphan,
        marked(dead, deaf=False) as stopped,
        marked(vanished) as homeless,
        marked(live) as owned,
        marked(ending) as guarded,
        marked(elsewhere) as foreign,
    ):
        stopped.send_signal(signal.SIGSTOP)
        guard = locks.acquire(ending.tree_lock)
        assert guard is not None
        with forged.runner_of(live), guard:
            code, findings = examined(capsys)
            assert code == 1 and len(of(findings, "orphans")) == 2
            told = " ".join(finding["message"] for finding in of(findings, "orphans"))
            assert all(f"pid {process.pid} " in told for process in (orphan, stopped, homeless))
            assert not any(f"pid {process.pid} " in told for process in (owned, guarded, foreign))
            assert orphan.poll() is None
            code, findings = examined(capsys, "--fix")
            assert [finding["fixed"] for finding in of(findings, "orphans")] == [True, True]
            assert (orphan.wait(10), stopped.wait(10), homeless.wait(10)) == (-9, -15, -9)
            assert not any(process.poll() is not None for process in (owned, guarded, foreign))
            assert [finding["level"] for finding in of(examined(capsys)[1], "orphans")] == ["ok"]


@contextmanager
def marked(loop: LoopPaths, deaf: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a loop's mark that is up, and is killed in the end."""
    ignore = "signal.signal(15, signal.SIG_IGN); " if deaf else ""
    code = f"import signal, sys; {ignore}print('up', flush=True); sys.stdin.read()"
    env = os.environ | {"RALPH_LOOP_DIR": str(loop.dir)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"up\n"
            yield process
        finally:
            process.kill()


# The whole way: a crash, the doctor, and on


def test_after_a_crash_and_the_doctor_the_loop_goes_on_and_each_message_comes_once(tmp_path: Path) -> None:
    """One message had its receipt, one was only claimed, one is half-written; both logs are torn."""
    rig = fake_rig(tmp_path, [[GATE, "on"], DONE])
    rig.env["FAKE_PI_LOG"] = str(tmp_path / "requests")
    rig.start()
    rig.wait_event("tool_execution_start")
    held = drop(rig.paths.inbox, "followup", {"message": "HELD", "when": "next"})
    rig.wait_step(held, "queued")
    runner, guard, _ = rig.pids()
    rig.kill(runner)
    until(lambda: is_gone(guard), "the guard has ended the tree")
    drop(rig.paths.inbox, "steer", {"message": "CLAIMED"})
    Inbox(rig.paths.inbox).scan(0.0)
    killed_writer(rig.paths.inbox)
    for log in (rig.paths.events, rig.paths.commands):
        log.write_bytes(log.read_bytes() + b'{"torn":')
    shown = orjson.loads(rig.run("doctor", "--fix", "--json", check=None).stdout)
    assert len(of(shown, "logs")) == 2 and len(of(shown, "inbox")) == 2
    assert [finding["check"] for finding in shown if finding["fixed"]] == ["temp", "logs", "logs", "inbox", "inbox"]
    kept = rig.run("clean", "--yes").stdout
    assert "2 messages that the agent has not read" in kept and rig.paths.state.exists()
    (rig.project / "go").touch()
    rig.run("resume", "x")
    assert rig.wait_end()["status"] == "completed"
    prompts = [line for line in (tmp_path / "requests").read_text().splitlines() if '"prompt"' in line]
    assert [("HELD" in line, "CLAIMED" in line) for line in prompts[1:]] == [(True, True)]
    assert rig.steps(held)[-1] == "delivered"
    rig.events()  # every line is whole


def test_what_a_runner_killed_at_its_start_has_left_is_replaced_by_the_next(tmp_path: Path, isolated: Path) -> None:
    """With or without a state.json that tells of it."""
    rig = fake_rig(tmp_path, [[GATE, "on"], [GATE, "on"], [GATE, "on"], DONE])
    tmp = isolated / "tmp"
    rig.start()
    rig.wait_event("ralph_pi_start")
    folder = Path(rig.state()["tmpDir"])
    rig.run("stop", "x", "--now")
    rig.wait_end()
    assert list(tmp.glob("ralph-*")) == []
    assert killed_at_its_start(rig.paths, TMPDIR=str(tmp)) == folder
    rig.run("resume", "x")
    rig.wait_event("ralph_pi_start", pid=wait_for("pi", lambda: rig.state().get("piPid")))
    assert rig.state()["tmpDir"] == str(folder)
    assert not (folder / "file").exists() and mode(folder) == 0o700
    runner, guard, _ = rig.pids()
    (folder / "file").touch()
    rig.kill(runner)
    until(lambda: is_gone(guard), "the guard has ended the tree")
    (rig.project / "go").touch()
    rig.run("resume", "x")
    assert rig.wait_end()["status"] == "completed"
    assert list(tmp.glob("ralph-*")) == []


# The machine


def test_a_disk_without_room_is_told_of_until_there_is_some(project: Path, capsys: Capture) -> None:
    (project / ".ralph").mkdir(0o700)
    for size, level in (("50m", "fail"), ("500m", "warn")):
        for _ in mounted(project / ".ralph", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none"):
            code, findings = examined(capsys, "--fix")
            (found,) = troubles(findings)
            assert (found["check"], found["level"], code) == ("disk", level, 1 if level == "fail" else 0)
            assert "free some space" in found["hint"]
    assert troubles(examined(capsys)[1]) == []


def test_watchers_that_are_nearly_used_up_are_told_of_with_the_sysctl(
    project: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real watchers, and a limit that they nearly reach. What others on this machine have comes on top."""
    libc = ctypes.CDLL(None, use_errno=True)
    monkeypatch.setattr(machine, "INOTIFY", tmp_path / "limits")
    (tmp_path / "limits").mkdir()
    (tmp_path / "limits/max_user_watches").write_text("1000000\n")
    (tmp_path / "limits/max_user_instances").write_text("22\n")
    opened = [libc.inotify_init1(os.O_CLOEXEC) for _ in range(20)]
    try:
        assert min(opened) >= 0
        found = troubles(examined(capsys, "--fix")[1])
        assert [finding["check"] for finding in found] == ["inotify"]
        assert "sysctl fs.inotify.max_user_instances=88" in found[0]["hint"]
    finally:
        for fd in opened:
            os.close(fd)
    (tmp_path / "limits/max_user_instances").write_text("1000\n")
    assert troubles(examined(capsys)[1]) == []


@pytest.mark.parametrize(
    ("does", "words"), [("echo 0.60.0", "too old"), ("exit 3", "gives no version"), (None, "not on PATH")]
)
def test_a_pi_that_cannot_be_used_is_told_of_until_there_is_another(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, does: str | None, words: str
) -> None:
    if does is None:
        (tmp_path / "bin/pi").unlink()
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    else:
        install_pi(tmp_path, monkeypatch, does)
    code, findings = examined(capsys, "--fix")
    assert code == 1 and words in of(findings, "pi")[0]["message"]
    install_pi(tmp_path, monkeypatch)
    assert examined(capsys)[0] == 0
