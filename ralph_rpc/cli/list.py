"""`ralph-rpc list`: a table of loops, of this project or (`--all`) of every project in the registry.

It reads state files and registry entries and writes nothing. What cannot be read costs one line on stderr,
never the table. Ten thousand entries take less than a second: no heavy import, no process per loop.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import click
import orjson

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.watching import watched
from ralph_rpc.clock import local_time, now_ms, parse_iso
from ralph_rpc.errors import UsageError
from ralph_rpc.files import registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.figures import of_entry, of_state
from ralph_rpc.loops.find import find_project, loops_of
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import ENDED
from ralph_rpc.terminal.colour import Style, wants_colour
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.screen import columns_of
from ralph_rpc.terminal.table import Column, table
from ralph_rpc.terminal.units import ago, cost, duration, number
from ralph_rpc.terminal.width import clip


class LoopRow(TypedDict):
    """One loop, as `list --json` gives it."""

    name: str
    project: str
    ralphDir: str
    kind: str
    status: str
    """As it is on disk."""
    shown: str
    """As a person should see it: `crashed` where the runner is gone, `stale` where it does not answer, `gone` where the
    loop's folder is no longer where it was."""
    runner: str
    """alive, stale or dead."""
    pid: int | None
    iteration: int
    """Number of the current or last iteration."""
    counted: int | None
    """Iterations that count towards maxIterations; None where an older version wrote the registry's entry."""
    maxIterations: int
    progress: str
    """`3/50`: iterations done of those allowed; `1/4 tickets` of a ticket loop."""
    ticketsClosed: int | None
    ticketsTotal: int | None
    cost: float
    tokens: int
    """Input, output, cache reads and cache writes."""
    elapsedMs: int
    startedAt: str | None
    lastSeen: str | None
    model: str | None
    provider: str | None
    waitingFor: str | None
    """What a loop in status `waiting` waits for."""
    nextWakeAt: str | None
    """When it tries again."""


STYLES: dict[str, Style] = {
    "running": "green",
    "starting": "green",
    "completed": "cyan",
    "waiting": "yellow",
    "paused": "yellow",
    "stopping": "yellow",
    "stale": "yellow",
    "unknown": "yellow",
    "error": "red",
    "crashed": "red",
    "gone": "red",
}
"""The colour of a status, where it has one."""
SHOWN = (*STYLES, "stopped")
"""Every status that a person can see."""


