"""`ralph-rpc tickets`: the queue of a project or of one ticket loop, and why each ticket does not run.

It reads the tickets, the loop's dispatch records and its options, makes the same plan as the runner, and
writes nothing. Works without any loop, too: then it tells what is ready. A record that cannot be read costs
one line on stderr.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import click
import orjson

from ralph_rpc.clock import now_ms, parse_iso
from ralph_rpc.errors import UsageError
from ralph_rpc.files.atomic import Unreadable, read_json_object
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import LoopStatus, complete_names, find_project, loop_status, loops_of, resolve_loop
from ralph_rpc.text import Style, clip, duration, inert, inert_json, line_of, pad, paint, wants_colour, width
from ralph_rpc.tickets.markdown import MarkdownTickets, find_folder
from ralph_rpc.tickets.schedule import STATES, Plan, Row, Standing, plan
from ralph_rpc.tickets.ticket import Backlog, safe_id

_STANDING: dict[str, Standing] = {
    "claimed": "running", "running": "running", "verifying": "running", "merging": "merging",
    "merged": "merging", "closed": "closed", "failed": "failed", "needs-merge": "needs-merge",
}  # fmt: skip
"""What the status in a dispatch record means for the plan; `orphaned`, and what is unknown, means nothing."""
_STYLES: dict[str, Style] = {
    "running": "green", "merging": "green", "ready": "cyan", "waiting": "yellow", "blocked": "red",
    "failed": "red", "needs-merge": "red", "done": "dim",
}  # fmt: skip
_TITLES = ("STATE", "PRIO", "TICKET", "TITLE", "COMPONENTS", "WHY")
_TITLE_WIDTH = 50
_WHY_WIDTH = 400

Json = dict[str, Any]


class Told(TypedDict):
    """One ticket, as `tickets --json` gives it."""

    id: str
    state: str
    priority: int
    title: str
    components: list[str]
    reason: str
    """Why it does not run, or what is done with it; may be empty."""
    deps: list[str]
    file: str | None
    """None: it runs, but its file is gone or cannot be read."""
    record: Json | None
    """The loop's dispatch record."""


@dataclass(frozen=True)
class _Loop:
    """The ticket loop whose records and options count; without one, nothing runs and nothing limits."""

    paths: LoopPaths
    found: LoopStatus
    config: Json
    records: dict[str, Json] = field(default_factory=dict)

    def standing(self) -> dict[str, Standing]:
        standing: dict[str, Standing] = {}
        for id, record in self.records.items():
            stands = _STANDING.get(str(record.get("status")))
            if stands == "merging" and record.get("error"):
                stands = "merge-waits"
            # What a dead runner was at is claimed by nobody any more; a merge may be in the branch already.
            if stands and not (stands == "running" and self.found.runner == "dead"):
                standing[id] = stands
        return standing


@click.command("tickets")
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--json", "as_json", is_flag=True, help="Everything as a JSON object.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def tickets_command(name: str | None, as_json: bool, project: Path | None) -> None:
    """Show the queue of tickets: what runs, what is ready, what waits for what.

    Without NAME, the tickets of this project as its only ticket loop sees them.
    """
    start = project.expanduser().resolve() if project else Path.cwd()
    loop, problems = _chosen_loop(name, project, start)
    folder = _folder(loop, start)
    backlog = MarkdownTickets(folder).scan()
    queue = _queue(backlog, loop)
    for problem in problems:
        click.echo(f"ralph-rpc: {inert(problem, keep_newlines=False)}", err=True)
    rows = [_told(row, backlog, loop) for row in queue.rows]
    if as_json:
        click.echo(_json(folder, loop, backlog, rows))
    else:
        click.echo("\n".join(_lines(loop, backlog, rows, wants_colour(sys.stdout))))


def _chosen_loop(name: str | None, project: Path | None, start: Path) -> tuple[_Loop | None, list[str]]:
    """The loop that is meant, and what could not be read of it or was not clear."""
    if name is not None:
        paths = resolve_loop(name, project)
        if not _has_tickets(paths):
            raise UsageError(
                f"{name!r} is no ticket loop", "ralph-rpc tickets without a name shows the project's tickets"
            )
        return _read_loop(paths)
    where = find_project(start)
    found = [paths for paths in (loops_of(where) if where else ()) if _has_tickets(paths)]
    if len(found) == 1:
        return _read_loop(found[0])
    names = ", ".join(paths.name for paths in found)
    return None, [f"several ticket loops here, so none is shown; choose one: {names}"] if found else []


def _has_tickets(paths: LoopPaths) -> bool:
    if _records_folder(paths).is_dir():
        return True
    state = loop_status(paths).state
    return state is not None and state["kind"] == "tickets"


def _records_folder(paths: LoopPaths) -> Path:
    return paths.dir / "tickets"


