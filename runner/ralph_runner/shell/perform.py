"""Carries out the core's effects, in order, and feeds what comes of them back to it.

All of it runs in the event loop's thread; only pi's output (client), state files (saver) and the log's fdatasync
have threads of their own. An event is in the log, and a receipt in the journal, before the next effect begins: if
the machine dies between two effects, the restart finds either both the receipt and its cause, or only the cause.
Where the disk is full, the effect that needs room and all after it wait for it.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from ralph_rpc.clock import iso, now_ms, up_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.atomic import read_plain
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.reserve import Reserve, lacks_room
from ralph_rpc.launch import pi_argv
from ralph_rpc.model.commands import JournalLine
from ralph_rpc.model.events import IterationEnd, IterationStart, PiExit
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.registry import RegistryEntry
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.reports import (
    Broken,
    CommandCame,
    Measure,
    Now,
    PiSpawned,
    SpawnFailed,
    TaskRead,
    Terminate,
    Tick,
    Verified,
    WorkMeasured,
)  # fmt: skip
from ralph_runner.core.room import NO_ROOM
from ralph_runner.core.snapshot import Facts, snapshot
from ralph_runner.core.state import Ended, Loop
from ralph_runner.core.step import Input, next_deadline, step
from ralph_runner.pi.client import PiClient
from ralph_runner.pi.process import Guarded
from ralph_runner.pi.spawn import spawn
from ralph_runner.shell.changes import WorkMeter
from ralph_runner.shell.environment import child_environment
from ralph_runner.shell.saver import Saver
from ralph_runner.shell.takeover import Takeover
from ralph_runner.shell.verify import Verification

LAZY_SAVE_S = 1.0
LARGEST_TASK = 1 << 20
ROOM_RETRY_S = 1.0


@dataclass(frozen=True)
class _Keep:
    """Second half of EndIteration: the file of a record whose event is in the log."""

    record: Iteration


class Performer:
    """The core in its world. `feed` is the only way in."""

    def __init__(
        self,
        *,
        paths: LoopPaths,
        loop: Loop,
        facts: Facts,
        log: EventLog,
        journal: CommandJournal,
        saver: Saver,
        reserve: Reserve,
        hand: Takeover,
        note: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.facts = facts
        self.finished: asyncio.Future[fx.Finish] = asyncio.get_running_loop().create_future()
        self.iteration = loop.iteration
        self._paths, self._log, self._journal, self._saver = paths, log, journal, saver
        self._reserve = reserve
        self._hand, self._note = hand, note
        self._workdir, self._tmp = hand.workdir, hand.tmp
        self._meter = WorkMeter(hand.workdir, hand.tmp / "git")
        self._inputs: deque[Input] = deque()
        self._effects: deque[fx.Effect | _Keep] = deque()
        """Decided and not carried out yet: between two calls of `feed`, what waits for room."""
        self._short = False
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._process: Guarded | None = None
        self._client: PiClient | None = None
        self._verification: Verification | None = None
        self._iteration_from = log.offset

    def feed(self, *inputs: Input) -> None:
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
                    self.loop, effects = step(self.loop, self._inputs.popleft(), _now())
                    self._effects.extend(effects)
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
        loop = self.loop
        asked = loop.terminate or loop.broken is not None or any(order.verb == "stop" for order in loop.orders)
        return asked or any(
            isinstance(one, Terminate | Broken) or (isinstance(one, CommandCame) and one.verb == "stop")
            for one in self._inputs
        )

    def save(self, state_too: bool = True) -> None:
        """Hands the newest state to the saver; without the state it is a heartbeat."""
        now = _now()
        loop = replace(self.loop, status="waiting", error=NO_ROOM) if self._short else self.loop
        state = snapshot(loop, self.facts, now) if state_too else None
        self._saver.put(state, self._entry(now))

    async def close(self) -> None:
        """Ends whatever still runs. Called once, also after a bug."""
        for handle in (self._timer, self._saving):
            if handle is not None:
                handle.cancel()
        if self._verification is not None:
            self._verification.cancel()
        if self._hand.pi is not None:  # the loop had ended before it began
            self._process = Guarded(self._hand.pi)
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _perform(self, effect: fx.Effect | _Keep) -> None:
        match effect:
            case fx.Send(command, id, members):
                if self._client is not None:
                    self._client.send(command, id=id, **members)
            case fx.AnswerDialog(id, members):
                if self._client is not None:
                    self._client.answer_dialog(id, **members)
            case fx.Emit(event):
                self._log.append_event(event)
            case fx.Save(lazy):
                self._save(lazy)
            case fx.Journal():
                self._journal_step(effect)
            case fx.BeginIteration():
                self._begin_iteration(effect)
            case fx.EndIteration(record):
                kept = log_record(self._log, record, self._iteration_from)
                self._effects.insert(1, _Keep(kept))
            case _Keep(record):
                keep_record(self._paths, self._log, record)
            case fx.ReadTask():
                self._inputs.append(self._read_task())
            case fx.MeasureWork(before):
                self._later(self._measure(before))
            case fx.RunVerify():
                self._verification = Verification()
                self._later(self._verify(self._verification, effect))
            case fx.CancelVerify():
                if self._verification is not None:
                    self._verification.cancel()
            case fx.StartPi():
                self._later(self._start_pi())
            case fx.EndPi(graceful):
                self._end_pi(graceful)
            case fx.Finish():
                if not self.finished.done():
                    self.finished.set_result(effect)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
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
        self.loop = replace(self.loop, status="error", stop_reason="blocked", error=message, phase=Ended())
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
        due = next_deadline(self.loop)
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

    def _entry(self, now: Now) -> RegistryEntry:
        loop, facts = self.loop, self.facts
        entry: RegistryEntry = {
            "pid": facts.pid, "pidStartTime": facts.pid_start, "bootId": facts.boot_id, "cwd": facts.cwd,
            "ralphDir": facts.ralph_dir, "name": facts.name, "kind": "task", "startedAt": facts.started_at,
            "lastSeen": iso(now.wall), "monotonicMs": now.mono, "status": loop.status, "iteration": loop.iteration,
            "maxIterations": loop.config["maxIterations"], "model": loop.model or loop.config["model"],
            "provider": loop.provider or loop.config["provider"],
            "cost": snapshot(loop, facts, now)["stats"]["cost"],
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
        self._journal.append(line, durable=True)

    def _begin_iteration(self, effect: fx.BeginIteration) -> None:
        self.iteration = effect.iteration
        self._iteration_from = self._log.offset
        event: IterationStart = {
            "type": "ralph_iteration_start", "at": _now().wall, "iteration": effect.iteration, "kind": effect.kind,
        }  # fmt: skip
        self._log.append_event(event)

    def _read_task(self) -> TaskRead:
        texts: list[str | None] = []
        for path in (self._paths.task, self._paths.reflect):
            try:
                data = read_plain(path, LARGEST_TASK)
                if len(data) > LARGEST_TASK:
                    return TaskRead(None, error=f"{path} is larger than 1 MiB; shorten it and resume")
                texts.append(data.decode("utf-8"))
            except FileNotFoundError:
                texts.append(None)
            except UnicodeDecodeError:
                return TaskRead(None, error=f"{path} is not UTF-8; mend it and resume")
            except OSError as error:
                return TaskRead(None, error=f"{path} cannot be read ({error.strerror}); mend it and resume")
        task, reflection = texts
        if task is None or not task.strip():
            return TaskRead(None, error=f"{self._paths.task} is missing or empty; write the task into it and resume")
        return TaskRead(task, reflection)

    async def _measure(self, before: Measure | None) -> None:
        after = await self._meter.measure()
        if before is None:
            self.feed(WorkMeasured(after))
            return
        change = await self._meter.compare(before, after)
        self.feed(WorkMeasured(after, tuple(change.commits), change.files_changed))

    async def _verify(self, verification: Verification, effect: fx.RunVerify) -> None:
        env = child_environment(self._paths, self._tmp)
        verify = await verification.run(effect.command, self._workdir, env, effect.timeout_ms)
        self._verification = None
        if verify is not None:
            self._log.append_event({"type": "ralph_verify", "at": _now().wall, **verify})
        self.feed(Verified(verify))

    async def _start_pi(self) -> None:
        argv = pi_argv(self.loop.config, self._paths.sessions)
        try:
            spawned, self._hand.pi = self._hand.pi, None  # the first one has been booting all the while
            if spawned is None:
                env = child_environment(self._paths, self._tmp)
                spawned = spawn(argv, cwd=self._workdir, env=env, tree_lock=self._hand.tree_lock.fd)
            process = await Guarded(spawned).started(argv[0])
        except ChildProcessError:  # the guard was killed before it could start anything
            self.feed(PiExited(None, "sigkill", ""))
            return
        except (OSError, RalphError) as error:
            self.feed(SpawnFailed(f"pi cannot be started: {error}"))
            return
        self._process = process
        self._client = PiClient(
            process, self._log, lambda inputs: self.feed(*inputs), self._note, lambda: self.iteration
        )
        facts = self.facts
        facts.pi_pid, facts.pi_start = process.pid, process.start_time
        facts.guard_pid, facts.guard_start = process.guard_pid, process.guard_start_time
        self._client.start()
        # Durable before pi can do anything: a next runner finds the tree by this.
        self.save()
        self._later(self._see_pi_off(self._client, process))
        self.feed(PiSpawned(process.pid, self.loop.config["piVersion"], tuple(argv)))

    async def _see_pi_off(self, client: PiClient, process: Guarded) -> None:
        ended = await client.finish()
        self._client = self._process = None
        facts = self.facts
        facts.pi_pid = facts.pi_start = facts.guard_pid = facts.guard_start = None
        event: PiExit = {
            "type": "ralph_pi_exit", "at": _now().wall, "pid": process.pid, "exitCode": ended.code,
            "terminationMethod": ended.method,
        }  # fmt: skip
        self._log.append_event(event)
        self.feed(PiExited(ended.code, ended.method, client.stderr_tail))

    def _end_pi(self, graceful: bool) -> None:
        if self._process is None:
            return
        if graceful:
            self._process.close_stdin()
        else:
            self._process.terminate()


def write_record(paths: LoopPaths, log: EventLog, record: Iteration, events_from: int) -> None:
    """The record of an iteration, first as its event, then as its file; both on disk when this returns."""
    keep_record(paths, log, log_record(log, record, events_from))


def log_record(log: EventLog, record: Iteration, events_from: int) -> Iteration:
    """The record's event; gives the record as its file is to be.

    The range in the file covers the event that tells of the record; the event itself can only name its own start.
    """
    record = {**record, "eventsFrom": events_from, "eventsTo": log.offset}
    event: IterationEnd = {"type": "ralph_iteration_end", "at": _now().wall, **record}
    record["eventsTo"] = log.append_event(event)
    return record


def keep_record(paths: LoopPaths, log: EventLog, record: Iteration) -> None:
    """The record's file, when its event is on disk. May be repeated where it fails."""
    log.sync()
    records.write_iteration(paths, record)


def _now() -> Now:
    return Now(up_ms(), now_ms(), random.random())
