"""One holder at a time, for as long as any copy of the lock is open, on one inode."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ralph_rpc.machine import locks
from ralph_rpc.machine.locks import Lock
from tests.process.trees import until


def taken(path: Path) -> Lock:
    lock = locks.acquire(path)
    assert lock
    return lock


def test_a_second_acquire_gets_nothing_until_the_first_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with taken(path) as lock:
        assert locks.acquire(path, patience_s=0) is None
        assert locks.is_held(path)
        assert lock.is_intact()
    assert not locks.is_held(path)
    taken(path).release()
    assert path.exists()


def test_a_viewer_that_keeps_looking_does_not_keep_a_starter_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            locks.is_held(path)

    viewer = threading.Thread(target=look)
    viewer.start()
    try:
        for _ in range(50):
            taken(path).release()
    finally:
        done.set()
        viewer.join()


def test_a_lock_file_is_the_owners_alone_and_not_inherited_unasked(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with taken(tmp_path / "lock") as lock:
            assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
            assert not os.get_inheritable(lock.fd)
    finally:
        os.umask(old)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        locks.acquire(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


def test_a_fifo_in_the_place_of_a_lock_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    assert not locks.is_held(tmp_path / "lock")


def test_a_missing_lock_is_free(tmp_path: Path) -> None:
    assert not locks.is_held(tmp_path / "lock")
    assert not locks.is_held(tmp_path / "no folder" / "lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_outlives_its_owner_in_a_child_that_inherited_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = taken(path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.fd]) as heir:
        lock.release()
        assert locks.is_held(path)
        assert locks.acquire(path, patience_s=0) is None
        heir.kill()
        heir.wait()
        assert not locks.is_held(path)


def test_releasing_twice_harms_nobody(tmp_path: Path) -> None:
    lock = taken(tmp_path / "lock")
    lock.release()
    with taken(tmp_path / "other") as other:
        lock.release()
        assert other.is_intact() and locks.is_held(tmp_path / "other")
    assert not lock.is_intact()


ADOPT = """
import sys
from pathlib import Path
from ralph_rpc.machine import locks
lock = locks.adopt(int(sys.argv[1]), Path(sys.argv[2]))
print(lock.is_intact(), flush=True)
sys.stdin.read()
"""


def test_a_child_adopts_the_lock_it_inherited(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = taken(path)
    argv = [sys.executable, "-c", ADOPT, str(lock.fd), str(path)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lock.fd], env=env) as heir:
        assert heir.stdout and heir.stdin
        assert heir.stdout.readline() == b"True\n"
        lock.release()
        assert locks.is_held(path)
        heir.stdin.close()
        heir.wait()
    until(lambda: not locks.is_held(path), "it is free")


def test_adopting_refuses_an_fd_on_another_file_or_without_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with taken(path), (tmp_path / "other").open("w") as other, path.open() as same:
        with pytest.raises(OSError, match="not on this file"):
            locks.adopt(other.fileno(), path)
        with pytest.raises(OSError, match="another process"):
            locks.adopt(same.fileno(), path)
