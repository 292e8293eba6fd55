"""What the inbox refuses, when, and what it says and leaves of it."""

import errno
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from ralph_rpc.errors import UsageError
from ralph_rpc.files.commandfile import MAX_BYTES
from ralph_rpc.files.inbox import Inbox, Rejected, drop, free_name
from ralph_rpc.files.reserve import spares
from ralph_rpc.machine import nofollow
from tests.files.boxes import left, messages, settle

NO_FILE = "it is a link, a folder or another special file; only plain files are taken"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    box = tmp_path / "inbox"
    box.mkdir()
    return box


def refused(box: Path) -> Rejected:
    """The one file that is refused; nothing else is in the box."""
    commands, (rejected,) = settle(Inbox(box))
    assert commands == []
    return rejected


def reason_file(box: Path, rejected: Rejected) -> str:
    return (box / "rejected" / f"{rejected.name}.reason").read_text()


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_plain_file_is_refused_at_once(box: Path, kind: str) -> None:
    file = box / "stop.json"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        (box.parent / "target").write_text("{}")
        file.symlink_to(box.parent / ("nowhere" if kind == "dangling link" else "target"))
    commands, (rejected,), retry = Inbox(box).scan(0.0)
    assert (commands, rejected, retry) == ([], Rejected("stop", "stop.json", NO_FILE, "stop.json"), False)
    assert reason_file(box, rejected) == f"{NO_FILE}\n"
    assert left(box) == [] and os.path.lexists(box / "rejected" / "stop.json")


@pytest.mark.parametrize("error", [errno.ELOOP, errno.ENXIO, errno.ENODEV])
def test_what_turns_into_something_else_before_it_is_opened_is_refused(
    box: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    (box / "stop.json").write_text("{}")

    real = nofollow.open_fd

    def fail(path: Any, *more: Any, **how: Any) -> int:
        if str(path).endswith("/stop.json"):
            raise OSError(error, "no file")
        return real(path, *more, **how)

    with monkeypatch.context() as patch:
        patch.setattr(nofollow, "open_fd", fail)
        scan = Inbox(box).scan(0.0)
    assert [one.reason for one in scan.rejected] == [NO_FILE]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EPERM])
