"""The working copy of one step of a ticket loop: the next state as it comes to be, and the effects so far.

Only `core/tickets` sees it. A ticket's record changes only through `record`, so that a status without its file and
its event is impossible.
"""

from dataclasses import replace
from typing import Any, Literal, cast

from ralph_rpc.clock import iso
from ralph_rpc.model.ticket import TicketRecord, TicketStatus
from ralph_runner.core.effects import Emit, Save
from ralph_runner.core.reports import Now
from ralph_runner.core.tickets.effects import KeepRecord, TicketEffect
from ralph_runner.core.tickets.state import Job, Stage, TicketLoop
from ralph_runner.core.verdict import Verdict


class TicketTurn:
    """One step's state, time and effects."""

    def __init__(self, loop: TicketLoop, now: Now) -> None:
        self.loop = loop
        self.now = now
        self.effects: list[TicketEffect] = []

    def set(self, **changes: Any) -> None:
        self.loop = replace(self.loop, **changes)

    def do(self, *effects: TicketEffect) -> None:
        self.effects.extend(effects)

    def notice(self, level: Literal["info", "warning", "error"], message: str, ticket: str | None = None) -> None:
        event: Any = {"type": "ralph_notice", "at": self.now.wall, "level": level, "message": message}
        if ticket is not None:
            event["ticket"] = ticket
        self.do(Emit(event))

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

    def finish_with(self, verdict: Verdict, at_once: bool = False) -> None:
        """The loop is to end like this; a verdict that came before stands, but may be hurried."""
        self.set(ending=self.loop.ending or verdict, at_once=self.loop.at_once or at_once)


def job_at(t: TicketTurn, ticket: str, *stages: type[Stage]) -> Job | None:
    """The job if it is in one of these stages; a report that comes late means nothing."""
    job = t.loop.jobs.get(ticket)
    return job if job is not None and isinstance(job.stage, stages) else None
