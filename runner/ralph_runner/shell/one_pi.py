"""One pi's effects: whatever a task loop's core, or one worker of a ticket loop, asks of its pi is carried out here.

The runner makes one for a task loop, `ticket_effects` one for each worker. `perform` is called on the event loop's
thread; outcomes come back through `feed`. Lines are in the event log before anyone acts on them, and state.json names
the pi before it can do anything: if the machine dies here, the next runner finds the tree by that, or by the marks in
its environment.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_rpc.clock import now_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import identity
from ralph_rpc.model.config import Config
from ralph_rpc.model.events import IterationStart, PiExit
from ralph_rpc.model.iteration import Iteration, Verify
from ralph_rpc.model.usage import figures, with_figures
from ralph_rpc.pi.argv import held, pi_argv
from ralph_runner.core import effects as fx
from ralph_runner.core.exits import last_words
from ralph_runner.core.inputs import FarEnd, FarRuns, PiExited, PiInput
from ralph_runner.core.results import Measure, PiSpawned, SpawnFailed, TaskRead, Verified, WorkMeasured
from ralph_runner.guarded.process import Guarded
from ralph_runner.guarded.spawn import GuardFault, interpreter, spawn
from ralph_runner.pi.client import PiClient
from ralph_runner.pi.far import FarStream
from ralph_runner.pi.framing import Log
from ralph_runner.shell.changes import WorkMeter
from ralph_runner.shell.cores import Feed
from ralph_runner.shell.environment import child_environment, worktree_of
from ralph_runner.shell.patience import LOOK_AGAIN_S, NoLongerWanted, OwnFault, Patience, always
from ralph_runner.shell.record import UnwrittenRecord, log_record
from ralph_runner.shell.takeover import Takeover
from ralph_runner.shell.task_files import write_again
from ralph_runner.shell.verify import Verification

if TYPE_CHECKING:
    from ralph_rpc.launchers.hosts import Hosts
    from ralph_rpc.model.state import HostState
    from ralph_runner.shell.elsewhere import Elsewhere

SHORTAGES = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""The machine is short of processes, memory or open files."""


@dataclass(frozen=True)
class Place:
    """Where a pi works, and what its prompt is made of."""

    workdir: Path
    scratch: Path
    """A folder for measuring, used by nothing else."""
    read_task: Callable[[], TaskRead]
    ticket: str | None = None
    before_verify: Callable[[], str | None] = lambda: None
    """Called in a thread; a text that it returns is the output of a failed verification."""
    refusal: Callable[[str], str | None] = lambda _: None
    """Called in a thread with what the agent says beside its claim; what speaks against counting it, for the agent."""
    after_verify: Callable[[], None] = lambda: None
    verify: Callable[[Verification, str, int], Awaitable[Verify | None]] | None = None
    """Runs the command where that is not simply the work place."""
    environment: Callable[[], dict[str, str]] | None = None
    """Of its commands, where that is not the loop's own; `pi_environment` of pi itself."""
    pi_environment: Callable[[], dict[str, str]] | None = None


@dataclass
class Pids:
    """The running pi and its guard; None while there is none."""

    pi: int | None = None
    pi_start: float | None = None
    guard: int | None = None
    guard_start: float | None = None


class _NoPi(Exception):
    """pi itself could not be executed, which is for the core to judge."""

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


