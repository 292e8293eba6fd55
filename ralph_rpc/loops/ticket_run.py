"""One ticket, worked on by a loop of its own: what is asked of it while it runs, and what became of it.

The ticket's record (tickets/<id>.json) is written by the runner before each step; here it is read. Whoever holds a
`TicketRun` may go away at any time: the loop works on, and `TicketRun(loop, id)` makes the same handle again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.loops import start as starting
from ralph_rpc.loops.handle import Loop
from ralph_rpc.loops.hold import is_busy
from ralph_rpc.loops.kill import TREE_PATIENCE_S
from ralph_rpc.loops.status import LoopStatus
from ralph_rpc.loops.ticket_loops import loop_name, whole_id
from ralph_rpc.loops.wait import TimedOut, until
from ralph_rpc.model.ticket import TicketRecord

STOP_PATIENCE_S = 120.0
"""From an order to end at once to the end: pi is aborted, its tree is ended, what was done is recorded."""

TIME_UP = "the time was up"
"""The error of a ticket whose run was ended because it took too long."""


@dataclass(frozen=True)
class TicketResult:
    """What became of the ticket."""

    session_id: str | None
    """pi's session of the last attempt; None where there was none."""
    ticket_id: str
    success: bool
    """The work was verified, merged where it has a branch of its own, and the ticket is closed; with --no-merge it was
    verified and is on its branch."""
    return_code: int | None
    """pi's exit code; negative for a signal; 0 where pi continued with another ticket; None where it never ran."""
    error: str | None
    """One line; None if `success`."""
    duration_ms: int
    """The time that agents worked on it."""
    termination_method: Literal["natural", "eof", "sigterm", "sigkill"] | None
    """How pi ended: by itself, when its stdin was closed, or by a signal; None where it never ran."""
    status: str
    """The ticket's: closed, failed, needs-merge or orphaned, or the step at which it was interrupted."""
    branch: str | None
    """Where the work is, if it is not merged."""
    loop_dir: Path
    """The loop's folder, with its events, records and sessions."""


class TicketRun:
    """A ticket that a loop of its own works on, or has worked on."""

    def __init__(self, loop: Loop, ticket_id: str) -> None:
        self.loop = loop
        """To watch it, steer it, stop it."""
        self.ticket_id = ticket_id

    @property
    def session_id(self) -> str | None:
        """pi's session of the last attempt that has ended, which is when pi is asked for it; None before."""
        record = self._record()
        return record["sessionId"] if record is not None else None

    def poll(self) -> TicketResult | None:
        """What became of the ticket; None while the loop is at work. Never blocks."""
        found = self.loop.status()
        return self._result(found) if found.ended and found.runner == "dead" else None

    def wait(self, timeout: float | None = None) -> TicketResult:
        """What became of the ticket, once the loop has ended.

        Raises TimedOut after `timeout` seconds, which changes nothing: `end` is what ends it.
        """
        return self._result(self.loop.wait(timeout))

    def end(self, reason: str = "it was ended early") -> TicketResult:
        """Ends the loop at once and returns what became of the ticket.

        `reason` is the error of a ticket that was interrupted; a loop that has already ended keeps its own. Gently at
        first: pi is aborted and its stdin closed, then it is signalled, at last killed; `termination_method` names the
        step that worked. No process is left. RalphError where one outlives even SIGKILL.
        """
        by_force = False
        try:
            self.loop.stop("now")
        except RalphError:
            result = self._result(self.loop.wait())
        else:
            try:
                found = self.loop.wait(STOP_PATIENCE_S)
            except TimedOut:
                by_force = self.loop.kill()
                found = self.loop.wait()
            result = self._result(found)
            # A runner that had died before the order could reach it was not ended by us.
            if not result.success and (by_force or found.shown != "crashed"):
                method = result.termination_method or ("sigkill" if by_force else None)
                result = replace(result, error=reason, termination_method=method)
        # After a crash, the guard may still be ending pi.
        if not until(lambda: not is_busy(self.loop.paths), TREE_PATIENCE_S):
            raise RalphError(
                f"processes of {self.loop.name!r} are still alive", "end them with: ralph-rpc doctor --fix"
            )
        return result

    def _record(self) -> TicketRecord | None:
        return records.read_tickets(self.loop.paths).get(self.ticket_id)

    def _result(self, found: LoopStatus) -> TicketResult:
        record = self._record()
        said = found.state["error"] if found.state is not None else None
        if record is None:
            error = said or found.shown
            return TicketResult(
                None, self.ticket_id, False, None, error, 0, None, "orphaned", None, self.loop.paths.dir
            )
        success = record["status"] == "closed" or self._is_left_by_wish(record, found)
        return TicketResult(
            session_id=record["sessionId"],
            ticket_id=self.ticket_id,
            success=success,
            return_code=record["returnCode"],
            error=None if success else record["error"] or said or found.shown,
            duration_ms=record["durationMs"],
            termination_method=record["terminationMethod"],
            status=record["status"],
            branch=None if record["status"] == "closed" else record["branch"],
            loop_dir=self.loop.paths.dir,
        )

    def _is_left_by_wish(self, record: TicketRecord, found: LoopStatus) -> bool:
        """With --no-merge, done is all that was asked for."""
        config = found.state["config"] if found.state is not None else None
        no_merge = config is not None and config.get("merge") is False
        # What cannot be merged, or was set aside after its attempts, never becomes the end of a loop that is done.
        return no_merge and record["status"] == "needs-merge" and found.shown == "completed"

    def __repr__(self) -> str:
        return f"TicketRun({self.loop!r}, {self.ticket_id!r})"


class LaunchedRun(NamedTuple):
    """A ticket's loop that has just been launched."""

    run: TicketRun
    started: starting.Started


def launch(ticket_id: str, project: Path, name: str | None, tickets: str, given: Mapping[str, object]) -> LaunchedRun:
    """Launches a loop of its own for the ticket; raises what `loops.start` raises."""
    whole = whole_id(project.expanduser().resolve(), tickets, ticket_id)
    plan = starting.check(name or loop_name(whole), project, {**given, "only": (whole,)}, tickets)
    return LaunchedRun(TicketRun(Loop(plan.paths), whole), starting.start(plan, None))


def see_through(
    launched: LaunchedRun, timeout: float | None, release: Callable[[], None] = lambda: None
) -> TicketResult:
    """What became of the ticket; after `timeout` seconds, and at a KeyboardInterrupt, its loop is ended.

    `release` raises a KeyboardInterrupt that came during the launch. PiUnusable where pi turns out to be of no use.
    """
    run, started = launched
    try:
        release()
        starting.await_begun(run.loop.paths, started.runner, started.creation)
        return run.wait(timeout)
    except TimedOut:
        return run.end(TIME_UP)
    except KeyboardInterrupt:
        run.end("it was interrupted")
        raise
