"""The loop that a command without NAME means: the only one that it fits, or the one that a person picks.

Called by every command that takes the name of one loop, so it imports nothing heavy. What fits is judged by how loops
really are; of several, none is guessed. Writes nothing.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import click

from ralph_rpc.cli.names import loop_to_change, resolve_loop
from ralph_rpc.errors import NoSuchLoop, NotRunning, UsageError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import exists, find_project, loops_of, registered
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.terminal.inert import inert

Fit = Literal["running", "resumable", "told", "any"]
"""Which loops a command is for: those with a runner; those that can be resumed; those that can be told something; all."""

Found = tuple[LoopPaths, LoopStatus]


def meant_loop(name: str | None, project: Path | None, fit: Fit) -> LoopPaths:
    """The loop of that name; without a name the only one of the project that fits, or the one picked on a terminal.

    What only looks (`any`) also looks elsewhere where this project has no such loop; what changes something asks first,
    and only on a terminal. Raises what `resolve_loop` and `loop_to_change` raise,
    NoSuchLoop or NotRunning where there is none, UsageError that names the loops where there are several.
    """
    if name is not None:
        return resolve_loop(name, project) if fit == "any" else loop_to_change(name, project)
    loops = _loops(project, elsewhere=fit == "any")
    if not loops:
        raise NoSuchLoop("there is no loop in this project", "every project: ralph-rpc list --all")
    fitting = _fitting(loops, fit)
    if not fitting:
        if fit == "resumable":
            raise NoSuchLoop("no loop of this project waits to be resumed", "see: ralph-rpc list")
        raise NotRunning("no loop of this project is running", "see: ralph-rpc list")
    if len(fitting) > 1:
        return _picked(fitting)
    [(paths, found)] = fitting
    if len(loops) > 1:
        click.echo(inert(f"ralph-rpc: meant is {paths.name} ({found.shown})", keep_newlines=False), err=True)
    return paths


def running_here(project: Path | None) -> list[LoopPaths]:
    """Every loop of the project that has a runner."""
    return [paths for paths, _ in _only(_loops(project, elsewhere=False), _lives)]


def addressed(words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """NAME and message of `[NAME] [MESSAGE]...`: what cannot be a name, since it has spaces or is `-`, is the message.

    UsageError where the name that was meant is empty, as with a variable that is not set, or where more follows on `-`.
    """
    if words and not words[0].strip():
        raise UsageError("the NAME is empty", "nothing was sent")
    if len(words) > 1 and words[0] == "-":
        raise UsageError("'-' is the message on stdin, and more follows it", "nothing was sent")
    if not words or words[0] == "-" or len(words[0].split()) != 1:
        return None, tuple(words)
    return words[0], tuple(words[1:])


def _loops(project: Path | None, elsewhere: bool) -> list[Found]:
    where = project.expanduser().resolve() if project is not None else find_project(Path.cwd())
    loops = loops_of(where) if where is not None else []
    if not loops and elsewhere and project is None:
        loops = [paths for paths in registered() if exists(paths)]
    return [(paths, loop_status(paths)) for paths in loops]


def _fitting(loops: list[Found], fit: Fit) -> list[Found]:
    if fit == "resumable":
        return _only(loops, _can_resume)
    living = _only(loops, _lives)
    if living or fit == "running":
        return living
    return loops if fit == "any" else _only(loops, lambda found: found.shown != "completed")


def _only(loops: list[Found], fits: Callable[[LoopStatus], bool]) -> list[Found]:
    return [one for one in loops if fits(one[1])]


def _lives(found: LoopStatus) -> bool:
    return found.runner != "dead"


def _can_resume(found: LoopStatus) -> bool:
    return found.shown in ("paused", "waiting", "stopped", "error", "crashed")


def _picked(loops: list[Found]) -> LoopPaths:
    """Asks which; UsageError that names them where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        named = ", ".join(f"{paths.name} ({found.shown})" for paths, found in loops[:10])
        more = ", …" if len(loops) > 10 else ""
        raise UsageError(f"several loops could be meant: {named}{more}", "give the NAME of one")
    for number, (paths, found) in enumerate(loops, 1):
        line = f"  {number}  {paths.name}  {found.shown}  {paths.project}"
        click.echo(inert(line, keep_newlines=False), err=True)
    choice: int = click.prompt("Which loop", type=click.IntRange(1, len(loops)), err=True)
    return loops[choice - 1][0]
