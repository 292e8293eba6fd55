"""Both sides of the inbox. What is hostile in it is in tests/faults."""

import errno
import os
import random
import signal
import stat
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from ralph_rpc.errors import UsageError
from ralph_rpc.files.commandfile import MAX_BYTES
from ralph_rpc.files.inbox import Claimed, Inbox, drop
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.machine import nofollow
from ralph_rpc.machine.watch import ARRIVAL, Watch
from ralph_rpc.model.commands import JournalLine
from tests.files.boxes import left, messages, settle
from tests.files.crash import deaths, start
from tests.rig import wait_for


@pytest.fixture
def box(tmp_path: Path) -> Path:
    box = tmp_path / "inbox"
    box.mkdir()
    return box


def test_a_dropped_command_arrives_whole_and_is_gone_when_done(box: Path) -> None:
    id = drop(box, "followup", {"message": "a\nb \u2028", "when": "next"})
    (file,) = box.iterdir()
    assert file.name.startswith("followup-") and file.name.endswith(".json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    inbox = Inbox(box)
    scan = inbox.scan(0.0)
    (claimed,) = scan.commands
    assert (claimed.id, claimed.verb, claimed.body) == (id, "followup", {"message": "a\nb \u2028", "when": "next"})
    assert claimed.path.name == claimed.file == left(box)[0]
    assert claimed.file.startswith(".claimed-")
    assert (scan.rejected, scan.retry) == ([], False)
    inbox.done(claimed)
    inbox.done(claimed)
    assert left(box) == []


def test_a_command_is_offered_again_until_it_is_done(box: Path) -> None:
    drop(box, "steer", {"message": "m"})
    inbox = Inbox(box)
    assert inbox.scan(0.0).commands == inbox.scan(0.1).commands != []


def test_an_id_of_the_clients_own_is_kept(box: Path) -> None:
    assert drop(box, "stop", {"id": "mine"}) == "mine"
    assert Inbox(box).scan(0.0).commands[0].id == "mine"


def test_a_command_without_id_gets_one_that_a_restart_gives_it_too(box: Path) -> None:
    (box / "pause.json").write_text("{}")
    (first,) = Inbox(box).scan(0.0).commands
    (again,) = Inbox(box).scan(0.0).commands
    assert first._replace(origin=None) == again
    assert first.id


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("steer", {}),
        ("steer", {"message": " "}),
        ("stop", {"when": "later"}),
        ("steer", {"message": "\udcff"}),
        ("steer", {"message": "x" * MAX_BYTES}),
        ("pause", {"id": "a/b"}),
    ],
)
def test_a_client_learns_at_once_of_a_command_that_would_be_rejected(box: Path, verb: Any, body: Any) -> None:
    with pytest.raises(UsageError):
        drop(box, verb, body)
    assert left(box) == []


@pytest.mark.parametrize("content", ["", " \n", "{}", "{}\n"])
@pytest.mark.parametrize("verb", ["stop", "pause", "resume", "abort"])
def test_an_empty_file_is_enough_where_no_message_is_needed(box: Path, verb: str, content: str) -> None:
    (box / f"{verb}.json").write_text(content)
    commands, rejected = settle(Inbox(box))
    assert [c.verb for c in commands] == [verb]
    assert rejected == []
    assert left(box) == []


def test_an_empty_file_is_not_taken_before_it_was_still_for_a_second(box: Path) -> None:
    (box / "stop.json").touch()
    inbox = Inbox(box)
    for now in (0.0, 0.5, 0.99):
        scan = inbox.scan(now)
        assert scan.commands == [] and scan.retry
    assert messages(inbox.scan(1.0).commands) == ["stop"]


def test_commands_come_in_order_of_time_and_control_overtakes_messages(box: Path) -> None:
    for n, name in enumerate(["steer-z", "followup-a", "resume-m", "steer-a", "stop-1", "abort-2", "pause-0"]):
        file = box / f"{name}.json"
        file.write_text(f'{{"message":"{name}"}}')
        os.utime(file, ns=(n, n))
    scan = Inbox(box).scan(0.0)
    assert [c.path.name.split("-", 3)[3] for c in scan.commands] == [
        "stop-1.json",
        "abort-2.json",
        "pause-0.json",
        "steer-z.json",
        "followup-a.json",
        "resume-m.json",
        "steer-a.json",
    ]


