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

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.list import STYLES, LoopRow, row_of_state
from ralph_rpc.cli.names import complete_names, resolve_loop
from ralph_rpc.cli.watching import watched
from ralph_rpc.clock import local_time, now_ms, parse_iso
from ralph_rpc.errors import UsageError
from ralph_rpc.files import records
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.reserve import space
from ralph_rpc.loops.figures import of_state
from ralph_rpc.loops.find import find_project, loops_of
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.machine import nofollow
from ralph_rpc.model.state import ENDED, RunningTicket, State, TicketsState
from ralph_rpc.model.usage import tokens, unpriced
from ralph_rpc.story.fold import View
from ralph_rpc.story.items import Compaction, Item, MessageDone, RetryBegan, StatusChanged, TextDelta, ToolBegan
from ralph_rpc.story.lines import parse_line
from ralph_rpc.story.models import by_model, model_name, outage_text, spans, waits_for, wakes_at
from ralph_rpc.story.words import batch_told
from ralph_rpc.terminal.colour import paint, wants_colour
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.units import ago, cost, count, duration, money, number
from ralph_rpc.terminal.width import clip_start, line_of, pad

_TAIL = 200
"""Lines of the log that say what is happening now."""
_LINE = 200
_NO_SPACE = 64 << 10
"""Bytes with which a loop can write nothing of use."""


