"""Starting a loop: everything that can be checked is checked, then its folder is made and its runner launched.

Called by the program and by the Python interface. `check` changes nothing. `start` leaves nothing behind where it
fails; once it has returned, the loop works on whatever becomes of the caller. If the machine dies in between, the
next start of that name takes over what is there.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ralph_rpc import git
from ralph_rpc.errors import PiUnusable, UsageError
from ralph_rpc.files import registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.text import read_own_text
from ralph_rpc.loops.backlog import check_task_loop, try_worktree
from ralph_rpc.loops.consent import names_program, require
from ralph_rpc.loops.create import Creation, check_startable, check_writable, create
from ralph_rpc.loops.elsewhere import check_launcher
from ralph_rpc.loops.engine import check_engine
from ralph_rpc.loops.find import check_name, refuse_unsafe
from ralph_rpc.loops.launch import Launched, await_started, launch
from ralph_rpc.loops.preflight import warnings
from ralph_rpc.loops.same_checkout import check_checkout
from ralph_rpc.loops.ticket_loops import for_tickets
from ralph_rpc.loops.which_pi import with_pi
from ralph_rpc.machine import locks, nofollow
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import State
from ralph_rpc.model.usage import tokens
from ralph_rpc.options.resolve import Resolved, resolve
from ralph_rpc.options.resolve import given as given_options
from ralph_rpc.prompts.task import DEFAULT_REFLECT

PATIENCE_S = 90.0
"""For the first answer of a model."""


@dataclass(frozen=True)
class Plan:
    """A loop that can be started."""

    paths: LoopPaths
    config: Config
    """Its options, all that was left open decided."""
    resolved: Resolved
    """The options as they were given, and where each came from."""
    reflect: str | None
    """The reflection prompt, if there is to be any."""
    warnings: tuple[str, ...] = ()
    """What a person should know before it runs, each as one line."""


class Started(NamedTuple):
    """A loop whose runner was launched."""

    creation: Creation
    runner: Launched


def check(
    name: str,
    project: Path,
    given: Mapping[str, object],
    tickets: str | None = None,
    task: str | None = None,
    only_look: bool = False,
) -> Plan:
    """How the loop `name` of `project` would be started.

    `given` are options as the command line gives them, by parameter name; `tickets` makes it a ticket loop, on that
    folder, or where it is empty on the one that `tk` would use; `task` is where a task was said to come from. Who
    will `only_look` needs no consent: nothing that the project names is run.

    Raises UsageError, AlreadyRunning or PiUnusable where the loop could not be started, or could only fail; Untrusted
    where the user has to agree first.
    """
    check_name(name)
    paths = LoopPaths.of(project.expanduser().resolve(), name)
    check_writable(paths.project)
    refuse_unsafe(paths)
    resolved = resolve(given, paths.project, os.environ, tickets is not None)
    if not only_look:
        require(paths.project, resolved)
        git.allow_fetching()
    return plan_of(paths, resolved, tickets, task, only_look, given_options(given))


def plan_of(
    paths: LoopPaths,
    resolved: Resolved,
    tickets: str | None,
    task: str | None = None,
    only_look: bool = False,
    given: Sequence[str] = (),
) -> Plan:
    """The same with options that are resolved, and agreed to, already; `given` names those of the command line."""
    check_engine(resolved.config)
    check_launcher(resolved.config, paths.project)
    config = with_pi(resolved.config, ask=not (only_look and names_program(resolved)), inside=not only_look)
    check_startable(paths)
    backlog = None
    if tickets is not None:
        config, backlog = for_tickets(paths, resolved, config, tickets, task, only_look)
    else:
        check_task_loop(given)
    if config["worktree"] is not None:
        git.check_worktree(paths.project, paths.worktree, config["worktree"])
    check_checkout(paths, config)
    reflect = _reflection(paths, resolved) if config["reflectEvery"] else None
    return Plan(paths, config, resolved, reflect, (*resolved.warnings, *warnings(paths.project, config, backlog)))


def start(plan: Plan, task: str | None, tied: bool = False) -> Started:
    """Makes the loop and launches its runner, `tied` to this process or not. `task` becomes task.md; None leaves the
    one that is there.

    Raises AlreadyRunning where another start was faster, and RalphError or OSError; nothing is left behind then.
    """
    paths, config = plan.paths, plan.config
    creation = create(paths, config, task, plan.reflect)
    try:
        if config["worktree"] is not None:
            creation.with_worktree = not nofollow.exists(paths.worktree)
            git.add_worktree(paths.project, paths.worktree, config["worktree"])
        try_worktree(paths, config)
        return Started(creation, launch(paths, creation.lock, resume=False, tied=tied))
    except BaseException:
        creation.undo()
        creation.lock.release()
        raise


def await_begun(paths: LoopPaths, runner: Launched, creation: Creation | None) -> State | None:
    """The state once the loop works or has ended; None where that takes longer than PATIENCE_S.

    Raises PiUnusable where pi was of no use, and UsageError where its model has no prices under --max-cost, after taking
    back `creation`, which a resumed loop does not have; RalphError where the runner has ended without a word.
    """
    state = await_started(paths, runner, PATIENCE_S)
    if state is not None and _cap_is_blind(state):
        if creation is not None and not tokens(state["stats"]):
            _withdraw(creation)
        raise UsageError(state["error"] or "--max-cost cannot work", "Nothing was started" if creation else "")
    if state is not None and state["status"] == "error" and _never_worked(state):
        if creation is not None:
            _withdraw(creation)
        raise PiUnusable(state["error"] or "pi cannot be used", "Nothing was started")
    return state


def _reflection(paths: LoopPaths, resolved: Resolved) -> str:
    """The reflection prompt: the one given, else the loop's own, else ours."""
    if resolved.reflect is not None:
        return resolved.reflect
    return read_own_text(paths.reflect) if nofollow.exists(paths.reflect) else DEFAULT_REFLECT


def _never_worked(state: State) -> bool:
    """True if no model has answered, in this run or any before it."""
    # A ticket may fail before any model is asked, by its worktree.
    reasons = ("auth", "crash") if state["kind"] == "tickets" else ("auth", "crash", "failures")
    # Of a prompt that pi took with it nobody knows what it cost: its record stays. A refused one cost nothing.
    if state["stopReason"] not in reasons or state["lastOutcome"] not in (None, "failed"):
        return False
    stats = state["stats"]
    return stats["turns"] <= 1 and stats["tokensIn"] == stats["tokensOut"] == 0 and stats["cost"] == 0


def _cap_is_blind(state: State) -> bool:
    """True if the loop has ended because --max-cost could never end it; a cap that is reached makes it `stopped`."""
    return state["status"] == "error" and state["stopReason"] == "max-cost"


def _withdraw(creation: Creation) -> None:
    """Leaves nothing half-created behind where pi could not be used."""
    paths = creation.paths
    lock = locks.acquire(paths.runner_lock, 10.0)
    # Without the lock, somebody else has begun here already.
    if lock is not None:
        with lock:
            registry.remove(registry.entry_path(paths.project, paths.name))
            creation.undo()
            creation.archived_to = None