def test_commands_of_one_instant_come_in_the_order_of_their_names(box: Path) -> None:
    ids = [drop(box, "steer" if n % 2 else "followup", {"message": str(n)}) for n in range(50)]
    for file in box.iterdir():
        os.utime(file, ns=(5, 5))
    assert [c.id for c in Inbox(box).scan(0.0).commands] == ids


def test_claimed_files_keep_their_place_after_a_restart(box: Path) -> None:
    for n in range(10):
        drop(box, "steer", {"message": str(n)})
    Inbox(box).scan(0.0, limit=5)
    for n in range(10, 12):
        drop(box, "steer", {"message": str(n)})
    assert messages(settle(Inbox(box))[0]) == [str(n) for n in range(12)]


def test_a_writer_that_changes_the_file_while_it_is_claimed_is_waited_for(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`echo … > steer.json` opens by name, so it can hit the file just before the rename."""
    (box / "steer.json").write_bytes(b'{"message":"first"}')
    writer = (box / "steer.json").open("r+b", buffering=0)
    real = nofollow.rename

    def rename(source: Any, target: Any) -> None:
        writer.truncate(0)
        real(source, target)

    inbox = Inbox(box)
    with monkeypatch.context() as patch:
        patch.setattr(nofollow, "rename", rename)
        scan = inbox.scan(0.0)
    assert (scan.commands, scan.rejected, scan.retry) == ([], [], True)
    assert inbox.scan(0.5).retry
    writer.write(b'{"message":"second"}')
    writer.close()
    assert messages(inbox.scan(0.9).commands) == ["second"]


def test_a_writer_that_goes_on_in_the_instant_of_judgement_is_waited_for(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = box / "steer.json"
    file.write_bytes(b'{"mess')
    inbox = Inbox(box)
    assert inbox.scan(0.0).retry
    real = nofollow.open_fd

    def late(path: Any, *more: Any, **how: Any) -> int:
        if str(path) == str(file):
            with file.open("ab") as writer:
                writer.write(b"age")
            monkeypatch.undo()
        return real(path, *more, **how)

    monkeypatch.setattr(nofollow, "open_fd", late)
    assert inbox.scan(1.0) == ([], [], True)
    with file.open("ab") as writer:
        writer.write(b'":"m"}')
    assert messages(inbox.scan(1.5).commands) == ["m"]


def journaled(claimed: Claimed) -> JournalLine:
    """What a runner writes down of a command."""
    line: JournalLine = {
        "at": 0,
        "id": claimed.id,
        "command": claimed.verb,
        "state": "received",
        "body": claimed.body,
        "file": claimed.file,
    }
    return line if claimed.origin is None else {**line, "origin": claimed.origin}


def test_a_file_without_id_that_a_power_loss_gives_its_old_name_back_is_recognised(box: Path) -> None:
    (box / "pause.json").write_text("{}")
    (claimed,) = Inbox(box).scan(0.0).commands
    found = claimed.path.rename(box / "pause.json").stat()
    # Here it was changed by being renamed back, and there by nothing.
    line: JournalLine = {**journaled(claimed), "origin": f"{found.st_ino}-{found.st_ctime_ns}"}
    journal = CommandJournal.open(box.parent / "commands.jsonl")
    journal.append(line, durable=True)
    (back,) = Inbox(box).scan(0.0).commands
    assert back.id != claimed.id
    assert not journal.had_origin(back.origin), "no rename comes undone while the runner lives"
    journal.close()
    journal = CommandJournal.open(box.parent / "commands.jsonl")
    assert journal.had_origin(back.origin)
    (box / "pause.json").write_text("{}")
    another = Inbox(box).scan(0.0).commands[-1]
    assert not journal.had_origin(another.origin)
    journal.close()


def test_an_origin_is_that_of_the_file_before_it_was_claimed(box: Path) -> None:
    (box / "pause.json").write_text("{}")
    before = (box / "pause.json").stat()
    assert Inbox(box).scan(0.0).commands[0].origin == f"{before.st_ino}-{before.st_ctime_ns}"
    drop(box, "pause", {})
    assert Inbox(box).scan(0.0).commands[-1].origin is None


def test_a_claimed_name_by_which_alone_a_file_is_known_is_durable_before_it_is_told(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box / "pause.json").write_text("{}")
    Inbox(box).scan(0.0)  # and then its runner dies
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.extend(left(box) if stat.S_ISDIR(os.fstat(fd).st_mode) else [])
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert [c.file for c in Inbox(box).scan(0.0).commands] == synced


@pytest.mark.parametrize("verb", ["steer", "stop"])
def test_a_command_written_into_a_file_that_was_taken_meanwhile_is_a_command_of_its_own(box: Path, verb: str) -> None:
    (box / f"{verb}.json").write_bytes(b'{"message":"first","when":"now"}')
    with (box / f"{verb}.json").open("r+b", buffering=0) as writer:
        inbox = Inbox(box)
        (first,) = inbox.scan(0.0).commands
        writer.truncate(0)
        inbox.done(first)
        assert inbox.scan(0.1) == ([], [], True)
        writer.write(b'{"message":"second"}')
    commands, rejected = settle(inbox)
    assert messages(commands) == ["second" if verb == "steer" else "stop"]
    assert commands[0].id != first.id
    assert rejected == []
    assert left(box) == []


def test_a_name_that_is_overwritten_loses_nothing_while_nobody_scans(box: Path) -> None:
    """As in a runner whose event loop waits for the disk."""
    inbox = Inbox(box)
    watch = Watch(box, ARRIVAL, inbox.claim)
    assert watch.start() is None
    try:
        for n in range(100):
            (box / ".new").write_text(f'{{"message":"{n}"}}')
            (box / ".new").rename(box / "steer.json")
            wait_for("the claim", lambda: not (box / "steer.json").exists())
    finally:
        watch.stop()
    commands, rejected = settle(inbox)
    assert messages(commands) == [str(n) for n in range(100)]
    assert rejected == []


@pytest.mark.parametrize("content", ["", '{"mess', "[]", '{"message":"\\ud800"}'])
def test_a_file_is_not_claimed_before_it_is_whole(box: Path, content: str) -> None:
    (box / "steer.json").write_text(content)
    Inbox(box).claim("steer.json")
    assert left(box) == ["steer.json"]


@pytest.mark.parametrize(
    "name", ["steer-1.json", "note.json", ".steer.json", "gone.json", "steer.json", "stop.json", ""]
)
def test_what_cannot_be_overwritten_or_is_no_file_is_left_to_the_scan(box: Path, name: str) -> None:
    (box / "steer.json").symlink_to("steer-1.json")
    os.mkfifo(box / "stop.json")
    for plain in ("steer-1.json", "note.json", ".steer.json"):
        (box / plain).write_text('{"message":"m"}')
    before = left(box)
    Inbox(box).claim(name)
    assert left(box) == before


def test_a_file_that_was_overwritten_while_it_was_claimed_is_read_again(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box / "steer.json").write_text('{"message":"first"}')
    (box / ".new").write_text('{"message":"later"}')
    real = nofollow.rename

    def rename(source: Any, target: Any) -> None:
        real(box / ".new", box / "steer.json")
        real(source, target)

    inbox = Inbox(box)
    with monkeypatch.context() as patch:
        patch.setattr(nofollow, "rename", rename)
        inbox.claim("steer.json")
    (claimed,) = inbox.scan(0.0).commands
    assert (claimed.body, claimed.origin) == ({"message": "later"}, None)


def test_a_newline_that_comes_after_the_claim_makes_no_second_command(box: Path) -> None:
    with (box / "steer.json").open("wb", buffering=0) as writer:
        writer.write(b'{"message":"m"}')
        inbox = Inbox(box)
        (claimed,) = inbox.scan(0.0).commands
        writer.write(b"\n")
        inbox.done(claimed)
    assert settle(inbox) == ([], [])


def test_a_claimed_file_that_stays_torn_is_rejected_under_its_first_name(box: Path) -> None:
    (box / ".claimed-1770000000000000000-0123abcd-steer-x.json").write_text('{"mess')
    commands, (rejected,) = settle(Inbox(box))
    assert commands == []
    assert rejected.name == "steer-x.json"
    assert left(box) == []


def test_dot_files_and_the_rejected_folder_are_left_alone(box: Path) -> None:
    (box / "rejected").mkdir()
    (box / ".tmp-0123").write_text("half")
    (box / ".steer.json.swp").write_text("")
    (box / ".claimed-whatever").write_text("")
    (box / ".claimed-1-00000000-steer-\udcff.json").write_text('{"message":"m"}')
    assert settle(Inbox(box)) == ([], [])
    assert len(left(box)) == 4


@pytest.mark.parametrize(
    "name", ["steer", "note.txt", "kill.json", "steer.json~", "Steer.json", "x" * 255, "a\nb\x1b.json"]
)
def test_a_name_that_is_no_command_is_rejected_when_it_was_still(box: Path, name: str) -> None:
    (box / name).write_text("{}")
    inbox = Inbox(box)
    assert inbox.scan(0.0).rejected == []
    (rejected,) = inbox.scan(1.0).rejected
    assert rejected.verb is None
    assert "unknown command name" in rejected.reason
    assert rejected.name.isprintable()
    assert (box / "rejected" / rejected.name).read_text() == "{}"
    assert left(box) == []


@pytest.mark.parametrize("raw", [b"steer-\xff\xfe.json", b"steer-" + b"y" * 244 + b".json", b"steer-\n\x1b[31m.json"])
def test_a_strange_name_of_a_good_command_does_not_matter(box: Path, raw: bytes) -> None:
    (box / os.fsdecode(raw)).write_text('{"message":"m"}')
    (claimed,) = Inbox(box).scan(0.0).commands
    assert claimed.body == {"message": "m"}
    orjson.dumps(claimed.file)
    assert Inbox(box).scan(0.0).commands == [claimed._replace(origin=None)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_rejected(box: Path) -> None:
    (box / "stop.json").write_text("{}")
    (box / "stop.json").chmod(0)
    assert "cannot be read" in settle(Inbox(box))[1][0].reason


def test_a_message_of_just_the_allowed_size_is_taken(box: Path) -> None:
    (box / "steer.json").write_bytes(b'{"message":"' + b"x" * (MAX_BYTES - 14) + b'"}')
    assert len(settle(Inbox(box))[0]) == 1


def test_rejected_files_of_one_name_are_all_kept(box: Path) -> None:
    inbox = Inbox(box)
    names: set[str] = set()
    for n in range(3):
        (box / "steer.json").write_text(f"no {n}")
        names.update(r.name for r in settle(inbox)[1])
    assert len(names) == 3
    assert sorted((box / "rejected" / name).read_text() for name in names) == ["no 0", "no 1", "no 2"]


def test_a_command_can_be_set_aside(box: Path) -> None:
    id = drop(box, "stop", {})
    inbox = Inbox(box)
    (claimed,) = inbox.scan(0.0).commands
    rejected = inbox.set_aside(claimed, "left over from an earlier run")
    assert (rejected.verb, rejected.id, rejected.reason) == ("stop", id, "left over from an earlier run")
    assert left(box) == []
    assert orjson.loads((box / "rejected" / rejected.name).read_bytes())["id"] == id
    assert inbox.scan(5.0) == ([], [], False)


def test_waiting_files_do_not_keep_good_ones_from_being_taken(box: Path) -> None:
    for n in range(300):
        (box / f"steer-{n:03}.json").write_bytes(b"{")
    inbox = Inbox(box)
    for _ in range(4):
        inbox.scan(0.0, limit=100)
    drop(box, "steer", {"message": "good"})
    assert messages(inbox.scan(0.1, limit=100).commands) == ["good"]
    assert len(settle(inbox)[1]) == 300


def test_trouble_of_the_disk_is_raised_and_nothing_is_lost(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        drop(box, "steer", {"message": str(n)})
    inbox = Inbox(box)
    real = nofollow.rename
    calls = 0

    def rename(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls != 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(nofollow, "rename", rename)
        first = inbox.scan(0.0).commands
        assert messages(first) == ["0"]
        inbox.done(first[0])
        with pytest.raises(OSError, match="No space"):
            inbox.scan(0.1)
    assert messages(settle(inbox)[0]) == ["1", "2"]


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Inbox(tmp_path / "nothing").scan(0.0)
    with pytest.raises(FileNotFoundError):
        drop(tmp_path / "nothing", "stop", {})


def test_a_file_in_the_place_of_rejected_blocks_nothing(box: Path) -> None:
    (box / "rejected").write_text("")
    (box / "what").write_text("")
    inbox = Inbox(box)
    inbox.scan(0.0)
    (rejected,) = inbox.scan(1.0).rejected
    assert "could not be moved away" in rejected.reason
    drop(box, "steer", {"message": "good"})
    scan = inbox.scan(2.0)
    assert messages(scan.commands) == ["good"]
    assert (scan.rejected, scan.retry) == ([], False)


def take(box: Path, out: Path) -> None:
    """What a runner does with commands, and nothing else: claim, journal, hand on, remove."""
    journal = CommandJournal.open(box.parent / "commands.jsonl")
    inbox = Inbox(box)
    with out.open("ab", buffering=0) as handed_on:
        while (scan := inbox.scan(0.0)).commands:
            for c in scan.commands:
                if not (journal.knows(c.id) or journal.knows_file(c.file)):
                    journal.append(journaled(c), durable=True)
                    handed_on.write(c.id.encode() + b"\n")
                inbox.done(c)
    journal.close()


def take_for_ever(box: Path, out: Path) -> None:
    while True:
        take(box, out)


def test_a_death_at_any_step_of_taking_a_command_loses_and_doubles_nothing(box: Path, tmp_path: Path) -> None:
    journal_path = tmp_path / "commands.jsonl"
    expected = {"first", "second", "third"}

    def prepare() -> None:
        for file in [*box.iterdir(), journal_path]:
            file.unlink(missing_ok=True)
        (box / "followup-1.json").write_text('{"message":"first"}')
        (box / "steer-2.json").write_text('{"message":"second"}')
        drop(box, "steer", {"message": "third"})

    died = 0
    for _ in deaths(lambda: take(box, tmp_path / "out"), prepare):
        died += 1
        take(box, tmp_path / "out")
        journal = CommandJournal.open(journal_path)
        found = [c.body.get("message", "") for c in journal.open_commands()]
        assert sorted(found) == sorted(expected)
        assert left(box) == []
        journal.close()
    assert died > 10


@pytest.mark.slow
def test_fifty_kills_at_random_instants_lose_and_double_nothing(box: Path, tmp_path: Path) -> None:
    sent = []
    out = tmp_path / "out"
    out.touch()
    chance = random.Random(50)
    for _ in range(50):
        taker = start(lambda: take_for_ever(box, out))
        try:
            enough = out.stat().st_size + 33 * chance.randint(1, 6)
            for _ in range(6):
                sent.append(drop(box, "steer", {"message": "m"}))
            # It dies somewhere in the work on one of these.
            deadline = time.monotonic() + 30
            while out.stat().st_size < enough:
                assert time.monotonic() < deadline, "it stopped taking"
        finally:
            os.kill(taker, signal.SIGKILL)
            os.waitpid(taker, 0)
    take(box, out)
    journal = CommandJournal.open(tmp_path / "commands.jsonl")
    assert [c.id for c in journal.open_commands()] == sent
    journal.close()
    handed_on = out.read_text().split()
    assert len(handed_on) == len(set(handed_on)), "done twice"
    # The receipt is durable before the command is handed on; what a kill leaves in between is in the journal.
    assert len(sent) - 50 <= len(handed_on) <= len(sent)


def test_a_file_with_a_second_name_is_not_taken_while_it_has_one(box: Path) -> None:
    (box.parent / "elsewhere.json").write_text('{"message": "m"}')
    (box / "steer.json").hardlink_to(box.parent / "elsewhere.json")
    inbox = Inbox(box)
    assert (inbox.scan(0.0).commands, inbox.scan(0.5).commands) == ([], [])
    inbox.claim("steer.json")
    assert left(box) == ["steer.json"]
    (box.parent / "elsewhere.json").unlink()
    assert messages(inbox.scan(0.6).commands) == ["m"]


def test_a_file_that_keeps_its_second_name_is_rejected(box: Path) -> None:
    (box.parent / "elsewhere.json").write_text('{"message": "m"}')
    (box / "steer.json").hardlink_to(box.parent / "elsewhere.json")
    commands, rejected = settle(Inbox(box))
    assert commands == [] and "hard link" in rejected[0].reason
    assert (box.parent / "elsewhere.json").read_text() == '{"message": "m"}'
