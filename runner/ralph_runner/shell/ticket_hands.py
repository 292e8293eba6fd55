"""The hands of a ticket loop: a pilot for each worker, and what is done with tickets, worktrees and the merge.

Everything that may take its time runs in a worker thread and reports back; no two steps of one ticket run at once.
Git and the ticket source decide nothing here, they are asked by the core. If the machine dies here, the ticket's
dispatch record tells the last step that was begun, and each step may be done again.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from ralph_rpc.clock import now_ms, parse_iso
from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Verify
from ralph_rpc.model.ticket import TicketRecord, TicketStatus
from ralph_rpc.tickets import memory
from ralph_rpc.tickets.lessons import lessons_in
from ralph_rpc.tickets.markdown import MarkdownTickets
from ralph_rpc.tickets.progress import Outcome, TicketEntry
from ralph_runner.core.reports import TaskRead, TicketRead
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import reports as rp
from ralph_runner.shell.environment import child_environment
from ralph_runner.shell.pilot import Feed, Keep, Pids, Pilot, Place
from ralph_runner.shell.takeover import Takeover
from ralph_runner.shell.ticket_files import TicketFiles
from ralph_runner.shell.verify import Verification
from ralph_runner.shell.wholelines import WholeLines

MARK_PATIENCE_S = 30.0
SCAN_PATIENCE = 3
"""So many looks at the tickets may fail, one after the other, before the loop gives up."""


class TicketHands:
    """Pilots by their worker's key, and the jobs that are under way."""

    def __init__(
        self, *, paths: LoopPaths, config: Config, log: EventLog, hand: Takeover, feed: Feed,
        save: Callable[[], None], later: Callable[[Coroutine[Any, Any, None]], None], tell_merge: Callable[[str, str], None],
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._paths, self._config, self._log, self._hand = paths, config, log, hand
        self._feed, self._save, self._later, self._tell_merge, self._note = feed, save, later, tell_merge, note
        self._source = MarkdownTickets(Path(config.get("tickets") or ""))
        self._files = TicketFiles(paths, config, hand.workdir)
        self._memory = memory.MemoryPlaces.of(paths.project, paths.dir)
        self._pilots: dict[str, Pilot] = {}
        self._verifications: dict[str, Verification] = {}
        self._failed_scans = 0
        self._has_ended = False
        self._marks: set[asyncio.Task[None]] = set()
        self._titles: dict[str, str] = {}
        self._running: set[str] = set()
        self._shown: set[str] = set()

    def perform(self, effect: Any) -> Any:
        match effect:
            case fx.To(key, inner):
                rest = self._pilots[key].perform(inner) if key in self._pilots else None
                return rest if isinstance(rest, Keep) else None
            case fx.KeepRecord(record):
                records.write_ticket(self._paths, record)
                self._titles[record["ticket"]] = record["title"]
                self._show_state(record)
                if record["error"] is not None and record["status"] in ("needs-merge", "merging"):
                    self._tell_merge(record["ticket"], record["error"])
            case fx.Hire(key, ticket):
                self._pilots[key] = self._pilot(key, ticket)
            case fx.Reassign(key, ticket):
                pilot = self._pilots[key]
                pilot.place = replace(pilot.place, ticket=ticket, read_task=lambda: self._read(ticket))
            case fx.Release(key):
                self._pilots.pop(key, None)
            case fx.Scan():
                self._later(self._scan())
            case fx.SetUp(ticket, command, timeout_ms):
                self._later(self._run(ticket, command, timeout_ms, rp.WasSetUp))
            case fx.VerifyMerge(ticket, command, timeout_ms):
                self._later(self._run(ticket, command, timeout_ms, rp.MergeVerified))
            case fx.CancelVerifyMerge(ticket):
                if ticket in self._verifications:
                    self._verifications[ticket].cancel()
            case fx.Remember():
                self._remember(effect)
            case fx.MarkTicket():
                self._mark(effect)
            case _:
                self._later(self._job(effect))
        return None

    def pids(self) -> Pids:
        return next((pilot.pids for pilot in self._pilots.values()), Pids())

    async def close(self) -> None:
        if self._marks:  # the note on the last ticket is as good as the others
            await asyncio.wait(self._marks, timeout=MARK_PATIENCE_S)
        for verification in self._verifications.values():
            verification.cancel()
        await asyncio.gather(*(pilot.close() for pilot in self._pilots.values()))

    def _pilot(self, key: str, ticket: str) -> Pilot:
        def feed(*inputs: Any) -> None:
            self._feed(*(rp.From(key, one) for one in inputs))

        place = Place(
            self._files.workdir(ticket), self._hand.tmp / f"git-{key or 'shared'}", lambda: self._read(ticket), ticket,
            lambda: self._files.before_verify(ticket, self._titles[ticket]), lambda: self._files.after_verify(ticket),
        )  # fmt: skip
        return Pilot(
            paths=self._paths, config=self._config, log=self._log, lines=WholeLines(self._log), hand=self._hand,
            place=place, feed=feed, save=self._save, later=self._later, note=self._note, iteration=0,
        )  # fmt: skip

    def _read(self, ticket: str) -> TaskRead:
        """The ticket as it is now where the agent works."""
        try:
            text, path, closed = self._files.read(ticket)
            lessons = tuple(memory.read_lessons(self._memory))
        except RalphError as error:
            return TaskRead(None, error=error.message)
        return TaskRead(text, ticket=TicketRead(path, closed, lessons))

    async def _scan(self) -> None:
        began = time.monotonic()
        try:
            backlog = await asyncio.to_thread(self._source.scan)
        except (RalphError, OSError) as error:
            self._failed_scans += 1
            self._note(f"the tickets cannot be read: {error}")
            given_up = f"the tickets cannot be read: {error}" if self._failed_scans >= SCAN_PATIENCE else None
            self._feed(rp.Scanned(None, error=given_up))
            return
        self._failed_scans = 0
        self._feed(rp.Scanned(backlog, int((time.monotonic() - began) * 1000)))

    async def _job(self, effect: Any) -> None:
        """One step that git or the source carries out."""
        try:
            report = await asyncio.to_thread(self._files.carry_out, effect)
            if isinstance(report, rp.Opened):
                for line in await asyncio.to_thread(self._files.copy_files, effect.ticket):
                    self._tell(line)
        except (RalphError, OSError) as error:
            report = rp.JobFailed(effect.ticket, _one_line(error))
        self._feed(report)

    def _mark(self, effect: fx.MarkTicket) -> None:
        task = asyncio.create_task(self._marking(effect), name=f"mark {effect.ticket}")
        self._marks.add(task)
        task.add_done_callback(self._marks.discard)

    async def _marking(self, effect: fx.MarkTicket) -> None:
        try:
            await asyncio.to_thread(self._files.mark, effect.ticket, effect.status, effect.note)
        except (RalphError, OSError) as error:
            self._tell(_one_line(error))

    async def _run(self, ticket: str, command: str, timeout_ms: int, report: Callable[[str, Verify | None], Any]) -> None:
        """A command of the user's in the ticket's worktree."""
        verification = self._verifications[ticket] = Verification()
        env = child_environment(self._paths, self._hand.tmp, ticket)
        verify = await verification.run(command, self._files.workdir(ticket), env, timeout_ms)
        self._verifications.pop(ticket, None)
        if report is rp.WasSetUp and verify is not None and verify["exitCode"] == 0:
            await asyncio.to_thread(self._files.note_set_up, ticket)
        if report is rp.MergeVerified:
            await asyncio.to_thread(self._files.after_verify, ticket)
        if verify is not None:
            self._log.append_event({"type": "ralph_verify", "at": now_ms(), **verify, "ticket": ticket})
        self._feed(report(ticket, verify))

    def _show_state(self, record: TicketRecord) -> None:
        """progress.md tells what runs."""
        self._running.discard(record["ticket"])
        if record["endedAt"] is None:
            self._running.add(record["ticket"])
        if self._shown != self._running:
            self._shown = set(self._running)
            self._show("RUNNING")

    def ended(self, how: str) -> None:
        """The loop has ended: progress.md says so, and its last event is written."""
        self._has_ended = True
        self._running.clear()
        self._show({"completed": "COMPLETE", "stopped": "STOPPED"}.get(how, "FAILED"))

    def _show(self, status: str) -> None:
        try:
            memory.show_state(self._memory, status, sorted(self._running), now_ms())
        except (RalphError, OSError) as error:
            self._tell(_one_line(error))

    def _remember(self, effect: fx.Remember) -> None:
        """In the event loop's thread: two entries at once would overwrite each other."""
        record = effect.record
        entry = TicketEntry(
            id=record["ticket"], title=record["title"], outcome=_outcome(record["status"]), iteration=effect.iteration,
            attempt=record["attempt"], duration_ms=record["durationMs"], cost=record.get("cost", 0.0),
            ended_at=parse_iso(record["endedAt"] or record["startedAt"]) or 0, commit=record.get("mergeCommit"),
            summary=effect.summary, verify=effect.verify_exit, error=record["error"],
        )  # fmt: skip
        lessons = lessons_in(effect.summary, self._config["marker"])
        try:
            new = memory.remember(self._memory, entry, lessons, self._config.get("lessonsMax", 50))
        except (RalphError, OSError) as error:
            self._tell(_one_line(error))
            return
        for lesson in new:
            self._log.append_event(
                {"type": "ralph_lesson", "at": now_ms(), "ticket": record["ticket"], "lesson": lesson}
            )

    def _tell(self, message: str) -> None:
        self._note(message)
        if self._has_ended:
            return
        self._log.append_event({"type": "ralph_notice", "at": now_ms(), "level": "warning", "message": message})


def _outcome(status: TicketStatus) -> Outcome:
    return "failed" if status == "failed" else "needs-merge" if status == "needs-merge" else "complete"


def _one_line(error: Exception) -> str:
    if isinstance(error, RalphError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return " ".join(str(error).split())
