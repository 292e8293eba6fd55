"""Finds the processes that carry a mark in their environment, even those that live for an instant only.

Called by orphans.py. It only looks, so dying here does no harm. On Linux; elsewhere through psutil, which misses
processes that fork faster than it lists them.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from ralph_rpc.machine import identity

Known = tuple[int, float]
"""Pid and start time, as in machine/identity.py."""

_PATIENCE_S = 0.5
"""How long one look follows what is being forked."""
_NEWEST = 64
"""How many of the youngest pids are looked at again: a pid is assigned before there is anything to see."""
_GLANCES = 50


def look(mark: bytes, meet: Callable[[Known], None]) -> bool:
    """Call `meet` for every process of this user with the mark, as soon as it is seen.

    A process that forks its successor and dies is always ahead of a scan of the table. So pids assigned meanwhile are
    looked at again until there are no new ones: then the result is True, and nothing was missed. False if forking, by
    these processes or by others, did not stop.
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
        # Upwards: by the time a parent is gone, its child can be seen.
        for pid in range(max(1, before - _NEWEST), newest + 1):
            _look_at(pid, mark, meet)
        if before <= newest == _newest_pid():
            return True
        # And the youngest at once: one that lives for half a millisecond is dead before such a round ends.
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
        # This file belongs to one process and is empty once that is dead. So if it is not empty after the start time
        # was read, the pid did not change hands in between.
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
    """The last pid assigned: it only moves when something forks. 0 if the system does not say."""
    try:
        return int(Path("/proc/loadavg").read_bytes().split()[-1])
    except (OSError, ValueError, IndexError):
        return 0


def _look_without_proc(mark: str, meet: Callable[[Known], None]) -> None:
    import psutil

    from ralph_rpc.machine.processes import processes

    name, _, value = mark.partition("=")
    for process in processes():
        try:
            if process.uids().effective == os.geteuid() and process.environ().get(name) == value:
                meet((process.pid, process.create_time()))
        except (psutil.Error, OSError):
            continue
