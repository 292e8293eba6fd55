"""From the inbox to the core: what is accepted, what is refused, and when a file goes."""

import asyncio
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.inbox import Inbox
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.reserve import Reserve
from ralph_runner.core.results import Broken, CommandCame
from ralph_runner.core.snapshot import new_loop
from ralph_runner.shell.cores import TaskCore
from ralph_runner.shell.intake import HELD_AT_MOST, Intake
from ralph_runner.shell.notices import Notices
from tests.core.talk import Talk, config
from tests.files.boxes import left


class Desk:
    """An inbox, its intake, and what the core was fed."""

    def __init__(self, folder: Path, core: TaskCore | None = None) -> None:
        self.box = folder / "inbox"
        self.box.mkdir(exist_ok=True)
        self.fed: list[Any] = []
        self.notes: list[str] = []
        self.on_feed: Callable[[], object] = lambda: None
        self.log = EventLog.open(folder / "events.jsonl", limit=1 << 30, keep=1)
        self.journal = CommandJournal.open(folder / "commands.jsonl")
        self.intake = Intake(
            Inbox(self.box),
            core=core or TaskCore(new_loop(config(), "task.md")),
            feed=self._feed,
            journal=self.journal,
            log=self.log,
            reserve=Reserve(folder / "reserve"),
            notices=Notices(self.log, self.notes.append),
            note=self.notes.append,
        )

    def _feed(self, *inputs: Any) -> None:
        self.fed += inputs
        self.on_feed()

    def drop(self, name: str, **body: Any) -> None:
        (self.box / name).write_text(json.dumps(body))

    def events(self, folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]

    def close(self) -> None:
        self.log.close()
        self.journal.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


@pytest.mark.parametrize("sends", [True, False])
def test_a_command_needs_one_sync_and_its_file_goes_after_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, sends: bool
) -> None:
    """Its receipt is in the journal when the core gets it, and on disk when pi or nobody does."""
    desk.drop("steer.json", message="m")
    steps: list[str] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        real(fd)
        steps.append(f"sync, {len(left(desk.box))} there")

    def on_feed() -> None:
        steps.append(f"fed {len(desk.fed)}")
        (command,) = desk.journal.open_commands()
        assert command.id == desk.fed[0].id
        if sends:
            desk.journal.append({"at": 1, "id": command.id, "command": "steer", "state": "sent"}, durable=True)

    desk.on_feed = on_feed
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "fsync", lambda _: steps.append("another sync"))
    desk.intake.look(1.0)
    assert steps == ["fed 1", "sync, 1 there"]
    assert left(desk.box) == []


def test_looks_follow_at_once_soon_or_after_the_safety_scans_pause(desk: Desk) -> None:
    assert desk.intake.look(7.0) == 7.0
    desk.drop("stop.json")
    assert desk.intake.look(7.0) == 0.0
    (desk.box / "pause.json").touch()  # empty: its writer may be half done
    assert 0 < desk.intake.look(7.0) < 0.1


def test_a_command_that_the_loop_cannot_take_is_kept_with_the_reason(desk: Desk, tmp_path: Path) -> None:
    desk.drop("steer.json", id="s", message="m", ticket="t1")
    desk.intake.look(1.0)
    assert desk.fed == [] and desk.journal.open_commands() == []
    assert "no tickets" in (desk.box / "rejected" / "steer.json.reason").read_text()
    (event,) = desk.events(tmp_path)
    assert (event["id"], event["state"]) == ("s", "rejected") and "no tickets" in event["reason"]


def test_what_is_no_command_is_reported_once(desk: Desk, tmp_path: Path) -> None:
    (desk.box / "steer.json").mkdir()
    desk.intake.look(1.0)
    desk.intake.look(1.0)
    assert [event["type"] for event in desk.events(tmp_path)] == ["ralph_notice", "ralph_command"]
    assert len(desk.notes) == 1 and "rejected" in desk.notes[0]


def test_a_file_whose_receipt_an_earlier_runner_wrote_is_removed_and_nothing_else(desk: Desk) -> None:
    desk.drop("stop.json", id="known")
    desk.journal.append({"at": 1, "id": "known", "command": "stop", "state": "received", "body": {}}, durable=True)
    desk.intake.look(1.0)
    assert desk.fed == [] and left(desk.box) == []


def test_without_space_for_its_receipt_a_stop_works_and_its_file_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    desk.drop("stop.json", id="now")
    desk.drop("steer.json", id="later", message="m")
    with monkeypatch.context() as patch:
        patch.setattr(desk.journal, "append", full)
        assert desk.intake.look(1.0) == 1.0
        assert [(one.id, one.verb) for one in desk.fed] == [("now", "stop")]
        assert len(left(desk.box)) == 2
        desk.intake.look(1.0)
        assert len(desk.notes) == 1  # the same trouble is noted once
    desk.intake.look(1.0)
    assert [one.id for one in desk.fed[2:]] == ["now", "later"] and left(desk.box) == []


def test_a_broken_disk_ends_the_runner(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    desk.drop("steer.json", message="m")
    monkeypatch.setattr(desk.journal, "append", broken)
    desk.intake.look(1.0)
    assert desk.fed == [Broken("the disk: Input/output error; fix it, then resume")]


def test_a_flood_of_messages_stays_in_the_inbox_and_a_stop_passes_it(tmp_path: Path) -> None:
    talk = Talk()
    for number in range(HELD_AT_MOST):
        talk.say(CommandCame(str(number), "steer", {"message": "m"}))
    desk = Desk(tmp_path, TaskCore(talk.loop))
    desk.drop("steer.json", message="one too many")
    desk.drop("stop.json")
    desk.intake.look(1.0)
    assert [one.verb for one in desk.fed] == ["stop"] and left(desk.box) == ["steer.json"]
    desk.close()


@pytest.mark.parametrize(("since", "counts"), [(-1.0, True), (0.0, True), (1.0, False)])
def test_an_order_counts_unless_it_is_from_before_the_launch(tmp_path: Path, since: float, counts: bool) -> None:
    """After a crash each does: its run went on."""
    desk = Desk(tmp_path)
    desk.drop("pause.json", id="p")
    desk.drop("steer.json", id="s", message="m")
    dropped = 1_800_000_000.0
    os.utime(desk.box / "pause.json", (dropped, dropped))
    asyncio.run(desk.intake.catch_up(dropped + since))
    assert [one.id for one in desk.fed] == (["p", "s"] if counts else ["s"])
    assert [event["id"] for event in desk.events(tmp_path)] == ([] if counts else ["p"])
    desk.close()


def test_an_open_command_of_an_earlier_runner_comes_first_and_may_have_reached_pi_if_it_was_sent(
    tmp_path: Path,
) -> None:
    journal = CommandJournal.open(tmp_path / "commands.jsonl")
    for id in ("sent", "held"):
        body: Any = {"message": id}
        journal.append({"at": 1, "id": id, "command": "steer", "state": "received", "body": body}, durable=True)
    journal.append({"at": 2, "id": "sent", "command": "steer", "state": "sent"}, durable=True)
    journal.close()
    desk = Desk(tmp_path)
    desk.drop("followup.json", id="new", message="m")
    asyncio.run(desk.intake.catch_up(0.0))
    assert [(one.id, one.known, one.maybe) for one in desk.fed] == [
        ("sent", True, True),
        ("held", True, False),
        ("new", False, False),
    ]
    desk.close()
