"""`ralph-rpc report`: what a loop did, as one HTML page, as Markdown or as JSON.

It reads the loop's files, takes no lock and writes one file of its own, whole or not at all; a running loop does not
notice it. Loops that `clean --archive` or a new `start` has archived are found by their old name.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import click

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.meant import meant_loop
from ralph_rpc.cli.names import complete_names, resolve_loop
from ralph_rpc.errors import NoSuchLoop, RalphError, UsageError
from ralph_rpc.files.atomic import write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import exists, find_project
from ralph_rpc.machine import nofollow
from ralph_rpc.machine.programs import found_there
from ralph_rpc.report.facts import Report
from ralph_rpc.terminal.inert import inert

Format = Literal["html", "md", "json"]
_SUFFIXES: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json"}


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=complete_names)
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write it; - is stdout. [.ralph/NAME/report.html; md and json: -]"
)
@click.option(
    "--format", "format_", type=click.Choice(get_args(Format)), help="The format. [by the suffix of FILE, else html]"
)
@click.option("--open", "opens", is_flag=True, help="Show it in the browser.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def report(
    name: str | None, output: str | None, format_: Format | None, opens: bool, as_json: bool, project: Path | None
) -> None:
    """Report what a loop did: its iterations, their cost and outcome, and what went wrong.

    The HTML page needs no network and no other file. For a loop that is still running it shows what has happened so far.
    """
    paths = _find(name, project) if name is not None else meant_loop(None, project, "any")
    how: Format = "json" if as_json else format_ or _SUFFIXES.get(Path(output or "").suffix.lower(), "html")
    from ralph_rpc.report.gather import gather

    text = _renderer(how)(gather(paths))
    if opens and (output == "-" or how != "html"):
        raise UsageError("--open is for the page, and the page is for a file", "leave out --open, or -o - and --format")
    if output == "-" or (output is None and how != "html"):
        # A stdout that is not UTF-8 would refuse half of what models write; and the page declares UTF-8.
        sys.stdout.buffer.write(text.encode())
        return
    if output is None:
        # Not beside the user's files: the agent's next `git add -A` would take it along.
        file = paths.dir / "report.html"
        _write_own(file, text.encode())
    else:
        file = Path(output).expanduser()
        file = file / f"{paths.name}-report.{how}" if file.is_dir() else file
        _write(file, text.encode())
    click.echo(inert(str(file.absolute()), keep_newlines=False))
    if opens:
        _open(file)


def _open(file: Path) -> None:
    import webbrowser

    with found_there():
        opened = webbrowser.open(file.absolute().as_uri())
    if not opened:
        raise RalphError("there is no browser here that could show it", "set BROWSER, or open the file yourself")


def _renderer(how: Format) -> Callable[[Report], str]:
    if how == "json":
        from ralph_rpc.report.as_json import render
    elif how == "md":
        from ralph_rpc.report.markdown import render
    else:
        from ralph_rpc.report.html import render
    return render


def _find(name: str, project: Path | None) -> LoopPaths:
    """The loop of that name, or its newest archived run where there is none now."""
    try:
        return resolve_loop(name, project)
    except NoSuchLoop:
        where = project.expanduser().resolve() if project else find_project(Path.cwd())
        archived = _archived(name, where) if where else None
        if archived is None:
            raise
        click.echo(f"ralph-rpc: there is no loop {name!r} now; this is its archived run {archived.name}", err=True)
        return archived


def _archived(name: str, project: Path) -> LoopPaths | None:
    """The archived run of that name, or the newest run of a loop of that name."""
    folder = project / ".ralph" / ".archive"
    there = [one.name for one in reversed(nofollow.entries(folder))]
    stamped = re.compile(rf"{re.escape(name)}-\d{{8}}-\d{{6}}(-\d+)?")
    runs = [run for run in there if run == name] or [run for run in there if stamped.fullmatch(run)]
    return next((found for run in runs if exists(found := LoopPaths(folder / run))), None)


def _write_own(file: Path, data: bytes) -> None:
    """Into the loop's folder, where an agent can lay links: whatever is there is replaced, and no link is followed."""
    try:
        write_atomic(file, data)
    except OSError as error:
        raise RalphError(f"cannot write {file}: {error.strerror}", "choose another place with -o FILE") from error


def _write(file: Path, data: bytes) -> None:
    try:
        target = file.resolve()
        if target.exists() and not target.is_file():
            # /dev/null, a named pipe: written to, never replaced.
            target.write_bytes(data)
        else:
            write_atomic(target, data)
    except OSError as error:
        raise RalphError(f"cannot write {file}: {error.strerror}", "choose another place with -o FILE") from error
