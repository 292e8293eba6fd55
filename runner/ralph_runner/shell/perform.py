"""Carries out the core's effects, in order, and feeds their outcomes back to it.

Made by the runner. Everything here runs on the event loop's thread; only pi's output (pi/reader.py), the state files
(saver.py) and the log's fdatasync have threads of their own. An event is in the log, and a receipt in the journal,
before the next effect begins: if the machine dies between two effects, the restart finds either the receipt and its
cause, or only the cause. While the disk is full, or the loop's folder is out of place, the effect that needs it and all
after it wait. Effects on pi, tickets or git are for the `LoopEffects` of the loop's kind.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ralph_rpc.clock import iso, now_ms, up_ms
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.reserve import Reserve, lacks_room
from ralph_rpc.machine import nofollow
from ralph_rpc.model.commands import JournalLine
from ralph_rpc.model.events import StatusChange
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import HostState, State
from ralph_rpc.model.usage import tokens
from ralph_rpc.story.notifications import needs_merge, notification_of, unpaid
from ralph_runner.core import effects as fx
from ralph_runner.core.results import Broken, CommandCame, Now, Terminate, Tick
from ralph_runner.core.snapshot import Facts
from ralph_runner.shell.cores import Core
from ralph_runner.shell.notices import Notices
from ralph_runner.shell.notify import Notifier
from ralph_runner.shell.old_files import OldFiles
from ralph_runner.shell.one_pi import Pids
from ralph_runner.shell.patience import GIVE_UP_S, LOOK_AGAIN_S, PASSING
from ralph_runner.shell.record import UnwrittenRecord, write_record_file
from ralph_runner.shell.saver import Saver

HOLDABLE = ("starting", "running")
"""Statuses of a loop that is shown as waiting where a fault of our own holds it up."""
LAZY_SAVE_S = 1.0
SPACE_RETRY_S = 1.0


class LoopEffects(Protocol):
    """Carries out the effects that differ by the loop's kind: `OnePi` for a task, `TicketEffects` for tickets."""

    @property
    def pids(self) -> Pids: ...
    def perform(self, effect: Any) -> UnwrittenRecord | None: ...
    def ended(self, how: str) -> None: ...
    def hosts(self) -> list[HostState] | None: ...
    async def close(self) -> None: ...


