"""`ralph-rpc report`: what a loop did, as one HTML page, as Markdown or as JSON.

It reads the loop's files, takes no lock and writes one file of its own, whole or not at all; a living loop does not
notice it. Loops that `clean --archive` or a new `start` has put aside are found by the name they had, too.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import click

from ralph_rpc.errors import NoSuchLoop, RalphError
from ralph_rpc.files.atomic import write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import complete_names, exists, find_project, resolve_loop
from ralph_rpc.report.facts import Facts
from ralph_rpc.text import inert

Format = Literal["html", "md", "json"]
_SUFFIXES: dict[str, Format] = {
    ".html": "html",
    ".htm": "html",
    ".md": "md",
    ".markdown": "md",
    ".json": "json",
}


@click.command()
@click.argument("name", shell_complete=complete_names)
@click.option("-o", "--output", metavar="FILE", help="Where to; - is stdout. [NAME-report.html; md, json: -]")
@click.option(
    "--format", "format_", type=click.Choice(get_args(Format)), help="By default as FILE is called."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def report(
    name: str, output: str | None, format_: Format | None, as_json: bool, project: Path | None
) -> None:
    """Tell what a loop did: its iterations, their cost and outcome, and what went wrong.

    The HTML page needs no network and no other file. A loop that is still running is told of so far.
    """
    paths = _find(name, project)
    how: Format = "json" if as_json else format_ or _SUFFIXES.get(Path(output or "").suffix.lower(), "html")
    from ralph_rpc.report.gather import gather

    text = _renderer(how)(gather(paths))
    if output == "-" or (output is None and how != "html"):
        # A stdout that is not UTF-8 would refuse half of what models write, and the page says that it is.
        sys.stdout.buffer.write(text.encode())
        return
    file = Path(output or ".").expanduser()
    file = file / f"{name}-report.{how}" if file.is_dir() else file
    _write(file, text.encode())
    click.echo(inert(str(file.absolute()), keep_newlines=False))


def _renderer(how: Format) -> Callable[[Facts], str]:
    if how == "json":
        from ralph_rpc.report.as_json import render
    elif how == "md":
        from ralph_rpc.report.markdown import render
    else:
        from ralph_rpc.report.html import render
    return render


def _find(name: str, project: Path | None) -> LoopPaths:
    """The loop of that name; where there is none (any more), its newest archived run."""
    try:
        return resolve_loop(name, project)
    except NoSuchLoop:
        where = project.expanduser().resolve() if project else find_project(Path.cwd())
        archived = _archived(name, where) if where else None
        if archived is None:
            raise
        click.echo(
            f"ralph-rpc: there is no loop {name!r} now; this is its archived run {archived.name}", err=True
        )
        return archived


def _archived(name: str, project: Path) -> LoopPaths | None:
    """The archived run that is called so, or the newest of the loop that was."""
    folder = project / ".ralph" / ".archive"
    try:
        there = sorted((one.name for one in folder.iterdir()), reverse=True)
    except OSError:
        return None
    stamped = re.compile(rf"{re.escape(name)}-\d{{8}}-\d{{6}}(-\d+)?")
    runs = [run for run in there if run == name] or [run for run in there if stamped.fullmatch(run)]
    return next((found for run in runs if exists(found := LoopPaths(folder / run))), None)


def _write(file: Path, data: bytes) -> None:
    try:
        target = file.resolve()
        if target.exists() and not target.is_file():
            # /dev/null, a named pipe: written to, never replaced.
            target.write_bytes(data)
        else:
            write_atomic(target, data)
    except OSError as error:
        raise RalphError(
            f"cannot write {file}: {error.strerror}", "choose another place with -o FILE"
        ) from error
