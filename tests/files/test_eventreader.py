"""Reading the log while it is written, rotated and repaired."""

import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.eventreader import EventReader
from tests.effort import examples

BIG = 1 << 30
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def reader(path: Path) -> Iterator[EventReader]:
    reader = EventReader.at_start(path)
    yield reader
    reader.close()


def line(n: int) -> bytes:
    return b'{"n":%d}\n' % n


def ns(lines: list[tuple[int, bytes]]) -> list[int]:
    return [event["n"] for _, raw in lines if "n" in (event := orjson.loads(raw))]


def drain(reader: EventReader, max_bytes: int = 1 << 16) -> list[int]:
    found = []
    while lines := reader.read(max_bytes):
        found += ns(lines)
    return found


def test_a_reader_may_come_before_the_log(path: Path, reader: EventReader) -> None:
    assert reader.read() == []
    log = EventLog.open(path, limit=BIG, keep=1)
    assert reader.read() == []
    log.append(line(0) + line(1))
    assert reader.read() == [(8, b'{"n":0}'), (16, b'{"n":1}')]
    assert reader.offset == 16
    log.close()


def test_an_unterminated_last_line_is_not_an_event(path: Path, reader: EventReader) -> None:
    whole = line(0) + line(1)
    got = []
    for size in range(len(whole) + 1):
        path.write_bytes(b"")
        with path.open("r+b") as file:
            file.write(whole[:size])
        got += ns(reader.read())
        assert len(got) == whole[:size].count(b"\n")
    assert got == [0, 1]


@pytest.mark.parametrize("max_bytes", [1, 2, 7, 8, 9, 64])
def test_lines_come_whole_whatever_the_block(path: Path, reader: EventReader, max_bytes: int) -> None:
    log = EventLog.open(path, limit=BIG, keep=1)
    log.append(b"".join(line(n) for n in range(200)))
    log.close()
    assert drain(reader, max_bytes) == list(range(200))


def test_a_line_of_many_megabytes_is_given_once_it_is_whole(path: Path, reader: EventReader) -> None:
    log = EventLog.open(path, limit=BIG, keep=1)
    log.begin_line()
    log.extend(b'{"n":7,"t":"')
    for _ in range(40):
        log.extend(b"x" * 500_000)
        assert reader.read() == []
    log.end_line(b'"}\n')
    log.append(line(8))
    (offset, raw), *_ = first = reader.read()
    assert len(raw) == offset - 1 == 20_000_014
    assert ns(first) + drain(reader) == [7, 8]
    log.close()


def test_a_long_line_that_is_abandoned_is_never_joined_to_what_follows(path: Path, reader: EventReader) -> None:
    log = EventLog.open(path, limit=BIG, keep=1)
    log.append(line(0))
    log.begin_line()
    log.extend(b"x" * 3_000_000)
    assert drain(reader) == [0]
    log.abandon_line()
    log.append(b"".join(line(n) for n in range(1, 300_000)))
    lines = []
    while more := reader.read():
        lines += more
    assert orjson.loads(lines[0][1])["type"] == "ralph_unparsed"
    assert ns(lines[1:]) == list(range(1, 300_000))
    log.close()


def test_a_line_is_given_while_another_long_one_is_unfinished_behind_it(path: Path, reader: EventReader) -> None:
    log = EventLog.open(path, limit=BIG, keep=1)
    log.begin_line()
    log.extend(b"x" * 5000)
    assert reader.read(1000) == []
    log.abandon_line()
    assert len(reader.read(1000)) == 1
    log.append(b'{"n":1,"pad":"' + b"x" * 2000 + b'"}\n')
    log.begin_line()
    log.extend(b"x" * 4000)
    assert ns(reader.read(1000)) == [1]
    log.close()


def test_a_long_line_that_a_repair_took_away_hides_nothing(path: Path, reader: EventReader) -> None:
    path.write_bytes(line(0) + b"\0" * 5000)
    assert drain(reader, 1000) == [0]
    log = EventLog.open(path, limit=BIG, keep=1)
    log.append(b'{"n":1,"pad":"' + b"x" * 2000 + b'"}\n')
    assert drain(reader, 1000) == [1]
    log.close()


def test_a_log_whose_newest_file_is_still_empty_is_read_from_the_others(path: Path) -> None:
    log = EventLog.open(path, limit=100, keep=50)
    for n in range(100):
        log.append(line(n))
    log.close()
    path.rename(path.with_name("events.jsonl.0"))
    path.touch()
    reader = EventReader.at_end(path, 3)
    last = drain(reader)
    assert len(last) > 1
    log = EventLog.open(path, limit=100, keep=50)
    log.append(line(100))
    log.close()
    assert drain(reader) == [100]
    reader.close()


