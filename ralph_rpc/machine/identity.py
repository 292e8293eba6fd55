"""Is that pid still the process that was written down?

A pid alone proves nothing: it is reused, also across reboots. A process is known by pid, start time and boot
id together, and is signalled through a pidfd, so that no pid can change hands between the look and the signal.
Called by readers of state.json and the registry, and by everything that ends a process it did not start itself.
Unknown means "not that process": nothing here signals by guess.
"""

import os
import signal
import sys
from functools import cache
from pathlib import Path

_HAS_PROC = Path("/proc/self/stat").exists()
_MAX_PID = 2**31 - 1


@cache
def boot_id() -> str:
    """Name this boot of the machine; "" where the system does not tell."""
    try:
        # UTF-8, though it is ASCII: that codec would have to be loaded first.
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()
    except (OSError, ValueError):
        return ""


def start_time(pid: int) -> float | None:
    """Return when `pid` started, or None if it is gone or a zombie.

    Linux: clock ticks since boot (field 22 of /proc/PID/stat). Elsewhere: seconds since the epoch.
    """
    if not _HAS_PROC:
        return _start_time_without_proc(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command name may itself hold blanks and brackets; only what follows the last bracket is fields.
    fields = stat[stat.rfind(b")") + 1 :].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X", b"x"):
        return None
    return float(fields[19])


def memory(pid: int | None) -> int:
    """Return the bytes of resident memory of `pid` alone; 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def is_same(pid: int | None, start: float | None, boot: str | None) -> bool:
    """Return whether `pid` is alive and is the process that started at `start` under boot id `boot`.

    The values come from files that anything may have written: what is missing, unknown or of another type
    gives False, never an error. Where the system has no boot id, "" stands for it and start times are absolute.
    """
    if type(pid) is not int or not 1 < pid <= _MAX_PID:
        return False
    if type(start) not in (int, float) or type(boot) is not str:
        return False
    here = boot_id()
    if boot != here or (_HAS_PROC and not here):
        return False
    return start_time(pid) == start


def is_background(pid: int) -> bool:
    """Return whether `pid` is a process of this user without a terminal, as runner, guard and pi are.

    So no file can make us end a person's shell or another user's process.
    """
    if not _HAS_PROC:
        return _is_background_without_proc(pid)
    process = Path(f"/proc/{pid}")
    try:
        stat, owner = (process / "stat").read_bytes(), process.stat().st_uid
    except OSError:
        return False
    fields = stat[stat.rfind(b")") + 1 :].split()
    return len(fields) > 4 and fields[4] == b"0" and owner == os.geteuid()


def signal_same(pid: int | None, start: float | None, boot: str | None, sig: int) -> bool:
    """Send `sig` to `pid` if it is that process (see `is_same`); return whether the signal was sent.

    Refuses pid 1 and below, and the calling process itself.
    """
    if pid is None or pid == os.getpid() or not is_same(pid, start, boot):
        return False
    handle = _open_pidfd(pid)
    try:
        # An open pidfd pins the process; the second look proves that it pinned the right one.
        if handle is None:
            os.kill(pid, sig)
        elif is_same(pid, start, boot):
            signal.pidfd_send_signal(handle, sig)
        else:
            return False
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _open_pidfd(pid: int) -> int | None:
    # Missing on other systems, before Linux 5.3, and in Pythons built for older ones; some sandboxes refuse it.
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _start_time_without_proc(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, ValueError, OverflowError):
        return None


def _is_background_without_proc(pid: int) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        return process.terminal() is None and process.uids().effective == os.geteuid()
    except (psutil.Error, ValueError, OverflowError):
        return False
