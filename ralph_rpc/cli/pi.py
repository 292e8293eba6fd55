"""`ralph-rpc pi`: runs the pi that loops use, wherever it lies, with the terminal and the folder of the caller.

This process becomes pi; nothing of ours is left running, and nothing is written.
"""

import os

import click

from ralph_rpc.cli.command import Command
from ralph_rpc.errors import PiUnusable
from ralph_rpc.options.toml import read_toml, user_config_file
from ralph_rpc.pi.find import find_pi


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True, "help_option_names": [], "allow_interspersed_args": False},
)
@click.argument("pi_args", nargs=-1, type=click.UNPROCESSED, metavar="[PI_ARGS]...")
def run_pi(pi_args: tuple[str, ...]) -> None:
    """Run the pi that loops use, with PI_ARGS: without any, its terminal, in which /login logs in.

    It is the pi of RALPH_PI or of the user's config.toml, else the one on PATH, else the one that `ralph-rpc demo` has
    installed. Everything behind `pi` is pi's own, --help too.
    """
    configured = read_toml(user_config_file()).get("pi")
    named = os.environ.get("RALPH_PI") or (configured[0][-1] if configured and configured[0] else None)
    command = [*find_pi(named, inside=True).command, *pi_args]
    try:
        os.execv(command[0], command)
    except OSError as error:
        raise PiUnusable(f"{command[0]} cannot be run: {error.strerror}", "see: ralph-rpc doctor") from error
