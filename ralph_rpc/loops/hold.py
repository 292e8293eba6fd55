"""Holding a dead loop still: while somebody changes what its runner left, no runner works on it and none can start.

Locks only; if the machine dies here, they are gone with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import locks, nofollow


def is_busy(loop: LoopPaths) -> bool:
    """Whether its runner lives, or a guard still ends its processes."""
    return locks.is_held(loop.runner_lock) or locks.is_held(loop.tree_lock)


@contextmanager
def kept_still(loop: LoopPaths) -> Iterator[None]:
    """While this lasts, no runner works on the loop and none can start. AlreadyRunning if that cannot be had.

    Where the loop's folder is gone, so is the lock that a runner would need.
    """
    lock = locks.acquire(loop.runner_lock) if nofollow.is_folder(loop.dir) else None
    with lock or nullcontext():
        if (lock is None and nofollow.is_folder(loop.dir)) or locks.is_held(loop.tree_lock):
            raise AlreadyRunning(f"loop {loop.name!r} is being worked on", "try again when it has ended")
        yield
