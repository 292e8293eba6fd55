"""`ralph-rpc followup`: tells the agent something for when it is done. One file in the loop's inbox."""

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
@click.option("--next", "later", is_flag=True, help="Keep it for the next iteration's prompt.")
@ticket_option
@wait_option
@timeout_option
@json_option
@project_option
def followup(
    words: tuple[str, ...],
    message: str | None,
    later: bool,
    ticket: str | None,
    waits: bool,
    timeout: float | None,
    as_json: bool,
    project: Path | None,
) -> None:
    """Tell the agent something for when it would end its turn: the same session then continues with it.

    MESSAGE comes from the arguments, from -m, from stdin (with - or a pipe), or from your editor. NAME may be left out
    where only one loop is running: then MESSAGE must be quoted.
    """
    body: Body = {"when": "next" if later else "now"}
    if ticket:
        body["ticket"] = ticket
    send_message(words, message, project, "followup", body, How(waits, timeout, as_json))
