"""`ralph-rpc abort`: ends the current pi run at once. One file in the loop's inbox."""

from pathlib import Path
from typing import get_args

import click

from ralph_rpc.cli.arguments import json_option, name_argument, project_option, timeout_option, wait_option
from ralph_rpc.cli.command import Command
from ralph_rpc.cli.sending import How, send_order
from ralph_rpc.model.commands import Then


@click.command(cls=Command)
@name_argument
@click.option("--then", type=click.Choice(get_args(Then)), default="continue", help="What follows.")
@wait_option
@timeout_option
@json_option
@project_option
def abort(
    name: str | None, then: Then, waits: bool, timeout: float | None, as_json: bool, project: Path | None
) -> None:
    """End the current pi run at once; by default a fresh iteration follows."""
    how = How(waits, timeout, as_json)
    send_order(name, project, "abort", {"then": then}, f"aborting, then {then}", how)
