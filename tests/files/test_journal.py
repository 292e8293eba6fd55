"""commands.jsonl: cut at every byte, killed at every step, compacted."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.files.journal import COMPACT_ABOVE, REMEMBERED, CommandJournal, OpenCommand
from ralph_rpc.model.commands import JournalLine, JournalState
from tests.files.crash import deaths


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "commands.jsonl"


def received(id: str, message: str = "m") -> JournalLine:
    return {
        "at": 1,
        "id": id,
        "command": "steer",
        "state": "received",
        "body": {"message": message},
        "file": f".claimed-{id}",
    }


def step(id: str, state: JournalState) -> JournalLine:
    return {"at": 2, "id": id, "command": "steer", "state": state}


def write(path: Path, *lines: JournalLine) -> None:
    journal = CommandJournal.open(path)
    for line in lines:
        journal.append(line, durable=False)
    journal.close()


def open_ids(path: Path) -> list[str]:
    journal = CommandJournal.open(path)
    journal.close()
    return [command.id for command in journal.open_commands()]


def test_open_commands_are_those_that_have_not_ended_in_order_of_receipt(path: Path) -> None:
    journal = CommandJournal.open(path)
    for id in "abcdef":
        journal.append(received(id), durable=True)
    journal.append(step("b", "sent"), durable=True)
    journal.append(step("c", "sent"), durable=True)
    journal.append(step("c", "queued"), durable=False)
    journal.append(step("a", "delivered"), durable=True)
    journal.append(step("d", "rejected"), durable=True)
    journal.append(step("e", "expired"), durable=True)
    expected = [
        OpenCommand("b", "steer", {"message": "m"}, sent=True),
        OpenCommand("c", "steer", {"message": "m"}, sent=True),
        OpenCommand("f", "steer", {"message": "m"}, sent=False),
    ]
    assert journal.open_commands() == expected
    journal.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = CommandJournal.open(path)
    assert again.open_commands() == expected
    assert all(again.knows(id) and again.knows_file(f".claimed-{id}") for id in "abcdef")
    assert not again.knows("g") and not again.knows_file("a")
    again.close()


def test_a_journal_of_0_1_that_says_accepted_is_read_as_queued(path: Path) -> None:
    write(path, {**received("a"), "body": {"message": "m" * COMPACT_ABOVE}}, step("a", "queued"))
    path.write_bytes(path.read_bytes().replace(b'"queued"', b'"accepted"'))
    journal = CommandJournal.open(path)
    assert [command.sent for command in journal.open_commands()] == [True]
    journal.close()
    written = path.read_bytes()  # anew, for its size
    assert b'"queued"' in written and b'"accepted"' not in written


def test_a_command_received_again_after_its_end_stays_ended(path: Path) -> None:
    write(path, received("a"), step("a", "delivered"), received("a"))
    assert open_ids(path) == []


def test_a_torn_tail_is_cut_before_anything_is_appended(path: Path) -> None:
    write(path, received("a"), received("b", "long " * 10))
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        for tail in (b"", b"\0" * 7):
            path.write_bytes(whole[:cut] + tail)
            write(path, received("c"))
            assert open_ids(path) == [*"ab"[: whole[:cut].count(b"\n")], "c"]
            assert path.read_bytes().count(b"\n") == whole[:cut].count(b"\n") + 1


@pytest.mark.parametrize("damage", [b"\0\0\0\n", b"null\n", b"[1]\n", b"{}\n", b'{"id":1}\n', b"\xff\n", b"\n"])
def test_a_damaged_line_hides_no_other(path: Path, damage: bytes) -> None:
    write(path, received("a"))
    with path.open("ab") as file:
        file.write(damage)
    write(path, received("b"))
    assert open_ids(path) == ["a", "b"]


@pytest.mark.parametrize("fails", ["write", "fdatasync"])
def test_a_step_that_could_not_be_written_is_neither_in_the_file_nor_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    journal = CommandJournal.open(path)
    journal.append(received("a"), durable=True)
    before = path.read_bytes()
    real = os.write

    def failing(fd: int, data: bytes = b"") -> int:
        if data and len(data) > 5:
            return real(fd, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, failing)
        with pytest.raises(OSError, match="No space"):
            journal.append(received("b"), durable=True)
    assert path.read_bytes() == before
    assert not journal.knows("b") and not journal.knows_file(".claimed-b")
    journal.append(received("b"), durable=True)
    journal.close()
    assert open_ids(path) == ["a", "b"]


def test_one_sync_makes_all_before_it_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    journal = CommandJournal.open(path)
    journal.sync(2)
    journal.append(received("a"), durable=False)
    journal.append(received("b"), durable=False)
    assert synced == []
    journal.append(step("a", "sent"), durable=True)
    journal.sync(2)
    assert synced == [path.stat().st_size]
    journal.append(received("c"), durable=False)
    journal.sync(2)
    journal.sync(2)
    assert synced == [synced[0], path.stat().st_size]
    journal.close()


@pytest.mark.parametrize("again", ["append", "sync"])
def test_what_a_failed_sync_may_have_lost_is_written_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """A second sync that succeeds proves nothing of what the first one has dropped (fsync(2))."""
    journal = CommandJournal.open(path)
    journal.append(received("a"), durable=False)

    def failing(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(OSError, match="No space"):
            if again == "append":
                journal.append(step("a", "sent"), durable=True)
            else:
                journal.sync(2)
    before = path.stat().st_ino
    if again == "append":
        journal.append(step("a", "sent"), durable=True)
    else:
        journal.sync(2)
    assert path.stat().st_ino != before
    journal.close()
    journal = CommandJournal.open(path)
    assert journal.open_commands() == [OpenCommand("a", "steer", {"message": "m"}, sent=again == "append")]
    journal.close()


def fill(path: Path) -> None:
    """Over the limit: 3 open commands among 4 x REMEMBERED that were delivered."""
    lines = [received("open-1")]
    filler = "x" * (COMPACT_ABOVE // (4 * REMEMBERED))
    for n in range(4 * REMEMBERED):
        id = f"{n:05}"
        lines += [received(id, filler), step(id, "sent"), step(id, "delivered")]
    write(path, *lines, received("open-2"), step("open-2", "sent"), received("open-3"))


def check_compacted(path: Path) -> None:
    journal = CommandJournal.open(path)
    assert [(c.id, c.sent, c.body) for c in journal.open_commands()] == [
        ("open-1", False, {"message": "m"}),
        ("open-2", True, {"message": "m"}),
        ("open-3", False, {"message": "m"}),
    ]
    last = [f"{n:05}" for n in range(3 * REMEMBERED, 4 * REMEMBERED)]
    assert all(journal.knows(id) and journal.knows_file(f".claimed-{id}") for id in last)
    assert not journal.knows("00000")
    journal.close()


def test_a_large_journal_is_compacted_when_it_is_opened(path: Path) -> None:
    fill(path)
    assert path.stat().st_size > COMPACT_ABOVE
    check_compacted(path)
    assert path.stat().st_size < COMPACT_ABOVE // 4
    write(path, step("open-1", "delivered"), received("new"))
    assert open_ids(path) == ["open-2", "open-3", "new"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_death_at_any_step_of_compaction_loses_no_command(path: Path) -> None:
    fill(path)
    large = path.read_bytes()

    def prepare() -> None:
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(large)

    died = 0
    for _ in deaths(lambda: CommandJournal.open(path), prepare):
        died += 1
        check_compacted(path)
    assert died >= 3


def test_a_death_at_any_step_of_an_append_leaves_it_whole_or_absent(path: Path) -> None:
    def work() -> Any:
        journal = CommandJournal.open(path)
        journal.append(received("b"), durable=True)
        journal.append(step("a", "delivered"), durable=True)

    def prepare() -> None:
        path.unlink(missing_ok=True)
        write(path, received("a"))

    for _ in deaths(work, prepare):
        assert open_ids(path) in (["a"], ["a", "b"], ["b"])
