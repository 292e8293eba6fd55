"""The lock's file is deleted or replaced under a running runner: there are never two of them.

A lock is on the file and not on its name. The runner compares both with every heartbeat; until it does, a second
one is kept out by the living process that state.json names.
"""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from ralph_rpc.machine import locks
from tests.conftest import processes_with
from tests.faults.conftest import Note
from tests.faults.tiers import times
from tests.process.trees import is_gone, until
from tests.rig import Rig, fake_rig

starts_processes = pytest.mark.usefixtures("no_leftovers")
HEARTBEAT_S = 5.0
NOTICED_S = HEARTBEAT_S + 10.0


@contextmanager
def viewers(path: Path, number: int = 4) -> Iterator[None]:
    """They look whether the loop lives, all the time."""
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            locks.is_held(path)
            done.wait(0.001)

    threads = [threading.Thread(target=look) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def held_by_another_than_viewers(rig: Rig) -> bool:
    """The runner has the lock again; a viewer's look at it keeps nobody out for long."""
    lock = locks.acquire(rig.paths.runner_lock)
    if lock is not None:
        lock.release()
    return lock is None


def held_again(rig: Rig, often: int) -> bool:
    return rig.paths.log.read_text().count("parts of the loop's folder had been deleted; they were made again") >= often


def runners(rig: Rig) -> list[str]:
    return [c for c in processes_with(f"RALPH_HOME={rig.env['RALPH_HOME']}").values() if "ralph_runner /" in c]


@starts_processes
@times(quick=1, full=20)
def test_row_21_a_lock_file_that_was_deleted_is_held_again_and_nobody_comes_between(
    tmp_path: Path, count: int, figure: Note
) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}]])
    rig.start()
    pids = rig.pids()
    refused = 0
    for turn in range(count):
        rig.paths.runner_lock.unlink()
        if turn % 2 == 0:
            rig.paths.runner_lock.touch()
        with viewers(rig.paths.runner_lock):
            for command in (["start", "x", "--pi", rig.pi, "-m", "another"], ["resume", "x"]):
                rig.run(*command, check=4)
                refused += 1
            assert rig.run("clean", "x", "--yes", check=None).returncode != 0 and rig.paths.state.exists()
            until(partial(held_again, rig, turn + 1), "held again", NOTICED_S)
        assert held_by_another_than_viewers(rig)
        assert rig.pids() == pids and len(runners(rig)) == 1 and len(rig.of("ralph_loop_start")) == 1
    rig.run("stop", "x", "--now")
    assert rig.wait_end()["stopReason"] == "stop"
    figure(f"{count} times deleted or replaced: {refused} starts and resumes refused, held again, 1 runner throughout")


@starts_processes
def test_row_21_a_runner_whose_lock_somebody_else_holds_ends_with_its_tree(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}]])
    rig.start()
    pids = rig.pids()
    rig.paths.runner_lock.unlink()
    lock = locks.acquire(rig.paths.runner_lock)
    assert lock is not None
    with lock:
        until(lambda: all(map(is_gone, pids)), "all three are gone", NOTICED_S)
        state = rig.state()
        assert (state["status"], state["stopReason"]) == ("error", "blocked")
        assert "another runner holds it" in state["error"]
        assert [record["outcome"] for record in rig.records()] == ["aborted"]
    rig.run("resume", "x")
    assert len(runners(rig)) == 1
    rig.run("kill", "x")


def test_row_21_a_lock_whose_file_was_replaced_is_no_longer_intact(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = locks.acquire(path)
    assert lock is not None
    with lock:
        assert lock.is_intact()
        path.unlink()
        assert not lock.is_intact()
        path.touch()
        assert not lock.is_intact()


@pytest.mark.parametrize("often", [1, 5])
def test_row_21_a_file_that_is_replaced_between_open_and_lock_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, often: int
) -> None:
    """A lock on a file that has lost its name would keep nobody out."""
    path, flock, left = tmp_path / "lock", fcntl.flock, [often]

    def replaced_first(fd: int, mode: int) -> None:
        if left[0]:
            left[0] -= 1
            path.unlink()
            path.touch()
        flock(fd, mode)

    monkeypatch.setattr(fcntl, "flock", replaced_first)
    with locks.acquire(path, 5.0) or pytest.fail("not taken") as lock:
        assert lock.is_intact() and left == [0]
        assert locks.acquire(path, 0) is None
