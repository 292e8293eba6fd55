"""`ralph-rpc work`: one ticket in a clone of a hub. What an engine's job runs; a shell around `ralph_rpc.loops.work`."""

import signal
from pathlib import Path
from typing import Any

import click
import orjson

from ralph_rpc.cli.grouped import TaskCommand, task_options
from ralph_rpc.errors import ENDED_IN_ERROR, OK, STOPPED, UsageError
from ralph_rpc.loops.find import check_name
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.units import duration


@click.command(cls=TaskCommand)
@click.argument("ticket", metavar="ID")
@click.option("--name", help="The loop's name [ticket-ID].")
@click.option("--job", metavar="JOB", help="The order to carry out, which `start --engine` has left at the hub.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Where to work [below TMPDIR].")
@click.option("--tickets", default="", metavar="DIR", help="The folder of the tickets, from the top of the repository.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as a JSON object.")
@task_options
@click.pass_context
def work(
    ctx: click.Context,
    /,
    ticket: str,
    name: str | None,
    job: str | None,
    folder: Path | None,
    tickets: str,
    as_json: bool,
    **cli: Any,
) -> None:
    """Work on the ticket ID in a clone of the hub; push its branch and a record of what was done.

    This is what a job of an engine runs (`start --engine`), and may stand in a job script of your own. SIGTERM ends it
    early: the record, with what was spent, is pushed all the same. Exit code: 0 done, or nobody waits for it any more; 1
    not done; 10 stopped.
    """
    from ralph_rpc.loops.work import Ending
    from ralph_rpc.loops.work import work as do_work

    hub = cli.pop("hub")
    if hub is None:
        raise UsageError("--hub is missing", "name the repository to clone and to push to")
    if hub.startswith("-"):
        raise UsageError(f"--hub {hub!r} is no repository", "give an address or a path")
    if name is not None:
        check_name(name)
    given = {option: value for option, value in cli.items() if value not in (None, ())}
    if job is not None and (name is None or given):
        raise UsageError("--job needs --name, and no other options", "its order says how it is to be done")
    ending = Ending()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: ending.ask(insists=number == signal.SIGINT))
    where = str(Path(hub).resolve()) if Path(hub).exists() else hub
    done = do_work(ticket, where, name, job, folder, given, tickets, _tell, ending)
    if done is None:
        return
    record = done.record
    if as_json:
        click.echo(inert_json(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode()))
    elif record["outcome"] == "done":
        spent = sum(one["durationMs"] for one in record["iterations"])
        click.echo(_plain(f"{record['ticket']}: done after {duration(spent)}, on {done.branch} at {done.commit[:12]}"))
    else:
        _tell(f"{record['ticket']}: {record['outcome']}: {record['error']}")
    ctx.exit({"done": OK, "stopped": STOPPED}.get(record["outcome"], ENDED_IN_ERROR))


def _tell(line: str) -> None:
    click.echo(_plain(line), err=True)


def _plain(line: str) -> str:
    return inert(line, keep_newlines=False)
