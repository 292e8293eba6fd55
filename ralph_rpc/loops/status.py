"""How a loop really is: by its files, and by whether its runner lives.

Only reads: state.json, the registry entry and whether the runner's lock is held. What a dead runner left in
state.json is not believed: its loop is `crashed`. Never raises for broken files. Called by every command, so it
imports nothing heavy.
"""

from dataclasses import dataclass
from typing import Any, Literal

from ralph_rpc import clock
from ralph_rpc.files import records, registry
from ralph_rpc.files.atomic import Newer, Unreadable, read_json_object
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import identity, locks
from ralph_rpc.model.state import ENDED, State

Runner = Literal["alive", "stale", "dead"]


@dataclass(frozen=True)
class LoopStatus:
    """A loop as it really is, whatever its last runner wrote."""

    state: State | None
    """None: never written, or it cannot be read (`problem`)."""
    runner: Runner
    shown: str
    """The state's status, or `crashed` (not ended, but its runner is gone), `stale` (its runner hangs), or `unknown` (a
    newer version of this program wrote the state)."""
    problem: str | None = None
    """Why state.json cannot be read."""

    @property
    def ended(self) -> bool:
        """Nothing more will happen by itself."""
        return self.shown in ENDED or self.shown == "crashed" or (self.shown == "unknown" and self.runner == "dead")


def loop_status(paths: LoopPaths) -> LoopStatus:
    """The status that a person should see, and whether the runner lives."""
    # The lock first: a runner that ends in between has written its last state by the time that is read.
    held = locks.is_held(paths.runner_lock)
    state, problem = None, None
    try:
        state = records.read_state(paths)
    except Newer as newer:
        return LoopStatus(None, "alive" if held else "dead", "unknown", newer.reason)
    except Unreadable as unreadable:
        problem = unreadable.reason
    writer_lives = state is not None and identity.is_same(state["pid"], state["pidStartTime"], state["bootId"])
    if not held and not writer_lives:
        ended = state is not None and state["status"] in ENDED
        return LoopStatus(state, "dead", state["status"] if state and ended else "crashed", problem)
    if state is None:
        return LoopStatus(None, "alive", "starting", problem)
    if not writer_lives and state["status"] not in ENDED:
        # A crashed loop was resumed: its old state says nothing of the runner that has the lock now.
        return LoopStatus(state, "alive", "starting")
    if state["status"] in ENDED:
        return LoopStatus(state, "alive", state["status"])
    if _silent_ms(paths, state) > registry.STALE_AFTER_MS:
        return LoopStatus(state, "stale", "stale")
    return LoopStatus(state, "alive", state["status"])


def read_state(paths: LoopPaths) -> State | None:
    """The loop's state; None where it is missing or cannot be read."""
    try:
        return records.read_state(paths)
    except Unreadable:
        return None


def _silent_ms(paths: LoopPaths, state: State) -> int:
    """How long the runner has not shown itself, by state.json and by its registry entry."""
    silent = [clock.silent_ms(state["updatedAt"], state.get("monotonicMs"))]
    try:
        entry: dict[str, Any] = read_json_object(registry.entry_path(paths.project, paths.name)) or {}
    except Unreadable:
        entry = {}
    if entry.get("pid") == state["pid"] and entry.get("ralphDir") == state["ralphDir"]:
        silent.append(clock.silent_ms(entry.get("lastSeen"), entry.get("monotonicMs")))
    return min(silent)