class OnePi:
    """A pi, restarted as often as asked, with its iterations, measures and verifications."""

    def __init__(
        self,
        *,
        paths: LoopPaths,
        config: Config,
        log: EventLog,
        lines: Log,
        takeover: Takeover,
        place: Place,
        feed: Feed,
        save: Callable[[], None],
        later: Callable[[Coroutine[Any, Any, None]], None],
        note: Callable[[str], None],
        warn: Callable[[str], None],
        patience: Patience,
        iteration: int,
        hosts: "Hosts | None" = None,
    ) -> None:
        self._paths, self._config, self._log, self._lines = paths, config, log, lines
        self._takeover, self._feed, self._save, self._later, self._note = takeover, feed, save, later, note
        self._warn, self._patience = warn, patience
        self._told = ""
        self._known: dict[str | None, TaskRead] = {}
        """What was read last, by ticket: it counts while the file is out of place."""
        self._meter = WorkMeter(place.workdir, place.scratch)
        self._process: Guarded | None = None
        self._client: PiClient | None = None
        self._verification: Verification | None = None
        launcher = config.get("launcher")
        self._elsewhere = None if launcher is None else _elsewhere(launcher, config, paths, takeover.tmp, hosts)
        self._stream: FarStream | None = None
        self._iteration_from = log.offset
        self._recorded: Iteration | None = None
        """The last record, with its offsets in the log."""
        self.place = place
        self.iteration = iteration
        self.pids = Pids()

    def perform(self, effect: fx.Effect) -> UnwrittenRecord | None:
        """Carry out an effect that concerns pi or its work; gives what is left to do of it."""
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
                self._recorded = log_record(self._log, record, self._iteration_from)
                return UnwrittenRecord(self._recorded)
            case fx.AmendRecord(record):
                return self._amend(record)
            case fx.ReadTask():
                self._read_task()
            case fx.MeasureWork(before, ignored_since):
                self._later(self._measure(before, ignored_since))
            case fx.RunVerify():
                self._verification = Verification()
                self._later(self._verify(self._verification, effect))
            case fx.CancelVerify():
                if self._verification is not None:
                    self._verification.cancel()
            case fx.StartPi(model):
                self._later(self._start_pi(model))
            case fx.EndPi(graceful):
                self._end_pi(graceful)
            case _:
                raise TypeError(f"not an effect of one pi: {effect}")
        return None

    def hosts(self) -> "list[HostState] | None":
        """A task loop has none."""
        return None

    def ended(self, how: str) -> None:
        """The loop has ended. A task loop keeps nothing but its records."""

    async def close(self) -> None:
        """End whatever still runs. Called once, also after a bug."""
        if self._takeover.pi is not None:  # the loop ended before its first iteration
            booting = Guarded(self._takeover.pi)
            booting.kill()
            await booting.wait()
        if self._verification is not None:
            self._verification.cancel()
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    def _environment(self) -> dict[str, str]:
        if self.place.environment is not None:
            return self.place.environment()
        return child_environment(self._paths, self._takeover.tmp, own=worktree_of(self._paths, self._config))

    def _begin_iteration(self, effect: fx.BeginIteration) -> None:
        self.iteration = effect.iteration
        self._iteration_from = self._log.offset
        event: IterationStart = {
            "type": "ralph_iteration_start",
            "at": now_ms(),
            "iteration": effect.iteration,
            "kind": effect.kind,
        }
        if effect.ticket is not None:
            event["ticket"] = effect.ticket
        self._log.append_event(event)

    def _amend(self, record: Iteration) -> UnwrittenRecord | None:
        if self._recorded is None or self._recorded["iteration"] != record["iteration"]:
            return None
        self._recorded = with_figures(self._recorded, figures(record))
        return UnwrittenRecord(self._recorded)

    @property
    def known_task(self) -> TaskRead | None:
        """The task as it was read last."""
        return self._known.get(self.place.ticket)

    def _read_task(self) -> None:
        try:
            read = self._look_at_task(self.known_task)
        except OwnFault:
            self._later(self._read_task_again())
        else:
            self._feed(read)

    def _look_at_task(self, known: TaskRead | None) -> TaskRead:
        """The task as it is now. Raises OwnFault if it cannot be read, or something that was there is not."""
        read = self.place.read_task()
        if read.task is None:
            raise OwnFault(read.error)
        if known is not None and known.reflection is not None and read.reflection is None:
            raise OwnFault(f"{self._paths.reflect} is missing")
        self._known[self.place.ticket] = read
        return read

    async def _read_task_again(self) -> None:
        """Editors put a file out of place for an instant; what stays unreadable is replaced by what was read before."""
        known = self.known_task

        async def look() -> TaskRead:
            return self._look_at_task(known)

        try:
            read = await self._patience.through(
                "the task cannot be read", look, give_up_s=None if known is None else LOOK_AGAIN_S
            )
        except OwnFault as fault:
            if known is None:
                self._feed(TaskRead(None, error=str(fault)))
                return
            read = known
            if str(fault) != self._told:
                self._told = str(fault)
                self._warn(f"{fault}; continuing with what was read before")
            if self.place.ticket is None:
                write_again(self._paths, known)
        else:
            self._told = ""
        self._feed(read)

    async def _measure(self, before: Measure | None, ignored_since: int | None) -> None:
        after = await self._meter.measure()
        if before is None:
            self._feed(WorkMeasured(after, pi_memory=identity.memory(self.pids.pi)))
            return
        change = await self._meter.compare(before, after)
        wrote = ignored_since is not None and before == after and await self._meter.wrote_ignored(ignored_since)
        memory = identity.memory(self.pids.pi)
        self._feed(WorkMeasured(after, tuple(change.commits), change.files_changed, wrote, memory))

    async def _verify(self, verification: Verification, effect: fx.RunVerify) -> None:
        try:
            verified = await self._verified(verification, effect)
        except NoLongerWanted:
            verified = Verified(None)
        except OwnFault as fault:
            verified = Verified(None, own=str(fault))
        self._verification = None
        if verified.verify is not None:
            self._log.append_event({"type": "ralph_verify", "at": now_ms(), **verified.verify, **self._mark()})
        self._feed(verified)

    async def _verified(self, verification: Verification, effect: fx.RunVerify) -> Verified:
        """What becomes of the claim. Raises OwnFault where the command, or git around it, cannot be run."""
        command = effect.command

        async def before() -> str | None:
            return await asyncio.to_thread(self.place.before_verify)

        async def refusal() -> str | None:
            return await asyncio.to_thread(self.place.refusal, effect.said)

        async def run() -> Verify | None:
            assert command is not None
            if self.place.verify is not None:
                return await self.place.verify(verification, command, effect.timeout_ms)
            return await verification.run(command, self.place.workdir, self._environment(), effect.timeout_ms)

        async def after() -> None:
            await asyncio.to_thread(self.place.after_verify)

        def unwanted() -> bool:
            return verification.is_cancelled

        problem = await self._patience.through("the work cannot be committed", before, unwanted=unwanted, ours=always)
        if problem is not None:
            return Verified({"command": "git commit", "exitCode": 1, "durationMs": 0, "tail": problem})
        against = await self._patience.through("the work cannot be looked at", refusal, unwanted=unwanted, ours=always)
        if against is not None or command is None:
            return Verified(None, refusal=against, passed=against is None and not unwanted())
        verify = await self._patience.through("--verify cannot be run", run, unwanted=unwanted, ours=always)
        await self._patience.through("what --verify left cannot be removed", after, unwanted=unwanted, ours=always)
        return Verified(verify)

    async def _start_pi(self, model: str | None) -> None:
        pi = pi_argv(self._config, self._paths.sessions, model)
        argv = held(pi, self._config, interpreter())
        env = self._environment() if self.place.pi_environment is None else self.place.pi_environment()
        if self._elsewhere is not None:
            try:
                fence_ms = await self._elsewhere.make_way(self._own_ticket())
                if fence_ms > 0:
                    self._feed(SpawnFailed(self._may_still_run(fence_ms), fence_ms=fence_ms))
                    return
                wait_ms = self._elsewhere.take_host()
                if wait_ms > 0:
                    why = "no host has a free slot, or all that have one are rested"
                    self._feed(SpawnFailed(why, fence_ms=wait_ms))
                    return
                argv, self._stream = self._elsewhere.begin(pi, self.place.workdir, self._own_ticket(), env)
            except OSError as error:
                self._elsewhere.not_started()
                self._feed(SpawnFailed(f"pi cannot be started: {error}"))
                return

        async def start() -> Guarded:
            spawned, self._takeover.pi = self._takeover.pi, None  # the first one is booting already
            if spawned is None:
                spawned = spawn(argv, cwd=self.place.workdir, env=env, tree_lock=self._takeover.tree_lock.fd)
            try:
                return await Guarded(spawned).started(argv[0])
            except GuardFault:
                raise
            except OSError as error:
                raise _NoPi(error) from error

        try:
            process = await self._patience.through("pi's guard cannot be started", start)
        except (_NoPi, OSError, RalphError, OwnFault) as error:
            if self._elsewhere is not None:
                self._elsewhere.not_started()
            self._feed(_not_spawned(error))
            return
        self._process = process
        self._client = PiClient(
            process,
            self._lines,
            self._hear,
            self._note,
            lambda: self.iteration,
            lambda: self.place.ticket,
            self._stream,
            self._elsewhere.written if self._elsewhere is not None else lambda: None,
            process.kill,
        )
        self.pids = Pids(process.pid, process.start_time, process.guard_pid, process.guard_start_time)
        self._client.start()
        # On disk before pi can do anything: the next runner finds the tree by this.
        self._save()
        self._later(self._await_exit(self._client, process))
        self._feed(PiSpawned(process.pid, self._config["piVersion"], tuple(pi), process.start_time))

    def _own_ticket(self) -> str | None:
        """The ticket that pi is started for; one that serves several would keep the id of the first."""
        return self.place.ticket if self._config.get("worktrees") else None

    def _may_still_run(self, fence_ms: int) -> str:
        assert self._elsewhere is not None
        return (
            f"an earlier pi may still run through {self._elsewhere.name}, for {(fence_ms + 999) // 1000} s at most; "
            "no second one is started before"
        )

    def _hear(self, inputs: list[PiInput]) -> None:
        told: list[PiInput] = []
        for one in inputs:
            if isinstance(one, FarRuns) and self._elsewhere is not None:
                one = self._elsewhere.runs(one)
                if self._stream is not None and self._stream.made_cwd:
                    self._warn(f"{self.place.workdir} was not there on {one.host}: it was made, and is empty")
            told.append(one)
        self._feed(*told)

    async def _await_exit(self, client: PiClient, process: Guarded) -> None:
        ended = await client.finish()
        code, method, tail = ended.code, ended.method, client.stderr_tail
        far: FarEnd = ""
        if self._elsewhere is not None and self._stream is not None:
            if (last := self._stream.exit) is not None:
                code, method, tail = last.code, last.method, last.error or tail
            far = await self._elsewhere.ended(self._stream, last_words(tail))
            if rested := self._elsewhere.rested:
                self._warn(rested)
                tail = rested if far == "elsewhere" else tail
        self._client = self._process = self._stream = None
        self.pids = Pids()
        event: PiExit = {
            "type": "ralph_pi_exit",
            "at": now_ms(),
            "pid": process.pid,
            "exitCode": code,
            "terminationMethod": method,
        }
        self._log.append_event({**event, **self._mark()})
        self._feed(PiExited(code, method, tail, far))

    def _end_pi(self, graceful: bool) -> None:
        if self._process is None:
            return
        if self._stream is not None and self._stream.runs is not None and self._client is not None:
            self._client.end_far(self._stream, graceful)
            self._process.close_stdin()
        elif graceful and self._stream is None:
            self._process.close_stdin()
        else:
            self._process.terminate()

    def _mark(self) -> dict[str, str]:
        return {} if self.place.ticket is None else {"ticket": self.place.ticket}


def _not_spawned(error: Exception) -> SpawnFailed:
    """Why nothing was started."""
    match error:
        case _NoPi(why=why):
            return SpawnFailed(f"pi cannot be started: {why}", why.errno in SHORTAGES)
        case OwnFault():
            return SpawnFailed(str(error), own=True)
        case _:
            return SpawnFailed(f"pi cannot be started: {error}")


def _elsewhere(launcher: str, config: Config, paths: LoopPaths, tmp: Path, hosts: "Hosts | None") -> "Elsewhere":
    # Imported here: without a launcher pi waits for none of it.
    from ralph_runner.shell.elsewhere import Elsewhere

    return Elsewhere(launcher, config, paths, tmp, hosts)
