"""`ralph-rpc steer`: tells the agent something while it works. One file in the loop's inbox."""

from pathlib import Path

import click

from ralph_rpc.cli.arguments import (
    json_option,
    message_option,
    project_option,
    ticket_option,
    timeout_option,
    wait_option,
    words_argument,
)
from ralph_rpc.cli.command import Command
from ralph_rpc.cli.sending import How, send_message
from ralph_rpc.model.commands import Body


@click.command(cls=Command)
@words_argument
@message_option
@ticket_option
@wait_option
@timeout_option
@json_option
@project_option
def steer(
    words: tuple[str, ...],
    message: str | None,
    ticket: str | None,
    waits: bool,
    timeout: float | None,
    as_json: bool,
    project: Path | None,
) -> None:
    """Tell the agent something while it works: it gets it between two turns.

    MESSAGE comes from the arguments, from -m, from stdin (with - or a pipe), or from your editor. NAME may be left out
    where only one loop is running: then MESSAGE must be quoted.
    """
    body: Body = {"ticket": ticket} if ticket else {}
    send_message(words, message, project, "steer", body, How(waits, timeout, as_json))
