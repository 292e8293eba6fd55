"""The life of a runner: take over the loop's folder, run the core in its world, leave everything tidy.

Called by `__main__`. Holds the loop's lock from the first line to the last. If it dies anywhere, the guards end
pi's trees, the files are as their writers left them, and `recover` finds the way on.
"""

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ralph_rpc.clock import now_ms
from ralph_rpc.files import identity, locks, registry
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.inbox import Claimed, Inbox, Rejected
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.locks import Lock
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_tree
from ralph_rpc.files.reserve import Reserve, lacks_room
from ralph_rpc.model.commands import JournalLine, Verb
from ralph_rpc.model.config import Config
from ralph_rpc.model.events import CommandStep
from ralph_rpc.model.state import Worktree
from ralph_rpc.watch import ARRIVAL, Watch
from ralph_runner.core.reports import Begin, Broken, CommandCame, Terminate, Tick
from ralph_runner.core.snapshot import Facts
from ralph_runner.shell.cores import Core, TaskCore
from ralph_runner.shell.notify import Notifier
from ralph_runner.shell.perform import Hands, Performer
from ralph_runner.shell.pilot import Pilot, Place, write_record
from ralph_runner.shell.reassert import reassert
from ralph_runner.shell.recover import Recovered, recover
from ralph_runner.shell.saver import Saver
from ralph_runner.shell.takeover import Takeover
from ralph_runner.shell.task_hands import TaskHands, read_task

HEARTBEAT_S = 5.0
SCAN_S = 0.25
WATCHED_SCAN_S = 1.0
"""The safety scan where a watch wakes us: waking up is what an idle runner costs."""
HELD_AT_MOST = 2_000
"""Messages that wait for the model; more are left in the inbox, which a flood can only fill, not the memory."""
RETRY_S = 0.05
SETTLE_S = 3.0
SYNC_S = 1.0
MUCH = 8 << 20
"""Bytes between two syncs after which the next comes sooner: a receipt's sync has to wait for the log's."""


