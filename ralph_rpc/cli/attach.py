"""`ralph-rpc attach`: watch a loop as if sitting in front of pi, and talk to it.

Finds the loop, then hands the terminal to `ralph_rpc.attach`, which needs Textual; only this command loads
it.
"""

import os
import sys
from pathlib import Path

import click

from ralph_rpc.attach import OFFSET
from ralph_rpc.cli.command import Command
from ralph_rpc.cli.meant import meant_loop
from ralph_rpc.cli.names import complete_names, resolve_loop
from ralph_rpc.errors import UsageError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import is_here
from ralph_rpc.loops.inside import refuse_inside
from ralph_rpc.loops.living import living_loops
from ralph_rpc.machine import nofollow
from ralph_rpc.terminal.inert import inert


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--from-start", is_flag=True, help="Begin with the oldest event that is kept.")
@click.option("-n", "lines", type=click.IntRange(min=1), help="Begin with the last N events.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def attach(name: str | None, from_start: bool, lines: int | None, project: Path | None) -> None:
    """Watch a loop and talk to it: its text, its tools, its cost, and a line that steers it.

    Without NAME it offers the running loop that was watched last. Leaving it (q, Ctrl-C) changes nothing for the
    loop. What you type reaches a loop of another project after one question, or with --project.
    """
    if from_start and lines is not None:
        raise UsageError("--from-start and -n exclude each other", "leave one of them out")
    named = resolve_loop(name, project) if name is not None else None
    if named is not None:
        refuse_inside(named, "attach", f"see: ralph-rpc status {named.name}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("attach needs a terminal", f"see: ralph-rpc logs {name or 'NAME'} -f")
    paths = named or _last(project) or meant_loop(None, project, "any")
    attach_to(paths, lines, from_start, elsewhere=project is None and not is_here(paths))


def attach_to(paths: LoopPaths, lines: int | None = None, from_start: bool = False, elsewhere: bool = False) -> None:
    """Shows the loop on this terminal until the person leaves; also called by `start --attach`."""
    from ralph_rpc.attach.app import Attach

    if not os.environ.get("NO_COLOR"):
        os.environ.pop("NO_COLOR", None)  # to Textual even an empty one means no colour
    view = Attach(paths, lines, from_start, elsewhere)
    view.run()
    if view.failure is not None:
        raise view.failure
    click.echo(view.goodbye)


def _last(project: Path | None) -> LoopPaths | None:
    """The running loop that was watched last, None where none runs; where there are several, a person is asked."""
    loops = sorted(living_loops(project), key=_watched_at, reverse=True)
    if not loops:
        return None
    if len(loops) == 1:
        return loops[0]
    click.echo("Running loops, the one watched last first:", err=True)
    for number, paths in enumerate(loops, 1):
        click.echo(inert(f"  {number}  {paths.name}  {paths.project}", keep_newlines=False), err=True)
    choice: int = click.prompt("Which", default=1, type=click.IntRange(1, len(loops)), err=True)
    return loops[choice - 1]


def _watched_at(paths: LoopPaths) -> tuple[int, str]:
    try:
        return nofollow.lstat(paths.dir / OFFSET).st_mtime_ns, paths.name
    except OSError:
        return 0, paths.name
