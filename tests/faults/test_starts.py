"""Many starts, or resumes, of one loop at once: one wins, the others are told so, and nothing is half-made."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.errors import AlreadyRunning, UsageError
from ralph_rpc.files import atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import create
from ralph_rpc.machine import locks
from ralph_rpc.machine.locks import Lock
from tests.cli import forged
from tests.conftest import processes_with
from tests.core.talk import config
from tests.faults.conftest import Note
from tests.faults.tiers import times
from tests.process.trees import until
from tests.rig import Rig, fake_rig

pytestmark = pytest.mark.usefixtures("no_leftovers")
AT_ONCE = 12
WON, REFUSED = 0, 4


def crowd_rig(tmp_path: Path) -> Rig:
    """A loop that runs until it is killed, and a pi whose version needs no asking."""
    rig = fake_rig(tmp_path, [["hello", {"hang": True}]])
    (tmp_path / "package.json").write_text('{"name": "@x/pi-coding-agent", "version": "1.5.2"}')
    return rig


def all_at_once(rig: Rig, commands: list[list[str]]) -> list[int]:
    """Real commands, in processes that begin together; their exit codes."""
    gate = 'read go; exec "$@"'
    program = [sys.executable, "-P", "-m", "ralph_rpc"]
    running = [
        subprocess.Popen(
            ["sh", "-c", gate, "sh", *program, *command],
            cwd=rig.project,
            env=rig.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for command in commands
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    codes = []
    for process in running:
        _, told = process.communicate(timeout=100)
        codes.append(process.returncode)
        assert process.returncode == WON or (process.returncode == REFUSED and told.count(b"\n") == 1), told.decode()
    return codes


def one_loop_lives(rig: Rig, archived: int) -> None:
    """It is whole, and nothing of the others is left."""
    ralph = rig.paths.dir.parent
    assert {path.name for path in ralph.iterdir()} == {".git", ".gitignore", "x"} | (
        {".archive"} if archived else set()
    )
    assert len(list((ralph / ".archive").glob("*"))) == archived
    assert not [path for path in ralph.rglob("*") if path.name.startswith(".tmp")]
    assert sorted(path.name for path in rig.paths.inbox.iterdir()) == ["rejected"]
    assert [entry["pid"] for entry in rig.registry()] == [rig.pids()[0]]
    runners = [c for c in processes_with(f"RALPH_HOME={rig.env['RALPH_HOME']}").values() if "ralph_runner /" in c]
    assert len(runners) == 1, runners


def end(rig: Rig) -> None:
    rig.run("kill", "x")
    until(lambda: not locks.is_held(rig.paths.runner_lock), "the runner has left")


@times(quick=2, full=30)
def test_row_20_of_twelve_starts_at_once_exactly_one_wins(tmp_path: Path, count: int, figure: Note) -> None:
    """In every other round there is an earlier run of that name, which moves to the archive, once."""
    rig = crowd_rig(tmp_path)
    winners: set[int] = set()
    for turn in range(count):
        codes = all_at_once(rig, [["start", "x", "--pi", rig.pi, "-m", f"task {n}", "--json"] for n in range(AT_ONCE)])
        assert sorted(codes) == [WON] + [REFUSED] * (AT_ONCE - 1)
        winners.add(codes.index(WON))
        assert rig.paths.task.read_text() == f"task {codes.index(WON)}"
        assert [event["resumed"] for event in rig.of("ralph_loop_start")] == [False]
        one_loop_lives(rig, turn % 2)
        end(rig)
        if turn % 2:
            rig.run("clean", "x", "--yes")
            shutil.rmtree(rig.paths.dir.parent / ".archive")
    figure(f"{count} rounds of {AT_ONCE}: 1 winner in each ({len(winners)} different ones), the others exit {REFUSED}")


@times(quick=1, full=25)
def test_row_20_of_twelve_resumes_at_once_exactly_one_wins(tmp_path: Path, count: int, figure: Note) -> None:
    rig = crowd_rig(tmp_path)
    rig.start()
    end(rig)
    for turn in range(count):
        codes = all_at_once(rig, [["resume", "x", "--json"]] * AT_ONCE)
        assert sorted(codes) == [WON] + [REFUSED] * (AT_ONCE - 1)
        assert [event["resumed"] for event in rig.of("ralph_loop_start")] == [False] + [True] * (turn + 1)
        one_loop_lives(rig, 0)
        end(rig)
    figure(f"{count} rounds of {AT_ONCE}: 1 winner in each, the others exit {REFUSED}")


STARTER = """
import functools, json, sys
from pathlib import Path
from ralph_rpc.loops import create
from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.machine import locks
from ralph_rpc.files.paths import LoopPaths

