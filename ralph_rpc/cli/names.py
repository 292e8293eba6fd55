"""NAME on the command line: the picker where several projects have such a loop, and the shell's completion.

Called by every command that takes the name of a loop, so it imports nothing heavy. Writes nothing.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import AmbiguousName, Elsewhere, find, find_project, find_to_change, loops_of, registered
from ralph_rpc.terminal.inert import inert


def resolve_loop(name: str, project: Path | None) -> LoopPaths:
    """The loop that the person means; on a terminal they are asked where `find` says that there are several.

    Raises what `find` raises.
    """
    try:
        return find(name, project)
    except AmbiguousName as several:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        return _pick(name, several.candidates)


def loop_to_change(name: str, project: Path | None) -> LoopPaths:
    """The loop that a command will change: one of this project, or of the one that the person names.

    On a terminal they are asked where only other projects have such a loop. Raises what `find_to_change` raises.
    """
    try:
        return find_to_change(name, project)
    except Elsewhere as elsewhere:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        if len(elsewhere.candidates) > 1:
            return _pick(name, elsewhere.candidates)
        where = inert(str(elsewhere.candidates[0].project), keep_newlines=False)
        click.confirm(f"This project has no loop {name!r}. Is the one in {where} meant?", abort=True, err=True)
        return elsewhere.candidates[0]


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Loop names for the shell's completion: those of this project and of the registry."""
    here = find_project(Path.cwd())
    names = {paths.name for paths in [*(loops_of(here) if here else []), *registered()]}
    return sorted(name for name in names if name.startswith(incomplete))


def _pick(name: str, candidates: Sequence[LoopPaths]) -> LoopPaths:
    click.echo(f"Several projects have a loop {name!r}:", err=True)
    for number, paths in enumerate(candidates, 1):
        click.echo(f"  {number}  {inert(str(paths.project), keep_newlines=False)}", err=True)
    choice: int = click.prompt("Which", type=click.IntRange(1, len(candidates)), err=True)
    return candidates[choice - 1]