class Performer:
    """Runs a core. `feed` is the only way in."""

    def __init__(
        self,
        *,
        paths: LoopPaths,
        core: Core,
        facts: Facts,
        log: EventLog,
        journal: CommandJournal,
        saver: Saver,
        reserve: Reserve,
        notifier: Notifier,
        notices: Notices,
        note: Callable[[str], None],
    ) -> None:
        self.core = core
        self.facts = facts
        self.loop_effects: LoopEffects | None = None
        """Set once, before the first input: it needs this performer's `feed`."""
        self.restore_folder: Callable[[], str | None] | None = None
        """Set once: makes the loop's folder whole again, or says why that cannot be done now."""
        self.old_files: OldFiles | None = None
        """Set once, as `loop_effects`."""
        self.finished: asyncio.Future[fx.Finish] = asyncio.get_running_loop().create_future()
        self._paths, self._log, self._journal, self._saver = paths, log, journal, saver
        self._reserve, self._notifier, self._notices, self._note = reserve, notifier, notices, note
        self._saved: State | None = None
        """The last state that was put into state.json; the registry's entry tells the same figures."""
        self._told: str | None = None
        """The last status for which a person may have got a notice."""
        self._bills: frozenset[str] = frozenset()
        """The unpaid bills of which a person may have got a notice."""
        self._inputs: deque[Any] = deque()
        self._effects: deque[Any] = deque()
        """Decided and not carried out yet: between two calls of `feed`, those that wait for space."""
        self._disk_full = False
        self._amiss_since: float | None = None
        """Since when a write has failed for another reason that may pass."""
        self._holds: dict[object, str] = {}
        self._shown_hold: str | None = None
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def feed(self, *inputs: Any) -> None:
        """Let the core decide on each of the inputs, and carry its decisions out."""
        self._inputs.extend(inputs)
        if self._busy:
            return
        self._busy = True
        try:
            self._run()
        finally:
            self._busy = False
        self._set_timer()

    def _run(self) -> None:
        try:
            while self._effects or self._inputs:
                if self._effects:
                    self._perform(self._effects[0])
                    self._effects.popleft()
                else:
                    self._effects.extend(self.core.step(self._inputs.popleft(), _now()))
        except OSError as error:
            if lacks_room(error) and self._reserve.give():
                self._run()
            elif lacks_room(error) and not self._is_to_end():
                self._wait_for_space(error)
            elif error.errno not in PASSING or not self._waits_for_place(error):
                self._give_up(error)
        else:
            if self._amiss_since is not None:
                self._amiss_since = None
                self.hold(self, None)
            if self._disk_full:
                self._disk_full = False
                self.save()

    def _waits_for_place(self, error: OSError) -> bool:
        """A folder or file is out of place: made again at once if that can be, else looked at once a second."""
        now = time.monotonic()
        first = self._amiss_since is None
        self._amiss_since = since = self._amiss_since or now
        if first and self.restore_folder is not None and self.restore_folder() is None:
            self._run()
            return True
        if now - since >= LOOK_AGAIN_S:
            self.hold(self, f"{how_to_fix(error, str(self._paths.dir))}; trying again")
        return now - since < (LOOK_AGAIN_S if self._is_to_end() else GIVE_UP_S)

    def hold(self, key: object, reason: str | None) -> None:
        """Show the loop as waiting for a fault of this program or machine to pass; None: no longer for that `key`."""
        if reason is None:
            self._holds.pop(key, None)
        else:
            self._holds[key] = reason
        shown = next(iter(self._holds.values()), None)
        if shown == self._shown_hold or self.finished.done():
            return
        before, self._shown_hold = self._shown_hold, shown
        now = _now()
        state = self.core.state(self.facts, now, self._disk_full)
        if state["status"] in HOLDABLE:
            self._note(f"waiting: {shown}" if shown is not None else "no longer waiting for that")
            own = state["status"]
            event: StatusChange = {"type": "ralph_status", "at": now.wall, "from": own, "to": own}
            if shown is None:
                event["from"] = "waiting"
            else:
                event["from"], event["to"], event["reason"] = own if before is None else "waiting", "waiting", shown
            self._log.append_event(event)
        self.save()

    def _wait_for_space(self, error: OSError) -> None:
        """The failed write is tried again with every input, and once a second."""
        if not self._disk_full:
            self._disk_full = True
            self._note(f"cannot write {error.filename or 'a receipt'}: {error.strerror}; waiting for free space")
            self.save()

    def _is_to_end(self) -> bool:
        """The end is asked for: a loop that cannot even write its receipts does not wait for space then."""
        asked = self.core.is_to_end()
        return asked or any(
            isinstance(one, Terminate | Broken) or (isinstance(one, CommandCame) and one.verb == "stop")
            for one in self._inputs
        )

    def save(self, state_too: bool = True) -> None:
        """Give the newest state to the saver; without the state it is a heartbeat."""
        now = _now()
        state = self._state(now)
        if state_too or self._saved is None:
            self._saved = state
        self._saver.put(state if state_too else None, self._entry(self._saved, now))
        ended = notification_of(self._told, state, now.wall, nofollow.exists(self._paths.kill_order))
        self._told = state["status"]
        self._bills, bill = unpaid(state, self._bills, now.wall)
        for notice in (ended, bill):
            if notice is not None:
                self._notifier.tell(notice)

    def tell_merge(self, ticket: str, reason: str) -> None:
        """A ticket's merge needs a person."""
        now = _now()
        self._notifier.tell(needs_merge(self._state(now), ticket, reason, now.wall))

    async def close(self) -> None:
        """End whatever still runs. Called once, also after a bug."""
        for handle in (self._timer, self._saving):
            if handle is not None:
                handle.cancel()
        if self.loop_effects is not None:
            await self.loop_effects.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _perform(self, effect: Any) -> None:
        match effect:
            case fx.Emit(event):
                self._log.append_event(event)
            case fx.Save(lazy):
                self._save(lazy)
            case fx.Journal():
                self._journal_step(effect)
            case UnwrittenRecord(record):
                write_record_file(self._paths, self._log, record)
                if self.old_files is not None:
                    self.old_files.ended(record)
            case fx.Finish(how):
                self._notices.loop_ended()
                if self.loop_effects is not None:
                    self.loop_effects.ended(how)
                if not self.finished.done():
                    self.finished.set_result(effect)
            case _:
                assert self.loop_effects is not None
                rest = self.loop_effects.perform(effect)
                if rest is not None:
                    self._effects.insert(1, rest)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work that may take long; it reports its outcome through `feed`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, OSError):
            self._give_up(error)
        elif error is not None and not self.finished.done():
            self.finished.set_exception(error)

    def _give_up(self, error: OSError) -> None:
        """A receipt or an event cannot be written, and the loop must not continue as if it had been: pi is ended, and a
        resume begins from what the files say."""
        self._inputs.clear()
        self._effects.clear()
        self._disk_full = False
        message = how_to_fix(error, str(self._paths.dir))
        self._note(f"cannot continue: {message}")
        self._notices.loop_ended()
        self.core.give_up(message)
        self.save()
        if not self.finished.done():
            self.finished.set_result(fx.Finish("error"))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._effects:
            self._timer = asyncio.get_running_loop().call_later(SPACE_RETRY_S, self.feed)
            return
        due = self.core.deadline()
        if due is not None and not self.finished.done():
            # One millisecond late rather than early: a Tick before its deadline would only have to come again.
            delay = max(0, due - time.monotonic_ns() // 1_000_000 + 1) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self.feed(Tick())

    def _save(self, lazy: bool) -> None:
        if not lazy:
            if self._saving is not None:
                self._saving.cancel()
                self._saving = None
            self.save()
        elif self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(LAZY_SAVE_S, self._save, False)

    def _state(self, now: Now) -> State:
        pids = self.loop_effects.pids if self.loop_effects is not None else Pids()
        facts = self.facts
        facts.pi_pid, facts.pi_start, facts.guard_pid, facts.guard_start = (
            pids.pi,
            pids.pi_start,
            pids.guard,
            pids.guard_start,
        )
        facts.hosts = self.loop_effects.hosts() if self.loop_effects is not None else None
        state = self.core.state(facts, now, self._disk_full)
        if self._shown_hold is not None and state["status"] in HOLDABLE:
            state["status"], state["waitingFor"], state["error"] = "waiting", "own", self._shown_hold
        return state

    def _entry(self, state: State, now: Now) -> RegistryEntry:
        facts = self.facts
        entry: RegistryEntry = {
            "pid": facts.pid,
            "pidStartTime": facts.pid_start,
            "bootId": facts.boot_id,
            "cwd": facts.cwd,
            "ralphDir": facts.ralph_dir,
            "name": facts.name,
            "kind": state["kind"],
            "startedAt": facts.started_at,
            "lastSeen": iso(now.wall),
            "monotonicMs": now.mono,
            "status": state["status"],
            "iteration": state["iteration"],
            "maxIterations": state["maxIterations"],
            "model": state["model"],
            "provider": state["provider"],
            "cost": state["stats"]["cost"],
            "tokens": tokens(state["stats"]),
            "counted": state["stats"]["iterations"],
            "elapsedMs": state["elapsedMs"],
            "updatedAt": state["updatedAt"],
        }
        waiting, wake = state.get("waitingFor"), state["nextWakeAt"]
        if waiting is not None:
            entry["waitingFor"] = waiting
        if wake is not None:
            entry["nextWakeAt"] = wake
        if "tickets" in state:
            entry["ticketsClosed"], entry["ticketsTotal"] = state["tickets"]["closed"], state["tickets"]["total"]
        if "monotonicMs" in state:
            entry["updatedMonotonicMs"] = state["monotonicMs"]
        if facts.worktree is not None:
            entry["worktree"] = facts.worktree
        return entry

    def _journal_step(self, effect: fx.Journal) -> None:
        line: JournalLine = {"at": _now().wall, "id": effect.id, "command": effect.command, "state": effect.state}
        if effect.iteration is not None:
            line["iteration"] = effect.iteration
        if effect.reason is not None:
            line["reason"] = effect.reason
        if effect.redelivered:
            line["redelivered"] = True
        # To a restart, `queued` says no more than `sent` did.
        self._journal.append(line, durable=effect.state != "queued")


def how_to_fix(error: OSError, place: str = "the disk") -> str:
    """One line for a person: what failed, where, and what to do; `place` for an error that names no file."""
    return f"{error.filename or place}: {error.strerror}; fix it, then resume"


def _now() -> Now:
    return Now(up_ms(), now_ms(), random.random())
