"""`ralph-rpc wait`: blocks until loops have ended, and tells by its exit code how."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ralph_rpc.cli.arguments import seconds
from ralph_rpc.cli.bar import Bar
from ralph_rpc.cli.command import Command
from ralph_rpc.cli.meant import meant_loop, running_here
from ralph_rpc.cli.names import complete_names, resolve_loop
from ralph_rpc.cli.sending import say, say_json
from ralph_rpc.errors import ENDED_IN_ERROR, NOT_ALL_DONE, OK, STOPPED, NotRunning, UsageError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.inside import refuse_inside
from ralph_rpc.loops.status import LoopStatus
from ralph_rpc.loops.wait import await_end, await_first, deadline_of


def outcome_code(found: LoopStatus) -> int:
    """The exit code that tells how a loop ended: by its status as a person sees it, and by what it left undone."""
    if found.shown == "error" and found.state is not None and found.state.get("tickets", {}).get("undone"):
        return NOT_ALL_DONE
    return {"completed": OK, "stopped": STOPPED}.get(found.shown, ENDED_IN_ERROR)


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)
@click.option("--any", "first", is_flag=True, help="Return when the first of them has ended; without NAME: as --all.")
@click.option("--all", "every", is_flag=True, help="Without NAME: every running loop of this project.")
@click.option("--timeout", callback=seconds, metavar="TIME", help="Give up after this time (30s, 10m).")
@click.option("--json", "as_json", is_flag=True, help="Print how each loop ended as a JSON object.")
@click.option("--project", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its loops.")
@click.pass_context
def wait(
    ctx: click.Context,
    names: tuple[str, ...],
    first: bool,
    every: bool,
    timeout: float | None,
    as_json: bool,
    project: Path | None,
) -> None:
    """Wait until loops have ended.

    Without NAME, --any and --all: the only loop of this project that is running.

    Exit code: 0 all completed, 1 one ended in error or crashed, 6 none is running (--any, --all without NAME), 10 one
    was stopped, 11 one has done all but tickets that need a person, 124 the --timeout has passed. With --any it tells
    of the first that has ended.
    """
    if first and every:
        raise UsageError("--any and --all exclude each other", "leave one of them out")
    loops = _loops(names, first or every, project)
    for paths in loops:
        refuse_inside(paths, "wait", f"to end the loop: ralph-rpc stop {paths.name}")
    deadline = deadline_of(timeout)
    ended: dict[str, dict[str, str | None]] = {}
    codes: list[int] = []
    for paths, found in _first(loops, deadline) if first else _each(loops, deadline):
        codes.append(outcome_code(found))
        state = found.state
        ended[paths.name] = {
            "status": found.shown,
            "stopReason": state["stopReason"] if state else None,
            "error": state["error"] if state else None,
        }
        if not as_json:
            reason = (state["error"] or state["stopReason"] or "") if state else ""
            say(f"{paths.name}: {found.shown}" + (f" ({reason})" if reason else ""))
    if as_json:
        say_json(ended)
    ctx.exit(ENDED_IN_ERROR if ENDED_IN_ERROR in codes else max(codes))


def _loops(names: tuple[str, ...], several: bool, project: Path | None) -> list[LoopPaths]:
    if names:
        return [resolve_loop(name, project) for name in dict.fromkeys(names)]
    if not several:
        return [meant_loop(None, project, "any")]
    if running := running_here(project):
        return running
    raise NotRunning("no loop of this project is running", "see: ralph-rpc list")


def _each(loops: list[LoopPaths], deadline: float | None) -> Iterator[tuple[LoopPaths, LoopStatus]]:
    for paths in loops:
        with Bar(sys.stderr) as bar:
            found = await_end(paths, deadline, bar.show)
        yield paths, found


def _first(loops: list[LoopPaths], deadline: float | None) -> Iterator[tuple[LoopPaths, LoopStatus]]:
    yield await_first(loops, deadline)