class Runner:
    """One run of one loop."""

    def __init__(
        self, paths: LoopPaths, lock: Lock, config: Config, resume: bool, takeover: Takeover, note: Callable[[str], None]
    ) -> None:
        self._paths, self._lock, self._config, self._resume, self._note = paths, lock, config, resume, note
        self._takeover = takeover
        self._reserve = Reserve(paths.reserve)
        self._synced = 0
        self._unsaved = False
        self._inbox_trouble = ""
        worktree = config["worktree"]
        self._worktree: Worktree | None = (
            None if worktree is None else {"branch": worktree, "path": str(paths.worktree)}
        )

    async def run(self) -> int:
        """Until the loop has ended; the exit code: 0, or 1 where it ended in error."""
        paths, hand = self._paths, self._takeover
        found = recover(paths, self._config, self._task_path(), self._resume, now_ms())
        core = found.core
        if hand.ended:
            found.notes.insert(0, f"ended {hand.ended} processes that an earlier run left behind")
        log = EventLog.open(
            paths.events, limit=self._config["logSize"], keep=self._config["logKeep"], reserve=self._reserve
        )
        journal = CommandJournal.open(paths.commands)
        loop = asyncio.get_running_loop()

        def unsaved(error: OSError) -> None:
            # For the last state of all there is no other place to say it.
            self._note(f"cannot write state.json: {error}")
            self._unsaved = True
            loop.call_soon_threadsafe(performer.feed, _broken(error))

        saver = Saver(paths, self._note, self._reserve, unsaved)
        facts = Facts(
            paths.name, str(paths.project), str(paths.dir), os.getpid(), identity.start_time(os.getpid()) or 0.0,
            identity.boot_id(), found.started_at, self._worktree, str(hand.tmp),
        )  # fmt: skip

        def warn(text: str) -> None:
            # Nothing comes after the loop's last event.
            if performer.finished.done():
                self._note(text)
            else:
                self._notice(log, "warning", text)

        notifier = Notifier(self._config.get("notify"), paths, hand.workdir, hand.tmp, self._note, warn)
        performer = Performer(
            paths=paths, core=core, facts=facts, log=log, journal=journal, saver=saver,
            reserve=self._reserve, notifier=notifier, note=self._note,
        )  # fmt: skip
        performer.hands = self._hands(core, performer, log)
        try:
            return await self._live(performer, found, log, journal, saver)
        finally:
            await performer.close()
            saver.close()
            await notifier.close()
            try:
                log.sync()
                log.close()
            except OSError as error:  # state.json has the last word, and it is on disk
                self._note(f"the end of {paths.events} may not be on disk: {error}")
            self._reserve.give()
            with suppress(OSError):  # the next start tries again
                remove_tree(hand.tmp)
            hand.tree_lock.release()

    def _hands(self, core: Core, performer: Performer, log: EventLog) -> Hands:
        paths, hand = self._paths, self._takeover
        if not isinstance(core, TaskCore):
            # Here, as pi boots while this is loaded, and a task loop needs none of it.
            from ralph_runner.shell.ticket_hands import TicketHands

            return TicketHands(
                paths=paths, config=self._config, log=log, hand=hand, feed=performer.feed, save=performer.save,
                later=performer.later, tell_merge=performer.tell_merge, note=self._note,
            )  # fmt: skip
        place = Place(hand.workdir, hand.tmp / "git", lambda: read_task(paths))
        pilot = Pilot(
            paths=paths, config=self._config, log=log, lines=log, hand=hand, place=place, feed=performer.feed,
            save=performer.save, later=performer.later, note=self._note, iteration=core.iteration(),
        )  # fmt: skip
        return TaskHands(pilot, hand)

    async def _live(
        self, performer: Performer, found: Recovered, log: EventLog, journal: CommandJournal, saver: Saver
    ) -> int:
        loop = asyncio.get_running_loop()
        inbox = Inbox(self._paths.inbox)
        loop.add_signal_handler(signal.SIGTERM, lambda: performer.feed(Terminate()))
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        try:
            await self._take_over(performer, found, log, journal, inbox)
        except OSError as error:
            # Otherwise it would leave without a word in state.json.
            performer.feed(_broken(error))
        performer.feed(Begin())

        failed: asyncio.Future[None] = loop.create_future()  # by a look into the inbox; it has no result
        timer = loop.call_soon(lambda: None)
        woken = False

        def look() -> None:
            # No task that waits for an event: at each command it would be a turn of the event loop more.
            nonlocal timer, woken
            timer.cancel()
            woken = False
            if failed.done():
                return
            try:
                pause = self._look_into_inbox(performer, inbox, journal, log, every)
            except Exception as error:  # noqa: BLE001 - the runner must not go on without its inbox
                failed.set_exception(error)
            else:
                timer = loop.call_later(pause, look)

        def came(name: str) -> None:
            # In the watch's thread: a name that is overwritten is safe at once, whatever this one is waiting for.
            nonlocal woken
            inbox.claim(name)
            if not woken:
                woken = True
                loop.call_soon_threadsafe(look)

        watch = Watch(self._paths.inbox, ARRIVAL, came)
        trouble = watch.start()
        every = SCAN_S if trouble else WATCHED_SCAN_S
        if trouble is not None:
            self._notice(log, "warning", f"no watch on the inbox ({trouble}); it is scanned four times a second")
        look()
        helpers: list[asyncio.Future[None]] = [
            failed,
            asyncio.create_task(self._heartbeat(performer, journal)),
            asyncio.create_task(self._sync(log, performer)),
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
            try:
                registry.remove(saver.entry_path)
            except OSError as error:  # how the loop has ended is told already
                self._note(f"the registry entry stays: {error}")
        return 1 if finish.how == "error" or self._unsaved else 0

    async def _take_over(
        self, performer: Performer, found: Recovered, log: EventLog, journal: CommandJournal, inbox: Inbox
    ) -> None:
        """What comes before the first decision: the log tells of this run and of the iteration that was lost."""
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
        for lost in found.lost:
            write_record(self._paths, log, lost, log.offset)
        performer.save()
        await self._take_up(performer, inbox, journal, log, found)

    def _task_path(self) -> str:
        """As the agent is told it: short where it can be."""
        return str(self._paths.task if self._worktree else self._paths.task.relative_to(self._paths.project))

    def _notice(self, log: EventLog, level: str, message: str) -> None:
        self._note(message)
        log.append_event({"type": "ralph_notice", "at": now_ms(), "level": level, "message": message})

    async def _take_up(
        self, performer: Performer, inbox: Inbox, journal: CommandJournal, log: EventLog, found: Recovered
    ) -> None:
        """The commands that an earlier runner had not finished, and those that lie in the inbox already.

        All of them before the first prompt: after a crash, an order to hold or to end counts from the start.
        """
        for command in journal.open_commands():
            performer.feed(CommandCame(command.id, command.verb, command.body, known=True, maybe=command.sent))
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
                if claimed.verb in ("stop", "abort", "pause", "resume") and not found.crashed:
                    reason = f"left over from before this start; to {claimed.verb} the loop now, send it again"
                    inbox.set_aside(claimed, reason)
                    _tell_rejected(log, claimed.id, claimed.verb, reason)
                else:
                    self._accept(performer, inbox, journal, self._taken(performer, inbox, log, [claimed]))

    def _look_into_inbox(
        self, performer: Performer, inbox: Inbox, journal: CommandJournal, log: EventLog, every: float
    ) -> float:
        """Takes what is there; gives the seconds until the next look, if nothing comes before."""
        found: list[Claimed] = []
        try:
            scan = inbox.scan(time.monotonic(), messages=performer.core.held_messages() < HELD_AT_MOST)
            found = scan.commands
            self._reject(log, scan.rejected)
            self._accept(performer, inbox, journal, self._taken(performer, inbox, log, scan.commands))
        except OSError as error:
            if error.errno in (errno.EIO, errno.EROFS):
                performer.feed(_broken(error))
            if lacks_room(error) and self._reserve.give():
                return 0.0
            # No receipt without room, but a stop must work: its file stays, so that a crash won't forget it.
            for stop in [one for one in found if one.verb == "stop" and not journal.knows(one.id)]:
                performer.feed(CommandCame(stop.id, stop.verb, stop.body))
            # The files stay where they are; most often the disk is full, and space comes back.
            if self._inbox_trouble != str(error):
                self._note(f"the inbox cannot be read now: {error}")
            self._inbox_trouble = str(error)
            return 1.0
        self._inbox_trouble = ""
        if scan.commands or scan.rejected:
            return 0.0
        return RETRY_S if scan.retry else every

    def _taken(self, performer: Performer, inbox: Inbox, log: EventLog, commands: list[Claimed]) -> list[Claimed]:
        """Without those that the loop refuses as it is now; their files are kept, with the reason."""
        taken: list[Claimed] = []
        for claimed in commands:
            reason = performer.core.refuses(claimed.verb, claimed.body)
            if reason is None:
                taken.append(claimed)
            else:
                inbox.set_aside(claimed, reason)
                _tell_rejected(log, claimed.id, claimed.verb, reason)
        return taken

    def _accept(self, performer: Performer, inbox: Inbox, journal: CommandJournal, commands: list[Claimed]) -> None:
        """Receipts for all of them, then the core gets them, then, with the receipts on disk, the files go.

        Before a message is written to pi its `sent` is on disk (performer), and with that its receipt: one sync for
        both. What is in the journal is fed even where the rest fails: the next scan knows it and would only remove it.
        """
        journaled: list[Claimed] = []
        try:
            for claimed in commands:
                known = journal.knows_file(claimed.file) or journal.knows(claimed.id)
                if known or journal.had_origin(claimed.origin):
                    continue
                line: JournalLine = {
                    "at": now_ms(), "id": claimed.id, "command": claimed.verb, "state": "received",
                    "body": claimed.body, "file": claimed.file,
                }  # fmt: skip
                if claimed.origin is not None:
                    line["origin"] = claimed.origin
                journal.append(line, durable=False)
                journaled.append(claimed)
        finally:
            performer.feed(*(CommandCame(c.id, c.verb, c.body) for c in journaled))
        journal.sync(now_ms())
        for claimed in commands:
            inbox.done(claimed)

    def _reject(self, log: EventLog, rejected: list[Rejected]) -> None:
        for r in rejected:
            self._notice(log, "warning", f"inbox: {r.name} was rejected: {r.reason}")
            if r.verb is not None and r.id is not None:
                _tell_rejected(log, r.id, r.verb, r.reason)

    async def _heartbeat(self, performer: Performer, journal: CommandJournal) -> None:
        """From the event loop itself, so that a runner that hangs goes stale."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self._paths.inbox.is_dir():
                performer.feed(Broken(f"{self._paths.dir} was deleted or moved while the loop ran"))
            elif not all(os.access(folder, os.W_OK | os.X_OK) for folder in (self._paths.dir, self._paths.inbox)):
                performer.feed(Broken(f"{self._paths.dir} can no longer be written to; mend it and resume"))
            elif not self._lock.is_intact():
                await self._restore_lock(performer)
            else:
                self._reassert(performer, journal)
            performer.save(state_too=False)
            performer.feed(Tick())

    def _reassert(self, performer: Performer, journal: CommandJournal) -> None:
        found = reassert(self._paths, self._config, journal, now_ms())
        if found:
            self._note(f"gone or spoilt, and written again: {', '.join(found)}")
        if self._paths.state.name in found:
            performer.save()

    async def _restore_lock(self, performer: Performer) -> None:
        """Somebody deleted runner.lock: held again, or another runner has it and this one must leave.

        With patience: a viewer that looks, or a start that is being refused, holds it for an instant.
        """
        again = await asyncio.to_thread(locks.acquire, self._paths.runner_lock)
        if again is None:
            performer.feed(Broken("runner.lock was replaced and another runner holds it"))
        else:
            self._lock.release()
            self._lock = again
            self._note("runner.lock had been deleted; it is held again")

    async def _sync(self, log: EventLog, performer: Performer) -> None:
        """What was logged is on disk a second later; not per event, which would cost more than pi."""
        pause = SYNC_S
        while True:
            await asyncio.sleep(pause)
            much = log.offset - self._synced
            pause = SYNC_S / 5 if much > MUCH else SYNC_S
            if much:
                self._synced = log.offset
                try:
                    await asyncio.to_thread(log.sync)
                except OSError as error:
                    if lacks_room(error):
                        self._synced, pause = -1, SYNC_S
                        continue
                    # What a disk did not take it may have dropped: no later sync would prove anything.
                    performer.feed(_broken(error))


def _broken(error: OSError) -> Broken:
    return Broken(f"{error.filename or 'the disk'}: {error.strerror}; mend it and resume")


def _tell_rejected(log: EventLog, id: str, verb: Verb, reason: str) -> None:
    event: CommandStep = {
        "type": "ralph_command", "at": now_ms(), "id": id, "command": verb, "state": "rejected", "reason": reason,
    }  # fmt: skip
    log.append_event(event)
