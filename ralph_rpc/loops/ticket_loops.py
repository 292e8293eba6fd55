"""What a loop that works on tickets needs beyond any other: its options decided, and no other such loop beside it.

Called by `start` and `resume` before anything is made; changes nothing.
"""

from pathlib import Path

from ralph_rpc.errors import AlreadyRunning, UsageError
from ralph_rpc.files import records
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.backlog import check_work, read_backlog, the_one, ticket_config, with_whole_ids
from ralph_rpc.loops.engine import try_hub
from ralph_rpc.loops.find import loops_of
from ralph_rpc.machine import locks
from ralph_rpc.model.config import Config
from ralph_rpc.model.ticket import file_name
from ralph_rpc.options.resolve import Resolved
from ralph_rpc.tickets.sources.opening import find_source, open_source
from ralph_rpc.tickets.ticket import Backlog

LONGEST_NAME = 64
"""Characters of a loop's name."""


def for_tickets(
    paths: LoopPaths, resolved: Resolved, config: Config, folder: str, task: str | None, only_look: bool
) -> tuple[Config, Backlog]:
    """The options of a new ticket loop, and its tickets.

    UsageError where it could not do anything, AlreadyRunning where another does it.

    `folder` is what --tickets names, empty for the folder that `tk` would use. Who will `only_look` does not hear of
    uncommitted files: git would run the repository's filters to find them.
    """
    if task is not None:
        raise UsageError("a ticket loop's tasks are its tickets", "leave --task and --message out, or --tickets")
    found = find_source(paths.project, folder)
    config = ticket_config(paths, config, found, resolved.origins, may_be_dirty=only_look)
    if not only_look:
        try_hub(paths, config)
    check_alone(paths)
    backlog = read_backlog(paths.project, config)
    config = with_whole_ids(config, backlog)
    check_work(backlog, config)
    return config, backlog


def whole_id(project: Path, folder: str, part: str) -> str:
    """The id of the ticket that is meant by an id or a part of one. UsageError where there is none, or more than one."""
    return the_one(part, open_source(project, find_source(project, folder)).scan(), "")


def loop_name(ticket: str) -> str:
    """The name of the loop that works on this ticket alone, unless another one is given."""
    return f"ticket-{file_name(ticket).replace('+', '-')}"[:LONGEST_NAME]


def check_alone(paths: LoopPaths) -> None:
    """Raises AlreadyRunning where another loop of the project works on tickets."""
    if not locks.is_held(paths.tickets_lock):
        return
    others = [loop.name for loop in loops_of(paths.project) if loop.name != paths.name and _works_on_tickets(loop)]
    other = others[0] if others else "another loop"
    raise AlreadyRunning(
        f"{other!r} is working on the tickets of this project",
        f"raise its --parallel, or end it: ralph-rpc stop {other}",
    )


def _works_on_tickets(loop: LoopPaths) -> bool:
    try:
        config = records.read_config(loop)
    except Unreadable:
        return False
    return config is not None and bool(config.get("tickets")) and locks.is_held(loop.runner_lock)
