"""Resuming a loop that has no runner: a new runner, under the lock, with the options it was started with.

Counters, messages and sessions are kept: the runner reads them. Called by `resume` once the loop has ended or
crashed. If the machine dies here, the loop has crashed, as before, and can be resumed again.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ralph_rpc import git
from ralph_rpc.errors import AlreadyRunning, RalphError, UsageError
from ralph_rpc.files import records
from ralph_rpc.files.atomic import make_private_dir, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.backlog import check_task_loop, read_backlog, ticket_config, try_worktree, with_whole_ids
from ralph_rpc.loops.consent import require_loop
from ralph_rpc.loops.create import check_writable, protect, refuse_living, remember
from ralph_rpc.loops.elsewhere import check_launcher
from ralph_rpc.loops.engine import check_engine, try_hub
from ralph_rpc.loops.launch import Launched, launch
from ralph_rpc.loops.preflight import warnings
from ralph_rpc.loops.same_checkout import check_checkout
from ralph_rpc.loops.status import read_state
from ralph_rpc.loops.tail import end_of_log
from ralph_rpc.loops.ticket_loops import check_alone
from ralph_rpc.loops.which_pi import with_pi, with_stored_pi
from ralph_rpc.machine import locks, nofollow
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import State
from ralph_rpc.model.usage import limits_reached, spent
from ralph_rpc.options.resolve import given as given_options
from ralph_rpc.options.resolve import override
from ralph_rpc.prompts.task import DEFAULT_REFLECT


class Restarted(NamedTuple):
    """A loop with a new runner."""

    runner: Launched
    offset: int
    """Where the log of this run begins."""
    warnings: tuple[str, ...] = ()
    """What a person should know, each as one line."""


def restart(paths: LoopPaths, state: State | None, given: Mapping[str, object], tied: bool = False) -> Restarted:
    """Launches a new runner, `tied` to this process or not. `given` are options as the command line gives them; the
    others stay as they were.

    Raises Untrusted where the user has to agree to its options first, UsageError where the loop would end again at once
    or cannot run, AlreadyRunning where another resume was
    faster, PiUnusable, RalphError, OSError. Until the runner is launched, all that may have changed are options.
    """
    name = paths.name
    records.refuse_newer(paths)
    stored = records.read_config(paths)
    if stored is None:
        raise RalphError(f"{paths.config} is missing", f"start the loop again: ralph-rpc start {name}")
    check_writable(paths.project)
    require_loop(paths, stored)
    git.allow_fetching()
    resolved = override(stored, given)
    tickets, backlog = _after_a_move(paths, state, stored.get("tickets")), None
    if not tickets:
        check_task_loop(given_options(given))
    if resolved.config.get("engine") != stored.get("engine"):
        raise UsageError("the engine of a loop cannot be changed", "start another loop for it")
    check_engine(resolved.config)
    check_launcher(resolved.config, paths.project)
    anew = {"pi", "launcher"} & set(given_options(given))
    config = with_pi(resolved.config, inside=True) if anew else with_stored_pi(resolved.config)
    if state is not None:
        _check_open(paths, state, config)
    if tickets:
        config = ticket_config(paths, config, tickets, {"max-iterations": "config.json"}, may_be_dirty=True)
        try_hub(paths, config)
        check_alone(paths)
        with suppress(RalphError):  # a person may have switched to a branch without them: the runner waits for that
            backlog = read_backlog(paths.project, config)
        if backlog is not None and "only" in given_options(given):
            config = with_whole_ids(config, backlog)
    elif not nofollow.is_file(paths.task):
        raise UsageError(f"{paths.task} is missing", "write the task into it, then resume")
    check_checkout(paths, config)
    if config["worktree"] != stored["worktree"]:
        raise UsageError("the worktree of a loop cannot be changed", "start another loop for another branch")
    refuse_living(paths)
    lock = locks.acquire(paths.runner_lock)
    if lock is None:
        raise _resumed_already(name)
    try:
        if _started_since(paths, state):
            raise _resumed_already(name)
        if config["worktree"] is not None:
            git.add_worktree(paths.project, paths.worktree, config["worktree"])
        try_worktree(paths, config)
        protect(paths.project)
        for folder in (paths.inbox, paths.rejected, paths.iterations, paths.sessions):
            make_private_dir(folder)
        if config["reflectEvery"] and (resolved.reflect or not nofollow.exists(paths.reflect)):
            write_atomic(paths.reflect, (resolved.reflect or DEFAULT_REFLECT).encode())
        records.write_config(paths, config)
        remember(paths, config)
        offset = end_of_log(paths)
        return Restarted(launch(paths, lock, resume=True, tied=tied), offset, warnings(paths.project, config, backlog))
    except BaseException:
        lock.release()
        raise


def _after_a_move(paths: LoopPaths, state: State | None, tickets: str | None) -> str | None:
    """Where the tickets are now, if they were moved with the project."""
    if not tickets or state is None or Path(tickets).exists() or not Path(tickets).is_relative_to(state["cwd"]):
        return tickets
    moved = paths.project / Path(tickets).relative_to(state["cwd"])
    return str(moved) if moved.exists() else tickets


def _started_since(paths: LoopPaths, state: State | None) -> bool:
    """Whether another runner has come since `state` was read, and may have gone again. The caller holds the lock."""
    now = read_state(paths)
    return now is not None and (state is None or now["updatedAt"] != state["updatedAt"])


def _resumed_already(name: str) -> AlreadyRunning:
    return AlreadyRunning(f"loop {name!r} has just been resumed by somebody else", f"see: ralph-rpc status {name}")


def _check_open(paths: LoopPaths, state: State, config: Config) -> None:
    """Raises UsageError where the loop would end again at once."""
    name = paths.name
    if state["status"] == "completed":
        raise UsageError(f"loop {name!r} is completed", f"start it again with: ralph-rpc start {name}")
    reached = limits_reached(config, spent(state["stats"]), state["elapsedMs"])
    if reached:
        raise UsageError(
            f"loop {name!r} has reached its --{reached[0]}", f"raise it: ralph-rpc resume {name} --{reached[0]} …"
        )
