"""Finds the processes that carry a mark in their environment, also those that are never there for long.

Called by orphans.py. It only looks, so that dying here does no harm. Linux; elsewhere by psutil, which misses
what forks faster than it lists.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from ralph_rpc.files import identity

Known = tuple[int, float]
"""Pid and start time, as in files/identity.py."""

_PATIENCE_S = 0.5
"""How long one look follows what is being forked."""
_NEWEST = 64
"""So many of the youngest pids are looked at again: a pid is given out before there is anything to see."""
_GLANCES = 50


def look(mark: bytes, meet: Callable[[Known], None]) -> bool:
    """Tell `meet` of every process of this user with the mark, as soon as it is seen.

    A process that forks its successor and dies is always ahead of a look through the table. So what was
    forked meanwhile is looked at again, until nothing new is there: then True is returned, and nothing was
    missed. False if there was no end of forking, by whomever.
    """
    if not Path("/proc/self/environ").exists():
        _look_without_proc(os.fsdecode(mark), meet)
        return True
    newest = _newest_pid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            _look_at(int(entry.name), mark, meet)
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        before, newest = newest, _newest_pid()
        # Upwards: by the time that a parent is gone its child can be seen.
        for pid in range(max(1, before - _NEWEST), newest + 1):
            _look_at(pid, mark, meet)
        if before <= newest == _newest_pid():
            return True
        # And the youngest at once: one that lives for half a millisecond is dead before such a round is over.
        for _ in range(_GLANCES):
            _look_at(_newest_pid(), mark, meet)
    return False


def _look_at(pid: int, mark: bytes, meet: Callable[[Known], None]) -> None:
    try:
        environ = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # gone, or not ours to see
        return
    try:
        if os.fstat(environ).st_uid != os.geteuid() or mark not in _read(environ).split(b"\0"):
            return
        # This file is of one process and empty once that is dead. So where it is not empty after the start time
        # was read, the pid has not changed hands before.
        start = identity.start_time(pid)
        if start is not None and os.pread(environ, 1, 0):
            meet((pid, start))
    except OSError:
        return
    finally:
        os.close(environ)


def _read(fd: int) -> bytes:
    data = b""
    while chunk := os.read(fd, 1 << 16):
        data += chunk
    return data


def _newest_pid() -> int:
    """The pid that was given out last: it only moves when something forks. 0 where the system does not tell."""
    try:
        return int(Path("/proc/loadavg").read_bytes().split()[-1])
    except (OSError, ValueError, IndexError):
        return 0


def _look_without_proc(mark: str, meet: Callable[[Known], None]) -> None:
    import psutil

    from ralph_rpc.processes import processes

    name, _, value = mark.partition("=")
    for process in processes():
        try:
            if process.uids().effective == os.geteuid() and process.environ().get(name) == value:
                meet((process.pid, process.create_time()))
        except (psutil.Error, OSError):
            continue
