"""The writer of events.jsonl: cut at every byte, killed at every step, with a full disk."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from ralph_rpc.files.eventlog import TORN_KEPT, EventLog
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.machine import nofollow
from tests.files.crash import deaths, dies

BIG = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def line(n: int, pad: int = 0) -> bytes:
    return orjson.dumps({"type": "message_update", "n": n, "pad": "x" * pad}) + b"\n"


def read_all(path: Path) -> list[dict[str, Any]]:
    """Every event that is kept; checks that the offsets hang together and that nothing is missing."""
    reader = EventReader.at_start(path)
    events = []
    before = reader.offset
    while lines := reader.read(1000):
        for offset, raw in lines:
            assert offset == before + len(raw) + 1
            before = offset
            events.append(orjson.loads(raw))
    assert reader.missed == 0
    reader.close()
    return events


def numbers(path: Path) -> list[int]:
    return [event["n"] for event in read_all(path) if "n" in event]


def write(path: Path, ns: range, *, limit: int = BIG, keep: int = 3) -> None:
    log = EventLog.open(path, limit=limit, keep=keep)
    for n in ns:
        log.append(line(n))
    log.close()


def test_offsets_count_bytes_and_survive_a_new_writer(path: Path) -> None:
    log = EventLog.open(path, limit=BIG, keep=3)
    assert log.offset == 0
    assert log.append(line(0) + line(1)) == len(line(0) + line(1))
    after = log.append_event({"type": "ralph_notice"})
    assert after == log.offset == path.stat().st_size
    log.close()
    log.close()
    log = EventLog.open(path, limit=BIG, keep=3)
    assert log.offset == after
    log.close()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_log_and_its_rotated_files_are_private_under_any_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(path, range(20), limit=100)
    finally:
        os.umask(before)
    files = list(path.parent.iterdir())
    assert len(files) == 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_bytes_that_are_no_utf8_are_kept_readable(path: Path) -> None:
    path.write_bytes(b"caf\xe9 \xf0\x9f")
    write(path, range(1))
    assert read_all(path)[0] == {"type": "ralph_unparsed", "raw": "caf\ufffd \ufffd"}


def test_of_a_giant_torn_line_only_the_beginning_is_kept(path: Path) -> None:
    path.write_bytes(line(0) + b"a" * (TORN_KEPT * 3))
    write(path, range(1, 2))
    assert numbers(path) == [0, 1]
    assert read_all(path)[1]["raw"] == "a" * TORN_KEPT


def test_a_death_at_any_step_of_a_repair_loses_no_whole_line(path: Path) -> None:
    def prepare() -> None:
        path.write_bytes(line(0) + b'{"torn')

    died = 0
    for _ in deaths(lambda: write(path, range(1, 2)), prepare):
        died += 1
        write(path, range(2, 3))
        assert numbers(path) in ([0, 2], [0, 1, 2])
    assert died > 2


def test_rotation_keeps_the_newest_files_and_one_count_of_bytes(path: Path) -> None:
    log = EventLog.open(path, limit=300, keep=3)
    offsets = {}
    for n in range(60):
        offsets[log.append(line(n))] = n
    log.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, *(f"{path.name}.{i}" for i in (1, 2, 3))]
    reader = EventReader.at_start(path)
    kept = []
    while lines := reader.read():
        for offset, raw in lines:
            event = orjson.loads(raw)
            if "n" in event:
                assert offsets[offset] == event["n"]
                kept.append(event["n"])
            else:
                assert event["type"] == "ralph_log_open"
                assert event["base"] == offset - len(raw) - 1
    assert kept == list(range(kept[0], 60))
    assert kept[0] > 0
    reader.close()


def test_without_rotated_files_only_the_current_one_stays(path: Path) -> None:
    write(path, range(50), limit=200, keep=0)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    write(path, range(50, 51), limit=200, keep=0)
    assert numbers(path)[-1] == 50
    assert read_all(path)[0]["base"] > 0


def test_files_beyond_a_smaller_keep_go_with_the_next_rotation(path: Path) -> None:
    write(path, range(100), limit=200, keep=8)
    assert len(list(path.parent.iterdir())) == 9
    write(path, range(100, 120), limit=200, keep=2)
    assert len(list(path.parent.iterdir())) == 3
    assert numbers(path)[-1] == 119


@pytest.mark.slow
@pytest.mark.parametrize("before", [4, 30])
def test_a_death_at_any_step_of_a_rotation_is_repaired(path: Path, before: int) -> None:
    """Also when the repair dies, at each of its own steps; 30 lines fill every number, 4 the first two."""

    def prepare() -> None:
        for file in path.parent.iterdir():
            file.unlink()
        write(path, range(before), limit=120, keep=3)

    last = 0
    for k in deaths(lambda: write(path, range(before, before + 6), limit=120, keep=3), prepare):
        last = k
        for j in range(0, 30, 4):
            if not dies(lambda: write(path, range(0), limit=120, keep=3), j):
                break
        write(path, range(1000, 1001), limit=120, keep=3)
        found = numbers(path)
        assert found[-1] == 1000
        # What stands is one unbroken piece of what was written.
        assert found[:-1] == list(range(found[0], found[-2] + 1))
        assert found[-2] >= before - 1
        assert sorted(f.name for f in path.parent.iterdir() if f.name.startswith(".")) == []
    assert last > 20


def test_a_rotation_that_fails_half_way_is_done_by_the_next_append(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog.open(path, limit=10, keep=3)
    log.append(line(0))

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(nofollow, "rename", broken)
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output"):
                log.append(line(1))
    log.append(line(1))
    log.append(line(2))
    log.close()
    assert numbers(path) == [0, 1, 2]


def test_a_long_line_is_streamed_and_an_event_of_the_other_thread_follows_it(path: Path) -> None:
    log = EventLog.open(path, limit=BIG, keep=3)
    log.append(line(0))
    log.begin_line()
    log.extend(b'{"n":1,"text":"')
    before = log.offset
    other = threading.Thread(target=lambda: log.append_event({"n": 2}))
    other.start()
    other.join(timeout=60)
    assert not other.is_alive(), "the other thread waited for the line"
    for _ in range(100):
        log.extend(b"x" * 10_000)
    assert log.offset == before == len(line(0))
    end = log.end_line(b'"}\n')
    assert end == len(line(0)) + 1_000_018
    assert log.append(line(3)) == path.stat().st_size
    log.close()
    assert numbers(path) == [0, 1, 2, 3]


def test_whole_lines_are_refused_while_a_long_line_is_open(path: Path) -> None:
    log = EventLog.open(path, limit=BIG, keep=3)
    log.begin_line()
    with pytest.raises(RuntimeError):
        log.append(line(1))
    with pytest.raises(RuntimeError):
        log.begin_line()
    log.close()
    assert path.read_bytes() == b""


def test_a_long_line_starts_in_a_new_file_where_it_is_time(path: Path) -> None:
    log = EventLog.open(path, limit=50, keep=3)
    log.append(line(0, pad=60))
    log.begin_line()
    log.end_line(line(1))
    log.close()
    assert numbers(path) == [0, 1]
    assert path.with_name("events.jsonl.1").read_bytes() == line(0, pad=60)


def test_an_abandoned_line_is_kept_as_unparsed_before_what_followed_it(path: Path) -> None:
    log = EventLog.open(path, limit=BIG, keep=3)
    log.append(line(0))
    log.begin_line()
    log.extend(b'{"type":"tool')
    log.append_event({"n": 1})
    log.abandon_line()
    log.abandon_line()
    log.append(line(2))
    log.close()
    assert [e.get("raw", e.get("n")) for e in read_all(path)] == [0, '{"type":"tool', 1, 2]


def test_a_death_within_a_long_line_leaves_whole_lines(path: Path) -> None:
    def stream() -> None:
        log = EventLog.open(path, limit=BIG, keep=3)
        log.append(line(0))
        log.begin_line()
        for _ in range(3):
            log.extend(b'{"a')
        log.end_line(b'":1}\n')

    for _ in deaths(stream, lambda: path.unlink(missing_ok=True)):
        write(path, range(5, 6))
        assert [e["n"] for e in read_all(path) if "n" in e] in ([5], [0, 5])


class Disk:
    """os.write on a disk with so much room: takes what fits and then says ENOSPC, as a real one does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOSPC) -> None:
        self.room = BIG
        self._code = code
        self._write = os.write
        monkeypatch.setattr(os, "write", self._limited)

    def _limited(self, fd: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(self._code, os.strerror(self._code))
        written = self._write(fd, bytes(data)[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_whole_lines_only_at_every_size(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    disk = Disk(monkeypatch, code)
    for room in range(len(line(1)) + len(line(2))):
        path.unlink(missing_ok=True)
        log = EventLog.open(path, limit=BIG, keep=3)
        log.append(line(0))
        disk.room = room
        with pytest.raises(OSError):
            log.append(line(1) + line(2))
        assert path.read_bytes() == line(0)
        assert log.offset == len(line(0))
        disk.room = BIG
        log.append(line(1) + line(2))
        log.close()
        assert numbers(path) == [0, 1, 2]


def test_events_of_the_runner_wait_for_room_and_come_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    log = EventLog.open(path, limit=BIG, keep=3)
    log.append(line(0))
    disk.room = 3
    assert log.append_event({"n": 1}) == len(line(0))
    assert log.append_event({"n": 2}) == len(line(0))
    with pytest.raises(OSError, match="No space"):
        log.append(line(3))
    with pytest.raises(OSError, match="No space"):
        log.begin_line()
    disk.room = BIG
    log.append(line(3))
    log.close()
    assert numbers(path) == [0, 1, 2, 3]


def test_another_error_of_the_disk_is_raised_and_its_event_is_not_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, errno.EIO)
    log = EventLog.open(path, limit=BIG, keep=3)
    disk.room = 2
    with pytest.raises(OSError, match="Input/output"):
        log.append_event({"n": 1})
    disk.room = BIG
    log.append_event({"n": 2})
    log.close()
    assert numbers(path) == [2]


def test_a_piece_of_a_long_line_can_be_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    log = EventLog.open(path, limit=BIG, keep=3)
    log.begin_line()
    log.extend(b'{"n":1,"t":"')
    disk.room = 4
    with pytest.raises(OSError, match="No space"):
        log.extend(b"abcdefgh")
    disk.room = BIG
    log.extend(b"abcdefgh")
    disk.room = 1
    with pytest.raises(OSError, match="No space"):
        log.end_line(b'"}\n')
    disk.room = BIG
    log.end_line(b'"}\n')
    log.close()
    assert read_all(path) == [{"n": 1, "t": "abcdefgh"}]


def test_a_full_disk_stops_no_rotation_for_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    log = EventLog.open(path, limit=100, keep=3)
    log.append(line(0, pad=100))
    for room in range(0, 100, 7):
        disk.room = room
        with pytest.raises(OSError, match="No space"):
            log.append(line(1, pad=100))
    disk.room = BIG
    log.append(line(1))
    log.close()
    assert numbers(path) == [0, 1]


def test_a_real_limit_on_the_file_leaves_whole_lines(path: Path) -> None:
    script = """
import resource
import sys
from pathlib import Path
from ralph_rpc.files.eventlog import EventLog
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
log = EventLog.open(Path(sys.argv[1]), limit=1 << 30, keep=3)
try:
    for n in range(10000):
        log.append(b'{"n":%d,"pad":"%s"}\\n' % (n, b"x" * 90))
except OSError as error:
    sys.exit(error.errno)
"""
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == errno.EFBIG
    assert 9_800 < path.stat().st_size <= 10_000
    found = numbers(path)
    assert found == list(range(len(found)))


def test_two_threads_never_mix_their_lines(path: Path) -> None:
    log = EventLog.open(path, limit=20_000, keep=1000)

    def pi() -> None:
        for n in range(3000):
            if n % 50:
                log.append(line(n, pad=n % 300))
            else:
                log.begin_line()
                log.extend(line(n)[:9])
                log.end_line(line(n)[9:])

    def runner() -> None:
        for n in range(3000):
            log.append_event({"own": n})
            log.sync() if n % 100 == 0 else None

    threads = [threading.Thread(target=pi), threading.Thread(target=runner)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    events = read_all(path)
    assert [e["n"] for e in events if "n" in e] == list(range(3000))
    assert [e["own"] for e in events if "own" in e] == list(range(3000))


def test_a_log_that_is_a_link_is_refused(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(OSError):
        EventLog.open(path, limit=BIG, keep=3)
    assert not path.with_name("elsewhere").exists()
