"""`ralph-rpc stop`: ends loops after the iteration that runs, or now. One file in each loop's inbox."""

from pathlib import Path

import click

from ralph_rpc.cli.arguments import check_wait, json_option, project_option, timeout_option, wait_option
from ralph_rpc.cli.command import Command
from ralph_rpc.cli.meant import meant_loop, running_here
from ralph_rpc.cli.names import complete_names, loop_to_change
from ralph_rpc.cli.sending import How, as_json, await_delivery, say, say_json, say_of
from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.inside import refuse_inside
from ralph_rpc.loops.send import Sent, send
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.loops.wait import await_gone
from ralph_rpc.model.state import ENDED


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)
@click.option("--all", "every", is_flag=True, help="Every running loop of this project.")
@click.option("--now", is_flag=True, help="Abort the running iteration instead of letting it end.")
@wait_option
@timeout_option
@json_option
@project_option
def stop(
    names: tuple[str, ...],
    every: bool,
    now: bool,
    waits: bool,
    timeout: float | None,
    as_json: bool,
    project: Path | None,
) -> None:
    """End loops after the iteration that runs, or now. One that has ended already is no error.

    Without NAME: the only loop of this project that is running.
    """
    if names and every:
        raise UsageError("--all and a NAME exclude each other", "leave one of them out")
    check_wait(waits, timeout)
    how = How(waits, timeout, as_json)
    _stop(_loops(names, every, project), now, how)


def _loops(names: tuple[str, ...], every: bool, project: Path | None) -> list[LoopPaths]:
    if every:
        return running_here(project)
    if not names:
        return [meant_loop(None, project, "running")]
    return [loop_to_change(name, project) for name in dict.fromkeys(names)]


def _stop(loops: list[LoopPaths], now: bool, how: How) -> None:
    for paths in loops if how.waits else ():
        refuse_inside(paths, "stop --wait")
    told: list[dict[str, str | None]] = []
    stopped: list[tuple[LoopPaths, Sent]] = []
    refused: list[RalphError] = []
    for paths in loops:
        # One that cannot be stopped is no reason to let the others run.
        found = loop_status(paths)
        if _has_ended(found):
            told.append(as_json(paths, "stop", None, found.shown))
            _say_of(how, paths, f"not running ({found.shown})")
            continue
        try:
            sent = send(paths, "stop", {"when": "now" if now else "iteration"})
        except RalphError as error:
            refused.append(error)
            continue
        stopped.append((paths, sent))
        told.append(as_json(paths, "stop", sent.id, "delivered" if how.waits else "sent"))
        _say_of(how, paths, "ending now" if now else "will stop after this iteration")
    for paths, sent in stopped if how.waits else ():
        await_delivery(paths, sent, how)
        await_gone(paths)
    if how.as_json:
        say_json(told)
    elif not loops:
        say("no loop of this project is running")
    if refused:
        raise RalphError("; ".join(error.message for error in refused), refused[0].hint, refused[0].code)


def _has_ended(found: LoopStatus) -> bool:
    """It is as a stop would leave it. A crashed loop is not: at boot it would be resumed."""
    return found.runner == "dead" and found.shown in ENDED


def _say_of(how: How, paths: LoopPaths, told: str) -> None:
    if not how.as_json:
        say_of(paths, told)
