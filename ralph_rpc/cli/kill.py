"""`ralph-rpc kill`: ends a loop that does not listen. How is in `ralph_rpc.loops.kill`."""

from pathlib import Path

import click

from ralph_rpc.cli.arguments import name_argument, project_option
from ralph_rpc.cli.command import Command
from ralph_rpc.cli.meant import meant_loop
from ralph_rpc.cli.sending import say_json, say_of
from ralph_rpc.loops.inside import refuse_inside
from ralph_rpc.loops.kill import kill as end_loop
from ralph_rpc.loops.status import read_state


@click.command(cls=Command)
@name_argument
@click.option("--json", "as_json", is_flag=True, help="Print what was done as a JSON object.")
@project_option
def kill(name: str | None, as_json: bool, project: Path | None) -> None:
    """End a loop that does not listen: its runner and everything below it."""
    paths = meant_loop(name, project, "running")
    refuse_inside(paths, "kill", f"to end the loop: ralph-rpc stop {paths.name}")
    by_force = end_loop(paths)
    state = read_state(paths)
    ended = None if state is None or state["stopReason"] == "kill" else state["status"]
    if as_json:
        facts = {"command": "kill", "byForce": by_force, "endedBefore": ended}
        say_json({"name": paths.name, "project": str(paths.project), **facts})
    elif ended is not None:
        say_of(paths, f"had ended before it was killed: {ended}")
    else:
        say_of(paths, "killed" + (" by force" if by_force else ""))
