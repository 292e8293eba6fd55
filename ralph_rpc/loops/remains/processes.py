"""Processes that dead runners left, and how they are ended.

Called by `clean` and `doctor`. A runner is dead when nobody holds its loop's lock, whatever the files say. Looking
changes nothing. Processes are known by pid and start time, so that no signal ever reaches another process that got
the pid.
"""

import os
import signal
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.files import records, registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.consent import made_here
from ralph_rpc.loops.find import loops_of
from ralph_rpc.loops.hold import is_busy, kept_still
from ralph_rpc.loops.remains.entries import entries_there
from ralph_rpc.loops.status import read_state
from ralph_rpc.machine import identity
from ralph_rpc.machine.processes import processes

MARK = "RALPH_LOOP_DIR"
"""In the environment of pi and of everything that it starts."""
TERM_S = 2.0
"""From SIGTERM to SIGKILL."""
KILL_S = 5.0
"""What outlives SIGKILL this long hangs in the kernel."""
_POLL_S = 0.05


@dataclass(frozen=True)
class Orphan:
    """A process of a loop whose runner and guard are dead."""

    pid: int
    start: float
    loop: LoopPaths
    command: str


def orphans(projects: Collection[Path], still: LoopPaths | None = None) -> list[Orphan]:
    """Every process that a dead runner left, of loops in these projects or in the registry.

    They carry the loop's mark, or state.json names them, or they descend from one of these. Others of this user may
    belong to another registry, whose runners cannot be judged from here. This process and its ancestors are no orphans.
    The caller keeps the loop `still`, so that its lock is no sign of a runner.
    """
    entries = [found.entry for found in entries_there()[0]]
    registered = {Path(entry["ralphDir"]) for entry in entries}
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    # A runner that was started by a loop's agent carries that loop's mark, and is its own master.
    own |= {entry["pid"] for entry in entries if registry.liveness(entry) != "dead"}
    named = _named({LoopPaths(folder) for folder in registered}.union(*map(loops_of, projects)))
    busy: dict[LoopPaths, bool] = {}
    parents: dict[int, int] = {}
    found: dict[int, Orphan] = {}
    unmarked: list[_Unmarked] = []
    for process in processes():
        start = None if process.pid in own else identity.start_time(process.pid)
        if start is None:
            continue
        try:
            if process.uids().effective != os.geteuid():
                continue
            parents[process.pid] = process.ppid()
            mark = process.environ().get(MARK, "")
            command = " ".join(process.cmdline())
        except (psutil.Error, OSError):  # gone, or it hides its environment
            continue
        loop = named.get((process.pid, start), LoopPaths(Path(mark)))
        if not mark and (process.pid, start) not in named:
            unmarked.append(_Unmarked(process.pid, start, command))
        elif loop.dir in registered or loop.project in projects:
            if loop not in busy:
                busy[loop] = loop != still and is_busy(loop)
            if not busy[loop]:
                found[process.pid] = Orphan(process.pid, start, loop, command)
    return [*found.values(), *_descendants(unmarked, parents, found)]


def _named(loops: Collection[LoopPaths]) -> dict[tuple[int, float], LoopPaths]:
    """The processes that the files of these loops name and that are still the same, by pid and start time.

    The files of a loop that was not started here may name anybody's.
    """
    found: dict[tuple[int, float], LoopPaths] = {}
    for loop in loops:
        state = read_state(loop)
        if state is None:
            continue
        known = [(state["piPid"], state["piStartTime"]), (state["guardPid"], state["guardStartTime"])]
        known += [(record["pid"], record["pidStartTime"]) for record in records.read_tickets(loop).values()]
        living = [
            (pid, start)
            for pid, start in known
            if pid and start and identity.is_same(pid, start, state["bootId"]) and identity.is_background(pid)
        ]
        if living and made_here(loop):
            found |= dict.fromkeys(living, loop)
    return found


class _Unmarked(NamedTuple):
    """A process of this user that carries no loop's mark."""

    pid: int
    start: float
    command: str


def _descendants(unmarked: list[_Unmarked], parents: dict[int, int], marked: dict[int, Orphan]) -> list[Orphan]:
    """Those that have wiped their environment, but still stand below an orphan that has not."""
    found = dict(marked)
    news = True
    while news:
        news = False
        for process in unmarked:
            above = found.get(parents[process.pid])
            # A child is never older than its parent: such a parent got the pid of another one.
            if process.pid not in found and above is not None and above.start <= process.start:
                found[process.pid] = Orphan(process.pid, process.start, above.loop, process.command)
                news = True
    return [orphan for pid, orphan in found.items() if pid not in marked]


def end(found: Iterable[Orphan]) -> list[Orphan]:
    """End these processes, first gently; return those that are left.

    No new runner comes between; the processes of a loop that has one again are left to it.
    """
    left = []
    by_loop: dict[LoopPaths, list[Orphan]] = {}
    for orphan in found:
        by_loop.setdefault(orphan.loop, []).append(orphan)
    for loop, group in by_loop.items():
        with suppress(AlreadyRunning), kept_still(loop):
            left += _end(group)
    return left


def _end(group: list[Orphan]) -> list[Orphan]:
    boot = identity.boot_id()
    for orphan in group:
        identity.signal_same(orphan.pid, orphan.start, boot, signal.SIGTERM)
        identity.signal_same(orphan.pid, orphan.start, boot, signal.SIGCONT)
    left = _alive(group, boot, TERM_S)
    for orphan in left:
        identity.signal_same(orphan.pid, orphan.start, boot, signal.SIGKILL)
    return _alive(left, boot, KILL_S)


def _alive(group: list[Orphan], boot: str, patience_s: float) -> list[Orphan]:
    """Those that are still there when all are gone or the patience is."""
    deadline = time.monotonic() + patience_s
    while group := [orphan for orphan in group if identity.is_same(orphan.pid, orphan.start, boot)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_S)
    return group
