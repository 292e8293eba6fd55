"""What `start` and `resume` do once the runner is launched: say where things are, or stay until the loop ends.

The loop needs neither: this process may be ended at any time, except that Ctrl-C in the foreground ends the loop.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
import orjson

from ralph_rpc.cli.interrupts import Interrupts
from ralph_rpc.errors import ENDED_IN_ERROR, INTERRUPTED, OK, RalphError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.create import Creation
from ralph_rpc.loops.find import project_of
from ralph_rpc.loops.kill import kill
from ralph_rpc.loops.launch import Launched
from ralph_rpc.loops.send import send
from ralph_rpc.loops.start import await_begun
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.loops.wait import await_end
from ralph_rpc.model.state import ENDED, State
from ralph_rpc.story.notifications import shown_config
from ralph_rpc.terminal.inert import inert, inert_json


def attend(
    paths: LoopPaths,
    runner: Launched,
    foreground: Interrupts | None,
    as_json: bool,
    creation: Creation | None,
    offset: int = 0,
) -> int:
    """Waits until the loop works and says where things are, or stays with it; returns the exit code.

    To stay it takes the interrupts that were held during the launch (`foreground`). `offset` is where the log of this
    run begins. Raises RalphError where pi could not be used.
    """
    if foreground is not None:
        return _stay(paths, runner, foreground, creation, offset)
    try:
        state = await_begun(paths, runner, creation)
    except KeyboardInterrupt:
        click.echo(
            f"\n{paths.name} keeps starting in the background; end it with: ralph-rpc stop {paths.name} --now", err=True
        )
        raise
    if as_json:
        shown: Mapping[str, object] = {"name": paths.name, "ralphDir": str(paths.dir), "status": "starting"}
        if state is not None:
            shown = {**state, "config": shown_config(state["config"])}
        click.echo(inert_json(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode()))
        return ENDED_IN_ERROR if state is not None and state["status"] == "error" else OK
    if state is None or state["status"] not in ENDED:
        _say_where(paths, runner.pid, state)
        return OK
    reason = state["error"] or state["stopReason"]
    if state["status"] == "error":
        raise RalphError(f"loop {paths.name!r} ended in error: {reason}", f"see: ralph-rpc logs {paths.name}")
    told = f"{paths.name}: {state['status']} already ({reason}) ({paths.project})"
    click.echo(inert(told, keep_newlines=False))
    return OK


def warn(warnings: Sequence[str]) -> None:
    """What a person should know before the loop runs, on stderr."""
    for warning in warnings:
        click.echo(f"ralph-rpc: {inert(warning, keep_newlines=False)}", err=True)


def _say_where(paths: LoopPaths, pid: int, state: State | None) -> None:
    where = "" if project_of(Path.cwd()) == paths.project else f" --project {shlex.quote(str(paths.project))}"
    name = paths.name + where
    status = state["status"] if state else "still starting"
    tickets = state is not None and state["kind"] == "tickets"
    far = state.get("far") if state else None
    if state is not None and state["status"] == "waiting" and state["error"] and not state["iteration"]:
        pi = f": {state['error']}"
    elif state is not None:
        version = f"pi {state['piVersion']}" if state["piVersion"] else "pi"
        host = f" on {far['host']}" if far is not None else ""
        pi = f", {version}{host}, {state['model']}"
    else:
        pi = ""
    lines = [
        f"{paths.name}: {status}, runner {pid}{pi}",
        f"  files   {paths.dir}",
        f"  watch   ralph-rpc attach {name}       ralph-rpc {'tickets' if tickets else 'status'} {name}",
        f"  steer   ralph-rpc steer {name}{' --ticket ID' if tickets else ''} 'what to do instead'",
        f"  stop    ralph-rpc stop {name}      (after this iteration; --now: at once)",
    ]
    click.echo(inert("\n".join(lines)))


def _stay(paths: LoopPaths, runner: Launched, interrupts: Interrupts, creation: Creation | None, offset: int) -> int:
    """Shows the loop until it ends; the exit code tells how.

    Ctrl-C or SIGTERM ends the loop, a second one kills it.
    """
    try:
        interrupts.release()
        # Here, because a detached start, which a person waits for, needs none of it; and inside the `try`, because the
        # loop is running already: Ctrl-C must end it from now on.
        from ralph_rpc.cli.logs import follow
        from ralph_rpc.cli.wait import outcome_code

        state = await_begun(paths, runner, creation)
        try:
            if state is not None and state["kind"] == "tickets" and sys.stdout.isatty():
                _show_tickets(paths, offset)
            else:
                follow(paths, sys.stdout, offset)
        except BrokenPipeError:
            # The reader has gone, but our caller waits for the outcome.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return outcome_code(await_end(paths))
    except KeyboardInterrupt:
        click.echo("\nending the loop; press Ctrl-C again to kill it", err=True)
    try:
        with suppress(RalphError):  # it has ended already
            send(paths, "stop", {"when": "now"})
        await_end(paths)
    except KeyboardInterrupt:
        if loop_status(paths).runner != "dead":
            kill(paths)
    return INTERRUPTED


def _show_tickets(paths: LoopPaths, offset: int) -> None:
    """Until the end: what becomes of the tickets, line by line, above a bar. Agents that all talk at once are unreadable."""
    from ralph_rpc.cli.bar import Bar
    from ralph_rpc.cli.logs import RunnerSteps

    with Bar(sys.stdout) as bar, RunnerSteps(paths, sys.stdout, offset) as told:

        def look(found: LoopStatus) -> None:
            if told.waiting():
                bar.clear()
                told.write()
            bar.show(found)

        await_end(paths, look=look)
