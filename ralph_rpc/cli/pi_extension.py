"""`ralph-rpc pi-extension`: puts the extension into pi, takes it out again, and says whether it is there.

What is installed, and how, is in `ralph_rpc.pi.extension`.
"""

import json
import os
from pathlib import Path

import click

from ralph_rpc import __version__
from ralph_rpc.cli.command import CommandGroup
from ralph_rpc.cli.sending import say
from ralph_rpc.errors import ENDED_IN_ERROR, OK
from ralph_rpc.loops.find import find_project
from ralph_rpc.pi import extension
from ralph_rpc.pi.find import Pi, check_version, find_pi, with_version
from ralph_rpc.terminal.inert import inert_json

_pi_option = click.option("--pi", "path", metavar="PATH", help="The pi that is meant (default: the one on PATH).")


@click.group("pi-extension", cls=CommandGroup)
def pi_extension() -> None:
    """Watch, steer and start loops from pi's own terminal: the extension of pi that comes with this program."""


@pi_extension.command()
@_pi_option
def install(path: str | None) -> None:
    """Have pi load the extension from now on. Afterwards: start pi, and type /ralph."""
    pi = _pi(path)
    new = extension.install(pi, os.environ)
    say(f"pi {pi.version} loads the extension from {extension.FOLDER}" + ("" if new else " already"))
    say("start pi in a project, or type /reload in one that runs; then: /ralph")


@pi_extension.command()
@_pi_option
def remove(path: str | None) -> None:
    """Have pi forget the extension."""
    if extension.remove(_pi(path), os.environ):
        say("removed: pi does not load the extension any more; one that runs does until /reload")
    else:
        say("there was nothing to remove: pi does not load the extension")


@pi_extension.command()
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say whether pi loads the extension, and from where. Exit code 1 if something is wrong with it."""
    places = extension.installed(os.environ, find_project(Path.cwd()) or Path.cwd())
    wrong = list(extension.troubles(places))
    if as_json:
        model = {
            "installed": any(place.version is not None for place in places),
            "version": __version__,
            "folder": str(extension.FOLDER),
            "places": [
                {"path": str(place.path), "settings": str(place.settings), "version": place.version} for place in places
            ],
            "command": (extension.record() or {}).get("command"),
            "troubles": [f"{trouble.message}; {trouble.hint}" for trouble in wrong],
        }
        click.echo(inert_json(json.dumps(model, ensure_ascii=False, indent=2)))
    else:
        for place in places:
            say(f"installed: {place.path} ({place.version or 'gone'}), by {place.settings}")
        if not places:
            say("not installed. To watch and steer loops from inside pi: ralph-rpc pi-extension install")
        for trouble in wrong:
            say(f"{trouble.message}; {trouble.hint}")
    ctx.exit(ENDED_IN_ERROR if wrong else OK)


def _pi(path: str | None) -> Pi:
    pi = with_version(find_pi(path))
    check_version(pi)
    return pi
