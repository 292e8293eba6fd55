"""Arguments and options that several commands share: NAME, --project, --wait, --timeout, --ticket.

Called by commands that people type all day, so it imports nothing heavy.
"""

from pathlib import Path
from typing import cast

import click

from ralph_rpc.cli.completing import complete_tickets
from ralph_rpc.cli.names import complete_names
from ralph_rpc.errors import UsageError
from ralph_rpc.options.kinds import DURATION, Wrong


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A duration as in the options of `start`, in seconds."""
    try:
        return None if value is None else cast(int, DURATION.parse(value, Path.cwd())) / 1000
    except Wrong as error:
        raise click.BadParameter(str(error), ctx, param) from None


def check_wait(waits: bool, timeout: float | None) -> None:
    """Raises UsageError for a --timeout without --wait."""
    if timeout is not None and not waits:
        raise UsageError("--timeout needs --wait", "a command is sent at once")


name_argument = click.argument("name", required=False, shell_complete=complete_names)
words_argument = click.argument("words", nargs=-1, metavar="[NAME] [MESSAGE]...", shell_complete=complete_names)
message_option = click.option("-m", "--message", metavar="TEXT", help="The message, instead of MESSAGE.")
project_option = click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project that the loop belongs to.",
)
ticket_option = click.option(
    "--ticket", metavar="ID", shell_complete=complete_tickets, help="Ticket loops: only the agent on this ticket."
)
wait_option = click.option("--wait", "waits", is_flag=True, help="Return when it has had its effect.")
timeout_option = click.option(
    "--timeout", callback=seconds, metavar="TIME", help="With --wait: give up after this time (30s, 10m)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print what was sent as a JSON object.")