def test_dropped_files_are_counted_to_the_byte(path: Path, reader: EventReader) -> None:
    log = EventLog.open(path, limit=1000, keep=2)
    log.append(line(0))
    seen = 0
    while lines := reader.read():
        seen += sum(len(raw) + 1 for _, raw in lines)
    for n in range(1, 2000):
        log.append(line(n))
    got = []
    while lines := reader.read():
        seen += sum(len(raw) + 1 for _, raw in lines)
        got += ns(lines)
    # Its own file was still to be had; after that comes the oldest that is kept.
    gap = next(i for i in range(1, len(got)) if got[i] != got[i - 1] + 1)
    assert got == [*range(1, got[gap - 1] + 1), *range(got[gap], 2000)]
    assert reader.missed > 0
    assert seen + reader.missed == log.offset == reader.offset
    log.close()


WRITER = """
import sys
from pathlib import Path
from ralph_rpc.files.eventlog import EventLog
log = EventLog.open(Path(sys.argv[1]), limit=20_000, keep=10_000)
for n in range(int(sys.argv[2])):
    if n % 1000 == 0:
        log.begin_line()
        log.extend(b'{"n":%d,"t":"' % n)
        log.extend(b"y" * 100_000)
        log.end_line(b'"}\\n')
    else:
        log.append(b'{"n":%d}\\n' % n)
log.close()
"""


def test_a_reader_started_at_any_offset_goes_on_from_that_line(path: Path) -> None:
    log = EventLog.open(path, limit=200, keep=100)
    ends = [log.append(line(n)) for n in range(100)]
    log.close()
    for n, end in enumerate(ends):
        for offset in (end, end - 1 + len(line(n + 1)) if n < 99 else end):
            reader = EventReader.at(path, offset)
            assert drain(reader) == list(range(n + 1, 100))
            assert reader.missed == 0
            reader.close()


def test_an_offset_beyond_the_end_waits_there_and_one_that_was_dropped_is_counted(path: Path) -> None:
    log = EventLog.open(path, limit=200, keep=2)
    for n in range(100):
        log.append(line(n))
    ahead = EventReader.at(path, log.offset + 10_000)
    assert ahead.read() == []
    behind = EventReader.at(path, 8)
    assert behind.missed == behind.offset - 8 > 0
    log.append(line(100))
    assert drain(ahead) == [100]
    assert drain(behind)[-1] == 100
    ahead.close()
    behind.close()
    log.close()


@settings(max_examples=examples(60))
@given(lines=st.integers(0, 130), limit=st.sampled_from([100, 300, BIG]), torn=st.booleans())
def test_the_last_lines_are_found_across_files(
    tmp_path_factory: pytest.TempPathFactory, lines: int, limit: int, torn: bool
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    log = EventLog.open(path, limit=limit, keep=200)
    for n in range(60):
        log.append(line(n))
    log.close()
    everything = EventReader.at_start(path)
    whole = []
    while more := everything.read():
        whole += more
    everything.close()
    if torn:
        with path.open("ab") as file:
            file.write(b'{"torn')
    reader = EventReader.at_end(path, lines)
    got = []
    while more := reader.read():
        got += more
    reader.close()
    assert got == (whole[-lines:] if lines else [])


def test_the_end_of_a_huge_log_is_read_from_its_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("wb") as file:
        file.truncate(5 << 30)  # a hole: takes no space
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(line(n) for n in range(1000)))
    read = 0
    real = os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        nonlocal read
        data = real(fd, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    reader = EventReader.at_end(path, 200)
    assert drain(reader) == list(range(800, 1000))
    reader.close()
    assert read < 300_000


def test_a_log_that_is_replaced_by_a_new_one_is_read_from_its_start(path: Path, reader: EventReader) -> None:
    path.write_bytes(b"".join(line(n) for n in range(10)))
    assert drain(reader) == list(range(10))
    path.unlink()
    assert reader.read() == []
    path.write_bytes(line(100))
    assert drain(reader) == [100]
    assert reader.missed == 0


def test_a_power_loss_within_a_rotated_file_is_a_counted_gap(path: Path, reader: EventReader) -> None:
    log = EventLog.open(path, limit=100, keep=5)
    for n in range(20):
        log.append(line(n))
    log.close()
    older = path.with_name("events.jsonl.1")
    os.truncate(older, older.stat().st_size - 3)
    got = drain(reader)
    assert len(got) == 19
    assert reader.missed == len(line(19))
