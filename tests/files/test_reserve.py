"""Room that is kept for bad times, and who may use it."""

import errno
import os
import resource
from pathlib import Path

import pytest

from ralph_rpc.files import reserve
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.reserve import SIZE, Reserve, lacks_room
from ralph_rpc.machine import nofollow

BIG = 1 << 30


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / ".reserve"


class Disk:
    """os.write on a disk with so much room; what a reserve gives up is room again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        self.room = BIG
        self._write, self._unlink, self._place = os.write, nofollow.unlink, place
        self._ftruncate = os.ftruncate
        monkeypatch.setattr(os, "write", self._limited)
        monkeypatch.setattr(os, "ftruncate", self._cut)
        monkeypatch.setattr(nofollow, "unlink", lambda path, missing_ok=False: self._freed(path, missing_ok))

    def _limited(self, fd: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(fd, bytes(data)[: self.room])
        self.room -= written
        return written

    def _cut(self, fd: int, size: int) -> None:
        self.room += os.fstat(fd).st_size - size
        self._ftruncate(fd, size)

    def _freed(self, path: Path, missing_ok: bool) -> None:
        if path == self._place and path.exists():
            self.room += path.stat().st_size
        self._unlink(path, missing_ok=missing_ok)


def test_it_takes_room_once_and_gives_it_once(place: Path) -> None:
    kept = Reserve(place)
    assert kept.take() and kept.take()
    assert place.stat().st_size == SIZE and place.stat().st_blocks * 512 >= SIZE
    assert place.stat().st_mode & 0o777 == 0o600
    assert kept.give()
    assert not place.exists()
    assert not kept.give()


def test_a_file_that_a_dead_runner_left_is_used(place: Path) -> None:
    assert Reserve(place).take()
    kept = Reserve(place)
    assert kept.take() and place.stat().st_size == SIZE
    kept.give()
    assert not place.exists()


def test_the_last_room_of_a_disk_is_not_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, place)
    disk.room = 2 * SIZE - 1
    assert not Reserve(place).take()
    assert not place.exists()
    assert disk.room == 2 * SIZE - 1


def test_what_is_no_lack_of_room_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ".reserve").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="links are not followed"):
        Reserve(tmp_path / ".reserve").take()


def test_where_the_folder_is_gone_there_is_nothing_to_hold(tmp_path: Path) -> None:
    assert Reserve(tmp_path / "gone" / ".reserve").take()


def test_a_limit_on_the_size_of_files_counts_as_a_lack_of_room(place: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        assert not Reserve(place).take()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not place.exists()


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT])
def test_failures_that_time_does_not_mend(code: int) -> None:
    assert not lacks_room(OSError(code, "x"))


def test_the_runners_own_events_use_it_and_pis_lines_do_not(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, place)
    log = EventLog.open(tmp_path / "events.jsonl", limit=BIG, keep=3, reserve=Reserve(place))
    log.append(b'{"n":1}\n')
    disk.room = 0
    with pytest.raises(OSError, match="No space"):
        log.append(b'{"n":2}\n')
    assert disk.room == reserve.SIZE
    with pytest.raises(OSError, match="No space"):
        log.append(b'{"n":2}\n')
    log.append_event({"n": 3})
    assert disk.room < reserve.SIZE
    disk.room = 2 * SIZE
    log.append(b'{"n":2}\n')
    assert place.stat().st_size == SIZE
    log.close()
    assert (tmp_path / "events.jsonl").read_bytes() == b'{"n":1}\n{"n":3}\n{"n":2}\n'


def test_an_event_of_the_runners_own_is_the_first_to_need_it(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, place)
    kept = Reserve(place)
    assert kept.take()
    log = EventLog.open(tmp_path / "events.jsonl", limit=BIG, keep=3, reserve=kept)
    disk.room = 3
    log.append_event({"n": 1})
    assert (tmp_path / "events.jsonl").read_bytes() == b'{"n":1}\n'
    assert not place.exists()
    log.close()
