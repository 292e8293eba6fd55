"""`ralph-rpc tickets`: the queue of a project or of one ticket loop, and why each ticket does not run.

It shows the plan of `loops/queue`, which is the runner's, and writes nothing. It also works without any loop: then it
shows what is ready. A record that cannot be read costs one line on stderr.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import click
import orjson

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.names import complete_names, resolve_loop
from ralph_rpc.clock import now_ms, parse_iso
from ralph_rpc.errors import UsageError
from ralph_rpc.loops.find import find_project, loops_of
from ralph_rpc.loops.queue import TicketLoopFiles, has_tickets, queue_of, read_ticket_loop, source_of
from ralph_rpc.machine import nofollow
from ralph_rpc.model.state import BatchState
from ralph_rpc.story.words import batch_told
from ralph_rpc.terminal.colour import Style, paint, wants_colour
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.table import Column, table
from ralph_rpc.terminal.units import duration
from ralph_rpc.terminal.width import clip, line_of
from ralph_rpc.tickets.schedule import STATES, Row
from ralph_rpc.tickets.ticket import COMPONENT, Backlog

_STYLES: dict[str, Style] = {
    "running": "green",
    "merging": "green",
    "ready": "cyan",
    "waiting": "yellow",
    "blocked": "red",
    "failed": "red",
    "needs-merge": "red",
    "done": "dim",
}
_TITLES = ("STATE", "PRIO", "TICKET", "STATUS", "ASSIGNEE", "TITLE", "COMPONENTS", "WHY")
_TITLE_WIDTH = 50
_NAME_WIDTH = 20
_WHY_WIDTH = 400
_WAITED_MS = 1_000
"""A shorter wait to be merged is not worth a word."""

Json = dict[str, Any]


class TicketRow(TypedDict):
    """One ticket, as `tickets --json` gives it."""

    id: str
    state: str
    priority: int
    title: str
    status: str | None
    """In its file: open, in_progress or closed."""
    type: str | None
    assignee: str | None
    components: list[str]
    reason: str
    """Why it does not run, or what is being done with it; may be empty."""
    deps: list[str]
    file: str | None
    """None: it runs, but its file is gone or cannot be read."""
    record: Json | None
    """The loop's dispatch record."""


@click.command("tickets", cls=Command)
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--json", "as_json", is_flag=True, help="Everything as a JSON object.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def tickets_command(name: str | None, as_json: bool, project: Path | None) -> None:
    """Show the queue of tickets: what runs, what is ready, what waits for what.

    Without NAME, the tickets of this project as its only ticket loop sees them. A new one: `ralph-rpc tickets add`.
    """
    start = project.expanduser().resolve() if project else Path.cwd()
    loop, problems = _chosen_loop(name, project, start)
    source = source_of(loop, start, _prefix(start) if loop is None else COMPONENT)
    backlog = source.scan()
    queue = queue_of(backlog, loop)
    for problem in problems:
        click.echo(f"ralph-rpc: {inert(problem, keep_newlines=False)}", err=True)
    rows = [_row(row, backlog, loop) for row in queue.rows]
    if as_json:
        click.echo(_json(source.where, loop, backlog, rows))
    else:
        click.echo("\n".join(_lines(loop, backlog, rows, wants_colour(sys.stdout))))


def _prefix(start: Path) -> str:
    """What component tags begin with in this project, as a new loop would have it; most projects say nothing of it."""
    project = find_project(start) or start
    if not any(nofollow.exists(path) for path in (project / ".ralph" / "config.toml", project / ".tf" / "config")):
        return COMPONENT
    from ralph_rpc.options.resolve import resolve  # it takes longer to load than most backlogs to read

    try:
        config = resolve({}, project, os.environ, tickets=True).config
    except UsageError:
        return COMPONENT  # `start` says what is wrong there
    return config.get("componentPrefix") or COMPONENT


def _chosen_loop(name: str | None, project: Path | None, start: Path) -> tuple[TicketLoopFiles | None, list[str]]:
    """The loop that is meant, and a line for each thing that was unclear or could not be read."""
    if name is not None:
        paths = resolve_loop(name, project)
        if not has_tickets(paths):
            raise UsageError(
                f"{name!r} is not a ticket loop", "ralph-rpc tickets without a name shows the project's tickets"
            )
        return read_ticket_loop(paths)
    where = find_project(start)
    found = [paths for paths in (loops_of(where) if where else ()) if has_tickets(paths)]
    if len(found) == 1:
        return read_ticket_loop(found[0])
    names = ", ".join(paths.name for paths in found)
    return None, [f"several ticket loops here, so none is shown; choose one: {names}"] if found else []


def _row(row: Row, backlog: Backlog, loop: TicketLoopFiles | None) -> TicketRow:
    ticket = backlog.tickets.get(row.id)
    record = loop.records.get(row.id) if loop else None
    return {
        "id": row.id,
        "state": row.state,
        "priority": row.priority,
        "title": row.title,
        "status": ticket.status if ticket else None,
        "type": ticket.type if ticket else None,
        "assignee": ticket.assignee or None if ticket else None,
        "components": list(row.components),
        "reason": "; ".join(filter(None, (row.reason, _recorded(row, record or {})))),
        "deps": list(ticket.deps) if ticket else [],
        "file": _text(ticket.path) if ticket else None,
        "record": record,
    }