def _read_loop(paths: LoopPaths) -> tuple[_Loop, list[str]]:
    problems: list[str] = []
    try:
        config = read_json_object(paths.config) or {}
    except Unreadable as error:
        config = {}
        problems.append(f"passed over {error.path}: {error.reason}")
    loop = _Loop(paths, loop_status(paths), config)
    try:
        files = sorted(path for path in _records_folder(paths).iterdir() if path.suffix == ".json")
    except OSError:
        files = []  # none was written yet
    for path in files:
        try:
            if safe_id(path.stem):
                loop.records[path.stem] = read_json_object(path) or {}
        except Unreadable as error:
            problems.append(f"passed over {error.path}: {error.reason}")
    return loop, problems


def _folder(loop: _Loop | None, start: Path) -> Path:
    given = loop.config.get("tickets") if loop else None
    if loop and isinstance(given, str) and given:
        return loop.paths.project / given
    at = loop.paths.project if loop else start
    folder = find_folder(at, os.environ)
    if folder is None:
        raise UsageError(
            f"there is no .tickets folder in {at} or above",
            "make a ticket with tk create, or set TICKETS_DIR",
        )
    return folder


def _queue(backlog: Backlog, loop: _Loop | None) -> Plan:
    if loop is None:
        return plan(backlog, {}, parallel=len(backlog.tickets) + 1, allow_untagged=True)
    parallel = loop.config.get("parallel")
    return plan(
        backlog,
        loop.standing(),
        parallel=parallel if isinstance(parallel, int) and parallel > 0 else 1,
        allow_untagged=loop.config.get("allowUntagged") is True,
    )


def _told(row: Row, backlog: Backlog, loop: _Loop | None) -> Told:
    ticket = backlog.tickets.get(row.id)
    record = loop.records.get(row.id) if loop else None
    return {
        "id": row.id,
        "state": row.state,
        "priority": row.priority,
        "title": row.title,
        "components": list(row.components),
        "reason": "; ".join(filter(None, (row.reason, _recorded(row, record or {})))),
        "deps": list(ticket.deps) if ticket else [],
        "file": _path(ticket.path) if ticket else None,
        "record": record,
    }


def _recorded(row: Row, record: Json) -> str:
    """What the record adds to the plan's reason."""
    attempt = record.get("attempt")
    again = f"attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""
    if row.state in ("running", "merging"):
        since = parse_iso(record.get("startedAt"))
        facts = (
            str(record.get("status", "")),
            again,
            "" if since is None else f"for {duration(now_ms() - since)}",
        )
    elif row.state in ("failed", "needs-merge"):
        facts = (line_of(str(record.get("error") or ""), _WHY_WIDTH), again, "")
    else:
        return ""
    return ", ".join(filter(None, facts))


def _json(folder: Path, loop: _Loop | None, backlog: Backlog, rows: Sequence[Told]) -> str:
    counts = Counter(row["state"] for row in rows)
    model = {
        "folder": _path(folder),
        "loop": loop.paths.name if loop else None,
        "shown": loop.found.shown if loop else None,
        "counts": {state: counts[state] for state in STATES} | {"bad": len(backlog.bad)},
        "tickets": rows,
        "bad": [
            {"file": _path(one.path), "line": one.line, "reason": one.reason, "id": one.id}
            for one in backlog.bad
        ],
    }
    return inert_json(orjson.dumps(model, option=orjson.OPT_INDENT_2).decode())


def _path(path: Path) -> str:
    """JSON has no room for names that are no UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _lines(loop: _Loop | None, backlog: Backlog, rows: Sequence[Told], colour: bool) -> Iterator[str]:
    """The table, what is wrong, and the sum. What was closed before the loop came is only counted."""
    shown = [row for row in rows if row["state"] != "done" or row["record"] is not None]
    if shown:
        yield from _table(shown, colour)
    here = Path.cwd()
    for one in backlog.bad:
        path = one.path.relative_to(here) if one.path.is_relative_to(here) else one.path
        place = inert(f"{path}:{one.line}", keep_newlines=False)
        yield f"{paint('bad', 'red', colour)}  {place}: {line_of(one.reason, _WHY_WIDTH)}"
    counts = Counter(row["state"] for row in rows)
    sums = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    bad = f"; {len(backlog.bad)} bad" if backlog.bad else ""
    of = f"; loop {loop.paths.name}: {inert(loop.found.shown, keep_newlines=False)}" if loop else ""
    yield f"{len(rows)} ticket{'' if len(rows) == 1 else 's'}{': ' if sums else ''}{', '.join(sums)}{bad}{of}"


def _table(rows: Sequence[Told], colour: bool) -> Iterator[str]:
    cells = [_TITLES, *map(_cells, rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    for number, line in enumerate(cells):
        padded = [pad(cell, columns) for cell, columns in zip(line, widths, strict=True)]
        padded[0] = paint(padded[0], _STYLES[line[0]] if number else "bold", colour)
        yield "  ".join(padded).rstrip()


def _cells(row: Told) -> tuple[str, ...]:
    return (
        row["state"],
        str(row["priority"]),
        inert(row["id"], keep_newlines=False),
        line_of(row["title"], _TITLE_WIDTH) or "-",
        clip(inert(",".join(row["components"]), keep_newlines=False), _TITLE_WIDTH) or "-",
        line_of(row["reason"], _WHY_WIDTH),
    )
