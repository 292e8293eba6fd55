"""Ends what a dead runner of this loop left behind, before a new one starts anything.

Called once at start-up, under the runner lock. A guard that is still cleaning up holds the tree lock and is
waited for. What survives both runner and guard is found by the mark in its environment (RALPH_LOOP_DIR), by
the pids in state.json, and as a descendant of one of these; only a detached process that wiped its environment
escapes. Every signal goes to a process known by pid and start time, so that dying here, or a second run, does
no harm.
"""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from ralph_rpc.files import identity, locks
from ralph_rpc.files.paths import LoopPaths
from ralph_runner import guard

TERM_S = 2.0
"""From SIGTERM to SIGKILL."""
GIVE_UP_S = 10.0
"""What does not die of SIGKILL for so long hangs in the kernel; the loop starts nonetheless."""
_POLL_S = 0.05

_Known = tuple[int, float]


def sweep_orphans(
    loop_dir: Path, recorded: Sequence[tuple[int | None, float | None]], boot: str, patience_s: float = 15
) -> list[int]:
    """End every process left of the loop and return their pids.

    Waits up to `patience_s` seconds for the tree lock first. `recorded` are (pid, start time) from state.json,
    void unless `boot` is this boot's id. `loop_dir` must be spelt as in the processes' RALPH_LOOP_DIR. This
    process and its ancestors are left alone.
    """
    deadline = time.monotonic() + patience_s
    while locks.is_held(LoopPaths(loop_dir).tree_lock) and time.monotonic() < deadline:
        time.sleep(_POLL_S)

    mark = b"RALPH_LOOP_DIR=" + os.fsencode(loop_dir)
    here = identity.boot_id()
    # What is found stays found: when its parent dies, it is nobody's descendant any more.
    found = {(pid, start) for pid, start in recorded if pid and start and identity.is_same(pid, start, boot)}
    told: dict[_Known, float] = {}
    give_up_at = time.monotonic() + TERM_S + GIVE_UP_S
    while (now := time.monotonic()) < give_up_at:
        table = guard.processes()
        spared = _own_line(table)
        found |= _marked(mark)
        roots = {pid for pid, start in found if identity.is_same(pid, start, here)} - spared
        below = guard.descendants(table, roots, spared)
        found |= {(pid, _start(pid, process)) for pid, process in below.items()}
        left = [known for known in found if known[0] not in spared and identity.is_same(*known, here)]
        if not left:
            break
        for known in left:
            if known not in told:
                told[known] = now
                identity.signal_same(*known, here, signal.SIGTERM)
                identity.signal_same(*known, here, signal.SIGCONT)
            elif now - told[known] >= TERM_S:
                identity.signal_same(*known, here, signal.SIGKILL)
        time.sleep(_POLL_S)
    return sorted(pid for pid, start in told if not identity.is_same(pid, start, here))


def _own_line(table: dict[int, guard.Process]) -> set[int]:
    line: set[int] = set()
    pid = os.getpid()
    while pid in table and pid not in line:
        line.add(pid)
        pid = table[pid].parent
    return line


def _start(pid: int, process: guard.Process) -> float:
    return float(process.start) or identity.start_time(pid) or 0.0


def _marked(mark: bytes) -> set[_Known]:
    known: set[_Known] = set()
    if not Path("/proc/self/environ").exists():
        return _marked_without_proc(os.fsdecode(mark))
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        # The start time before the environment: if the pid changes hands between them, no signal is sent.
        start = identity.start_time(int(entry.name))
        try:
            if start is None or entry.stat().st_uid != os.geteuid():
                continue
            if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                known.add((int(entry.name), start))
        except OSError:  # gone, or it hides its environment
            continue
    return known


def _marked_without_proc(mark: str) -> set[_Known]:
    import psutil

    name, _, value = mark.partition("=")
    known: set[_Known] = set()
    for process in psutil.process_iter():
        try:
            if process.uids().effective == os.geteuid() and process.environ().get(name) == value:
                known.add((process.pid, process.create_time()))
        except (psutil.Error, OSError):
            continue
    return known
