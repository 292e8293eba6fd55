"""A ticket loop's effects: one pi for each worker, and the work on tickets, worktrees and the merge.

Made by the runner; the performer calls `perform`. Everything that may take long runs in a worker thread and reports
back; no two steps of one ticket run at once. Git and the ticket source decide nothing here: the core asks, they answer.
If the machine dies here, the ticket's dispatch record names the last step that was begun, and each step may be done
again.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ralph_rpc.clock import now_ms, parse_iso
from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git.calls import GitError
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Verify
from ralph_rpc.model.state import HostState
from ralph_rpc.model.ticket import TicketRecord, TicketStatus
from ralph_rpc.tickets.notes import memory
from ralph_rpc.tickets.notes.lessons import lessons_in
from ralph_rpc.tickets.notes.progress import Outcome, TicketEntry
from ralph_rpc.tickets.sources.opening import open_source
from ralph_rpc.tickets.ticket import COMPONENT, Backlog
from ralph_runner.core.results import Broken, TaskRead, TicketRead
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import results as rp
from ralph_runner.core.tickets.gate import QUEUE
from ralph_runner.shell.claims import Claims
from ralph_runner.shell.cores import Feed
from ralph_runner.shell.host_slots import hosts_of, told_hosts
from ralph_runner.shell.notices import Notices
from ralph_runner.shell.one_pi import OnePi, Pids, Place
from ralph_runner.shell.patience import GIVE_UP_S, LOOK_AGAIN_S, NoLongerWanted, OwnFault, Patience, always
from ralph_runner.shell.record import UnwrittenRecord, log_record
from ralph_runner.shell.takeover import Takeover
from ralph_runner.shell.ticket_environment import TicketEnvironment
from ralph_runner.shell.ticket_files import TicketFiles
from ralph_runner.shell.ticket_verify import TicketVerify
from ralph_runner.shell.verify import Verification
from ralph_runner.shell.wholelines import WholeLines

if TYPE_CHECKING:
    from ralph_runner.shell.engine import EngineJobs

MARK_PATIENCE_S = 30.0
SETUP_GAP_S = 3.0
"""After the first failure of --worktree-setup, which may take long and load much."""
CANNOT_READ = "the tickets cannot be read"


class TicketEffects:
    """The pis by their worker's key, and the jobs that are under way."""

    def __init__(
        self,
        *,
        paths: LoopPaths,
        config: Config,
        log: EventLog,
        takeover: Takeover,
        feed: Feed,
        save: Callable[[], None],
        later: Callable[[Coroutine[Any, Any, None]], None],
        tell_merge: Callable[[str, str], None],
        notices: Notices,
        note: Callable[[str], None],
        patience: Patience,
    ) -> None:
        self._paths, self._config, self._log, self._takeover = paths, config, log, takeover
        self._feed, self._save, self._later, self._tell_merge = feed, save, later, tell_merge
        self._notices, self._note, self._patience = notices, note, patience
        self._source = open_source(
            paths.project, config.get("tickets") or "", config.get("componentPrefix") or COMPONENT
        )
        self._files = TicketFiles(paths, config, takeover.workdir)
        self._environment = TicketEnvironment(
            paths,
            takeover.tmp,
            self._files,
            bool(config.get("worktrees")),
            config.get("parallel", 1),
            lambda text: notices.add("info", text),
        )
        self._claims = Claims(paths, config, self._files)
        self._verify = TicketVerify(config, self._files, self._claims, self._environment)
        self._memory = memory.MemoryPlaces.of(paths.project, paths.dir)
        self._hosts = hosts_of(config)
        self._engine = _engine_jobs(paths, config, self._files, feed, later, patience, self._warn)
        self._pis: dict[str, OnePi] = {}
        self._verifications: dict[str, Verification] = {}
        self._queue_thread = ThreadPoolExecutor(1, "merge queue")
        self._marks: set[asyncio.Task[None]] = set()
        self._titles: dict[str, str] = {}
        self._running: set[str] = set()
        self._shown: set[str] = set()

    def perform(self, effect: Any) -> UnwrittenRecord | None:
        """Carry out an effect; gives what is left to do of it."""
        match effect:
            case fx.To(key, inner):
                return self._pis[key].perform(inner) if key in self._pis else None
            case fx.KeepRecord(record):
                records.write_ticket(self._paths, record)
                self._titles[record["ticket"]] = record["title"]
                self._show_state(record)
                if record["endedAt"] is not None or record["status"] == "merging":
                    self._environment.workers.done(record["ticket"])
                if record["error"] is not None and record["status"] in ("needs-merge", "merging"):
                    self._tell_merge(record["ticket"], record["error"])
            case fx.Hire(key, ticket):
                if not self._config.get("worktrees") and (problem := self._begin(ticket)):
                    self._warn(problem)
                self._pis[key] = self._new_pi(key, ticket)
            case fx.Reassign(key, ticket):
                one_pi = self._pis[key]
                if problem := self._begin(ticket):
                    self._warn(problem)
                one_pi.place = replace(
                    one_pi.place, ticket=ticket, read_task=lambda: self._read(ticket), **self._hooks(ticket)
                )
            case fx.Release(key):
                self._pis.pop(key, None)
            case fx.Scan():
                self._later(self._scan())
            case fx.SetUp(ticket, command, timeout_ms, fresh):
                self._later(self._set_up(ticket, command, timeout_ms, fresh))
            case fx.CancelSetUp(ticket):
                if ticket in self._verifications:
                    self._verifications[ticket].cancel()
            case fx.VerifyBatch():
                # Here, as it may be told to end before the event loop comes to it.
                self._verifications[QUEUE] = Verification()
                self._later(self._verify_batch(effect, self._verifications[QUEUE]))
            case fx.CancelVerifyBatch():
                if QUEUE in self._verifications:
                    self._verifications[QUEUE].cancel()
            case fx.BuildBatch() | fx.CheckOutBatch() | fx.LandBatch():
                self._later(self._batch(effect))
            case fx.LeaveQueue():
                self._later(self._leave_queue(effect))
            case fx.Remember():
                self._remember(effect)
            case fx.MarkTicket():
                self._mark(effect)
            case fx.AdoptIteration(record):
                return UnwrittenRecord(log_record(self._log, record, self._log.offset))
            case fx.SubmitJob() | fx.FindJob() | fx.CancelJob() | fx.TakeBranch() | fx.ForgetJob():
                assert self._engine is not None
                self._engine.perform(effect)
            case _:
                self._later(self._job(effect))
        return None

    @property
    def pids(self) -> Pids:
        """Of one of its pis: without worktrees there is only one."""
        return next((one_pi.pids for one_pi in self._pis.values()), Pids())

    async def close(self) -> None:
        """End whatever still runs. Called once, also after a bug."""
        if self._marks:  # the last ticket gets its note like the others
            await asyncio.wait(self._marks, timeout=MARK_PATIENCE_S)
        for verification in self._verifications.values():
            verification.cancel()
        self._environment.workers.close()
        if self._engine is not None:
            await self._engine.close()
        self._queue_thread.shutdown(wait=False)
        await asyncio.gather(*(one_pi.close() for one_pi in self._pis.values()))

    def _new_pi(self, key: str, ticket: str) -> OnePi:
        def feed(*inputs: Any) -> None:
            self._feed(*(rp.From(key, one) for one in inputs))

        place = Place(
            self._files.workdir(ticket),
            self._takeover.tmp / f"git-{key or 'shared'}",
            lambda: self._read(ticket),
            ticket,
            **self._hooks(ticket),
            pi_environment=lambda: self._environment.of_pi(ticket),
        )
        return OnePi(
            paths=self._paths,
            config=self._config,
            log=self._log,
            lines=WholeLines(self._log),
            takeover=self._takeover,
            place=place,
            feed=feed,
            save=self._save,
            later=self._later,
            note=self._note,
            warn=self._warn,
            patience=self._patience,
            iteration=0,
            hosts=self._hosts,
        )

    def _hooks(self, ticket: str) -> dict[str, Any]:
        """What is done for this ticket around its pi's claims."""
        commits = bool(self._config.get("worktrees")) and self._config["verify"] is not None
        return {
            # Without a verification, what the agent left is committed with the closed ticket.
            "before_verify": lambda: self._files.commit_work(ticket, self._titles[ticket]) if commits else None,
            "refusal": lambda said: self._claims.refusal(ticket, said),
            "after_verify": lambda: self._files.after_verify(ticket),
            "verify": lambda verification, command, ms: self._verify.run(ticket, verification, command, ms),
            "environment": lambda: self._environment.of(ticket),
        }

    def _begin(self, ticket: str) -> str | None:
        """Before the agent begins; why what there is beside its work is not known, if it is not."""
        try:
            self._claims.begin(ticket)
        except (RalphError, OSError) as error:
            return f"what there is beside {ticket} is not known, so its claims count as they are: {_one_line(error)}"
        return None

    async def _begin_in_thread(self, ticket: str) -> None:
        if problem := await asyncio.to_thread(self._begin, ticket):
            self._warn(problem)

    def _read(self, ticket: str) -> TaskRead:
        """The ticket as it is now where the agent works."""
        try:
            text, path, closed = self._files.read(ticket)
            lessons = tuple(memory.read_lessons(self._memory))
        except RalphError as error:
            return TaskRead(None, error=error.message)
        return TaskRead(text, ticket=TicketRead(path, closed, lessons))

    async def _scan(self) -> None:
        async def look() -> Backlog | None:
            # A person's checkout of another branch has its tickets, not the loop's.
            if self._files.is_switched():
                return None
            return await asyncio.to_thread(lambda: Backlog({}) if self._files.has_none_left() else self._source.scan())

        began = time.monotonic()
        try:
            backlog = await self._patience.through(CANNOT_READ, look, all_errors_s=GIVE_UP_S)
        except NoLongerWanted:
            self._feed(rp.Scanned(None))
            return
        except (OwnFault, RalphError, OSError) as error:
            self._feed(rp.Scanned(None, error=_one_line(error)))
            return
        self._feed(rp.Scanned(backlog, int((time.monotonic() - began) * 1000)))

    async def _job(self, effect: Any) -> None:
        """One step that git or the ticket source carries out."""

        async def step() -> Any:
            return await asyncio.to_thread(self._files.carry_out, effect)

        try:
            # A `git switch` of a person's takes the tickets away for a moment, and their git has its locks.
            report = await self._patience.through(
                effect.ticket, step, all_errors_s=LOOK_AGAIN_S, ours=lambda error: self._is_ours(effect, error)
            )
            if isinstance(report, rp.Committed) and report.problem is None:
                outcome = await asyncio.to_thread(self._claims.outcome, effect.ticket)
                report = replace(report, unchanged=outcome.unchanged, left=outcome.left)
            if isinstance(report, rp.Opened):
                ready = report.set_up or not self._config.get("worktreeSetup")
                for line in await asyncio.to_thread(self._files.copy_files, effect.ticket):
                    self._warn(line)
                if ready:
                    await self._begin_in_thread(effect.ticket)
        except NoLongerWanted as fault:
            self._feed(rp.JobFailed(effect.ticket, str(fault), own=True))
            return
        except OwnFault as fault:
            self._feed(Broken(str(fault)), rp.JobFailed(effect.ticket, str(fault), own=True))
            return
        except (RalphError, OSError) as error:
            report = rp.JobFailed(effect.ticket, _one_line(error))
        self._feed(report)

    def _is_ours(self, effect: Any, error: Exception) -> bool:
        """Whether the ticket is not at fault: git has failed, or the user's checkout lacks the tickets for a while."""
        if isinstance(effect, fx.CloseTicket | fx.RemoveWorktree | fx.LookAtRest):
            return False  # its work is in: whatever fails now, it is done
        return isinstance(error, GitError | OSError) or self._files.lacks_tickets()

    def _mark(self, effect: fx.MarkTicket) -> None:
        task = asyncio.create_task(self._marking(effect), name=f"mark {effect.ticket}")
        self._marks.add(task)
        task.add_done_callback(self._marks.discard)

    async def _marking(self, effect: fx.MarkTicket) -> None:
        try:
            note = effect.note
            if note is not None and (left := await asyncio.to_thread(self._claims.stashes, effect.ticket)):
                note += f"\n\nIts agent left what is not merged: {'; '.join(left)} (git stash list)"
                self._warn(f"{effect.ticket} left {'; '.join(left)}, not merged; see: git stash list")
            await asyncio.to_thread(self._files.mark, effect.ticket, effect.status, note)
        except (RalphError, OSError) as error:
            self._warn(_one_line(error))

    async def _set_up(self, ticket: str, command: str, timeout_ms: int, fresh: bool) -> None:
        """--worktree-setup in the ticket's worktree; where that is fresh, its failure cannot be the ticket's."""
        verification = self._verifications[ticket] = Verification()

        async def work() -> Verify | None:
            run = await verification.run(command, self._files.workdir(ticket), self._environment.of(ticket), timeout_ms)
            if fresh and run is not None and run["exitCode"] != 0:
                tail = " ".join(run["tail"].split())[-300:]
                raise OwnFault(f"it ended with exit code {run['exitCode']}: {tail or '(no output)'}")
            return run

        async def after() -> None:
            if run is not None and run["exitCode"] == 0:
                await asyncio.to_thread(self._files.note_set_up, ticket)
                await self._begin_in_thread(ticket)

        def unwanted() -> bool:
            return verification.is_cancelled

        run: Verify | None = None
        try:
            what = f"{ticket}: {'--worktree-setup' if fresh else 'its command cannot be run'}"
            gap = SETUP_GAP_S if fresh else None
            run = await self._patience.through(what, work, unwanted=unwanted, ours=always, first_gap_s=gap)
            await self._patience.through(f"{ticket}: what its command left", after, unwanted=unwanted, ours=always)
        except NoLongerWanted:
            run = None
        except OwnFault as fault:
            run = None
            self._feed(Broken(str(fault)))
        self._verifications.pop(ticket, None)
        if run is not None:
            self._log.append_event({"type": "ralph_verify", "at": now_ms(), **run, "ticket": ticket})
        self._feed(rp.WasSetUp(ticket, run))

    async def _batch(self, effect: fx.BuildBatch | fx.CheckOutBatch | fx.LandBatch) -> None:
        """One step that git carries out for a whole batch."""

        async def step() -> Any:
            return await self._in_queue(effect)

        report: Any
        try:
            report = await self._patience.through("the merge queue", step, all_errors_s=LOOK_AGAIN_S)
        except NoLongerWanted as fault:
            report = rp.BatchFailed(str(fault), own=True)
        except OwnFault as fault:
            self._feed(Broken(str(fault)))
            report = rp.BatchFailed(str(fault), own=True)
        except (RalphError, OSError) as error:
            report = rp.BatchFailed(_one_line(error))
        self._feed(report)

    async def _verify_batch(self, effect: fx.VerifyBatch, verification: Verification) -> None:
        """--worktree-setup and --verify in the queue's own place."""
        setup = self._config.get("worktreeSetup")

        async def run() -> Verify | None:
            place, env = self._files.queue_workdir(), self._environment.of_queue(effect.tickets)
            if setup is None:
                await asyncio.to_thread(self._files.lend_to_queue, effect.lenders)
            else:  # each time: what it sets up is for this commit
                done = await verification.run(setup, place, env, effect.timeout_ms)
                if done is None or done["exitCode"] != 0:
                    return done
            return await verification.run(effect.command, place, env, effect.timeout_ms)

        def unwanted() -> bool:
            return verification.is_cancelled

        verify: Verify | None = None
        try:
            verify = await self._patience.through("the merge cannot be verified", run, unwanted=unwanted, ours=always)
        except NoLongerWanted:
            pass
        except OwnFault as fault:
            self._feed(Broken(str(fault)))
        self._verifications.pop(QUEUE, None)
        if verify is not None:
            one = {"ticket": effect.tickets[0]} if len(effect.tickets) == 1 else {}
            event: Any = {"type": "ralph_verify", "at": now_ms(), **verify, **one, "tickets": list(effect.tickets)}
            self._log.append_event(event)
        self._feed(rp.BatchVerified(verify))

    async def _in_queue(self, effect: Any) -> Any:
        """In a thread of the queue's own: the others may all wait for the repository's lock."""
        return await asyncio.get_running_loop().run_in_executor(self._queue_thread, self._files.carry_out, effect)

    async def _leave_queue(self, effect: fx.LeaveQueue) -> None:
        try:
            report = await self._in_queue(effect)
        except (RalphError, OSError) as error:
            report = rp.QueueLeft(_one_line(error))
        self._feed(report)

    def _show_state(self, record: TicketRecord) -> None:
        """progress.md lists the running tickets."""
        self._running.discard(record["ticket"])
        if record["endedAt"] is None:
            self._running.add(record["ticket"])
        if self._shown != self._running:
            self._shown = set(self._running)
            self._show("RUNNING")

    def hosts(self) -> list[HostState] | None:
        """The machines of --hosts, as they are."""
        return None if self._hosts is None else told_hosts(self._hosts)

    def ended(self, how: str) -> None:
        """The loop has ended: progress.md says so."""
        self._running.clear()
        self._show({"completed": "COMPLETE", "stopped": "STOPPED"}.get(how, "FAILED"))

    def _show(self, status: str) -> None:
        try:
            memory.show_state(self._memory, status, sorted(self._running), now_ms())
        except (RalphError, OSError) as error:
            self._warn(_one_line(error))

    def _remember(self, effect: fx.Remember) -> None:
        """On the event loop's thread: two entries at once would overwrite each other."""
        record = effect.record
        entry = TicketEntry(
            id=record["ticket"],
            title=record["title"],
            outcome=_outcome(record["status"]),
            iteration=effect.iteration,
            attempt=record["attempt"],
            duration_ms=record["durationMs"],
            cost=record.get("cost", 0.0),
            ended_at=parse_iso(record["endedAt"] or record["startedAt"]) or 0,
            commit=record.get("mergeCommit") or record.get("commit"),
            summary=effect.summary,
            verify=effect.verify_exit,
            error=record["error"],
        )
        for line in record.get("leftBehind", ()):
            self._warn(f"{record['ticket']} left a {line}, which is not merged; see: git stash list")
        lessons = lessons_in(effect.summary, self._config["marker"])
        try:
            new = memory.remember(self._memory, entry, lessons, self._config.get("lessonsMax", 50))
        except (RalphError, OSError) as error:
            self._warn(_one_line(error))
            return
        for lesson in new:
            self._log.append_event(
                {"type": "ralph_lesson", "at": now_ms(), "ticket": record["ticket"], "lesson": lesson}
            )

    def _warn(self, message: str) -> None:
        self._notices.add("warning", message)


def _engine_jobs(
    paths: LoopPaths,
    config: Config,
    files: TicketFiles,
    feed: Feed,
    later: Callable[[Coroutine[Any, Any, None]], None],
    patience: Patience,
    warn: Callable[[str], None],
) -> "EngineJobs | None":
    if not config.get("engine"):
        return None
    # Imported here: hardly any loop has one.
    from ralph_runner.shell.engine import EngineJobs

    return EngineJobs(paths, config, files, feed, later, patience, warn)


def _outcome(status: TicketStatus) -> Outcome:
    return "failed" if status == "failed" else "needs-merge" if status == "needs-merge" else "complete"


def _one_line(error: Exception) -> str:
    if isinstance(error, RalphError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return " ".join(str(error).split())
