"""`ralph-rpc demo`: finds pi or offers to install it, then shows a loop from beginning to end.

What is shown is in `ralph_rpc.demo.show`. All that outlives the demo outside of its temporary folder is a pi that the
user agreed to have installed, and with --keep a project to try the program in.
"""

import sys
from pathlib import Path

import click

from ralph_rpc.cli.command import Command
from ralph_rpc.errors import PiUnusable, UsageError
from ralph_rpc.pi.find import Pi, check_version, find_pi, installed_where, with_version
from ralph_rpc.pi.install import install_pi


@click.command(cls=Command)
@click.option("--yes", is_flag=True, help="Install pi without asking, if there is none that fits.")
@click.option("--pi", "path", metavar="PATH", help="The pi to use (default: the one on PATH).")
@click.option("--keep", metavar="DIR", help="Leave the project there, untouched, to try the program on it.")
@click.option("--serve", is_flag=True, help="With --keep: answer for it with the scripted model, until Ctrl-C.")
def demo(yes: bool, path: str | None, keep: str | None, serve: bool) -> None:
    """See the whole thing work, without an account.

    Real pi, driven by a scripted model, works through a small task in a throwaway project: three iterations,
    one message from you on the way, and a check that the work is really done. Takes half a minute.
    """
    if serve and keep is None:
        raise UsageError("--serve needs --keep DIR", "it answers for the project that is left there")
    folder = _new_folder(keep) if keep is not None else None
    pi = _pi(path, yes)
    from ralph_rpc.demo.show import answer, leave, show

    show(pi, click.echo)
    if folder is not None:
        leave(folder, click.echo)
    if serve:
        answer(pi, click.echo)


def _new_folder(keep: str) -> Path:
    """Where the project is to be left. UsageError where something is there: nobody's files are mixed with it."""
    folder = Path(keep).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--keep: {folder} is there already", "name a folder that is new or empty")
    return folder


def _pi(path: str | None, yes: bool) -> Pi:
    try:
        pi = with_version(find_pi(path))
        check_version(pi)
        return pi
    except PiUnusable as missing:
        if path is not None:
            raise
        question = f"{missing.message}. Install pi for you alone, into {installed_where()}?"
        if not yes and not sys.stdin.isatty():
            raise PiUnusable(missing.message, "To install it for you alone: ralph-rpc demo --yes") from missing
        if not yes and not click.confirm(question, default=True):
            raise
        return install_pi(click.echo)
