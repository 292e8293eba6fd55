"""`ralph-rpc pause`: holds a loop before its next iteration. One file in the loop's inbox."""

from pathlib import Path

import click

from ralph_rpc.cli.arguments import json_option, name_argument, project_option, timeout_option, wait_option
from ralph_rpc.cli.command import Command
from ralph_rpc.cli.sending import How, send_order


@click.command(cls=Command)
@name_argument
@wait_option
@timeout_option
@json_option
@project_option
def pause(name: str | None, waits: bool, timeout: float | None, as_json: bool, project: Path | None) -> None:
    """Hold a loop before its next iteration."""
    send_order(name, project, "pause", {}, "will pause before the next iteration", How(waits, timeout, as_json))
