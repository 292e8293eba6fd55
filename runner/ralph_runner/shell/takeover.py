"""The first thing a runner does: make sure that it is alone with the loop, and start pi.

Called by `__main__` under the runner lock, before the rest of the runner is loaded: pi takes a third of a second or
more to boot and the rest a sixth to load, so both happen at once. That is why nothing loaded up to here imports what pi
need not wait for: asyncio, the core, orjson, dataclasses, tempfile (tests/cli/test_imports.py checks it). Every step
may be repeated; if the runner dies after pi was started, pi's guard ends pi, and the next start finds what the guard
missed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ralph_rpc.files import tempdir
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import identity, locks
from ralph_rpc.machine.locks import Lock
from ralph_rpc.model.config import Config
from ralph_rpc.pi.argv import held, pi_argv
from ralph_runner.guarded import guard
from ralph_runner.guarded.spawn import Spawned, interpreter, spawn
from ralph_runner.shell.environment import child_environment, worktree_of
from ralph_runner.shell.orphans import sweep_orphans

if TYPE_CHECKING:
    from ralph_rpc.model.state import State

TREE_PATIENCE_S = 15.0


class Takeover:
    """What a runner has once the loop is its own. A plain class: dataclasses would take time to load."""

    def __init__(
        self,
        workdir: Path,
        tmp: Path,
        tree_lock: Lock,
        ended: int,
        pi: Spawned | None,
        tickets_lock: Lock | None = None,
    ) -> None:
        self.workdir = workdir
        self.tmp = tmp
        """The TMPDIR of everything that the runner starts."""
        self.tree_lock = tree_lock
        self.ended = ended
        """How many processes of an earlier run were ended."""
        self.pi = pi
        """A pi that is booting; whoever uses it sets None. Also None if it could not be started: the next try says why."""
        self.tickets_lock = tickets_lock
        """Held by a ticket loop for as long as it lives: two on one backlog would do the same work twice."""


def take_over(paths: LoopPaths, config: Config, resume: bool) -> Takeover:
    """End what an earlier run left, and start a task loop's pi. Raises OSError if the loop cannot be taken over."""
    guard.become_subreaper()
    left = _left(paths) if resume else None
    recorded, boot = _recorded(paths, left) if left is not None else ([], identity.boot_id())
    ended = sweep_orphans(paths.dir, recorded, boot)
    tree_lock = locks.acquire(paths.tree_lock, TREE_PATIENCE_S)
    if tree_lock is None:
        raise OSError(11, "processes of an earlier run still hold it", str(paths.tree_lock))
    workdir = _workdir(paths, config)
    tmp = tempdir.make(paths, left["tmpDir"] if left is not None else None)
    if config.get("tickets"):
        # The core has yet to decide which ticket is first, and so where its pi works.
        return Takeover(workdir, tmp, tree_lock, len(ended), None, _tickets_lock(paths))
    if config.get("launcher"):
        # It takes longer than the rest of the runner, and what is left elsewhere is looked at first.
        return Takeover(workdir, tmp, tree_lock, len(ended), None)
    try:
        pi = spawn(
            held(pi_argv(config, paths.sessions), config, interpreter()),
            cwd=workdir,
            env=child_environment(paths, tmp, own=worktree_of(paths, config)),
            tree_lock=tree_lock.fd,
        )
    except OSError:
        pi = None
    return Takeover(workdir, tmp, tree_lock, len(ended), pi)


def _tickets_lock(paths: LoopPaths) -> Lock:
    """One ticket loop in a project at a time. Raises OSError; `start` has looked before, but two may look at once."""
    lock = locks.acquire(paths.tickets_lock)
    if lock is None:
        raise OSError(11, "another loop of this project works on tickets", str(paths.tickets_lock))
    return lock


def _left(paths: LoopPaths) -> "State | None":
    """The state that an earlier run left."""
    from ralph_rpc.files import records
    from ralph_rpc.files.atomic import Unreadable

    try:
        return records.read_state(paths)
    except Unreadable:  # `recover` sets it aside and reports it
        return None


def _recorded(paths: LoopPaths, state: "State") -> tuple[list[tuple[int | None, float | None]], str]:
    """The processes that state.json names, and the boot in which they ran."""
    from ralph_rpc.files import records

    pids = [(state["piPid"], state["piStartTime"]), (state["guardPid"], state["guardStartTime"])]
    pids += [(record["pid"], record["pidStartTime"]) for record in records.read_tickets(paths).values()]
    return pids, state["bootId"]


def _workdir(paths: LoopPaths, config: Config) -> Path:
    if config["worktree"] is None:
        return paths.project
    from ralph_rpc import git

    return git.project_in(paths.worktree, paths.project)
