"""Following a log: every line once, until the loop or its runner ends."""

from pathlib import Path

import pytest

from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.story.follow import LogFollower

END = b'{"type":"ralph_loop_end","at":2}'
START = b'{"type":"ralph_loop_start","at":1}'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"")
    return path


def write(log: Path, *lines: bytes) -> None:
    with log.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


def test_without_a_runner_to_ask_the_present_end_is_the_end(log: Path) -> None:
    write(log, START, b'{"n":1}')
    with LogFollower(EventReader.at_start(log), None) as follower:
        batches = list(follower)
    assert [line for batch in batches for _, line in batch] == [START, b'{"n":1}']
    assert batches[-1] == [] and not follower.ended


def test_lines_written_as_the_runner_died_are_read_before_it_ends(log: Path) -> None:
    write(log, START)

    def lives() -> bool:
        write(log, b'{"last":1}')
        return False

    with LogFollower(EventReader.at_start(log), lives) as follower:
        read = [line for batch in follower for _, line in batch]
    assert read == [START, b'{"last":1}'] and not follower.ended


def test_it_waits_for_lines_and_ends_with_the_loop_whatever_ended_before(log: Path) -> None:
    write(log, END, START)
    asked = 0

    def lives() -> bool:
        nonlocal asked
        asked += 1
        write(log, b'{"n":1}', END)
        return True

    with LogFollower(EventReader.at_start(log), lives) as follower:
        read = [line for batch in follower for _, line in batch]
    assert read == [END, START, b'{"n":1}', END] and follower.ended and asked == 1
