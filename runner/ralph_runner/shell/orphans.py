"""Ends what a dead runner of this loop left behind, before a new one starts anything.

Called once at start-up, under the runner lock. A guard that is still cleaning up holds the tree lock and is
waited for. What survives both runner and guard is found by the mark in its environment (RALPH_LOOP_DIR), by
the pids in state.json, and as a descendant of one of these; only a detached process that wiped its environment
escapes. Every signal goes to a process known by pid and start time, so dying here, or a second run, does no harm.
"""

import os
import signal
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import identity, locks
from ralph_runner.guarded import guard
from ralph_runner.shell.marked import Known, look

TERM_S = 2.0
"""From SIGTERM to SIGKILL."""
GIVE_UP_S = 10.0
"""A process still there so long after SIGKILL hangs in the kernel; the loop starts all the same."""
_POLL_S = 0.05


def sweep_orphans(
    loop_dir: Path, recorded: Sequence[tuple[int | None, float | None]], boot: str, patience_s: float = 15
) -> list[int]:
    """End every process left of the loop and return their pids.

    Waits up to `patience_s` seconds for the tree lock first. `recorded` are (pid, start time) from state.json,
    void unless `boot` is this boot's id. `loop_dir` must be spelled as in the processes' RALPH_LOOP_DIR. This
    process and its ancestors are left alone.
    """
    deadline = time.monotonic() + patience_s
    while locks.is_held(LoopPaths(loop_dir).tree_lock) and time.monotonic() < deadline:
        time.sleep(_POLL_S)

    found = {
        (pid, start)
        for pid, start in recorded
        if pid and start and identity.is_same(pid, start, boot) and identity.is_background(pid)
    }
    sweep = _Sweep(b"RALPH_LOOP_DIR=" + os.fsencode(loop_dir), found)
    kill_at = time.monotonic() + TERM_S
    while (now := time.monotonic()) < kill_at + GIVE_UP_S:
        if not sweep.round(kill=now >= kill_at):
            break
        time.sleep(_POLL_S if now < kill_at else 0.001)
    return sorted({pid for pid, start in sweep.signalled if not identity.is_same(pid, start, sweep.boot)})


class _Sweep:
    """What is known of the orphans from one round to the next."""

    def __init__(self, mark: bytes, found: set[Known]) -> None:
        self.mark = mark
        self.found = found
        """Kept from round to round: a process whose parent dies is no longer a descendant."""
        self.signalled: set[Known] = set()
        self.boot = identity.boot_id()
        self.forks = False
        """Some of them fork while they are being ended."""

    @cached_property
    def spared(self) -> set[int]:
        """This process and its ancestors. Looked up late: mostly nothing is found, and pi waits for this."""
        return _own_line(guard.processes())

    def round(self, *, kill: bool) -> bool:
        """Signal everything that is there; False if nothing is left."""
        seen: set[Known] = set()

        def meet(known: Known) -> None:
            if known[0] not in self.spared:
                seen.add(known)
                if kill:  # at once: in a chain of forks, an instant later it is another process
                    self._end(known, kill=True)

        was_whole = look(self.mark, meet)
        if not self.found and not seen and was_whole:
            return False
        self.forks = self.forks or bool(self.signalled and seen - self.signalled)
        table = guard.processes()
        roots = {pid for pid, start in self.found | seen if pid in table and _start(pid, table[pid]) == start}
        below = guard.descendants(table, roots - self.spared, self.spared)
        found = self.found | seen | {(pid, _start(pid, process)) for pid, process in below.items()}
        self.found = {one for one in found if one[0] not in self.spared and identity.is_same(*one, self.boot)}
        for known in self.found:
            self._end(known, kill=kill)
        # If forking does not stop, one of our chains may have slipped by; but it may be somebody else's.
        return bool(self.found or seen) or (not was_whole and (self.forks or not kill))

    def _end(self, known: Known, *, kill: bool) -> None:
        """SIGTERM once, or SIGKILL as often as it takes."""
        if kill:
            identity.signal_same(*known, self.boot, signal.SIGKILL)
        elif known not in self.signalled:
            identity.signal_same(*known, self.boot, signal.SIGTERM)
            identity.signal_same(*known, self.boot, signal.SIGCONT)
        self.signalled.add(known)


def _own_line(table: dict[int, guard.Process]) -> set[int]:
    line: set[int] = set()
    pid = os.getpid()
    while pid in table and pid not in line:
        line.add(pid)
        pid = table[pid].parent
    return line


def _start(pid: int, process: guard.Process) -> float:
    return float(process.start) or identity.start_time(pid) or 0.0
