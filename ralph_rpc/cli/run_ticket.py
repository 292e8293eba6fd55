"""`ralph-rpc run-ticket`: one ticket, from here to its end. A shell around `ralph_rpc.loops.ticket_run`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson

from ralph_rpc.cli.arguments import seconds
from ralph_rpc.cli.completing import complete_tickets
from ralph_rpc.cli.grouped import TaskCommand, task_options
from ralph_rpc.cli.interrupts import held
from ralph_rpc.errors import ENDED_IN_ERROR, OK, TIMED_OUT
from ralph_rpc.loops.find import project_of
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.units import duration


@click.command(cls=TaskCommand)
@click.argument("ticket", metavar="ID", shell_complete=complete_tickets)
@click.option("--name", help="The loop's name [ticket-ID].")
@click.option("--tickets", default="", metavar="DIR", help="The folder of the tickets.")
@click.option("--timeout", callback=seconds, metavar="TIME", help="End it after this time (30s, 10m).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option(
    "--project",
    type=click.Path(path_type=Path),
    help="The project's folder [the nearest one above with a .ralph, else this one].",
)
@task_options
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

    Exit code: 0 closed, or with --no-merge done; 1 not; 124 the --timeout has passed; 130 ended by Ctrl-C or SIGTERM, which
    is `stop --now`, waited for. It is a loop of its own: watch it with `ralph-rpc logs ticket-ID -f`.
    """
    from ralph_rpc.loops.ticket_run import TIME_UP, launch, see_through

    given = {name: value for name, value in cli.items() if value not in (None, ())}
    interrupts, launched = held(lambda: launch(ticket, project or project_of(Path.cwd()), name, tickets, given))
    result = see_through(launched, timeout, interrupts.release)
    if as_json:
        shown = {**asdict(result), "loop_dir": str(result.loop_dir)}
        click.echo(inert_json(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode()))
    elif result.success:
        what = "closed" if result.branch is None else f"done, on branch {result.branch},"
        click.echo(inert(f"{result.ticket_id}: {what} after {duration(result.duration_ms)}", keep_newlines=False))
    else:
        where = f"; its work is on branch {result.branch}" if result.branch else ""
        click.echo(inert(f"{result.ticket_id}: {result.status}: {result.error}{where}", keep_newlines=False), err=True)
    ctx.exit(OK if result.success else TIMED_OUT if result.error == TIME_UP else ENDED_IN_ERROR)
