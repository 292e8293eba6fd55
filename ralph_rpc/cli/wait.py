"""`ralph-rpc wait`: blocks until loops have ended, and tells by its exit code how.

It reads state.json and the runner's lock by polling; it holds nothing, so that it may be ended at any time.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import orjson

from ralph_rpc.cli.bar import Bar
from ralph_rpc.cli.control import seconds
from ralph_rpc.errors import ENDED_IN_ERROR, OK, STOPPED, RalphError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import LoopStatus, complete_names, loop_status, resolve_loop
from ralph_rpc.text import inert, inert_json

POLL_S = 0.2


def outcome_code(shown: str) -> int:
    """The exit code that tells how a loop ended: by its status as a person sees it."""
    return {"completed": OK, "stopped": STOPPED}.get(shown, ENDED_IN_ERROR)


def await_end(
    paths: LoopPaths, deadline: float | None = None, look: Callable[[LoopStatus], None] | None = None
) -> LoopStatus:
    """The status of a loop once it has ended and its runner is gone, or has crashed; `look` sees it until then.

    Raises RalphError after `deadline` (monotonic seconds).
    """
    while True:
        found = loop_status(paths)
        if look is not None:
            look(found)
        if found.ended and found.runner == "dead":
            return found
        if deadline is not None and time.monotonic() > deadline:
            raise RalphError(
                f"loop {paths.name!r} is still {found.shown}", f"see: ralph-rpc status {paths.name}"
            )
        time.sleep(POLL_S)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_names)
@click.option("--timeout", callback=seconds, metavar="TIME", help="Give up after this time (30s, 10m).")
@click.option("--json", "as_json", is_flag=True, help="Print how each loop ended as a JSON object.")
@click.option("--project", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its loops.")
@click.pass_context
def wait(
    ctx: click.Context, names: tuple[str, ...], timeout: float | None, as_json: bool, project: Path | None
) -> None:
    """Wait until loops have ended.

    Exit code: 0 all completed, 1 one ended in error or crashed, 10 one was stopped.
    """
    loops = [resolve_loop(name, project) for name in dict.fromkeys(names)]
    deadline = None if timeout is None else time.monotonic() + timeout
    ended: dict[str, dict[str, str | None]] = {}
    codes: list[int] = []
    for paths in loops:
        with Bar(sys.stderr) as bar:
            found = await_end(paths, deadline, bar.show)
        codes.append(outcome_code(found.shown))
        state = found.state
        ended[paths.name] = {
            "status": found.shown,
            "stopReason": state["stopReason"] if state else None,
            "error": state["error"] if state else None,
        }
        if not as_json:
            reason = (state["error"] or state["stopReason"] or "") if state else ""
            line = f"{paths.name}: {found.shown}" + (f" ({reason})" if reason else "")
            click.echo(inert(line, keep_newlines=False))
    if as_json:
        click.echo(inert_json(orjson.dumps(ended, option=orjson.OPT_INDENT_2).decode()))
    ctx.exit(ENDED_IN_ERROR if ENDED_IN_ERROR in codes else max(codes))
