"""Jobs on an engine, as the core asks for them: submitted, watched, called off, their records brought in.

Made by `TicketEffects` for a loop with --engine. Two sources tell of a job: the helper process what the engine says of
it, the hub what it has left there; only the hub's word counts for the work. What is asked for one ticket is done in
order. If the machine dies here, the ticket's record names the job, the hub has its order, and the next runner finds
both; the jobs work on.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from ralph_rpc.errors import RalphError
from ralph_rpc.files.atomic import make_private_dir
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git import hub as hubs
from ralph_rpc.launchers import engine_link as link
from ralph_rpc.launchers import engines, presets
from ralph_rpc.model.config import Config
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import results as rp
from ralph_runner.shell.cores import Feed
from ralph_runner.shell.engine_orders import EngineOrders, Found
from ralph_runner.shell.patience import LOOK_AGAIN_S, OwnFault, Patience
from ralph_runner.shell.ticket_files import TicketFiles

NEAR_S, FAR_S = 1.0, 10.0
"""Between two looks at a hub that is a folder, and at one behind a network."""
OBEYS_S = 12.0
"""For a job that is called off to see it and to push; then the engine ends it."""
ENDS_S = 45.0
"""From the engine's own end of a job to the time when nothing more is expected of it."""
LINGERS_S = 10.0
"""For the engine to see the end of jobs whose records are here already."""
RESTARTS = 5
"""Of the helper, in a row."""


