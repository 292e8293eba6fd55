"""Registry entries without a runner behind them.

Called by `clean` and `doctor`. Looking changes nothing; `forget` removes one file, under its loop's lock.
"""

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.files import registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.hold import kept_still
from ralph_rpc.loops.status import read_state
from ralph_rpc.machine import locks, nofollow
from ralph_rpc.model.state import ENDED


@dataclass(frozen=True)
class DeadEntry:
    """A file of the registry without a runner behind it."""

    path: Path
    what: str
    """`<name> in <project>`, or the file's name where it cannot be read."""
    reason: str
    loop: LoopPaths | None
    resumable: bool
    """Its loop is there and has crashed or ended in error: the entry is how `list --all` finds it."""


def dead_entries() -> list[DeadEntry]:
    """Every registry entry whose runner is dead or whose loop is gone, and every file that is no entry."""
    found, broken = entries_there()
    dead = [
        DeadEntry(one.path, one.path.name, one.reason, None, False)
        for one in broken
        if not (one.path.is_dir() or one.newer)
    ]
    for one in found:
        loop = LoopPaths(Path(one.entry["ralphDir"]))
        what = f"{one.entry['name']} in {one.entry['cwd']}"
        if registry.liveness(one.entry) != "dead":
            continue
        if not loop.dir.is_absolute() or loop.dir.parent.name != ".ralph" or loop.name != one.entry["name"]:
            # Not written by us; and nothing is to be made in that folder, not even a lock.
            dead.append(DeadEntry(one.path, what, "it names no loop's folder", None, False))
            continue
        if locks.is_held(loop.runner_lock):
            continue
        if not nofollow.is_folder(loop.dir):
            dead.append(DeadEntry(one.path, what, "its folder is gone", loop, False))
            continue
        state = read_state(loop)
        done = state is not None and state["status"] in ENDED and state["status"] != "error"
        reason = "its loop has ended" if done else "its runner is dead"
        dead.append(DeadEntry(one.path, what, reason, loop, not done))
    return dead


def entries_there() -> tuple[list[registry.StoredEntry], list[registry.UnreadableEntry]]:
    """Every entry of the registry, and every file in it that is none; nothing where it cannot be read."""
    try:
        return registry.entries()
    except OSError:
        return [], []


def forget(entry: DeadEntry) -> bool:
    """Remove the entry, unless a runner has come to life behind it; tell whether it is gone."""
    with suppress(AlreadyRunning), kept_still(entry.loop) if entry.loop is not None else nullcontext():
        registry.remove(entry.path)
        return True
    return False