@dataclass(frozen=True)
class _Tail:
    """The last events of the log, folded."""

    items: list[Item]
    tools: list[ToolBegan]
    """Those that run."""


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("-w", "-f", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="state.json with `runner` and `shown`.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def status(name: str | None, watch: bool, as_json: bool, project: Path | None) -> None:
    """Show one loop in detail, or all of this project briefly."""
    if watch and as_json:
        raise UsageError("--watch and --json exclude each other", "leave one of them out")
    if name is not None:
        paths = resolve_loop(name, project)
        if watch:
            watched(lambda: _detail(paths, loop_status(paths), wants_colour(sys.stdout)))
        found = loop_status(paths)
        click.echo(_json(_model(paths, found)) if as_json else _detail(paths, found, wants_colour(sys.stdout)))
        return
    where = project.expanduser().resolve() if project else Path.cwd()
    if watch:
        watched(lambda: _all(where))
    if as_json:
        click.echo(_json([_model(paths, found) for paths, found in _loops(where)]))
    else:
        click.echo(_all(where), err=not _loops(where))


def _loops(start: Path) -> list[tuple[LoopPaths, LoopStatus]]:
    where = find_project(start)
    return [(paths, loop_status(paths)) for paths in (loops_of(where) if where else ())]


def _all(start: Path) -> str:
    """Every loop of the project in a line."""
    lines = [_brief(paths, found, wants_colour(sys.stdout)) for paths, found in _loops(start)]
    return "\n".join(lines) or "no loops in this project. Start one: ralph-rpc start NAME -m 'what to do'"


def _model(paths: LoopPaths, found: LoopStatus) -> dict[str, object]:
    state: dict[str, object] = {"name": paths.name, "ralphDir": str(paths.dir)}
    if found.state is not None:
        from ralph_rpc.story.notifications import shown_config  # here, because only --json shows the options

        config = shown_config(found.state["config"])
        state = {**found.state, "elapsedMs": of_state(found.state, found.runner).elapsed_ms, "config": config}
    problem = {"problem": found.problem} if found.problem is not None else {}
    return {**state, "runner": found.runner, "shown": found.shown, **problem}


def _json(model: object) -> str:
    return inert_json(orjson.dumps(model, option=orjson.OPT_INDENT_2).decode())


def _brief(paths: LoopPaths, found: LoopStatus, colour: bool) -> str:
    row = row_of_state(paths, found)
    now = _now(found, _tail(paths)) if found.runner != "dead" else ""
    if not now and found.state is not None:
        now = found.state["error"] or found.state["stopReason"] or ""
    if found.problem is not None:
        now = found.problem
    done = row["progress"] if row["ticketsTotal"] is not None else f"{row['progress']} iterations"
    facts = f"{done}, {_cost(row)}, {duration(row['elapsedMs'])}"
    return f"{pad(paths.name, 16)}  {_shown(found, colour)}  {facts}" + (f"; {line_of(now, 100)}" if now else "")


def _cost(row: LoopRow) -> str:
    return cost(number(row["cost"]), number(row["tokens"]))


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
    if found.problem is not None:
        return f": state.json cannot be read: {line_of(found.problem, _LINE)}"
    if found.state is None:
        return ""
    reason, error = found.state["stopReason"], found.state["error"]
    since = parse_iso(found.state["endedAt"] or "") if found.shown in ENDED else _since(found, tail)
    text = f" ({reason})" if reason else ""
    if since is not None:
        passed = ago(now_ms() - since)
        if found.shown in ENDED:
            text += ", just now" if passed == "now" else f", {passed}"
        elif passed != "now":
            text += f" for {passed.removesuffix(' ago')}"
    return text + (f": {line_of(error, _LINE)}" if error else "")


def _facts(paths: LoopPaths, found: LoopStatus, tail: _Tail) -> Iterator[tuple[str, str]]:
    """What a person wants to know, as titled lines; raw text, made inert by the caller."""
    if found.state is not None and "tickets" in found.state:
        yield from _tickets(found.state["tickets"], found.runner != "dead")
    else:
        yield "now", _now(found, tail)
    if found.state is not None:
        yield "waits", _wakes(found.state) if found.runner != "dead" else ""
        yield from _numbers(row_of_state(paths, found), found.state)
        yield from _models(paths, found)
        yield "runner", _runner(found.state, found)
        yield from _texts(found.state, found.shown in ENDED)
    waiting = _inbox(paths)
    plural = "s" if waiting > 1 else ""
    yield "inbox", f"{waiting} command{plural} for the next run" if waiting and found.runner == "dead" else ""
    yield "config", _config_problem(paths) if found.runner == "dead" else ""
    yield "disk", _disk(paths)
    yield "files", str(paths.dir)
    yield "what next", _hint(paths, found)


def _tickets(tickets: TicketsState, lives: bool) -> Iterator[tuple[str, str]]:
    """The queue in figures, and a line for each ticket that is under way."""
    parts = [f"{tickets['closed']} of {tickets['total']} closed"]
    if without := tickets.get("withoutChanges"):
        parts[0] += f" ({without} without changes)"
    parts += [f"{tickets['failed']} failed"] if tickets["failed"] else []
    parts += [f"{tickets['needsMerge']} to be merged by hand"] if tickets["needsMerge"] else []
    if unread := tickets.get("unreadable"):
        parts.append(f"{unread} more cannot be read (see: ralph-rpc tickets)")
    yield "tickets", ", ".join(parts)
    if lives and (batch := tickets.get("batch")) is not None:
        yield "merging", batch_told(batch, now_ms())
    if tickets.get("verifyAlone"):
        yield "verify", "one at a time, as two of them have disturbed each other (--verify-parallel N sets a number)"
    for host in tickets.get("hosts", []) if lives else []:
        until = parse_iso(host.get("restedUntil"))
        rest = (
            f", rested until {local_time(until)}: {line_of(host.get('reason', ''), 120)}" if until is not None else ""
        )
        yield "host", f"{line_of(host['host'], 60)}  {host['taken']} of {host['slots']} slots taken{rest}"
    if lives and (jobs := [one["job"] for one in tickets["running"] if "job" in one]):
        running = sum(job["state"] == "active" for job in jobs)
        yield "jobs", f"{running} running, {len(jobs) - running} queued"
    for one in tickets["running"] if lives else []:
        since = parse_iso(one.get("queuedAt") or one["since"])
        queued = "in the merge queue " if one.get("queuedAt") else ""
        passed = "" if since is None else f", {queued}for {duration(now_ms() - since)}"
        attempt = f", attempt {one['attempt']}" if one["attempt"] > 1 else ""
        title = line_of(one["title"], 40)
        yield one["ticket"], f"{line_of(one['doing'], 300)}{attempt}, {_spent(one)}{passed}  ({title})"


def _spent(one: RunningTicket) -> str:
    return cost(number(one["cost"]), tokens(one["run"]) if "run" in one else 0)


def _numbers(row: LoopRow, state: State) -> Iterator[tuple[str, str]]:
    # A crash or an outage of the provider takes a number but does not count.
    most = f"/{row['maxIterations']}" if row["maxIterations"] else ""
    yield "iterations", f"{row['counted']}{most} done, last: no. {row['iteration']}"
    failures = state["consecutiveFailures"]
    yield "last", (state["lastOutcome"] or "") + (f", {failures} failures in a row" if failures else "")
    stats = state["stats"]
    config = state["config"]
    yield "cost", _cost(row) + ("" if config["maxCost"] is None else f" of {money(config['maxCost'])}")
    yield "tokens", _tokens(state)
    yield "unpriced", _unpriced(unpriced(stats))
    yield "work", f"{count(stats['turns'])} turns, {count(stats['toolCalls'])} tool calls"
    yield "elapsed", duration(row["elapsedMs"])
    yield "model", model_name(state["provider"], state["model"])
    worktree = state["worktree"]
    yield "worktree", f"{worktree['branch']} in {worktree['path']}" if worktree else ""


def _models(paths: LoopPaths, found: LoopStatus) -> Iterator[tuple[str, str]]:
    """Which models do not answer, and which did what; both only where the loop may use more than one."""
    state = found.state
    if state is None or not state["config"].get("fallbackModels"):
        return
    for outage in state.get("outages", []) if found.runner != "dead" else []:
        yield "out", line_of(outage_text(outage), _LINE)
    for use in by_model(records.read_iterations(paths)):
        runs = len(use.iterations)
        some = f"{runs} iteration{'s' if runs > 1 else ''} (no. {spans(use.iterations)})"
        yield "did", f"{line_of(use.model, 60)}: {line_of(some, 100)}, {money(use.cost)}"


def _tokens(state: State) -> str:
    """All tokens, which is what --max-tokens looks at, and what they are made of."""
    stats, most = state["stats"], state["config"]["maxTokens"]
    kinds = f"{count(stats['tokensIn'])} in, {count(stats['tokensOut'])} out"
    cache = f"{count(stats['cacheRead'])} read, {count(stats['cacheWrite'])} written"
    limit = "" if most is None else f" of {count(most)}"
    return f"{count(tokens(stats))}{limit} ({kinds}; cache {cache})"


def _unpriced(requests: int) -> str:
    """Requests that are missing in the two lines above."""
    return f"{requests} request{'s' if requests > 1 else ''} cut off: nobody tells what they used" if requests else ""


def _texts(state: State, ended: bool) -> Iterator[tuple[str, str]]:
    for held in state["held"]:
        yield "expired" if ended else "queued", f"{held['command']}: {line_of(held['message'], _LINE)}"
    yield "refused", line_of(state["refusal"] or "", _LINE)
    yield "said", line_of(state["lastText"] or "", _LINE)


def _runner(state: State, found: LoopStatus) -> str:
    if found.runner == "dead":
        return "none" if found.shown in ENDED else f"dead (was pid {state['pid']})"
    seen = parse_iso(state["updatedAt"])
    text = f"{found.runner}, pid {state['pid']}" + (f", seen {ago(now_ms() - seen)}" if seen is not None else "")
    far, launcher = state.get("far"), (state["config"].get("launcher") or "").split(" ")[0]
    if far is not None:
        return text + f"; pi {state['piVersion'] or ''} on {line_of(far['host'], 60)}, by {launcher}".replace("  ", " ")
    if launcher:
        return text + f"; {launcher} pid {state['piPid']}" if state["piPid"] else text
    return text + (f"; pi {state['piVersion'] or ''} pid {state['piPid']}" if state["piPid"] else "")


def _wakes(state: State) -> str:
    wake, reason = parse_iso(state["nextWakeAt"] or ""), waits_for(state)
    if state["status"] != "waiting" or (wake is None and not reason):
        return ""
    text = f"for {reason}" if reason else ""
    if wake is not None:
        left = f"in {duration(wake - now_ms())}" if wake > now_ms() else "now"
        text += f"{', ' if text else ''}until {wakes_at(state)} ({left})"
    return text


def _inbox(paths: LoopPaths) -> int:
    try:
        return sum(name.endswith(".json") for name in nofollow.names(paths.inbox))
    except OSError:
        return 0


def _disk(paths: LoopPaths) -> str:
    """What the loop's disk has run out of."""
    try:
        found = space(paths.dir)
    except OSError:
        return ""
    if found.f_files and not found.f_favail:
        return "no inodes left (df -i): no file can be made; remove some files"
    return "no space left: free some" if found.f_bavail * found.f_frsize < _NO_SPACE else ""


def _config_problem(paths: LoopPaths) -> str:
    """Why the loop cannot be resumed, where config.json is the reason."""
    try:
        records.read_config(paths)
    except Unreadable as problem:
        return f"cannot be read: {problem.reason}"
    return ""


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
    """When the present status began, if the end of the log still says."""
    changes = [item for item in tail.items if isinstance(item, StatusChanged)]
    return changes[-1].at if changes and changes[-1].status == found.shown else None


def _now(found: LoopStatus, tail: _Tail) -> str:
    """What pi is doing: the oldest running tool, else the text it writes."""
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
    if isinstance(last, RetryBegan):
        return f"waiting to retry: {line_of(last.error, 100)}"
    if isinstance(last, Compaction) and last.result is None:
        return "compacting its context"
    between = isinstance(last, MessageDone) and last.stop_reason == "stop"
    return "between iterations" if between else "waiting for the model"


def _is_elsewhere(paths: LoopPaths, folder: str) -> bool:
    """Whether the loop ran in another folder than this one."""
    try:
        return not os.path.samestat(nofollow.lstat(paths.dir), os.stat(folder))  # noqa: PTH116 - a text of state.json
    except (OSError, ValueError):
        return True


def _hint(paths: LoopPaths, found: LoopStatus) -> str:
    name = paths.name
    reason = (found.state["stopReason"] if found.state else None) or ""
    resume = f"ralph-rpc resume {name}"
    if found.shown == "unknown":
        return "upgrade ralph-rpc, or use the version that wrote it"
    if found.shown == "crashed" and found.state is not None and _is_elsewhere(paths, found.state["ralphDir"]):
        where = f"the project was moved or copied here from {found.state['cwd']} while the loop ran"
        return f"{where}; {resume}"
    if found.shown == "crashed":
        return f"the runner was killed or crashed (see runner.log); {resume}"
    if found.shown == "stale":
        return f"the runner lives but does not answer; ralph-rpc kill {name}, then {resume}"
    if found.shown == "waiting":
        if found.state is not None and found.state.get("waitingFor") == "billing":
            return f"pay or top up the provider's account; it continues by itself, at once with: {resume}"
        return f"it continues by itself, at once with: {resume}; to end it: ralph-rpc stop {name}"
    if found.shown == "paused":
        return resume
    if found.shown == "error":
        causes = {
            "auth": "give pi a valid key or log in with it",
            "max-cost": "give it --max-tokens, or a model with prices",
            "stalled": f"look at its last iterations (ralph-rpc logs {name}) and make task.md clearer",
        }
        return f"{causes.get(reason, f'see why (ralph-rpc logs {name})')}, then {resume}"
    if found.shown == "stopped":
        return f"{resume} --{reason} MORE" if reason.startswith("max-") else resume
    return ""