def test_a_file_that_cannot_be_opened_is_refused_when_it_was_still(
    box: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    (box / "stop.json").write_text("{}")
    inbox = Inbox(box)
    real = nofollow.open_fd

    def fail(path: Any, *more: Any, **how: Any) -> int:
        if str(path).endswith("/stop.json"):
            raise OSError(error, "not yours")
        return real(path, *more, **how)

    monkeypatch.setattr(nofollow, "open_fd", fail)
    assert inbox.scan(0.0) == ([], [], True)
    (rejected,) = inbox.scan(1.0).rejected
    assert (rejected.verb, rejected.reason) == ("stop", "the file cannot be read; give it mode 0600")


def test_any_other_trouble_in_opening_a_file_is_raised(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (box / "stop.json").write_text("{}")

    def fail(*_: Any, **__: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(nofollow, "open_fd", fail)
        with pytest.raises(OSError, match="Input/output"):
            Inbox(box).scan(0.0)
    assert left(box) == ["stop.json"]


def test_a_file_of_another_user_is_refused_at_once(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (box / "stop.json").write_text("{}")
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    (rejected,) = Inbox(box).scan(0.0).rejected
    assert rejected.reason == "the file belongs to another user; write it as the user of the loop"


def test_a_file_with_a_second_name_is_refused_when_it_keeps_it(box: Path) -> None:
    (box.parent / "elsewhere").write_text('{"message":"m"}')
    os.link(box.parent / "elsewhere", box / "steer.json")
    inbox = Inbox(box)
    assert inbox.scan(0.0) == ([], [], True)
    (rejected,) = inbox.scan(1.0).rejected
    assert rejected.reason == "the file has a second name (hard link); write it as a separate file"


def test_a_file_that_loses_its_second_name_in_time_is_taken(box: Path) -> None:
    (box.parent / "elsewhere").write_text('{"message":"m"}')
    os.link(box.parent / "elsewhere", box / "steer.json")
    inbox = Inbox(box)
    assert inbox.scan(0.0).retry
    (box.parent / "elsewhere").unlink()
    scan = inbox.scan(0.1)
    assert messages(scan.commands) == ["m"] and scan.rejected == []


def test_a_file_over_one_mebibyte_is_refused_at_once_and_one_of_just_that_is_not(box: Path) -> None:
    body = b'{"message":"' + b"x" * (MAX_BYTES - 14) + b'"}'
    (box / "steer-1.json").write_bytes(body)
    (box / "steer-2.json").write_bytes(body + b"\n")
    scan = Inbox(box).scan(0.0)
    assert [c.path.name.rpartition("-")[2] for c in scan.commands] == ["1.json"]
    assert scan.rejected == [
        Rejected(
            "steer",
            "steer-2.json",
            "the file is over 1 MiB; put the text into another file and send its path",
            "steer-2.json",
        )
    ]


def test_a_file_of_a_known_id_is_refused_by_it(box: Path) -> None:
    (box / "stop.json").write_text('{"id":"mine","when":"later"}')
    rejected = refused(box)
    assert rejected == Rejected("stop", "stop.json", "when must be one of: iteration, now", "mine")
    assert reason_file(box, rejected) == "when must be one of: iteration, now\n"


def test_a_file_is_judged_once_it_was_still_for_a_second_and_every_change_begins_it_anew(box: Path) -> None:
    file = box / "steer.json"
    file.write_text("{")
    inbox = Inbox(box)
    assert inbox.scan(10.0) == ([], [], True)
    assert inbox.scan(10.9) == ([], [], True)
    file.write_text('{"mess')
    assert inbox.scan(10.95) == ([], [], True)
    assert inbox.scan(11.9) == ([], [], True)
    scan = inbox.scan(11.95)
    assert [one.verb for one in scan.rejected] == ["steer"] and not scan.retry
    assert inbox.scan(20.0) == ([], [], False)


def test_a_file_that_goes_while_it_is_waited_for_is_forgotten(box: Path) -> None:
    (box / "steer.json").write_text("{")
    inbox = Inbox(box)
    assert inbox.scan(0.0).retry
    (box / "steer.json").unlink()
    assert inbox.scan(0.1) == ([], [], False)


def test_a_file_that_goes_before_it_is_judged_is_still_told_of(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(box / "stop.json")
    real = nofollow.rename

    def rename(source: Any, target: Any) -> None:
        os.unlink(source)  # noqa: PTH108  what Path would do is what is patched here
        real(source, target)

    monkeypatch.setattr(nofollow, "rename", rename)
    scan = Inbox(box).scan(0.0)
    assert scan == ([], [Rejected("stop", "stop.json", NO_FILE, "stop.json")], False)


@pytest.mark.parametrize("error", [errno.EPERM, errno.EEXIST, errno.ENOTDIR])
def test_a_file_that_cannot_be_moved_away_is_told_of_once_and_again_when_it_changes(
    box: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    os.mkfifo(box / "stop.json")
    inbox = Inbox(box)

    def fail(*_: Any) -> None:
        raise OSError(error, "immutable")

    monkeypatch.setattr(nofollow, "rename", fail)
    (rejected,) = inbox.scan(0.0).rejected
    assert rejected.reason == f"{NO_FILE}; it could not be moved away"
    assert inbox.scan(5.0) == ([], [], False)
    (box / "stop.json").chmod(0o640)
    assert len(inbox.scan(6.0).rejected) == 1
    assert inbox.scan(7.0) == ([], [], False)


def test_trouble_in_moving_a_file_away_is_raised(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(box / "stop.json")

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(nofollow, "rename", fail)
        with pytest.raises(OSError, match="No space"):
            Inbox(box).scan(0.0)
    assert [one.reason for one in Inbox(box).scan(0.0).rejected] == [NO_FILE]


def test_after_one_success_trouble_waits_for_the_next_look(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(box, "stop", {})
    os.mkfifo(box / "steer-2.json")
    real = nofollow.rename

    def rename(source: Any, target: Any) -> None:
        if "rejected" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    inbox = Inbox(box)
    with monkeypatch.context() as patch:
        patch.setattr(nofollow, "rename", rename)
        scan = inbox.scan(0.0)
    assert [c.verb for c in scan.commands] == ["stop"] and scan.rejected == []
    assert [one.reason for one in inbox.scan(0.1).rejected] == [NO_FILE]


@pytest.mark.parametrize("taken", ["stop.json", "stop.json.reason"])
def test_a_name_that_is_taken_in_rejected_or_whose_reason_is_gets_a_suffix(box: Path, taken: str) -> None:
    (box / "rejected").mkdir()
    (box / "rejected" / taken).write_text("earlier")
    os.mkfifo(box / "stop.json")
    (rejected,) = Inbox(box).scan(0.0).rejected
    assert rejected.name.startswith("stop.json~") and len(rejected.name) == len("stop.json~") + 8
    assert rejected.id == rejected.name
    assert (box / "rejected" / taken).read_text() == "earlier"
    assert reason_file(box, rejected) == f"{NO_FILE}\n"


def test_rejected_is_for_its_owner_alone(box: Path) -> None:
    os.mkfifo(box / "stop.json")
    Inbox(box).scan(0.0)
    assert (box / "rejected").stat().st_mode & 0o777 == 0o700


def test_a_reason_that_cannot_be_written_costs_nothing(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(box / "stop.json")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ralph_rpc.files.inbox.write_atomic", fail)
    assert [one.reason for one in Inbox(box).scan(0.0).rejected] == [NO_FILE]


def test_what_is_over_the_limit_is_left_for_the_next_look(box: Path) -> None:
    for n in range(3):
        drop(box, "steer", {"message": str(n)})
    inbox = Inbox(box)
    scan = inbox.scan(0.0, limit=2)
    assert messages(scan.commands) == ["0", "1"] and scan.retry
    for command in scan.commands:
        inbox.done(command)
    scan = inbox.scan(0.0, limit=1)
    assert messages(scan.commands) == ["2"] and not scan.retry


def test_messages_can_be_left_while_orders_are_taken(box: Path) -> None:
    drop(box, "steer", {"message": "a"})
    drop(box, "followup", {"message": "b"})
    for verb in ("resume", "stop", "pause", "abort"):
        drop(box, verb, {})
    inbox = Inbox(box)
    scan = inbox.scan(0.0, messages=False)
    assert [c.verb for c in scan.commands] == ["stop", "pause", "abort", "resume"] and not scan.retry
    assert [c.verb for c in inbox.scan(0.0).commands][-3:] == ["steer", "followup", "resume"]


def test_a_command_has_the_time_of_its_file(box: Path) -> None:
    (box / "stop.json").write_text("{}")
    os.utime(box / "stop.json", ns=(5, 1_234_567_000))
    assert Inbox(box).scan(0.0).commands[0].mtime_ns == 1_234_567_000


def test_a_claimed_name_gives_back_a_name_that_is_free() -> None:
    assert free_name(".claimed-17-0123abcd-steer-x.json") == "steer-x-17-0123abcd.json"
    assert free_name(".claimed-17-0123abcd-stop.json") == "stop-17-0123abcd.json"
    for name in ("steer.json", ".claimed-17-0123-steer.json", "x.claimed-17-0123abcd-steer.json", ""):
        assert free_name(name) is None, name


def test_a_file_that_has_changed_after_its_claim_is_offered_once_more_under_an_id_of_its_own(box: Path) -> None:
    (box / "steer.json").write_text('{"message":"first","id":"mine"}')
    inbox = Inbox(box)
    (first,) = inbox.scan(0.0).commands
    first.path.write_text('{"message":"second"}')
    inbox.done(first)
    (second,) = inbox.scan(0.1).commands
    assert (second.body, second.verb) == ({"message": "second"}, "steer")
    assert second.id not in ("mine", first.id) and second.file != first.file
    inbox.done(second)
    assert left(box) == []


def test_a_file_that_has_the_same_words_and_another_id_after_its_claim_is_another_command(box: Path) -> None:
    (box / "steer.json").write_text('{"message":"m","id":"one"}')
    inbox = Inbox(box)
    (first,) = inbox.scan(0.0).commands
    first.path.write_text('{"message":"m","id":"two"}')
    inbox.done(first)
    assert [c.id for c in inbox.scan(0.1).commands] == ["two"]


def test_a_file_that_is_no_command_any_more_after_its_claim_is_waited_for(box: Path) -> None:
    (box / "steer.json").write_text('{"message":"m"}')
    inbox = Inbox(box)
    (first,) = inbox.scan(0.0).commands
    first.path.write_text('{"mess')
    inbox.done(first)
    assert inbox.scan(0.1) == ([], [], True)
    assert [one.name for one in inbox.scan(1.1).rejected] == ["steer.json"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"message": "\udcff"}, "cannot send steer: the message is not valid UTF-8"),
        ({}, 'cannot send steer: message must be a text that is not empty; write an object such as {"message": "…"}'),
        ({"message": "x" * MAX_BYTES}, "cannot send steer: the message is over 1 MiB"),
    ],
)
def test_a_client_is_told_what_is_wrong_with_its_command(box: Path, body: Any, told: str) -> None:
    with pytest.raises(UsageError) as error:
        drop(box, "steer", body)
    assert str(error.value).startswith(told)


def test_a_message_of_just_one_mebibyte_can_be_sent(box: Path) -> None:
    frame = len(b'{"message":"","type":"steer","id":"i"}')
    drop(box, "steer", {"message": "x" * (MAX_BYTES - frame), "id": "i"})
    with pytest.raises(UsageError):
        drop(box, "steer", {"message": "x" * (MAX_BYTES - frame + 1), "id": "i"})
    assert len(settle(Inbox(box))[0]) == 1


def test_the_id_of_a_dropped_command_is_new_and_its_file_private_to_it(box: Path) -> None:
    one, other = drop(box, "stop", {}), drop(box, "stop", {})
    assert one != other and len(one) == len(other) == 32
    assert len(left(box)) == 2


def test_a_client_is_told_what_to_do_with_a_message_that_is_too_long(box: Path) -> None:
    with pytest.raises(UsageError) as error:
        drop(box, "steer", {"message": "x" * MAX_BYTES})
    assert error.value.hint == "Put the text into a file and send its path"


def test_a_dropped_file_tells_its_verb_and_id_itself(box: Path) -> None:
    id = drop(box, "steer", {"message": "m"})
    (file,) = box.iterdir()
    assert orjson.loads(file.read_bytes()) == {"message": "m", "type": "steer", "id": id}


def test_what_lies_beside_commands_hides_none_of_them(box: Path) -> None:
    for n in range(30):
        (box / f".tmp-{n}").write_text("half")
        drop(box, "steer", {"message": str(n)})
        (box / "rejected").mkdir(exist_ok=True)
    assert messages(Inbox(box).scan(0.0).commands) == [str(n) for n in range(30)]


def test_an_order_under_its_bare_name_overtakes_messages_as_well(box: Path) -> None:
    drop(box, "steer", {"message": "m"})
    for verb in ("pause", "stop"):
        (box / f"{verb}.json").write_text("{}")
        os.utime(box / f"{verb}.json", ns=(1 << 62, 1 << 62))
    assert [c.verb for c in Inbox(box).scan(0.0).commands] == ["pause", "stop", "steer"]


def test_commands_of_one_instant_and_one_mark_come_by_name(box: Path) -> None:
    for verb in ("steer", "followup"):
        (box / f"{verb}-x.json").write_text('{"message":"m"}')
        os.utime(box / f"{verb}-x.json", ns=(5, 5))
    assert [c.verb for c in Inbox(box).scan(0.0).commands] == ["followup", "steer"]


def test_the_origin_of_a_file_that_was_claimed_as_it_came_is_kept(box: Path) -> None:
    (box / "steer.json").write_text('{"message":"m"}')
    before = (box / "steer.json").stat()
    inbox = Inbox(box)
    inbox.claim("steer.json")
    for _ in range(2):
        (command,) = inbox.scan(0.0).commands
        assert command.origin == f"{before.st_ino}-{before.st_ctime_ns}"


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_that_turns_into_something_else_before_it_is_opened_is_neither_followed_nor_waited_for(
    box: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    file = box / "steer.json"
    file.write_text('{"message":"m"}')
    (box.parent / "secret").write_text('{"message":"secret"}')
    real = nofollow.open_fd

    def late(path: Any, *more: Any, **how: Any) -> int:
        if str(path) == str(file):
            file.unlink()
            file.symlink_to(box.parent / "secret") if kind == "link" else os.mkfifo(file)
            monkeypatch.undo()
        return real(path, *more, **how)

    monkeypatch.setattr(nofollow, "open_fd", late)
    commands, (rejected,), retry = Inbox(box).scan(0.0)
    assert (commands, rejected.reason, retry) == ([], NO_FILE, False)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb\x1b.json", "a\ufffdb\ufffd.json"), ("é" * 100, "é" * 90), ("x" * 200, "x" * 180), ("\udcff", "\ufffd")],
)
def test_a_foreign_name_is_shown_short_and_printable(box: Path, name: str, shown: str) -> None:
    (box / name).write_text("{}")
    inbox = Inbox(box)
    inbox.scan(0.0)
    assert [one.name for one in inbox.scan(1.0).rejected] == [shown]


def no_room(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_a_command_takes_the_place_of_a_file_that_was_kept_for_it(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = box.parent / ".reserve"
    kept = spares(reserve)
    for file in kept[1:]:  # the first is used up already
        file.write_bytes(bytes(1_000))
    monkeypatch.setattr("ralph_rpc.files.inbox.write_atomic", no_room)
    id = drop(box, "steer", {"message": "m"}, reserve)
    (command,) = Inbox(box).scan(0.0).commands
    assert (command.id, command.body) == (id, {"message": "m"})
    assert [file.exists() for file in kept] == [False, False, True]


@pytest.mark.parametrize("reserve", [None, "nothing there", "a link"])
def test_on_a_full_disk_without_anything_in_reserve_the_client_is_told(
    box: Path, monkeypatch: pytest.MonkeyPatch, reserve: str | None
) -> None:
    path = box.parent / ".reserve"
    (box.parent / "secret").write_text("secret")
    if reserve == "a link":
        for file in spares(path):
            file.symlink_to(box.parent / "secret")
    monkeypatch.setattr("ralph_rpc.files.inbox.write_atomic", no_room)
    with pytest.raises(OSError, match="No space"):
        drop(box, "steer", {"message": "m"}, path if reserve else None)
    assert left(box) == [] and (box.parent / "secret").read_text() == "secret"


def test_other_trouble_of_the_disk_uses_nothing_of_the_reserve(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (reserve := box.parent / ".reserve").write_bytes(bytes(10))

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("ralph_rpc.files.inbox.write_atomic", broken)
    with pytest.raises(OSError, match="Input/output"):
        drop(box, "steer", {"message": "m"}, reserve)
    assert reserve.read_bytes() == bytes(10)
