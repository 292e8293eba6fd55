"""The life of a runner: recover the loop's state, run the core, keep the loop's files in order, leave everything tidy.

Called by `__main__`, once, after `takeover`. Holds the loop's lock from the first line to the last. If it dies
anywhere, the guards end pi's trees, the files are as their writers left them, and the next `recover` continues from
there.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ralph_rpc import git
from ralph_rpc.clock import now_ms
from ralph_rpc.files import far, records, registry
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.inbox import Inbox
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_tree
from ralph_rpc.files.reserve import Reserve, lacks_room
from ralph_rpc.machine import identity, nofollow
from ralph_rpc.machine.leads import without_leads
from ralph_rpc.machine.locks import Lock
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import Worktree
from ralph_runner.core.effects import Finish
from ralph_runner.core.results import Begin, Broken, Terminate, Tick
from ralph_runner.core.snapshot import Facts
from ralph_runner.guarded import guard
from ralph_runner.shell.cores import Core, TaskCore
from ralph_runner.shell.environment import checkout_of, told_of, worktree_of
from ralph_runner.shell.folder import LoopFolder, Replaced
from ralph_runner.shell.inbox_watch import InboxWatch
from ralph_runner.shell.intake import Intake
from ralph_runner.shell.notices import Notices
from ralph_runner.shell.notify import Notifier
from ralph_runner.shell.old_files import OldFiles
from ralph_runner.shell.one_pi import OnePi, Place
from ralph_runner.shell.patience import GIVE_UP_S, LOOK_AGAIN_S, PASSING, Patience
from ralph_runner.shell.perform import LoopEffects, Performer, how_to_fix
from ralph_runner.shell.preload import load_rest
from ralph_runner.shell.reassert import reassert
from ralph_runner.shell.record import write_record
from ralph_runner.shell.recover import Recovered, recover
from ralph_runner.shell.runnerlog import reopen
from ralph_runner.shell.saver import Saver
from ralph_runner.shell.senders import comes_from_inside
from ralph_runner.shell.takeover import Takeover
from ralph_runner.shell.task_files import read_task

HEARTBEAT_S = 5.0
CLOCK_TICK_S = 0.02
"""Files are stamped by a clock that ticks: one may look that much older than it is."""
LOAD_REST_S = 0.25
"""Between two looks whether the first prompt is out, so that the rest may be loaded."""
LOAD_LOOKS = 40
SYNC_S = 1.0
MUCH = 8 << 20
"""Bytes between two syncs after which the next comes sooner: a receipt's sync has to wait for the log's."""

Note = Callable[[str], None]
"""Writes one line to runner.log."""


async def run(
    paths: LoopPaths,
    lock: Lock,
    config: Config,
    resume: bool,
    takeover: Takeover,
    note: Note,
    signals: int | None,
    launched: float,
    tied: int | None = None,
) -> int:
    """Run the loop until it has ended. The exit code: 0, or 1 if it ended in error.

    `signals` is the fd of `guard.watch_signals`, which was called before anything else; `launched` is when this process
    was launched, in seconds since the epoch; `tied` is the pid of our parent, where the loop is to end with it.
    """
    git.allow_fetching()
    found = recover(paths, config, _task_path(paths, config), resume, now_ms())
    if takeover.ended:
        found.notes.insert(0, f"ended {takeover.ended} processes that an earlier run left behind")
    runner = Runner(paths, lock, config, takeover, note, found, signals, tied)
    try:
        return await runner.live(resume, found, launched)
    finally:
        await runner.close()


class Runner:
    """One run of one loop: its open files and the parts that work on them. Made on the event loop's thread."""

    def __init__(
        self,
        paths: LoopPaths,
        lock: Lock,
        config: Config,
        takeover: Takeover,
        note: Note,
        found: Recovered,
        signals: int | None,
        tied: int | None,
    ) -> None:
        """Opens the files. Raises OSError."""
        self._paths, self._config, self._takeover, self._note = paths, config, takeover, note
        self._signals, self._tied = signals, tied
        self._loop = asyncio.get_running_loop()
        self._synced = 0
        self._unsaved = False
        self._was_signalled = False
        self._reserve = Reserve(paths.reserve)
        self._log = EventLog.open(paths.events, limit=config["logSize"], keep=config["logKeep"], reserve=self._reserve)
        self._journal = CommandJournal.open(paths.commands)
        self._notices = Notices(self._log, note)
        self._notifier = Notifier(config.get("notify"), paths, takeover.workdir, takeover.tmp, note, self._warn)
        self._saver = Saver(paths, note, self._reserve, self._state_unsaved)
        self._performer = Performer(
            paths=paths,
            core=found.core,
            facts=_facts(paths, config, takeover, found),
            log=self._log,
            journal=self._journal,
            saver=self._saver,
            reserve=self._reserve,
            notifier=self._notifier,
            notices=self._notices,
            note=note,
        )
        self._patience = Patience(self._performer.hold, found.core.is_to_end)
        self._performer.loop_effects = self._loop_effects(found.core)
        self._folder = LoopFolder(paths, lock, takeover, config, self._log, self._journal)
        self._amiss_since: float | None = None
        """Since when the folder has not been in its place."""
        if isinstance(self._performer.loop_effects, OnePi):
            pi = self._performer.loop_effects
            self._folder.known_task = lambda: pi.known_task
        self._performer.restore_folder = self._restore_folder
        self._performer.old_files = OldFiles(paths, config, self._performer.later, note)
        inbox = Inbox(paths.inbox)
        self._intake = Intake(
            inbox,
            core=found.core,
            feed=self._performer.feed,
            journal=self._journal,
            log=self._log,
            reserve=self._reserve,
            notices=self._notices,
            note=note,
        )
        self._inbox_watch = InboxWatch(paths, inbox, self._intake, self._notices, self._look_after_folder)

    async def live(self, resume: bool, found: Recovered, launched: float) -> int:
        """From the first decision to the last saved state; the exit code."""
        if self._signals is None:
            self._loop.add_signal_handler(signal.SIGTERM, self._terminated)
        else:
            self._loop.add_reader(self._signals, self._signalled, self._signals)
        with suppress(OSError):  # a `kill` that died left it
            nofollow.unlink(self._paths.kill_order, missing_ok=True)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        try:
            await self._before_the_first_decision(resume, found, launched)
        except OSError as error:
            # Fed, not raised: so state.json says why.
            self._performer.feed(Broken(how_to_fix(error)))
        self._performer.feed(Begin())
        self._inbox_watch.start()
        self._performer.later(self._load_rest())
        finish = await self._until_finished()
        self._performer.facts.tmp_dir = None
        self._follow_folder()
        self._performer.save()
        self._saver.close()
        # `kill` removes the entry of a loop that it ends. One that the shutdown of the machine ends is found by it:
        # `resume --crashed` continues that loop.
        if finish.how != "error" and not (finish.how == "stopped" and self._was_signalled):
            self._leave_the_registry()
        return 1 if finish.how == "error" or self._unsaved else 0

    def _terminated(self) -> None:
        self._was_signalled = True
        self._performer.feed(Terminate())

    async def close(self) -> None:
        """End and close everything. Called once, also after a bug."""
        await self._performer.close()
        self._saver.close()
        await self._notifier.close()
        try:
            self._log.sync()
            self._log.close()
        except OSError as error:  # state.json has the last word, and it is on disk
            self._note(f"the end of {self._paths.events} may not be on disk: {error}")
        self._reserve.give()
        self._folder.close()
        with suppress(OSError):  # the next start tries again
            remove_tree(self._takeover.tmp)
        self._takeover.tree_lock.release()

    def _loop_effects(self, core: Core) -> LoopEffects:
        paths, performer = self._paths, self._performer
        if not isinstance(core, TaskCore):
            # Imported here: pi boots while this module is loaded, and a task loop needs none of it.
            from ralph_runner.shell.ticket_effects import TicketEffects

            return TicketEffects(
                paths=paths,
                config=self._config,
                log=self._log,
                takeover=self._takeover,
                feed=performer.feed,
                save=performer.save,
                later=performer.later,
                tell_merge=performer.tell_merge,
                notices=self._notices,
                note=self._note,
                patience=self._patience,
            )
        return OnePi(
            paths=paths,
            config=self._config,
            log=self._log,
            lines=self._log,
            takeover=self._takeover,
            place=Place(self._takeover.workdir, self._takeover.tmp / "git", lambda: read_task(paths)),
            feed=performer.feed,
            save=performer.save,
            later=performer.later,
            note=self._note,
            warn=self._warn,
            patience=self._patience,
            iteration=core.iteration(),
        )

    async def _before_the_first_decision(self, resume: bool, found: Recovered, launched: float) -> None:
        """The log gets the start of this run and the iterations that were lost, the core the commands left over."""
        self._log.append_event(
            {
                "type": "ralph_loop_start",
                "at": now_ms(),
                "name": self._paths.name,
                "pid": os.getpid(),
                "resumed": resume,
            }
        )
        for message in found.notes:
            self._notices.add("info", message)
        if (own := worktree_of(self._paths, self._config)) is not None:
            told = told_of(without_leads(os.environ, checkout_of(self._paths), own), checkout_of(self._paths))
            if told is not None:
                self._notices.add("info", told)
        for amended in found.amended:
            records.write_iteration(self._paths, amended)
        for lost in found.lost:
            write_record(self._paths, self._log, lost, lost["eventsFrom"] or self._log.offset)
        if far.has_any(self._paths):
            # Imported here: only a loop with a launcher leaves such jobs.
            from ralph_runner.shell.elsewhere import end_left

            for line in await asyncio.to_thread(end_left, self._paths):
                self._notices.add("info", line)
        self._performer.save()
        await self._intake.catch_up(0.0 if found.crashed else launched - CLOCK_TICK_S)

    async def _until_finished(self) -> Finish:
        """Wait for the core's Finish, with heartbeat and syncs meanwhile; raises what ended one of the helpers."""
        helpers: list[asyncio.Future[None]] = [
            self._inbox_watch.failed,
            asyncio.create_task(self._heartbeat()),
            asyncio.create_task(self._sync()),
        ]
        try:
            everything: list[asyncio.Future[Any]] = [self._performer.finished, *helpers]
            ended, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()  # a helper only ever ends by a failure
            return self._performer.finished.result()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await self._inbox_watch.stop()

    async def _heartbeat(self) -> None:
        """On the event loop itself, so that the entry of a runner that hangs goes stale."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._tied is not None and os.getppid() != self._tied:
                self._terminated()
            if self._look_after_folder():
                self._reassert()
            self._performer.save(state_too=False)
            self._performer.feed(Tick())

    def _reassert(self) -> None:
        found = reassert(self._paths, self._config, self._journal, now_ms())
        if found:
            self._note(f"missing or damaged, and written again: {', '.join(found)}")
        if self._paths.state.name in found:
            self._performer.save()

    def _look_after_folder(self) -> bool:
        """True if the loop's folder is in its place; else it is made again, or the loop waits for it."""
        reason = self._restore_folder()
        self._follow_folder()
        now = time.monotonic()
        if reason is None:
            self._amiss_since = None
            self._performer.hold(self._folder, None)
            return True
        since = self._amiss_since = self._amiss_since or now
        if now - since >= GIVE_UP_S:
            self._performer.feed(Broken(reason))
        elif now - since >= LOOK_AGAIN_S:
            self._performer.hold(self._folder, reason)
        return False

    def _follow_folder(self) -> None:
        """The state is written where the folder is, although the loop cannot work there."""
        moved = self._folder.moved_to()
        self._saver.follow(LoopPaths(moved) if moved is not None else self._paths)

    def _restore_folder(self) -> str | None:
        """Why the loop's folder is not in its place, as one line; None if it is, or was made again."""
        reason = None
        try:
            if self._folder.can_be_made_again():
                lost = self._folder.make_again()
                self._inbox_watch.renew()
                self._performer.save()
                self._note("parts of the loop's folder had been deleted; they were made again")
                if lost:
                    self._made_again(lost)
        except Replaced as replaced:
            self._performer.feed(Broken(str(replaced)))
        except OSError as error:
            reason = how_to_fix(error, str(self._paths.dir))
        return reason or self._folder.look()

    def _made_again(self, lost: list[str]) -> None:
        reopen(self._paths)
        self._warn(
            f"{self._paths.dir} was deleted while the loop ran; it was made again from what the runner holds. "
            f"Lost: {'; '.join(lost)}"
        )

    def _signalled(self, fd: int) -> None:
        """Told to end; by whom decides whether that counts."""
        for sender in guard.senders(fd):
            if comes_from_inside(sender, self._paths):
                self._warn(f"a signal to end came from inside the loop (pid {sender}) and was ignored; to end it: stop")
            else:
                self._terminated()

    async def _sync(self) -> None:
        """What was logged is on disk a second later; syncing each event would cost more than pi itself."""
        pause = SYNC_S
        while True:
            await asyncio.sleep(pause)
            unsynced = self._log.offset - self._synced
            pause = SYNC_S / 5 if unsynced > MUCH else SYNC_S
            if unsynced:
                self._synced = self._log.offset
                try:
                    await asyncio.to_thread(self._log.sync)
                except OSError as error:
                    if lacks_room(error) or error.errno in PASSING:
                        self._synced, pause = -1, SYNC_S
                        continue
                    # The disk may have dropped what it did not take: a later sync that succeeds would prove nothing.
                    self._performer.feed(Broken(how_to_fix(error)))

    def _state_unsaved(self, error: OSError) -> None:
        # In the saver's thread. If this was the last state, runner.log is the only place left to say it.
        self._note(f"cannot write state.json: {error}")
        self._unsaved = True
        self._loop.call_soon_threadsafe(self._performer.feed, Broken(how_to_fix(error)))

    async def _load_rest(self) -> None:
        for _ in range(LOAD_LOOKS):  # not before the first prompt is out: pi should have the processor
            await asyncio.sleep(LOAD_REST_S)
            if self._performer.core.iteration() > 0:
                break
        if gone := await asyncio.to_thread(load_rest):
            self._note(f"cannot be loaded any more, the installation has changed: {', '.join(gone)}")

    def _leave_the_registry(self) -> None:
        if self._saver.entry_path is None:
            return
        try:
            registry.remove(self._saver.entry_path)
        except OSError as error:  # state.json already says how the loop ended
            self._note(f"the registry entry stays: {error}")

    def _warn(self, text: str) -> None:
        self._notices.add("warning", text)


def _worktree(paths: LoopPaths, config: Config) -> Worktree | None:
    branch = config["worktree"]
    return None if branch is None else {"branch": branch, "path": str(paths.worktree)}


def _task_path(paths: LoopPaths, config: Config) -> str:
    """The task file's path as the agent is told it: relative where it can be."""
    return str(paths.task if config["worktree"] is not None else paths.task.relative_to(paths.project))


def _facts(paths: LoopPaths, config: Config, takeover: Takeover, found: Recovered) -> Facts:
    return Facts(
        name=paths.name,
        cwd=str(paths.project),
        ralph_dir=str(paths.dir),
        pid=os.getpid(),
        pid_start=identity.start_time(os.getpid()) or 0.0,
        boot_id=identity.boot_id(),
        started_at=found.started_at,
        worktree=_worktree(paths, config),
        tmp_dir=str(takeover.tmp),
    )