class EngineJobs:
    """Those of one loop. For the event loop's thread."""

    def __init__(
        self,
        paths: LoopPaths,
        config: Config,
        files: TicketFiles,
        feed: Feed,
        later: Callable[[Coroutine[Any, Any, None]], None],
        patience: Patience,
        warn: Callable[[str], None],
    ) -> None:
        self._paths, self._files, self._feed = paths, files, feed
        self._later, self._patience, self._warn = later, patience, warn
        self._engine = engines.parse(config.get("engine") or "")
        self._orders = EngineOrders(paths, config)
        self._gap = NEAR_S if hubs.is_near(config.get("hub")) else FAR_S
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._out_there: dict[tuple[str, int], str | None] = {}
        """Ticket and number of each job of which the engine has not said that it is over, and the engine's id."""
        self._active: set[tuple[str, int]] = set()
        self._names: dict[str, tuple[str, int]] = {}
        self._lingering: set[str] = set()
        """Jobs by name that the engine has, and may still have when their records are here."""
        self._helper: asyncio.subprocess.Process | None = None
        self._restarts = 0
        self._beginning = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    def perform(self, effect: fx.SubmitJob | fx.FindJob | fx.CancelJob | fx.TakeBranch | fx.ForgetJob) -> None:
        """Begins it; its outcome is fed."""
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="hub")
        self._later(self._in_turn(effect))

    async def close(self) -> None:
        """No job ends by this."""
        # PSI/J removes its files when it sees the end of a job.
        await self._until(lambda: not self._lingering, LINGERS_S)
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self._helper is not None and self._helper.stdin is not None:
            self._helper.stdin.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._helper.wait(), 5.0)
            with suppress(ProcessLookupError):
                self._helper.kill()
            await self._helper.wait()

    async def _in_turn(self, effect: Any) -> None:
        async with self._turns[effect.ticket]:
            match effect:
                case fx.SubmitJob():
                    await self._submit(effect)
                case fx.FindJob(ticket, number, id):
                    await self._find(ticket, number, id)
                case fx.CancelJob(ticket, number):
                    await self._withdraw(ticket, number)
                    self._later(self._see_it_end(ticket, number))
                case fx.TakeBranch(ticket, number):
                    await self._take(ticket, number)
                case fx.ForgetJob(ticket, number):
                    await self._forget(ticket, number)

    async def _submit(self, effect: fx.SubmitJob) -> None:
        ticket, number = effect.ticket, effect.number

        async def order() -> None:
            await asyncio.to_thread(self._orders.order, effect)

        try:
            await self._patience.through(f"the order for {ticket}", order, all_errors_s=LOOK_AGAIN_S)
            folder = self._log_of(ticket, number).parent
            await asyncio.to_thread(make_private_dir, folder)
        except (RalphError, OSError, OwnFault) as error:
            self._feed(rp.JobLost(ticket, number, _one_line(error)))
            return
        self._out_there[ticket, number] = None
        name = self._orders.name(number)
        argv = link.command(self._engine, ticket, self._orders.hub, self._paths.name, name)
        await self._say(link.submit(self._named(ticket, number), argv, self._log_of(ticket, number)))

    def _named(self, ticket: str, number: int) -> str:
        """The job as the engine knows it."""
        name = f"{presets.job_name(self._paths.dir, ticket)}-{number}"
        self._names[name] = (ticket, number)
        return name

    def _log_of(self, ticket: str, number: int) -> Path:
        return self._paths.dir / "engine" / f"{presets.job_name(self._paths.dir, ticket)}-{number}.log"

    async def _find(self, ticket: str, number: int, id: str | None) -> None:
        self._out_there[ticket, number] = id
        if id is not None:
            await self._say(link.attach(self._named(ticket, number), id, self._log_of(ticket, number)))
            return
        # Nobody knows whether the engine has taken it: one that begins now finds no order, one that runs ends itself.
        await self._withdraw(ticket, number)
        await self._over(ticket, number, "the runner died while it was submitted")

    async def _withdraw(self, ticket: str, number: int) -> None:
        with suppress(RalphError, OSError):  # the engine is told as well
            await asyncio.to_thread(self._orders.withdraw, ticket)

    async def _see_it_end(self, ticket: str, number: int) -> None:
        """A job that is called off ends by itself, or by the engine's hand."""
        key = (ticket, number)
        if key in self._active and self._gap == NEAR_S:
            await self._until(lambda: key not in self._out_there, OBEYS_S)
        if key in self._out_there and self._names:
            await self._say(link.cancel(self._named(ticket, number)))
        await self._until(lambda: key not in self._out_there, ENDS_S)
        if key in self._out_there:
            await self._over(ticket, number, f"it was called off, and {self._engine.kind} has not said that it is over")

    async def _until(self, so: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not so() and time.monotonic() < until and not self._closed:
            await asyncio.sleep(0.2)

    async def _take(self, ticket: str, number: int) -> None:
        async def take() -> None:
            await asyncio.to_thread(self._orders.take, ticket, number, self._files.worktree(ticket))

        try:
            await self._patience.through(f"the work of {ticket}", take, all_errors_s=LOOK_AGAIN_S)
        except OwnFault as fault:
            self._feed(rp.JobFailed(ticket, str(fault), own=True))
        except (RalphError, OSError) as error:
            self._feed(rp.JobFailed(ticket, _one_line(error)))
        else:
            self._feed(rp.BranchTaken(ticket))

    async def _forget(self, ticket: str, number: int) -> None:
        self._out_there.pop((ticket, number), None)
        self._active.discard((ticket, number))
        alone = not any(other == ticket for other, _ in self._out_there)
        try:
            kept = await asyncio.to_thread(self._orders.forget, ticket, number, alone)
        except (RalphError, OSError) as error:  # the next runner does it
            self._warn(f"what job {number} of {ticket} has left at the hub stays for now: {_one_line(error)}")
        else:
            if kept is not None:
                self._warn(f"job {number} of {ticket} came too late; its work is on branch {kept}")

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._gap)

    async def _look(self) -> None:
        async with self._looking:
            try:
                found: list[Found] = await asyncio.to_thread(self._orders.look)
            except (RalphError, OSError):  # it is asked again all the time
                return
        for one in found:
            self._out_there.pop((one.ticket, one.number), None)
            self._feed(rp.JobReturned(one.ticket, one.number, one.report))

    async def _over(self, ticket: str, number: int, words: str, refused: bool = False) -> None:
        """The engine says that a job is over: if the hub has no record, there will be none."""
        await self._look()
        if (ticket, number) in self._out_there:
            self._out_there.pop((ticket, number))
            self._feed(rp.JobLost(ticket, number, words, refused))

    async def _say(self, line: bytes) -> None:
        async with self._beginning:
            helper = self._helper
            if helper is None or helper.returncode is not None:
                helper = await self._begin()
        if helper is not None and helper.stdin is not None:
            with suppress(OSError):  # its end is heard elsewhere
                helper.stdin.write(line)
                await helper.stdin.drain()

    async def _begin(self) -> asyncio.subprocess.Process | None:
        try:
            self._helper = await asyncio.create_subprocess_exec(
                *engines.helper(self._engine),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=link.environment(),
                start_new_session=True,
                limit=1 << 20,
            )
        except OSError as error:
            await self._all_over(f"the helper cannot be started: {error.strerror}")
            return None
        self._later(self._hear(self._helper))
        return self._helper

    async def _hear(self, helper: asyncio.subprocess.Process) -> None:
        assert helper.stdout is not None and helper.stderr is not None
        errors = asyncio.create_task(helper.stderr.read())
        async for line in helper.stdout:
            with suppress(orjson.JSONDecodeError):
                await self._told(orjson.loads(line))
        await helper.wait()
        tail = " / ".join((await errors).decode(errors="replace").split("\n")[-4:]).strip(" /")[-300:]
        if not self._closed:
            await self._again(tail)

    async def _again(self, words: str) -> None:
        """The helper has died: another one hears of the jobs that the engine has named."""
        self._helper = None
        self._lingering.clear()
        self._restarts += 1
        if self._restarts > RESTARTS:
            await self._all_over(f"the helper does not stay alive: {words}")
            return
        self._warn(f"the process that speaks with {self._engine.kind} has ended and is started again: {words}")
        for (ticket, number), id in list(self._out_there.items()):
            if id is not None:
                await self._say(link.attach(self._named(ticket, number), id, self._log_of(ticket, number)))
            else:
                await self._withdraw(ticket, number)
                await self._over(ticket, number, words)

    async def _all_over(self, words: str) -> None:
        for ticket, number in list(self._out_there):
            await self._over(ticket, number, words, refused=True)

    async def _told(self, told: dict[str, Any]) -> None:
        name = told.get("job", "")
        (self._lingering.add if told.get("is") in ("queued", "active") else self._lingering.discard)(name)
        key = self._names.get(name)
        if key is None or key not in self._out_there:
            return
        ticket, number = key
        match told.get("is"):
            case "queued" | "active" as state:
                self._restarts = 0
                self._out_there[key] = told.get("id") or self._out_there[key]
                if state == "active":
                    self._active.add(key)
                self._feed(rp.JobTold(ticket, number, state, told.get("id")))
            case "refused" | "ended" as what:
                await self._over(ticket, number, str(told.get("words") or what), what == "refused")


def _one_line(error: Exception) -> str:
    if isinstance(error, RalphError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return " ".join(str(error).split())
