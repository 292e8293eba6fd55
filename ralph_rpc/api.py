"""Running one ticket from a Python program: `run_ticket` starts a loop of that one ticket and waits for its end.

    from ralph_rpc.api import run_ticket

    result = run_ticket("pt-123", "/path/to/project", verify="make test", worktrees=True)
    if not result.success:
        print(result.error)

The loop's runner is a process of its own, as with `ralph-rpc start`: it can be watched, steered and stopped while
`run_ticket` waits, and goes on if the caller dies. `ralph-rpc run-ticket` is this function.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ralph_rpc import create, options
from ralph_rpc.cli.start import begun, for_tickets, launched, with_pi
from ralph_rpc.cli.wait import await_end
from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files import inbox, records
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import LoopStatus, check_name

STOP_PATIENCE_S = 120.0


@dataclass(frozen=True)
class TicketResult:
    """What became of the ticket."""

    session_id: str | None
    """pi's session of the last attempt; None where there was none."""
    ticket_id: str
    success: bool
    """The work was verified, merged where it has a branch of its own, and the ticket is closed."""
    return_code: int | None
    """pi's exit code; negative for a signal; 0 where pi went on to another ticket; None where it never ran."""
    error: str | None
    """One line; None if `success`."""
    duration_ms: int
    """The time that agents worked on it."""
    termination_method: Literal["natural", "eof", "sigterm", "sigkill"] | None
    status: str
    """The ticket's: closed, failed, needs-merge or orphaned."""
    branch: str | None
    """Where the work is, if it is not merged."""
    loop_dir: Path
    """The loop's folder, with its events, records and sessions."""


def run_ticket(
    ticket_id: str,
    project: str | Path = ".",
    *,
    name: str | None = None,
    tickets: str = "",
    timeout: float | None = None,
    **given: Any,
) -> TicketResult:
    """Work on one ticket and wait until it is closed or set aside.

    `name` is the loop's, by default `ticket-<id>`; `tickets` the folder of the tickets, by default the one that
    `tk` would use; `timeout` in seconds ends the loop and gives a result without success. Further keywords are the
    options of `ralph-rpc start`, with _ for -: `model`, `verify`, `worktrees`, `max_cost` … Raises RalphError where
    the loop cannot be started; its `message` and `hint` are for a person.
    """
    name = name or f"ticket-{ticket_id}"
    check_name(name)
    paths = LoopPaths.of(Path(project).expanduser().resolve(), name)
    create.check_writable(paths.project)
    resolved = options.resolve(_as_typed({**given, "only": [ticket_id]}), paths.project, os.environ)
    config = with_pi(resolved.config)
    create.check_startable(paths)
    config = for_tickets(paths, config, resolved, tickets, None)
    creation, runner = launched(paths, config, None, None)
    begun(paths, runner, creation)
    return _result(paths, ticket_id, *_ended(paths, timeout))


def _as_typed(given: dict[str, Any]) -> dict[str, object]:
    """Options as the command line would give them."""
    known = {option.param: option for option in options.OPTIONS}
    typed: dict[str, object] = {}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"there is no option {name!r}", "see: ralph-rpc start --help")
        if isinstance(value, list | tuple):
            typed[name] = tuple(map(str, value))
        else:
            typed[name] = value if value is None or isinstance(value, bool) else str(value)
    return typed


def _ended(paths: LoopPaths, timeout: float | None) -> tuple[LoopStatus, bool]:
    """How the loop ended, and whether the time was up."""
    try:
        return await_end(paths, None if timeout is None else time.monotonic() + timeout), False
    except RalphError:
        inbox.drop(paths.inbox, "stop", {"when": "now"})
        return await_end(paths, time.monotonic() + STOP_PATIENCE_S), True


def _result(paths: LoopPaths, ticket_id: str, found: LoopStatus, late: bool) -> TicketResult:
    record = records.read_tickets(paths).get(ticket_id)
    told = found.state["error"] if found.state is not None else None
    if record is None:
        return TicketResult(None, ticket_id, False, None, told or found.shown, 0, None, "orphaned", None, paths.dir)
    success = record["status"] == "closed"
    error = None if success else "the time was up" if late else record["error"] or told or found.shown
    return TicketResult(
        session_id=record["sessionId"], ticket_id=ticket_id, success=success, return_code=record["returnCode"],
        error=error, duration_ms=record["durationMs"], termination_method=record["terminationMethod"],
        status=record["status"], branch=None if success else record["branch"], loop_dir=paths.dir,
    )  # fmt: skip