def _recorded(row: Row, record: Json) -> str:
    """What the record adds to the plan's reason."""
    attempt = record.get("attempt")
    again = f"attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""
    if row.state in ("running", "merging"):
        queued = parse_iso(record.get("queuedAt"))
        since = parse_iso(record.get("startedAt")) if queued is None else queued
        what = str(record.get("status", "")) if queued is None else "in the merge queue"
        if queued is None and isinstance(record.get("host"), str):
            what += f" on {line_of(record['host'], 40)}"
        if isinstance(job := record.get("job"), dict) and job.get("id"):
            what = f"{'queued' if job.get('state') == 'queued' else what} as job {line_of(str(job['id']), 40)}"
        facts = (what, again, "" if since is None else f"for {duration(now_ms() - since)}")
    elif row.state in ("failed", "needs-merge"):
        facts = (line_of(str(record.get("error") or ""), _WHY_WIDTH), again, "")
    elif row.state == "done":
        left = record.get("leftBehind")
        unchanged = "without changes" if record.get("withoutChanges") is True else ""
        facts = (unchanged, _waited(record.get("waitedMs")), _left_behind(left))
    else:
        return ""
    return ", ".join(filter(None, facts))


def _waited(ms: object) -> str:
    """How long its finished work waited to be merged, if that is worth a word."""
    return f"waited {duration(ms)} to be merged" if isinstance(ms, int) and ms >= _WAITED_MS else ""


def _left_behind(left: object) -> str:
    """The stash entries that the ticket's agent made and that nobody merges."""
    return f"left {line_of('; '.join(map(str, left)), _WHY_WIDTH)}" if isinstance(left, list) and left else ""


def _json(where: str, loop: TicketLoopFiles | None, backlog: Backlog, rows: Sequence[TicketRow]) -> str:
    counts = Counter(row["state"] for row in rows)
    model = {
        "folder": _text(where),
        "loop": loop.paths.name if loop else None,
        "shown": loop.found.shown if loop else None,
        "batch": _batch(loop),
        "counts": {state: counts[state] for state in STATES} | {"bad": len(backlog.bad)},
        "tickets": rows,
        "bad": [{"file": _text(one.path), "line": one.line, "reason": one.reason, "id": one.id} for one in backlog.bad],
    }
    return inert_json(orjson.dumps(model, option=orjson.OPT_INDENT_2).decode())


def _batch(loop: TicketLoopFiles | None) -> BatchState | None:
    """What the merge queue is at, while a runner is."""
    if loop is None or loop.found.runner == "dead" or loop.found.state is None:
        return None
    return loop.found.state.get("tickets", {}).get("batch")


def _text(path: Path | str) -> str:
    """JSON has no room for names that are not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _lines(loop: TicketLoopFiles | None, backlog: Backlog, rows: Sequence[TicketRow], colour: bool) -> Iterator[str]:
    """The table, what is wrong, and the sums. Tickets that were closed before the loop began are only counted."""
    shown = [row for row in rows if row["state"] != "done" or row["record"] is not None]
    if shown:
        yield _table(shown, colour)
    here = Path.cwd()
    for one in backlog.bad:
        path = one.path.relative_to(here) if one.path.is_relative_to(here) else one.path
        place = inert(f"{path}:{one.line}", keep_newlines=False)
        yield f"{paint('bad', 'red', colour)}  {place}: {line_of(one.reason, _WHY_WIDTH)}"
    if (batch := _batch(loop)) is not None:
        yield inert(f"merge queue: {batch_told(batch, now_ms())}", keep_newlines=False)
    counts = Counter(row["state"] for row in rows)
    sums = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    bad = f"; {len(backlog.bad)} bad" if backlog.bad else ""
    of = f"; loop {loop.paths.name}: {inert(loop.found.shown, keep_newlines=False)}" if loop else ""
    yield f"{len(rows)} ticket{'' if len(rows) == 1 else 's'}{': ' if sums else ''}{', '.join(sums)}{bad}{of}"


def _table(rows: Sequence[TicketRow], colour: bool) -> str:
    states, *others = zip(*map(_cells, rows), strict=True)
    first = Column(states, _TITLES[0], styles=[_STYLES[state] for state in states])
    return table([first, *map(Column, others, _TITLES[1:])], colour)


def _cells(row: TicketRow) -> tuple[str, ...]:
    return (
        row["state"],
        str(row["priority"]),
        inert(row["id"], keep_newlines=False),
        row["status"] or "-",
        line_of(row["assignee"] or "", _NAME_WIDTH) or "-",
        line_of(row["title"], _TITLE_WIDTH) or "-",
        clip(inert(",".join(row["components"]), keep_newlines=False), _TITLE_WIDTH) or "-",
        line_of(row["reason"], _WHY_WIDTH),
    )
