"""Effects are carried out in order, and what must be on disk before the next one is."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.reserve import Reserve
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AgentStart, AssistantEnd, AssistantStart, PiExited, Reply, Usage, UserMessage
from ralph_runner.core.results import Begin, CommandCame, Measure, PiSpawned, TaskRead, WorkMeasured
from ralph_runner.core.snapshot import Facts, new_loop
from ralph_runner.shell.cores import Feed, TaskCore
from ralph_runner.shell.notices import Notices
from ralph_runner.shell.notify import Notifier
from ralph_runner.shell.one_pi import Pids
from ralph_runner.shell.perform import Performer
from ralph_runner.shell.saver import Saver
from tests.core.talk import config

ANSWERS: dict[str, dict[str, Any]] = {"get_state": {"model": {"id": "m1", "provider": "fake"}}}


class ScriptedPi:
    """In the place of a pi: says at once what a pi would."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.on_send: Callable[[fx.Send], object] = lambda _: None
        """Called before pi gets a request."""
        self.pids = Pids()

    def hosts(self) -> None:
        return None

    def perform(self, effect: Any) -> None:
        match effect:
            case fx.StartPi():
                self._feed(PiSpawned(77, "1.5.2", ("pi",)))
            case fx.ReadTask():
                self._feed(TaskRead("# Goals\n"))
            case fx.MeasureWork():
                self._feed(WorkMeasured(Measure("head", "tree")))
            case fx.Send(command, id, members):
                self.on_send(effect)
                self._feed(Reply(command, id, True, ANSWERS.get(command, {"cancelled": False})))
                if command == "prompt":
                    self._feed(AgentStart(), UserMessage(members["message"]))
            case fx.EndPi():
                self._feed(PiExited(0, "eof", ""))
            case _:
                pass

    def ended(self, how: str) -> None: ...

    async def close(self) -> None: ...


class Life:
    """A performer with a real core, log and journal."""

    def __init__(self, folder: Path) -> None:
        self.paths = LoopPaths.of(folder, "x")
        self.paths.iterations.mkdir(parents=True)
        self.notes: list[str] = []
        note = self.notes.append
        self.log = EventLog.open(self.paths.events, limit=1 << 30, keep=1)
        self.journal = CommandJournal.open(self.paths.commands)
        self.saver = Saver(self.paths, note, Reserve(self.paths.reserve), lambda error: note(str(error)))
        self.notifier = Notifier(None, self.paths, folder, folder, note, note)
        self.performer = Performer(
            paths=self.paths,
            core=TaskCore(new_loop(config(), "task.md")),
            facts=Facts("x", str(folder), str(self.paths.dir), os.getpid(), 1.0, "boot", "now", None),
            log=self.log,
            journal=self.journal,
            saver=self.saver,
            reserve=Reserve(self.paths.reserve),
            notifier=self.notifier,
            notices=Notices(self.log, note),
            note=note,
        )
        self.pi = self.performer.loop_effects = ScriptedPi(self.performer.feed)

    async def close(self) -> None:
        await self.performer.close()
        self.saver.close()
        self.log.close()
        self.journal.close()

    def received(self, id: str) -> CommandCame:
        """A steer with its receipt, as the intake gives it."""
        body: Any = {"message": "look here"}
        self.journal.append({"at": 1, "id": id, "command": "steer", "state": "received", "body": body}, durable=False)
        return CommandCame(id, "steer", body)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> dict[int, bytes]:
    """By inode: what a file held when it was last synced, which is what a power loss leaves of it."""
    kept: dict[int, bytes] = {}
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        real(fd)
        found = os.fstat(fd)
        kept[found.st_ino] = os.pread(fd, found.st_size, 0)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return kept


def test_a_messages_receipt_and_its_sending_are_on_disk_before_pi_gets_a_byte(
    tmp_path: Path, synced: dict[int, bytes]
) -> None:
    async def main() -> None:
        life = Life(tmp_path)
        seen: list[bytes] = []

        def on_send(effect: fx.Send) -> None:
            if effect.command == "steer":
                seen.append(synced.get(life.paths.commands.stat().st_ino, b""))

        life.pi.on_send = on_send
        life.performer.feed(Begin())
        life.performer.feed(life.received("s"))
        await life.close()
        (on_disk,) = seen
        assert [line for line in (b'"state":"received"', b'"state":"sent"') if line not in on_disk] == []

    asyncio.run(main())


def test_a_delivery_is_on_disk_before_it_is_shown(tmp_path: Path, synced: dict[int, bytes]) -> None:
    """Otherwise a message that people saw delivered would come a second time after a power loss."""

    async def main() -> None:
        life = Life(tmp_path)
        shown: list[bytes] = []
        append = life.log.append_event

        def append_event(event: Any) -> int:
            if event.get("state") == "delivered":
                shown.append(synced.get(life.paths.commands.stat().st_ino, b""))
            return append(event)

        life.log.append_event = append_event  # type: ignore[method-assign]
        life.performer.feed(Begin())
        life.performer.feed(life.received("s"))
        answer = AssistantEnd("working", "toolUse", None, "m1", "fake", Usage(), 1)
        life.performer.feed(AssistantStart(None), answer, UserMessage("look here"), AssistantStart(None))
        await life.close()
        assert [b'"state":"delivered"' in on_disk for on_disk in shown] == [True]

    asyncio.run(main())
