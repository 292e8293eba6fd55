"""`ralph-rpc attach`: watch a loop as if sitting in front of pi, and talk to it.

Finds the loop, then hands the terminal to `ralph_rpc.attach`, which needs Textual; only this command loads
it.
"""

import os
import sys
from pathlib import Path

import click

from ralph_rpc.attach import OFFSET
from ralph_rpc.errors import NoSuchLoop, RalphError, UsageError
from ralph_rpc.files import registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import complete_names, find_project, loop_status, loops_of, resolve_loop
from ralph_rpc.text import inert


@click.command()
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--from-start", is_flag=True, help="Begin with the oldest event that is kept.")
@click.option("-n", "lines", type=click.IntRange(min=1), help="Begin with the last N events.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def attach(name: str | None, from_start: bool, lines: int | None, project: Path | None) -> None:
    """Watch a loop and talk to it: its text, its tools, its cost, and a line that steers it.

    Without NAME it offers the loop that was watched last. Leaving it (q, Ctrl-C) changes nothing for the
    loop.
    """
    if from_start and lines is not None:
        raise UsageError("--from-start and -n exclude each other", "leave one of them out")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("attach needs a terminal", f"see: ralph-rpc logs {name or 'NAME'} -f")
    paths = resolve_loop(name, project) if name is not None else _last(project)
    attach_to(paths, lines, from_start)


def attach_to(paths: LoopPaths, lines: int | None = None, from_start: bool = False) -> None:
    """Shows the loop on this terminal until the person leaves; `start --attach` calls it, too."""
    from ralph_rpc.attach.app import Attach

    if not os.environ.get("NO_COLOR"):
        os.environ.pop("NO_COLOR", None)  # Textual takes an empty one for a wish
    view = Attach(paths, lines, from_start)
    view.run()
    if view.failure is not None:
        raise view.failure
    click.echo(view.goodbye)


def _last(project: Path | None) -> LoopPaths:
    """The running loop that was watched last; where there are several, a person is asked."""
    loops = sorted(_living(project), key=_watched_at, reverse=True)
    if not loops:
        raise NoSuchLoop("no loop runs", "an ended one can be seen with: ralph-rpc attach NAME")
    if len(loops) == 1:
        return loops[0]
    click.echo("Running loops, the one watched last first:", err=True)
    for number, paths in enumerate(loops, 1):
        click.echo(inert(f"  {number}  {paths.name}  {paths.project}", keep_newlines=False), err=True)
    choice: int = click.prompt("Which", default=1, type=click.IntRange(1, len(loops)), err=True)
    return loops[choice - 1]


def _living(project: Path | None) -> list[LoopPaths]:
    """Loops with a runner: of this project, and of all others unless one was named."""
    here = project.expanduser().resolve() if project is not None else find_project(Path.cwd())
    loops = set(loops_of(here)) if here is not None else set()
    for found in registry.entries()[0] if project is None else ():
        try:
            loops.add(resolve_loop(found.entry["name"], Path(found.entry["cwd"])))
        except RalphError:  # a stale entry
            continue
    return [paths for paths in loops if loop_status(paths).runner != "dead"]


def _watched_at(paths: LoopPaths) -> tuple[int, str]:
    try:
        return (paths.dir / OFFSET).stat().st_mtime_ns, paths.name
    except OSError:
        return 0, paths.name
