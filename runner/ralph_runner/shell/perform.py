"""Carries out the core's effects, in order, and feeds what comes of them back to it.

All of it runs in the event loop's thread; only pi's output (client), state files (saver) and the log's fdatasync
have threads of their own. An event is in the log, and a receipt in the journal, before the next effect begins: if
the machine dies between two effects, the restart finds either both the receipt and its cause, or only the cause.
Where the disk is full, the effect that needs room and all after it wait for it. What concerns pi, tickets or git is
for the `Hands` of the loop's kind.
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
from ralph_rpc.model.commands import JournalLine
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import State
from ralph_rpc.notify import needs_merge, notice_of
from ralph_runner.core import effects as fx
from ralph_runner.core.reports import Broken, CommandCame, Now, Terminate, Tick
from ralph_runner.core.snapshot import Facts
from ralph_runner.shell.cores import Core
from ralph_runner.shell.notify import Notifier
from ralph_runner.shell.pilot import Keep, Pids, keep_record
from ralph_runner.shell.saver import Saver

LAZY_SAVE_S = 1.0
ROOM_RETRY_S = 1.0


class Hands(Protocol):
    """What carries out the effects that the performer does not know."""

    def perform(self, effect: Any) -> Any: ...
    def pids(self) -> Pids: ...
    def ended(self, how: str) -> None: ...
    async def close(self) -> None: ...


class Performer:
    """The core in its world. `feed` is the only way in."""

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
        note: Callable[[str], None],
    ) -> None:
        self.core = core
        self.facts = facts
        self.hands: Hands | None = None
        """Set once, before the first input."""
        self.finished: asyncio.Future[fx.Finish] = asyncio.get_running_loop().create_future()
        self._paths, self._log, self._journal, self._saver = paths, log, journal, saver
        self._reserve, self._notifier, self._note = reserve, notifier, note
        self._told: str | None = None
        """The last status that a person may have been told of."""
        self._inputs: deque[Any] = deque()
        self._effects: deque[Any] = deque()
        """Decided and not carried out yet: between two calls of `feed`, what waits for room."""
        self._short = False
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def feed(self, *inputs: Any) -> None:
        """Lets the core decide on each of the inputs, and carries its decisions out."""
        self._inputs.extend(inputs)
        if self._busy:
            return
        self._busy = True
        try:
            self._carry_on()
        finally:
            self._busy = False
        self._set_timer()

    def _carry_on(self) -> None:
        try:
            while self._effects or self._inputs:
                if self._effects:
                    self._perform(self._effects[0])
                    self._effects.popleft()
                else:
                    self._effects.extend(self.core.step(self._inputs.popleft(), _now()))
        except OSError as error:
            if lacks_room(error) and self._reserve.give():
                self._carry_on()
            elif not lacks_room(error) or self._is_to_end():
                self._give_up(error)
            else:
                self._wait_for_room(error)
        else:
            if self._short:
                self._short = False
                self.save()

    def _wait_for_room(self, error: OSError) -> None:
        """What could not be written is tried again with every input, and once a second."""
        if not self._short:
            self._short = True
            self._note(f"cannot write {error.filename or 'a receipt'}: {error.strerror}; waiting for room")
            self.save()

    def _is_to_end(self) -> bool:
        """The end is asked for: a loop that cannot even write its receipts does not wait for room then."""
        asked = self.core.is_to_end()
        return asked or any(
            isinstance(one, Terminate | Broken) or (isinstance(one, CommandCame) and one.verb == "stop")
            for one in self._inputs
        )

    def save(self, state_too: bool = True) -> None:
        """Hands the newest state to the saver; without the state it is a heartbeat."""
        now = _now()
        state = self._state(now)
        self._saver.put(state if state_too else None, self._entry(state, now))
        notice = notice_of(self._told, state, now.wall)
        self._told = state["status"]
        if notice is not None:
            self._notifier.tell(notice)

    def tell_merge(self, ticket: str, reason: str) -> None:
        """A ticket's merge needs a person."""
        now = _now()
        self._notifier.tell(needs_merge(self._state(now), ticket, reason, now.wall))

    async def close(self) -> None:
        """Ends whatever still runs. Called once, also after a bug."""
        for handle in (self._timer, self._saving):
            if handle is not None:
                handle.cancel()
        if self.hands is not None:
            await self.hands.close()
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
            case Keep(record):
                keep_record(self._paths, self._log, record)
            case fx.Finish(how):
                if self.hands is not None:
                    self.hands.ended(how)
                if not self.finished.done():
                    self.finished.set_result(effect)
            case _:
                assert self.hands is not None
                rest = self.hands.perform(effect)
                if rest is not None:
                    self._effects.insert(1, rest)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that takes its time; it tells what comes of it by `feed`."""
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
        """A receipt or an event that cannot be written is no reason to go on as if it had been: pi is ended, and a
        resume begins where the files are."""
        self._inputs.clear()
        self._effects.clear()
        self._short = False
        message = f"{error.filename or self._paths.dir}: {error.strerror}; mend it and resume"
        self._note(f"cannot go on: {message}")
        self.core.give_up(message)
        self.save()
        if not self.finished.done():
            self.finished.set_result(fx.Finish("error"))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._effects:
            self._timer = asyncio.get_running_loop().call_later(ROOM_RETRY_S, self.feed)
            return
        due = self.core.deadline()
        if due is not None and not self.finished.done():
            # One millisecond late rather than early: a Tick before its deadline would only be repeated.
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
        pids = self.hands.pids() if self.hands is not None else Pids()
        facts = self.facts
        facts.pi_pid, facts.pi_start, facts.guard_pid, facts.guard_start = pids.pi, pids.pi_start, pids.guard, pids.guard_start
        return self.core.state(facts, now, self._short)

    def _entry(self, state: State, now: Now) -> RegistryEntry:
        facts = self.facts
        entry: RegistryEntry = {
            "pid": facts.pid, "pidStartTime": facts.pid_start, "bootId": facts.boot_id, "cwd": facts.cwd,
            "ralphDir": facts.ralph_dir, "name": facts.name, "kind": state["kind"], "startedAt": facts.started_at,
            "lastSeen": iso(now.wall), "monotonicMs": now.mono, "status": state["status"],
            "iteration": state["iteration"], "maxIterations": state["maxIterations"], "model": state["model"],
            "provider": state["provider"], "cost": state["stats"]["cost"],
        }  # fmt: skip
        if facts.worktree is not None:
            entry["worktree"] = facts.worktree
        return entry

    def _journal_step(self, effect: fx.Journal) -> None:
        line: JournalLine = {
            "at": _now().wall, "id": effect.id, "command": effect.command, "state": effect.state,
        }  # fmt: skip
        if effect.iteration is not None:
            line["iteration"] = effect.iteration
        if effect.reason is not None:
            line["reason"] = effect.reason
        if effect.redelivered:
            line["redelivered"] = True
        # `accepted` tells a restart nothing that `sent` has not told it.
        self._journal.append(line, durable=effect.state != "accepted")


def _now() -> Now:
    return Now(up_ms(), now_ms(), random.random())
