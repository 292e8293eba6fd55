"""`ralph-rpc resume`: continues a loop, counters kept.

A living loop that is paused or waits gets a command; a loop whose runner is gone gets a new runner, under the lock and with
the options that it was started with, except for those given here.
"""

from pathlib import Path
from typing import Any

import click

from ralph_rpc.cli.arguments import project_option
from ralph_rpc.cli.grouped import TaskCommand, task_options
from ralph_rpc.cli.meant import meant_loop
from ralph_rpc.cli.names import complete_names
from ralph_rpc.cli.sending import How, say, say_json, tell
from ralph_rpc.errors import ENDED_IN_ERROR, OK, UsageError
from ralph_rpc.loops.inside import refuse_inside
from ralph_rpc.loops.resume import wake
from ralph_rpc.loops.wait import settled_status
from ralph_rpc.options.resolve import given


@click.command(cls=TaskCommand)
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--crashed", is_flag=True, help="Every loop of yours that died with the machine or was killed.")
@click.option("--foreground", is_flag=True, help="Stay and show what happens; the exit code tells the outcome.")
@click.option("--wait", "waits", is_flag=True, help="Return when it works again. Without a runner it always does.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@project_option
@task_options
@click.pass_context
def resume(
    ctx: click.Context,
    /,
    name: str | None,
    crashed: bool,
    foreground: bool,
    waits: bool,
    as_json: bool,
    project: Path | None,
    **cli: Any,
) -> None:
    """Continue the loop NAME: paused, stopped, crashed or failed. One that waits tries again at once.

    Without NAME: the only loop of this project that can be resumed. Options that are given replace those it was started
    with. With --crashed, every loop in any project that has ended without anybody wanting it to; exit code 0 if all of
    them work again or there were none.
    """
    if crashed:
        if name is not None or foreground or waits or project is not None or given(cli):
            raise UsageError("--crashed stands alone, or with --json", "or give the NAME of one loop")
        ctx.exit(_resume_crashed(as_json))
    paths = meant_loop(name, project, "resumable")
    found = settled_status(paths)
    if found.runner != "dead":
        if waits:
            refuse_inside(paths, "resume --wait")
        tell(paths, wake(paths, found, given(cli)), "resumed", How(waits, None, as_json))
        return
    # Here, because waking a paused loop is an everyday command and needs none of it.
    from ralph_rpc.cli.consent import asking
    from ralph_rpc.cli.interrupts import held
    from ralph_rpc.cli.launched import attend, warn
    from ralph_rpc.loops.restart import restart

    if foreground:
        interrupts, launched = asking(lambda: held(lambda: restart(paths, found.state, cli)))
    else:
        interrupts, launched = None, asking(lambda: restart(paths, found.state, cli))
    warn(launched.warnings)
    ctx.exit(attend(paths, launched.runner, interrupts, as_json, None, launched.offset))


def _resume_crashed(as_json: bool) -> int:
    from ralph_rpc.loops.crashed import Revived, resume_crashed

    found: list[Revived] = []
    for one in resume_crashed():
        found.append(one)
        if not as_json:
            where = f" ({one.project})" if one.project is not None else ""
            say(f"{one.name}{where}: {one.result}" + (f": {one.reason}" if one.reason else ""))
    if as_json:
        say_json([one._asdict() for one in found])
    elif not found:
        say("no loop has crashed")
    return OK if all(one.is_well for one in found) else ENDED_IN_ERROR
