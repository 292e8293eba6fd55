"""The life of a runner: take over the loop's folder, run the core in its world, leave everything tidy.

Called by `__main__`. Holds the loop's lock from the first line to the last. If it dies anywhere, the guards end
pi's trees, the files are as their writers left them, and `recover` finds the way on.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ralph_rpc import git
from ralph_rpc.clock import now_ms
from ralph_rpc.files import identity, locks, records, registry
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.inbox import Claimed, Inbox, Rejected
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.locks import Lock
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.commands import JournalLine, Verb
from ralph_rpc.model.config import Config
from ralph_rpc.model.events import CommandStep
from ralph_rpc.model.state import Worktree
from ralph_runner.core.reports import Begin, Broken, CommandCame, Terminate, Tick
from ralph_runner.core.snapshot import Facts
from ralph_runner.pi.process import become_subreaper
from ralph_runner.shell.perform import Performer, write_record
from ralph_runner.shell.recover import Recovered, recover
from ralph_runner.shell.saver import Saver
from ralph_runner.shell.watch import Watch

HEARTBEAT_S = 5.0
SCAN_S = 0.25
RETRY_S = 0.05
SETTLE_S = 3.0
SYNC_S = 1.0


class Runner:
    """One run of one loop."""

    def __init__(self, paths: LoopPaths, lock: Lock, config: Config, resume: bool, note: Callable[[str], None]) -> None:
        self._paths, self._lock, self._config, self._resume, self._note = paths, lock, config, resume, note
        self._synced = 0
        self._inbox_trouble = ""
        worktree = config["worktree"]
        self._worktree: Worktree | None = (
            None if worktree is None else {"branch": worktree, "path": str(paths.worktree)}
        )
        self._workdir = paths.project if worktree is None else git.project_in(paths.worktree, paths.project)

    async def run(self) -> int:
        """Until the loop has ended; the exit code: 0, or 1 where it ended in error."""
        become_subreaper()
        paths = self._paths
        records.write_pid(paths, os.getpid())
        found = await asyncio.to_thread(
            recover, paths, self._config, self._task_path(), self._resume, now_ms()
        )  # fmt: skip
        tree_lock = await asyncio.to_thread(locks.acquire, paths.tree_lock, 15.0)
        if tree_lock is None:
            raise OSError(11, "processes of an earlier run still hold it", str(paths.tree_lock))
        log = EventLog.open(paths.events, limit=self._config["logSize"], keep=self._config["logKeep"])
        journal = CommandJournal.open(paths.commands)
        saver = Saver(paths, self._note)
        tmp = Path(tempfile.mkdtemp(prefix=f"ralph-{paths.name}-"))
        facts = Facts(
            paths.name, str(paths.project), str(paths.dir), os.getpid(), identity.start_time(os.getpid()) or 0.0,
            identity.boot_id(), found.started_at, self._worktree, str(tmp),
        )  # fmt: skip
        performer = Performer(
            paths=paths, loop=found.loop, facts=facts, log=log, journal=journal, saver=saver,
            workdir=self._workdir, tmp=tmp, tree_lock=tree_lock.fd, note=self._note,
        )  # fmt: skip
        try:
            return await self._live(performer, found, log, journal, saver)
        finally:
            await performer.close()
            saver.close()
            with contextlib.suppress(OSError):
                log.sync()
                log.close()
            shutil.rmtree(tmp, ignore_errors=True)
            tree_lock.release()

    async def _live(
        self, performer: Performer, found: Recovered, log: EventLog, journal: CommandJournal, saver: Saver
    ) -> int:
        loop = asyncio.get_running_loop()
        inbox = Inbox(self._paths.inbox)
        log.append_event(
            {
                "type": "ralph_loop_start",
                "at": now_ms(),
                "name": self._paths.name,
                "pid": os.getpid(),
                "resumed": self._resume,
            }
        )
        for message in found.notes:
            self._notice(log, "info", message)
        if found.lost is not None:
            write_record(self._paths, log, found.lost, log.offset)
        performer.save()
        loop.add_signal_handler(signal.SIGTERM, lambda: performer.feed(Terminate()))
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        await self._take_up(performer, inbox, journal, log, found)
        performer.feed(Begin())

        arrived = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(arrived.set)

        watch = Watch(self._paths.inbox, wake)
        trouble = watch.start()
        if trouble is not None:
            self._notice(log, "warning", trouble)
        helpers: list[asyncio.Future[None]] = [
            asyncio.create_task(self._watch_inbox(performer, inbox, journal, log, arrived)),
            asyncio.create_task(self._heartbeat(performer)),
            asyncio.create_task(self._sync(log)),
        ]
        try:
            everything: list[asyncio.Future[Any]] = [performer.finished, *helpers]
            ended, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()  # a helper only ever ends by a failure
            finish = performer.finished.result()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await asyncio.to_thread(watch.stop)
        performer.facts.tmp_dir = None
        performer.save()
        saver.close()
        if finish.how != "error" and saver.entry_path is not None:
            registry.remove(saver.entry_path)
        return 1 if finish.how == "error" else 0

    def _task_path(self) -> str:
        """As the agent is told it: short where it can be."""
        return str(self._paths.task if self._worktree else self._paths.task.relative_to(self._paths.project))

    def _notice(self, log: EventLog, level: str, message: str) -> None:
        self._note(message)
        log.append_event({"type": "ralph_notice", "at": now_ms(), "level": level, "message": message})

    async def _take_up(
        self, performer: Performer, inbox: Inbox, journal: CommandJournal, log: EventLog, found: Recovered
    ) -> None:
        """The commands that an earlier runner had not finished, and those that lie in the inbox already."""
        for command in journal.open_commands():
            performer.feed(CommandCame(command.id, command.verb, command.body, known=True, maybe=command.sent))
        if found.crashed:
            return
        until = time.monotonic() + SETTLE_S
        while True:
            scan = inbox.scan(time.monotonic())
            if not scan.commands and not scan.rejected:
                if not scan.retry or time.monotonic() > until:
                    return
                # An empty file counts as a command only when it has been still for a second.
                await asyncio.sleep(RETRY_S)
            self._reject(log, scan.rejected)
            for claimed in scan.commands:
                if claimed.verb in ("stop", "abort", "pause", "resume"):
                    reason = f"left over from before this start; to {claimed.verb} the loop now, send it again"
                    inbox.set_aside(claimed, reason)
                    _tell_rejected(log, claimed.id, claimed.verb, reason)
                else:
                    self._accept(performer, inbox, journal, [claimed])

    async def _watch_inbox(
        self, performer: Performer, inbox: Inbox, journal: CommandJournal, log: EventLog, arrived: asyncio.Event
    ) -> None:
        pause = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrived.wait(), pause)
            arrived.clear()
            try:
                scan = inbox.scan(time.monotonic())
                self._reject(log, scan.rejected)
                self._accept(performer, inbox, journal, scan.commands)
                pause = RETRY_S if scan.retry else SCAN_S
                if scan.commands or scan.rejected:
                    arrived.set()
                self._inbox_trouble = ""
            except OSError as error:
                # The files stay where they are; most often the disk is full, and space comes back.
                if self._inbox_trouble != str(error):
                    self._note(f"the inbox cannot be read now: {error}")
                self._inbox_trouble = str(error)
                pause = 1.0

    def _accept(self, performer: Performer, inbox: Inbox, journal: CommandJournal, commands: list[Claimed]) -> None:
        """Receipts for all of them with one sync, then the files go, then the core gets them.

        What is in the journal is fed even where the rest fails: the next scan knows it and would only remove it.
        """
        fresh: list[Claimed] = []
        for claimed in commands:
            known = journal.knows_file(claimed.file) or journal.knows(claimed.id)
            if known or any(claimed.id == other.id for other in fresh):
                inbox.done(claimed)
            else:
                fresh.append(claimed)
        journaled: list[Claimed] = []
        try:
            for i, claimed in enumerate(fresh):
                line: JournalLine = {
                    "at": now_ms(), "id": claimed.id, "command": claimed.verb, "state": "received",
                    "body": claimed.body, "file": claimed.file,
                }  # fmt: skip
                journal.append(line, durable=i == len(fresh) - 1)
                journaled.append(claimed)
            for claimed in fresh:
                inbox.done(claimed)
        finally:
            performer.feed(*(CommandCame(c.id, c.verb, c.body) for c in journaled))

    def _reject(self, log: EventLog, rejected: list[Rejected]) -> None:
        for r in rejected:
            self._notice(log, "warning", f"inbox: {r.name} was rejected: {r.reason}")
            if r.verb is not None and r.id is not None:
                _tell_rejected(log, r.id, r.verb, r.reason)

    async def _heartbeat(self, performer: Performer) -> None:
        """From the event loop itself, so that a runner that hangs goes stale."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self._paths.inbox.is_dir():
                performer.feed(Broken(f"{self._paths.dir} was deleted or moved while the loop ran"))
            elif not self._lock.is_intact():
                self._restore_lock(performer)
            performer.save(state_too=False)
            performer.feed(Tick())

    def _restore_lock(self, performer: Performer) -> None:
        """Somebody deleted runner.lock: held again, or another runner has it and this one must leave."""
        again = locks.acquire(self._paths.runner_lock, 0.0)
        if again is None:
            performer.feed(Broken("runner.lock was replaced and another runner holds it"))
        else:
            self._lock = again
            self._note("runner.lock had been deleted; it is held again")

    async def _sync(self, log: EventLog) -> None:
        """What was logged is on disk a second later; not per event, which would cost more than pi."""
        while True:
            await asyncio.sleep(SYNC_S)
            if log.offset != self._synced:
                self._synced = log.offset
                await asyncio.to_thread(log.sync)


def _tell_rejected(log: EventLog, id: str, verb: Verb, reason: str) -> None:
    event: CommandStep = {
        "type": "ralph_command", "at": now_ms(), "id": id, "command": verb, "state": "rejected", "reason": reason,
    }  # fmt: skip
    log.append_event(event)


def read_config(paths: LoopPaths) -> Config:
    """config.json; raises Unreadable or FileNotFoundError."""
    config = records.read_config(paths)
    if config is None:
        raise FileNotFoundError(2, "there is no config.json", str(paths.config))
    return config
