"""`ralph-rpc run-ticket`: one ticket, from here to its end. A shell around `ralph_rpc.api.run_ticket`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson

from ralph_rpc import options
from ralph_rpc.cli.control import seconds
from ralph_rpc.errors import ENDED_IN_ERROR, OK
from ralph_rpc.text import duration, inert, inert_json


@click.command(cls=options.OptionsCommand)
@click.argument("ticket", metavar="ID")
@click.option("--name", help="The loop's name [ticket-ID].")
@click.option("--tickets", default="", metavar="DIR", help="The folder of the tickets.")
@click.option("--timeout", callback=seconds, metavar="TIME", help="End it after this time (30s, 10m).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option("--project", type=click.Path(path_type=Path), help="The project's folder [the current one].")
@options.click_options
@click.pass_context
def run_ticket(
    ctx: click.Context,
    /,
    ticket: str,
    name: str | None,
    tickets: str,
    timeout: float | None,
    as_json: bool,
    project: Path | None,
    **cli: Any,
) -> None:
    """Work on the ticket ID and wait until it is closed or set aside.

    Exit code: 0 closed, 1 not. It is a loop of its own: watch it with `ralph-rpc logs ticket-ID -f`.
    """
    from ralph_rpc import api

    given = {name: value for name, value in cli.items() if value not in (None, ())}
    result = api.run_ticket(ticket, project or Path.cwd(), name=name, tickets=tickets, timeout=timeout, **given)
    if as_json:
        shown = {**asdict(result), "loop_dir": str(result.loop_dir)}
        click.echo(inert_json(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode()))
    elif result.success:
        click.echo(inert(f"{ticket}: closed after {duration(result.duration_ms)}", keep_newlines=False))
    else:
        where = f"; its work is on branch {result.branch}" if result.branch else ""
        click.echo(inert(f"{ticket}: {result.status}: {result.error}{where}", keep_newlines=False), err=True)
    ctx.exit(OK if result.success else ENDED_IN_ERROR)
