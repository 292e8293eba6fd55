"""`ralph-rpc resume`: goes on with a loop, counters kept.

A living, paused loop gets a command; a loop whose runner is gone gets a new runner, under the lock and with
the options that it was started with, but for those given here.
"""

import time
from pathlib import Path
from typing import Any

import click

from ralph_rpc import options
from ralph_rpc.cli.control import end_of_log
from ralph_rpc.errors import AlreadyRunning, RalphError, UsageError
from ralph_rpc.files import inbox, locks, records
from ralph_rpc.files.atomic import make_private_dir, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.launch import launch
from ralph_rpc.loops import LoopStatus, complete_names, loop_status, resolve_loop
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import State
from ralph_rpc.prompt import DEFAULT_REFLECT
from ralph_rpc.text import inert

LEAVE_S = 10.0
"""pi has ended by then, or was ended; what is left are files."""


@click.command(cls=options.OptionsCommand)
@click.argument("name", shell_complete=complete_names)
@click.option(
    "--foreground", is_flag=True, help="Stay and show what happens; the exit code tells the outcome."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project that the loop belongs to.",
)
@options.click_options
@click.pass_context
def resume(
    ctx: click.Context, /, name: str, foreground: bool, as_json: bool, project: Path | None, **cli: Any
) -> None:
    """Go on with the loop NAME: paused, stopped, crashed or failed.

    Options that are given replace those it was started with.
    """
    paths = resolve_loop(name, project)
    found = _settled_status(paths)
    if found.runner != "dead":
        _resume_living(paths, found.shown, options.given(cli))
    else:
        ctx.exit(_restart(paths, found.state, cli, foreground, as_json))


def _restart(
    paths: LoopPaths, state: State | None, cli: dict[str, Any], foreground: bool, as_json: bool
) -> int:
    """A new runner for a loop that has none; returns the exit code."""
    # Here, because waking a paused loop is an everyday command and needs none of it.
    from ralph_rpc import git
    from ralph_rpc.cli.start import attend
    from ralph_rpc.create import check_writable
    from ralph_rpc.tickets.setup import check_task_loop, ticket_config

    name = paths.name
    stored = records.read_config(paths)
    if stored is None:
        raise RalphError(f"{paths.config} is missing", f"start the loop anew: ralph-rpc start {name}")
    check_writable(paths.project)
    resolved = options.override(stored, cli)
    tickets = stored.get("tickets")
    if not tickets:
        check_task_loop(options.given(cli))
    config = _with_pi(resolved.config, "pi" in options.given(cli))
    if state is not None:
        _check_open(paths, state, config)
    if tickets:
        config = ticket_config(paths, config, Path(tickets), {"max-iterations": "config.json"}, resume=True)
    elif not paths.task.exists():
        raise UsageError(f"{paths.task} is missing", "write the task into it, then resume")
    if config["worktree"] != stored["worktree"]:
        raise UsageError("the worktree of a loop cannot be changed", "start another loop for another branch")
    lock = locks.acquire(paths.runner_lock)
    if lock is None:
        raise AlreadyRunning(
            f"loop {name!r} has just been resumed by somebody else", f"see: ralph-rpc status {name}"
        )
    try:
        if config["worktree"] is not None:
            git.add_worktree(paths.project, paths.worktree, config["worktree"])
        for folder in (paths.inbox, paths.rejected, paths.iterations, paths.sessions):
            make_private_dir(folder)
        if config["reflectEvery"] and (resolved.reflect or not paths.reflect.exists()):
            write_atomic(paths.reflect, (resolved.reflect or DEFAULT_REFLECT).encode())
        records.write_config(paths, config)
        offset = end_of_log(paths)
        runner = launch(paths, lock, resume=True)
    except BaseException:
        lock.release()
        raise
    return attend(paths, runner, foreground, as_json, None, offset)


def _settled_status(paths: LoopPaths) -> LoopStatus:
    """The loop's status; a runner that has just said its last word gets the time to leave."""
    deadline = time.monotonic() + LEAVE_S
    while True:
        found = loop_status(paths)
        if found.runner == "dead" or not found.ended or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _resume_living(paths: LoopPaths, shown: str, given: list[str]) -> None:
    name = paths.name
    if given:
        raise AlreadyRunning(
            f"loop {name!r} is running; options change only when it has ended", f"ralph-rpc stop {name}"
        )
    if shown != "paused":
        raise AlreadyRunning(f"loop {name!r} is not paused, it is {shown}", f"see: ralph-rpc status {name}")
    inbox.drop(paths.inbox, "resume", {})
    click.echo(inert(f"{name}: going on", keep_newlines=False))


def _with_pi(config: Config, chosen: bool) -> Config:
    """The pi that the loop was started with, as new as it is by now; if it is gone, another that is found."""
    from ralph_rpc.cli.start import with_pi

    gone = not chosen and not Path(config["pi"][-1] if config["pi"] else "").is_file()
    return with_pi({**config, "pi": []} if gone else config)


def _check_open(paths: LoopPaths, state: State, config: Config) -> None:
    """Raises UsageError where the loop would end again at once."""
    name, stats = paths.name, state["stats"]
    if state["status"] == "completed":
        raise UsageError(f"loop {name!r} is completed", f"begin anew with: ralph-rpc start {name}")
    used = stats["tokensIn"] + stats["tokensOut"] + stats["cacheRead"] + stats["cacheWrite"]
    reached = [
        ("max-iterations", config["maxIterations"] or None, stats["iterations"]),
        ("max-cost", config["maxCost"], stats["cost"]),
        ("max-tokens", config["maxTokens"], used),
        ("max-time", config["maxTimeMs"], state["elapsedMs"]),
    ]
    for option, limit, value in reached:
        if limit is not None and value >= limit:
            raise UsageError(
                f"loop {name!r} has reached its --{option}",
                f"raise it: ralph-rpc resume {name} --{option} …",
            )
