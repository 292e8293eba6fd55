"""`ralph-rpc status`: one loop in detail and what to do about it, or all loops of this project in a line each.

It reads state.json and the tail of the log, however large the log is, and writes nothing.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import orjson

from ralph_rpc.cli.list import STYLES, Row, progress, row_of_state
from ralph_rpc.clock import now_ms, parse_iso
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.items import Compaction, Item, MessageDone, Retry, StatusChanged, TextDelta, ToolBegan
from ralph_rpc.loops import LoopStatus, complete_names, find_project, loop_status, loops_of, resolve_loop
from ralph_rpc.model.state import ENDED, State, TicketsState
from ralph_rpc.text import (
    ago,
    clip_start,
    count,
    duration,
    inert,
    inert_json,
    line_of,
    money,
    number,
    pad,
    paint,
    wants_colour,
)  # fmt: skip
from ralph_rpc.view import View, parse_line

_TAIL = 200
"""Lines of the log that tell what happens now."""
_LINE = 200


@dataclass(frozen=True)
class _Tail:
    """The last events of the log, folded."""

    items: list[Item]
    tools: list[ToolBegan]
    """Those that run."""


@click.command()
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--json", "as_json", is_flag=True, help="state.json with `runner` and `shown`.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def status(name: str | None, as_json: bool, project: Path | None) -> None:
    """Show one loop in detail, or all of this project briefly."""
    if name is not None:
        paths = resolve_loop(name, project)
        found = loop_status(paths)
        click.echo(_json(_model(paths, found)) if as_json else _detail(paths, found, wants_colour(sys.stdout)))
        return
    where = find_project(project.expanduser().resolve() if project else Path.cwd())
    loops = [(paths, loop_status(paths)) for paths in (loops_of(where) if where else ())]
    if as_json:
        click.echo(_json([_model(paths, found) for paths, found in loops]))
    elif loops:
        click.echo("\n".join(_brief(paths, found, wants_colour(sys.stdout)) for paths, found in loops))
    else:
        click.echo("no loops in this project. Start one: ralph-rpc start NAME -m 'what to do'", err=True)


def _model(paths: LoopPaths, found: LoopStatus) -> dict[str, object]:
    state = dict(found.state) if found.state is not None else {"name": paths.name, "ralphDir": str(paths.dir)}
    return {**state, "runner": found.runner, "shown": found.shown}


def _json(model: object) -> str:
    return inert_json(orjson.dumps(model, option=orjson.OPT_INDENT_2).decode())


def _brief(paths: LoopPaths, found: LoopStatus, colour: bool) -> str:
    row = row_of_state(paths, found)
    now = _now(found, _tail(paths)) if found.runner != "dead" else ""
    if not now and found.state is not None:
        now = found.state["error"] or found.state["stopReason"] or ""
    facts = f"{progress(row)} iterations, {_cost(row)}, {duration(row['elapsedMs'])}"
    return f"{pad(paths.name, 16)}  {_shown(found, colour)}  {facts}" + (f"; {line_of(now, 100)}" if now else "")


def _cost(row: Row) -> str:
    return money(number(row["cost"]))


def _shown(found: LoopStatus, colour: bool) -> str:
    style = STYLES.get(found.shown)
    shown = inert(found.shown, keep_newlines=False)
    return paint(shown, style, colour) if style else shown


def _detail(paths: LoopPaths, found: LoopStatus, colour: bool) -> str:
    tail = _tail(paths)
    lines = [f"{paint(paths.name, 'bold', colour)}: {_shown(found, colour)}{_why(found, tail)}"]
    lines += [
        f"  {pad(title, 10)}  {inert(value, keep_newlines=False)}"
        for title, value in _facts(paths, found, tail)
        if value
    ]
    return "\n".join(lines)


def _why(found: LoopStatus, tail: _Tail) -> str:
    """Reason and time of the status, behind its name."""
    if found.state is None:
        return ""
    reason, error = found.state["stopReason"], found.state["error"]
    since = parse_iso(found.state["endedAt"] or "") if found.shown in ENDED else _since(found, tail)
    text = f" ({reason})" if reason else ""
    if since is not None:
        passed = ago(now_ms() - since)
        text += f", {passed}" if found.shown in ENDED else f" for {passed.removesuffix(' ago')}"
    return text + (f": {line_of(error, _LINE)}" if error else "")


def _facts(paths: LoopPaths, found: LoopStatus, tail: _Tail) -> Iterator[tuple[str, str]]:
    """What a person wants to know, as titled lines; raw text, made inert by the caller."""
    if found.state is not None and "tickets" in found.state:
        yield from _tickets(found.state["tickets"], found.runner != "dead")
    else:
        yield "now", _now(found, tail)
    if found.state is not None:
        yield "wakes", _wakes(found.state) if found.runner != "dead" else ""
        yield from _numbers(row_of_state(paths, found), found.state)
        yield "runner", _runner(found.state, found)
        yield from _texts(found.state, found.shown in ENDED)
    waiting = _inbox(paths)
    plural = "s" if waiting > 1 else ""
    yield "inbox", f"{waiting} command{plural} for the next run" if waiting and found.runner == "dead" else ""
    yield "files", str(paths.dir)
    yield "what next", _hint(paths.name, found)


def _tickets(tickets: TicketsState, lives: bool) -> Iterator[tuple[str, str]]:
    """The queue in figures, and a line for each ticket that is under way."""
    parts = [f"{tickets['closed']} of {tickets['total']} closed"]
    parts += [f"{tickets['failed']} failed"] if tickets["failed"] else []
    parts += [f"{tickets['needsMerge']} to be merged by hand"] if tickets["needsMerge"] else []
    yield "tickets", ", ".join(parts)
    for one in tickets["running"] if lives else []:
        since = parse_iso(one["since"])
        passed = "" if since is None else f", for {duration(now_ms() - since)}"
        attempt = f", attempt {one['attempt']}" if one["attempt"] > 1 else ""
        title = line_of(one["title"], 40)
        yield one["ticket"], f"{line_of(one['doing'], 100)}{attempt}, {money(one['cost'])}{passed}  ({title})"


def _numbers(row: Row, state: State) -> Iterator[tuple[str, str]]:
    # A crash or an outage of the provider takes a number but does not count.
    yield "iterations", f"{progress(row)} done, the last has number {row['iteration']}"
    failures = state["consecutiveFailures"]
    yield "last", (state["lastOutcome"] or "") + (f", {failures} failures in a row" if failures else "")
    stats = state["stats"]
    cache = f"{count(stats['cacheRead'])} read, {count(stats['cacheWrite'])} written"
    yield "cost", _cost(row)
    yield "tokens", f"{count(stats['tokensIn'])} in, {count(stats['tokensOut'])} out; cache {cache}"
    yield "work", f"{count(stats['turns'])} turns, {count(stats['toolCalls'])} tool calls"
    yield "elapsed", duration(row["elapsedMs"])
    yield "model", "/".join(part for part in (state["provider"], state["model"]) if part)
    worktree = state["worktree"]
    yield "worktree", f"{worktree['branch']} in {worktree['path']}" if worktree else ""


def _texts(state: State, ended: bool) -> Iterator[tuple[str, str]]:
    for held in state["held"]:
        yield "expired" if ended else "to come", f"{held['command']}: {line_of(held['message'], _LINE)}"
    yield "refused", line_of(state["refusal"] or "", _LINE)
    yield "said", line_of(state["lastText"] or "", _LINE)


def _runner(state: State, found: LoopStatus) -> str:
    if found.runner == "dead":
        return "none" if found.shown in ENDED else f"dead (was pid {state['pid']})"
    seen = parse_iso(state["updatedAt"])
    text = f"{found.runner}, pid {state['pid']}" + (f", seen {ago(now_ms() - seen)}" if seen is not None else "")
    return text + (f"; pi {state['piVersion'] or ''} pid {state['piPid']}" if state["piPid"] else "")


def _wakes(state: State) -> str:
    wake = parse_iso(state["nextWakeAt"] or "")
    if wake is None or state["status"] != "waiting":
        return ""
    return f"in {duration(wake - now_ms())}" if wake > now_ms() else "now"


def _inbox(paths: LoopPaths) -> int:
    try:
        return sum(entry.name.endswith(".json") for entry in os.scandir(paths.inbox))
    except OSError:
        return 0


def _tail(paths: LoopPaths) -> _Tail:
    view = View()
    items: list[Item] = []
    reader = EventReader.at_end(paths.events, lines=_TAIL)
    try:
        while batch := reader.read():
            for _, line in batch:
                event = parse_line(line)
                items += view.feed(event) if event else ()
    finally:
        reader.close()
    return _Tail(items + view.caught_up(), list(view.tools.values()))


def _since(found: LoopStatus, tail: _Tail) -> int | None:
    """When the present status began, if the end of the log still tells."""
    changes = [item for item in tail.items if isinstance(item, StatusChanged)]
    return changes[-1].at if changes and changes[-1].status == found.shown else None


def _now(found: LoopStatus, tail: _Tail) -> str:
    """What pi does at this moment: the oldest running tool, else the text it writes."""
    if found.runner == "dead" or found.shown not in ("running", "stopping", "stale"):
        return ""
    items = tail.items
    if tail.tools:
        tool = tail.tools[0]
        taken = f" (for {duration(now_ms() - tool.at)})" if tool.at is not None else ""
        more = f" and {len(tail.tools) - 1} more" if len(tail.tools) > 1 else ""
        return f"{tool.name} {line_of(tool.args, 100)}{taken}{more}"
    last = items[-1] if items else None
    if isinstance(last, TextDelta):
        whole = ""
        for item in reversed(items):
            if not isinstance(item, TextDelta) or len(whole) > 400:
                break
            whole = item.text + whole
        verb = "thinking" if last.thinking else "writing"
        return f"{verb}: {clip_start(' '.join(inert(whole).split()), 100)}"
    if isinstance(last, Retry):
        return f"waiting for the model again: {line_of(last.error, 100)}"
    if isinstance(last, Compaction) and last.result is None:
        return "shortening its context"
    between = isinstance(last, MessageDone) and last.stop_reason == "stop"
    return "between two iterations" if between else "waiting for the model"


def _hint(name: str, found: LoopStatus) -> str:
    reason = (found.state["stopReason"] if found.state else None) or ""
    resume = f"ralph-rpc resume {name}"
    if found.shown == "crashed":
        return f"the runner was killed or crashed (see runner.log); {resume}"
    if found.shown == "stale":
        return f"the runner lives but does not answer; ralph-rpc kill {name}, then {resume}"
    if found.shown == "waiting":
        return f"it goes on by itself; to end it: ralph-rpc stop {name}"
    if found.shown == "paused":
        return resume
    if found.shown == "error":
        causes = {
            "auth": "give pi a valid key or log in with it",
            "stalled": f"look at its last iterations (ralph-rpc logs {name}) and sharpen task.md",
        }
        return f"{causes.get(reason, f'see why (ralph-rpc logs {name})')}, then {resume}"
    if found.shown == "stopped":
        return f"{resume} --{reason} MORE" if reason.startswith("max-") else resume
    return ""
