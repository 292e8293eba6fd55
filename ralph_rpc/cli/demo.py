"""`ralph-rpc demo`: finds pi or offers to install it, then shows a loop from beginning to end.

What is shown is in `ralph_rpc.demo.show`. The only thing that outlives the demo outside of its temporary
folder is a pi that the user agreed to have installed.
"""

import sys

import click

from ralph_rpc.errors import PiUnusable
from ralph_rpc.pi_install import Pi, check_version, find_pi, install_pi, installed_where, with_version


@click.command()
@click.option("--yes", is_flag=True, help="Install pi without asking, if there is none that fits.")
@click.option("--pi", "path", metavar="PATH", help="The pi to use (default: the one on PATH).")
def demo(yes: bool, path: str | None) -> None:
    """See the whole thing work, without an account.

    Real pi, driven by a scripted model, works through a small task in a throwaway project: three iterations,
    one message from you on the way, and a check that the work is really done. Takes half a minute.
    """
    pi = _pi(path, yes)
    from ralph_rpc.demo.show import show

    show(pi, click.echo)


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
            raise PiUnusable(
                missing.message, "To install it for you alone: ralph-rpc demo --yes"
            ) from missing
        if not yes and not click.confirm(question, default=True):
            raise
        return install_pi(click.echo)
