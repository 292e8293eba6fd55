"""Ending a loop that does not listen: its runner and everything below it.

The runner is signalled by its pid *and* start time; its files are corrected only where it could not do that itself.
If the machine dies in between, the loop has crashed, as after any power loss. Imports nothing heavy.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ralph_rpc import clock
from ralph_rpc.errors import NotRunning, RalphError
from ralph_rpc.files import records, registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.send import check_owner, resume_hint
from ralph_rpc.loops.status import loop_status
from ralph_rpc.loops.wait import until
from ralph_rpc.machine import identity, locks, nofollow
from ralph_rpc.model.state import ENDED, State

TERM_PATIENCE_S = 15.0
"""The runner gives pi 5 s for an abort and the guard as long for a SIGTERM."""
KILL_PATIENCE_S = 5.0
TREE_PATIENCE_S = 20.0
LEAVE_S = 10.0
"""For a runner that cannot be signalled because it is just leaving."""


def kill(paths: LoopPaths) -> bool:
    """Ends the runner and waits until its tree is gone; tells whether it took SIGKILL.

    Raises UsageError where it is another user's, RalphError where no runner is there, where the pid in the files is not
    that of a runner, and where something outlives the signals.
    """
    name = paths.name
    check_owner(paths)
    found = loop_status(paths)
    if found.runner == "dead":
        raise NotRunning(f"loop {name!r} is not running ({found.shown})", resume_hint(paths))
    who = _runner_of(paths, found.state)
    if who[0] is not None and identity.is_same(*who) and not identity.is_background(who[0]):
        raise RalphError(
            f"pid {who[0]} is no runner, though the files of {name!r} name it; nothing was signalled",
            f"see: ralph-rpc status {name}",
        )
    with _ordered(paths):
        by_force = _end(paths, who)
    if by_force and _has_jobs(found.state):
        # Imported here: hardly any loop has jobs on an engine.
        from ralph_rpc.loops.engine_left import call_off

        call_off(paths)
    _correct(paths)
    _forget(paths)
    return by_force


@contextmanager
def _ordered(paths: LoopPaths) -> Iterator[None]:
    """While a person's `kill` is under way, the runner knows from a file who sends the signal; else it would notify."""
    with suppress(OSError):  # a full disk: the loop ends all the same
        os.close(nofollow.open_fd(paths.kill_order, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    try:
        yield
    finally:
        with suppress(OSError):
            nofollow.unlink(paths.kill_order, missing_ok=True)


def _end(paths: LoopPaths, who: tuple[int | None, float | None, str]) -> bool:
    """Signals the runner until it is gone, and waits for its tree; True if it took SIGKILL."""
    name = paths.name
    if not identity.signal_same(*who, signal.SIGTERM) and not until(lambda: _is_free(paths), LEAVE_S):
        raise RalphError(f"the runner of {name!r} cannot be signalled", f"see: ralph-rpc status {name}")
    by_force = not until(lambda: _is_free(paths), TERM_PATIENCE_S)
    if by_force:
        identity.signal_same(*who, signal.SIGKILL)
        if not until(lambda: _is_free(paths), KILL_PATIENCE_S):
            raise RalphError(f"the runner of {name!r} (pid {who[0]}) does not end", "it may hang in the kernel")
    if not until(lambda: not locks.is_held(paths.tree_lock), TREE_PATIENCE_S):
        raise RalphError(f"processes of {name!r} are still alive", "end them with: ralph-rpc doctor --fix")
    return by_force


def _has_jobs(state: State | None) -> bool:
    return state is not None and bool(state["config"].get("engine"))


def _is_free(paths: LoopPaths) -> bool:
    return not locks.is_held(paths.runner_lock)


def _runner_of(paths: LoopPaths, state: State | None) -> tuple[int | None, float | None, str]:
    """Pid, start time and boot id of the runner, from the registry where state.json cannot be read."""
    if state is not None:
        return state["pid"], state["pidStartTime"], state["bootId"]
    for _, entry in registry.entries()[0]:
        if entry["ralphDir"] == str(paths.dir):
            return entry["pid"], entry["pidStartTime"], entry["bootId"]
    return None, None, ""


def _correct(paths: LoopPaths) -> None:
    """The last word that a runner killed by force could not say."""
    lock = locks.acquire(paths.runner_lock)
    if lock is None:  # somebody else has resumed it already
        return
    with lock:
        state = records.read_state(paths)
        if state is None or state["status"] in ENDED:
            return
        now = clock.iso(clock.now_ms())
        records.write_state(
            paths,
            {
                **state,
                "status": "stopped",
                "stopReason": "kill",
                "error": "the runner was killed",
                "pid": None,
                "pidStartTime": None,
                "endedAt": now,
                "updatedAt": now,
                "nextWakeAt": None,
            },
        )


def _forget(paths: LoopPaths) -> None:
    """Removes the registry's entry, by which `resume --crashed` would take the loop for one that the machine has ended."""
    if not _is_free(paths):  # somebody has resumed it already
        return
    for path, entry in registry.entries()[0]:
        if entry["ralphDir"] == str(paths.dir):
            registry.remove(path)
