"""The working copy of one step of a ticket loop: what every step can do to the tickets' jobs.

Only `core/tickets` sees it. A ticket's record changes only through `record`, so that a status without its file and
its event is impossible.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from ralph_rpc.clock import iso
from ralph_rpc.model.ticket import TicketRecord, TicketStatus
from ralph_runner.core.desk import Desk
from ralph_runner.core.effects import Emit, Save
from ralph_runner.core.results import Now
from ralph_runner.core.tickets.effects import KeepRecord, TicketOnlyEffect
from ralph_runner.core.tickets.state import Job, Stage, TicketLoop
from ralph_runner.core.verdict import Verdict

REMEMBERED = 500
"""Trees that were seen green."""


@dataclass(frozen=True, slots=True)
class HandedBack:
    """A worker is done with its ticket, and free for the next."""

    key: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Left:
    """A worker has ended, and its pi is gone."""

    key: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class NotVerified:
    """A verification was cancelled before it began."""

    key: str


News: TypeAlias = HandedBack | Left | NotVerified


class TicketTurn(Desk[TicketLoop, TicketOnlyEffect]):
    """One step's state, time and effects."""

    def __init__(self, loop: TicketLoop, now: Now) -> None:
        super().__init__(loop, now)
        self.news: list[News] = []
        """What workers have said of their tickets in this step; `jobs.hear` acts on it."""

    def put(self, ticket: str, **changes: Any) -> None:
        """The job with these changes."""
        self.set(jobs={**self.loop.jobs, ticket: replace(self.loop.jobs[ticket], **changes)})

    def stage(self, ticket: str, stage: Stage) -> None:
        self.put(ticket, stage=stage)
        self.do(Save())

    def record(self, ticket: str, status: TicketStatus, reason: str | None = None, **changes: Any) -> None:
        """The job's record with a new status, on disk before the next effect, and its event."""
        job = self.loop.jobs[ticket]
        old = job.record["status"] if job.taken else "ready"
        told = old == status and job.record["error"] == reason
        record = cast(TicketRecord, {**job.record, "status": status, "error": reason, **changes})
        self.put(ticket, record=record, taken=True)
        self.do(KeepRecord(record))
        if told:
            return
        event: Any = {"type": "ralph_ticket", "at": self.now.wall, "ticket": ticket, "from": old, "to": status}
        if reason is not None:
            event["reason"] = reason
        self.do(Emit(event), Save())

    def settle(self, ticket: str, status: TicketStatus, reason: str | None = None) -> None:
        """The ticket has no job any more; its record says how it ended."""
        ended = iso(self.now.wall)
        self.record(ticket, status, reason, endedAt=ended)
        self.drop(ticket)

    def drop(self, ticket: str) -> None:
        """Forgets a job whose record says all."""
        job = self.loop.jobs[ticket]
        rest = {id: other for id, other in self.loop.jobs.items() if id != ticket}
        self.set(jobs=rest, settled={**self.loop.settled, ticket: job.record}, stale=True)
        # As its last act an agent may have filed a ticket: all is done only by a look that begins after this.
        self.set(looking_idle=False, looked=False, unread_since=None)

    def saw_green(self, tree: str) -> None:
        """A verification of this very tree was green."""
        self.set(verified=(*self.loop.verified, tree)[-REMEMBERED:])

    def finish_with(self, verdict: Verdict, at_once: bool = False) -> None:
        """The loop is to end like this; a verdict that came before stands, but may be hurried."""
        self.set(ending=self.loop.ending or verdict, at_once=self.loop.at_once or at_once)


def job_at(t: TicketTurn, ticket: str, *stages: type[Stage]) -> Job | None:
    """The job if it is in one of these stages; a result that comes late means nothing."""
    job = t.loop.jobs.get(ticket)
    return job if job is not None and isinstance(job.stage, stages) else None
