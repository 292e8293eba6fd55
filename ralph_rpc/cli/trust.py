"""`ralph-rpc trust`: agrees to what the files of this project would run, lists what was agreed to, and takes it back.

It shows each file's lines and records path and content in the user's data folder. It runs nothing.
"""

import os
from pathlib import Path
from typing import Any

import click
import orjson

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.consent import described
from ralph_rpc.cli.names import complete_names, resolve_loop
from ralph_rpc.cli.sending import say
from ralph_rpc.errors import UsageError
from ralph_rpc.files import trust as store
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.consent import Subject, agree, subjects
from ralph_rpc.loops.find import project_of
from ralph_rpc.options.resolve import project_config_file
from ralph_rpc.options.settings import SETTINGS
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.table import Column, table


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--list", "listed", is_flag=True, help="Show everything that you have agreed to, in any project.")
@click.option("--revoke", is_flag=True, help="Take it back, for this project or for the loop NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.option("--project", type=click.Path(path_type=Path), help="The project [this one].")
def trust(name: str | None, listed: bool, revoke: bool, as_json: bool, project: Path | None) -> None:
    """Agree to what this project's .ralph/config.toml would run, and to loops that were not started here.

    It is shown first. Your word counts for that very content: after a change you are asked again.
    """
    if listed and (revoke or name is not None or project is not None):
        raise UsageError("--list stands alone, or with --json", "see: ralph-rpc trust --help")
    if listed:
        _list(as_json)
        return
    where = project.expanduser().resolve() if project is not None else project_of(Path.cwd())
    if revoke:
        _revoke(where, name, as_json)
        return
    loop = resolve_loop(name, where) if name is not None else None
    found = subjects(where, loop)
    for subject, agreed in found:
        if not agreed:
            agree(subject)
        if not as_json:
            for line in described(subject):
                click.echo(line)
            say("agreed to already" if agreed else "You have agreed to this. To take it back: ralph-rpc trust --revoke")
    if as_json:
        _print([_model(subject) for subject, _ in found])
    elif not found:
        say(f"nothing in {loop.dir if loop is not None else where / '.ralph'} needs your word")


def _list(as_json: bool) -> None:
    found = sorted(store.consents().items())
    if as_json:
        _print([{"path": path, **consent} for path, consent in found])
    elif found:
        paths, since = [inert(path, keep_newlines=False) for path, _ in found], [consent["at"] for _, consent in found]
        click.echo(table([Column(paths, "FILE"), Column(since, "SINCE")], colour=False))
    else:
        say("you have not agreed to anything")


def _revoke(project: Path, name: str | None, as_json: bool) -> None:
    below = str(project / ".ralph") + os.sep
    if name is not None:
        files = [LoopPaths.of(project, name).config]
    else:
        files = [
            project_config_file(project),
            project / SETTINGS,
            *(Path(path) for path in store.consents() if path.startswith(below)),
        ]
    gone = store.revoke(list(dict.fromkeys(files)))
    if as_json:
        _print(gone)
        return
    for path in gone:
        say(f"{path}: you will be asked again")
    if not gone:
        say(f"you had not agreed to anything in {project}")


def _model(subject: Subject) -> dict[str, Any]:
    lines = [{"option": one.name, "value": one.value, "origin": one.origin, "why": one.why} for one in subject.lines]
    loop = subject.loop.name if subject.loop is not None else None
    return {"path": str(subject.path), "project": str(subject.project), "loop": loop, "lines": lines}


def _print(model: object) -> None:
    click.echo(inert_json(orjson.dumps(model, option=orjson.OPT_INDENT_2).decode()))
