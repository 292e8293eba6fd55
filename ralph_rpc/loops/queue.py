"""The queue of a ticket loop from its files: the plan that its runner makes.

Called by `ralph-rpc tickets`. The runner writes a ticket's dispatch record before each step that it announces, and
makes its plan of the same records, options and tickets by the same functions. Only reads.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ralph_rpc.files.atomic import Unreadable, read_json_object
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.machine import nofollow
from ralph_rpc.model.ticket import file_name
from ralph_rpc.tickets.schedule import Plan, Rules, plan
from ralph_rpc.tickets.sources.opening import find_source, open_source
from ralph_rpc.tickets.sources.protocol import TicketSource
from ralph_rpc.tickets.standing import standings
from ralph_rpc.tickets.ticket import COMPONENT, Backlog, usable_id


@dataclass(frozen=True)
class TicketLoopFiles:
    """What the files of a ticket loop say: its options and its dispatch records, as JSON that may hold anything."""

    paths: LoopPaths
    found: LoopStatus
    config: dict[str, Any]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)


def has_tickets(paths: LoopPaths) -> bool:
    """Whether this is a ticket loop."""
    if nofollow.is_folder(paths.tickets):
        return True
    state = loop_status(paths).state
    return state is not None and state["kind"] == "tickets"


def read_ticket_loop(paths: LoopPaths) -> tuple[TicketLoopFiles, list[str]]:
    """What a loop's files say of its tickets, and a line for each file that cannot be read."""
    problems: list[str] = []
    try:
        config = read_json_object(paths.config) or {}
    except Unreadable as error:
        config = {}
        problems.append(f"skipped {error.path}: {error.reason}")
    loop = TicketLoopFiles(paths, loop_status(paths), config)
    for path in (path for path in nofollow.entries(paths.tickets) if path.suffix == ".json"):
        try:
            record = read_json_object(path) or {}
            ticket = record.get("ticket")
            if isinstance(ticket, str) and usable_id(ticket) and file_name(ticket) == path.stem:
                loop.records[ticket] = record
        except Unreadable as error:
            problems.append(f"skipped {error.path}: {error.reason}")
    return loop, problems


def source_of(loop: TicketLoopFiles | None, start: Path, prefix: str = COMPONENT) -> TicketSource:
    """The tickets that the loop works on; without a loop, those of the project at `start`. UsageError if none.

    `prefix` begins component tags where no loop says what does.
    """
    if loop is None:
        return open_source(start, find_source(start), prefix)
    named, own = loop.config.get("tickets"), loop.config.get("componentPrefix")
    project = loop.paths.project
    return open_source(
        project,
        named if isinstance(named, str) and named else find_source(project),
        own if isinstance(own, str) and own else COMPONENT,
    )


def queue_of(backlog: Backlog, loop: TicketLoopFiles | None) -> Plan:
    """The plan that the loop's runner makes of this backlog; of a loop without a runner, what its files amount to.

    Without a loop nothing runs and nothing limits.
    """
    if loop is None:
        return plan(backlog, {}, Rules(parallel=len(backlog.tickets) + 1, allow_untagged=True))
    has_runner = loop.found.runner != "dead"
    return plan(backlog, standings(loop.records, has_runner=has_runner), Rules.of(loop.config))