# The patience is for viewers that look at the lock; it would only make every round longer.
quick = locks.acquire
create.locks.acquire = lambda path, patience_s=0.02: quick(path, min(patience_s, 0.02))
paths, config = LoopPaths.of(Path(sys.argv[1]), "x"), json.loads(sys.argv[2])
made = None
for order in sys.stdin:
    if order.strip() == "start":
        try:
            made = create.create(paths, config, "the task", None)
            print("made", flush=True)
        except AlreadyRunning:
            print("refused", flush=True)
    elif made is not None:
        assert paths.task.read_text() == "the task" and paths.config.is_file()
        made.undo()
        made.lock.release()
        made = None
        print("undone", flush=True)
    else:
        print("nothing", flush=True)
"""


@times(quick=50, full=1000)
def test_row_20_of_twelve_that_make_one_folder_exactly_one_does(tmp_path: Path, count: int, figure: Note) -> None:
    """The same without the interpreter's start, which lets the twelve meet in the same instant."""
    command = [sys.executable, "-c", STARTER, str(tmp_path), json.dumps(config())]
    starters = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(AT_ONCE)
    ]

    def all_of_them(order: str) -> list[str]:
        for starter in starters:
            assert starter.stdin is not None
            starter.stdin.write(f"{order}\n")
            starter.stdin.flush()
        return sorted(starter.stdout.readline().strip() for starter in starters if starter.stdout is not None)

    try:
        for _ in range(count):
            assert all_of_them("start") == ["made"] + ["refused"] * (AT_ONCE - 1)
            assert all_of_them("undo") == ["nothing"] * (AT_ONCE - 1) + ["undone"]
            assert not (tmp_path / ".ralph" / "x").exists()
    finally:
        for starter in starters:
            starter.communicate(timeout=60)
    figure(f"{count} rounds of {AT_ONCE}: 1 folder made in each, none left half-made")


@times(quick=10, full=200)
def test_row_20_of_twelve_that_want_the_lock_exactly_one_gets_it(tmp_path: Path, count: int) -> None:
    for turn in range(count):
        path = tmp_path / f"lock-{turn}"
        start = threading.Barrier(AT_ONCE)
        won: list[Lock] = []

        def compete(path: Path = path, start: threading.Barrier = start, won: list[Lock] = won) -> None:
            start.wait()
            if lock := locks.acquire(path, patience_s=0.02):
                won.append(lock)

        threads = [threading.Thread(target=compete) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        won[0].release()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def earlier_run(folder: Path, status: str) -> LoopPaths:
    paths = forged.loop(folder, "x", status=status)
    paths.task.write_text("a task")
    forged.write_log(paths, [{"type": "a"}])
    forged.write_record(paths, 1, 0, 12)
    paths.runner_lock.touch()
    return paths


def test_row_20_a_start_that_is_refused_under_the_lock_takes_nothing_away(tmp_path: Path) -> None:
    """The loop that it finds there came, and crashed, after the first look."""
    paths = earlier_run(tmp_path, "running")
    before = contents(paths.dir)
    with pytest.raises(UsageError, match="has not ended"):
        create.create(paths, config(), "another task", None)
    assert contents(paths.dir) == before and not locks.is_held(paths.runner_lock)


def test_row_20_a_start_that_cannot_archive_the_earlier_run_puts_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = earlier_run(tmp_path, "stopped")
    before = contents(paths.dir)

    real = atomic.write_atomic

    def full(path: Path, *more: Any, **how: Any) -> None:
        if ".archive" in path.parts:
            raise OSError(28, "No space left on device")
        real(path, *more, **how)

    monkeypatch.setattr("ralph_rpc.loops.create.write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        create.create(paths, config(), "another task", None)
    assert contents(paths.dir) == before and not list((tmp_path / ".ralph" / ".archive").iterdir())


def test_row_20_a_start_that_meets_the_winners_archiving_is_told_that_it_runs(tmp_path: Path) -> None:
    """state.json is gone for an instant then; no start may take that for a loop that is broken."""
    paths = earlier_run(tmp_path, "stopped")
    create.check_startable(paths)
    paths.state.unlink()
    create.check_startable(paths)
    paths.state.write_text(json.dumps(forged.state(paths, alive=True, status="starting")))
    with pytest.raises(AlreadyRunning):
        create.check_startable(paths)
