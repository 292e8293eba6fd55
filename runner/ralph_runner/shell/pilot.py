"""One pi in the world: what a core, or one worker of a ticket loop, asks of it is carried out here.

Made by the performer, which calls `perform` in the event loop's thread and gets what comes of it by `feed`. Lines are
in the event log before anyone acts on them, and state.json names the pi before it can do anything: if the machine
dies here, the next runner finds the tree by that, or by the marks in its environment.
"""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ralph_rpc.clock import now_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.config import Config
from ralph_rpc.model.events import IterationEnd, IterationStart, PiExit
from ralph_rpc.model.iteration import Iteration, Verify
from ralph_rpc.pi_argv import pi_argv
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.reports import Measure, PiSpawned, SpawnFailed, TaskRead, Verified, WorkMeasured
from ralph_runner.pi.client import PiClient
from ralph_runner.pi.framing import Log
from ralph_runner.pi.process import Guarded
from ralph_runner.pi.spawn import spawn
from ralph_runner.shell.changes import WorkMeter
from ralph_runner.shell.environment import child_environment
from ralph_runner.shell.takeover import Takeover
from ralph_runner.shell.verify import Verification

PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""What a machine lacks at times: processes, memory, open files."""


@dataclass(frozen=True)
class Place:
    """Where a pi works, and what it is told."""

    workdir: Path
    scratch: Path
    """A folder of its own for measuring."""
    read_task: Callable[[], TaskRead]
    ticket: str | None = None
    before_verify: Callable[[], str | None] = lambda: None
    """Called in a thread; what it says stands for a verification that failed."""
    after_verify: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Keep:
    """Second half of EndIteration: the file of a record whose event is in the log."""

    record: Iteration


class Feed(Protocol):
    """Takes what pi, or something that was asked for, tells."""

    def __call__(self, *inputs: Any) -> None: ...


@dataclass
class Pids:
    """The pi that runs and its guard; None where none does."""

    pi: int | None = None
    pi_start: float | None = None
    guard: int | None = None
    guard_start: float | None = None


class Pilot:
    """A pi, one after the other, with its iterations, its measures and its verifications."""

    def __init__(
        self, *, paths: LoopPaths, config: Config, log: EventLog, lines: Log, hand: Takeover, place: Place, feed: Feed,
        save: Callable[[], None], later: Callable[[Coroutine[Any, Any, None]], None], note: Callable[[str], None],
        iteration: int,
    ) -> None:  # fmt: skip
        self._paths, self._config, self._log, self._lines = paths, config, log, lines
        self._hand, self._feed, self._save, self._later, self._note = hand, feed, save, later, note
        self._meter = WorkMeter(place.workdir, place.scratch)
        self._process: Guarded | None = None
        self._client: PiClient | None = None
        self._verification: Verification | None = None
        self._iteration_from = log.offset
        self.place = place
        self.iteration = iteration
        self.pids = Pids()

    def perform(self, effect: fx.Effect) -> Keep | None:
        """Carries out an effect that concerns pi or its work; what is left to do of it comes back."""
        match effect:
            case fx.Send(command, id, members):
                if self._client is not None:
                    self._client.send(command, id=id, **members)
            case fx.AnswerDialog(id, members):
                if self._client is not None:
                    self._client.answer_dialog(id, **members)
            case fx.BeginIteration():
                self._begin_iteration(effect)
            case fx.EndIteration(record):
                return Keep(log_record(self._log, record, self._iteration_from))
            case fx.ReadTask():
                self._feed(self.place.read_task())
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
            case _:
                raise TypeError(f"not for a pi: {effect}")
        return None

    async def close(self) -> None:
        """Ends whatever still runs. Called once, also after a bug."""
        if self._verification is not None:
            self._verification.cancel()
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    def _environment(self) -> dict[str, str]:
        return child_environment(self._paths, self._hand.tmp, self.place.ticket)

    def _begin_iteration(self, effect: fx.BeginIteration) -> None:
        self.iteration = effect.iteration
        self._iteration_from = self._log.offset
        event: IterationStart = {
            "type": "ralph_iteration_start", "at": now_ms(), "iteration": effect.iteration, "kind": effect.kind,
        }  # fmt: skip
        if effect.ticket is not None:
            event["ticket"] = effect.ticket
        self._log.append_event(event)

    async def _measure(self, before: Measure | None) -> None:
        after = await self._meter.measure()
        if before is None:
            self._feed(WorkMeasured(after))
            return
        change = await self._meter.compare(before, after)
        self._feed(WorkMeasured(after, tuple(change.commits), change.files_changed))

    async def _verify(self, verification: Verification, effect: fx.RunVerify) -> None:
        verify: Verify | None
        if (problem := await asyncio.to_thread(self.place.before_verify)) is not None:
            verify = {"command": "git commit", "exitCode": 1, "durationMs": 0, "tail": problem}
        else:
            verify = await verification.run(effect.command, self.place.workdir, self._environment(), effect.timeout_ms)
            await asyncio.to_thread(self.place.after_verify)
        self._verification = None
        if verify is not None:
            self._log.append_event({"type": "ralph_verify", "at": now_ms(), **verify, **self._mark()})
        self._feed(Verified(verify))

    async def _start_pi(self) -> None:
        argv = pi_argv(self._config, self._paths.sessions)
        try:
            spawned, self._hand.pi = self._hand.pi, None  # the first one has been booting all the while
            if spawned is None:
                # One pi for all tickets would keep the name of the first.
                ticket = self.place.ticket if self._config.get("worktrees") else None
                env = child_environment(self._paths, self._hand.tmp, ticket)
                spawned = spawn(argv, cwd=self.place.workdir, env=env, tree_lock=self._hand.tree_lock.fd)
            process = await Guarded(spawned).started(argv[0])
        except ChildProcessError:  # the guard was killed before it could start anything
            self._feed(PiExited(None, "sigkill", ""))
            return
        except (OSError, RalphError) as error:
            passing = isinstance(error, OSError) and error.errno in PASSING
            self._feed(SpawnFailed(f"pi cannot be started: {error}", passing))
            return
        self._process = process
        self._client = PiClient(
            process, self._lines, lambda inputs: self._feed(*inputs), self._note, lambda: self.iteration,
            lambda: self.place.ticket,
        )  # fmt: skip
        self.pids = Pids(process.pid, process.start_time, process.guard_pid, process.guard_start_time)
        self._client.start()
        # Durable before pi can do anything: a next runner finds the tree by this.
        self._save()
        self._later(self._see_pi_off(self._client, process))
        self._feed(PiSpawned(process.pid, self._config["piVersion"], tuple(argv), process.start_time))

    async def _see_pi_off(self, client: PiClient, process: Guarded) -> None:
        ended = await client.finish()
        self._client = self._process = None
        self.pids = Pids()
        event: PiExit = {
            "type": "ralph_pi_exit", "at": now_ms(), "pid": process.pid, "exitCode": ended.code,
            "terminationMethod": ended.method,
        }  # fmt: skip
        self._log.append_event({**event, **self._mark()})
        self._feed(PiExited(ended.code, ended.method, client.stderr_tail))

    def _end_pi(self, graceful: bool) -> None:
        if self._process is None:
            return
        if graceful:
            self._process.close_stdin()
        else:
            self._process.terminate()

    def _mark(self) -> dict[str, str]:
        return {} if self.place.ticket is None else {"ticket": self.place.ticket}


def write_record(paths: LoopPaths, log: EventLog, record: Iteration, events_from: int) -> None:
    """The record of an iteration, first as its event, then as its file; both on disk when this returns."""
    keep_record(paths, log, log_record(log, record, events_from))


def log_record(log: EventLog, record: Iteration, events_from: int) -> Iteration:
    """The record's event; gives the record as its file is to be.

    The range in the file covers the event that tells of the record; the event itself can only name its own start.
    """
    record = {**record, "eventsFrom": events_from, "eventsTo": log.offset}
    event: IterationEnd = {"type": "ralph_iteration_end", "at": now_ms(), **record}
    record["eventsTo"] = log.append_event(event)
    return record


def keep_record(paths: LoopPaths, log: EventLog, record: Iteration) -> None:
    """The record's file, when its event is on disk. May be repeated where it fails."""
    log.sync()
    records.write_iteration(paths, record)