@click.command(cls=Command)
@click.option("-a", "--all", "everywhere", is_flag=True, help="The loops of every project.")
@click.option("--status", "shown", multiple=True, type=click.Choice(SHOWN), help="Only these; repeatable.")
@click.option("-w", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.option("-q", "--quiet", is_flag=True, help="Only the names, one a line.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
@click.option("--project", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its loops.")
def list_loops(
    everywhere: bool, shown: tuple[str, ...], watch: bool, quiet: bool, as_json: bool, project: Path | None
) -> None:
    """List the loops of this project: their status, progress, cost and age."""
    start = project.resolve() if project is not None else Path.cwd()
    if watch:
        if quiet or as_json:
            raise UsageError("--watch excludes --quiet and --json", "leave one of them out")
        watched(lambda: _table(_rows(start, everywhere, shown)[0], everywhere, shown))
    rows, problems = _rows(start, everywhere, shown)
    for problem in problems:
        click.echo(f"ralph-rpc: skipped {inert(problem, keep_newlines=False)}", err=True)
    if as_json:
        click.echo(inert_json(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()))
    elif quiet:
        for row in rows:
            click.echo(inert(row["name"], keep_newlines=False))
    else:
        click.echo(_table(rows, everywhere, shown), err=not rows)


def _rows(start: Path, everywhere: bool, shown: tuple[str, ...]) -> tuple[list[LoopRow], list[str]]:
    """The rows that are wanted, in their order, and what could not be read."""
    rows, problems = rows_of_project(start)
    if everywhere:
        here = {row["ralphDir"] for row in rows}
        found, broken = registry.entries_by_file()
        others = [entry for _, entry in found if entry["ralphDir"] not in here]
        rows += map(_row_of_entry, others, registry.livenesses(others))
        problems += [f"{problem.path}: {problem.reason}" for problem in broken]
    if shown:
        rows = [row for row in rows if row["shown"] in shown]
    rows.sort(key=lambda row: (row["project"], row["name"]))
    return rows, problems


def _table(rows: list[LoopRow], everywhere: bool, shown: tuple[str, ...]) -> str:
    """The rows as a table, or a line that says that there is none."""
    if rows:
        return loops_table(rows, wants_colour(sys.stdout), columns_of(sys.stdout))
    where = "anywhere" if everywhere else "in this project (every project: ralph-rpc list --all)"
    if shown:
        return f"no loop {' or '.join(shown)} {where}"
    return f"no loops {where}. Start one: ralph-rpc start NAME -m 'what to do'"


def rows_of_project(start: Path) -> tuple[list[LoopRow], list[str]]:
    """Rows of the loops of the project that `start` lies in, and what could not be read."""
    project = find_project(start)
    rows: list[LoopRow] = []
    problems: list[str] = []
    for paths in loops_of(project) if project else ():
        status = loop_status(paths)
        if status.problem is not None:
            problems.append(f"{paths.state}: {status.problem}")
        rows.append(row_of_state(paths, status))
    return rows, problems


def row_of_state(paths: LoopPaths, status: LoopStatus) -> LoopRow:
    """The row of a loop by its state.json; zeros and `-` where there is none that can be read."""
    state = status.state
    row: LoopRow = {
        "name": paths.name,
        "project": str(paths.project),
        "ralphDir": str(paths.dir),
        "kind": "-",
        "status": status.shown,
        "shown": status.shown,
        "runner": status.runner,
        "pid": None,
        "iteration": 0,
        "counted": 0,
        "maxIterations": 0,
        "progress": "0",
        "ticketsClosed": None,
        "ticketsTotal": None,
        "cost": 0.0,
        "tokens": 0,
        "elapsedMs": 0,
        "startedAt": None,
        "lastSeen": None,
        "model": None,
        "provider": None,
        "waitingFor": None,
        "nextWakeAt": None,
    }
    if state is not None:
        row["kind"] = state["kind"]
        row["status"] = state["status"]
        row["pid"] = state["pid"]
        figures = of_state(state, status.runner)
        row["iteration"] = figures.iteration
        row["counted"] = figures.counted
        row["maxIterations"] = figures.limit
        row["progress"] = figures.progress
        row["ticketsClosed"], row["ticketsTotal"] = figures.tickets or (None, None)
        row["cost"] = figures.cost
        row["tokens"] = figures.tokens
        row["elapsedMs"] = figures.elapsed_ms
        row["startedAt"] = state["startedAt"]
        row["lastSeen"] = state["updatedAt"]
        row["model"] = state["model"]
        row["provider"] = state["provider"]
        row["waitingFor"] = state.get("waitingFor")
        row["nextWakeAt"] = state["nextWakeAt"]
    return row


def _row_of_entry(entry: RegistryEntry, runner: registry.Liveness) -> LoopRow:
    """The row of a loop of another project, known from the registry only."""
    status: str = entry["status"]
    shown = status
    if runner == "stale":
        shown = "stale"
    elif runner == "dead" and not os.path.isdir(entry["ralphDir"]):  # noqa: PTH112 - a Path for each of thousands
        shown = "gone"
    elif runner == "dead" and status not in ENDED:
        shown = "crashed"
    figures = of_entry(entry, runner)
    closed, total = figures.tickets or (None, None)
    return {
        "name": entry["name"],
        "project": entry["cwd"],
        "ralphDir": entry["ralphDir"],
        "kind": entry["kind"],
        "status": status,
        "shown": shown,
        "runner": runner,
        "pid": entry["pid"],
        "iteration": figures.iteration,
        "counted": figures.counted,
        "maxIterations": figures.limit,
        "progress": figures.progress,
        "ticketsClosed": closed,
        "ticketsTotal": total,
        "cost": figures.cost,
        "tokens": figures.tokens,
        "elapsedMs": figures.elapsed_ms,
        "startedAt": entry["startedAt"],
        "lastSeen": entry["lastSeen"],
        "model": entry["model"],
        "provider": entry["provider"],
        "waitingFor": entry.get("waitingFor"),
        "nextWakeAt": entry.get("nextWakeAt"),
    }


def loops_table(rows: Sequence[LoopRow], colour: bool, columns: int | None) -> str:
    """The rows (at least one) under their titles; a terminal (`columns`) gets shorter paths, a file gets all of them."""
    now, home = now_ms(), os.environ.get("HOME", "").rstrip("/")
    name, project, kind, status, iteration, spent, elapsed, seen, runner = zip(
        *(_cells(row, now, home) for row in rows), strict=True
    )
    return table(
        [
            Column(name, "NAME"),
            Column(project, "PROJECT", gives_way=True, leaves=1),
            Column(kind, "KIND", leaves=4),
            Column(status, "STATUS", styles=[STYLES.get(row["shown"]) for row in rows]),
            Column(iteration, "ITERATION", right=True),
            Column(spent, "COST", right=True),
            Column(elapsed, "ELAPSED", right=True),
            Column(seen, "SEEN", leaves=2),
            Column(runner, "RUNNER", leaves=3),
        ],
        colour,
        columns,
    )


def _cells(row: LoopRow, now: int, home: str) -> tuple[str, ...]:
    seen = parse_iso(row["lastSeen"])
    # Of a loop that has ended, no runner is meant to live: "dead" would alarm.
    runner = "-" if row["runner"] == "dead" and row["status"] in ENDED else row["runner"]
    return (
        clip(inert(row["name"], keep_newlines=False), 64),
        _tilde(inert(row["project"], keep_newlines=False), home),
        clip(inert(row["kind"], keep_newlines=False), 12),
        _shown(row),
        row["progress"],
        cost(number(row["cost"]), number(row["tokens"])),
        duration(row["elapsedMs"]),
        "-" if seen is None else ago(now - seen),
        runner,
    )


def _shown(row: LoopRow) -> str:
    """The status; of a loop that waits also for what, and until when in local time."""
    text = clip(inert(row["shown"], keep_newlines=False), 12)
    if row["shown"] != "waiting" or row["waitingFor"] is None:
        return text
    wake = parse_iso(row["nextWakeAt"])
    until = "" if wake is None else f" until {local_time(wake)}"
    return f"{text} ({clip(inert(row['waitingFor'], keep_newlines=False), 12)}){until}"


def _tilde(path: str, home: str) -> str:
    return "~" + path[len(home) :] if home and (path == home or path.startswith(home + "/")) else path
