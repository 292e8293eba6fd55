"""What dead runners leave behind: processes, registry entries, temporary folders and files.

Looked for by `clean` and `doctor`. A runner is dead when nobody holds its loop's lock, whatever the files
say. Looking changes nothing. Processes are known by pid and start time, so that no signal ever reaches
another process that got the pid.
"""

import os
import signal
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.files import identity, locks, records, registry, tempdir
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.commandfile import verb_of
from ralph_rpc.files.inbox import free_name
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import loops_of
from ralph_rpc.model.state import ENDED, State
from ralph_rpc.processes import processes

MARK = "RALPH_LOOP_DIR"
"""In the environment of pi and of everything that it starts."""
TERM_S = 2.0
"""From SIGTERM to SIGKILL."""
KILL_S = 5.0
"""What outlives SIGKILL for so long hangs in the kernel."""
HALF_WRITTEN_S = 60.0
"""A file without its name yet is left to its writer for so long. Writing one takes milliseconds."""
MESSAGES = ("steer", "followup")
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

    They carry the loop's mark, or state.json names them, or they descend from such. Others of this user may belong to
    another registry, whose runners cannot be judged from here. This process and its ancestors are no orphans. The caller keeps the loop
    `still`, so that its lock is no sign of a runner.
    """
    entries = [found.entry for found in _entries()[0]]
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
    """The processes that the files of these loops name and that are still the same, by pid and start time."""
    found: dict[tuple[int, float], LoopPaths] = {}
    for loop in loops:
        state = read_state(loop)
        if state is None:
            continue
        known = [(state["piPid"], state["piStartTime"]), (state["guardPid"], state["guardStartTime"])]
        known += [(record["pid"], record["pidStartTime"]) for record in records.read_tickets(loop).values()]
        for pid, start in known:
            if pid and start and identity.is_same(pid, start, state["bootId"]) and identity.is_background(pid):
                found[pid, start] = loop
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


def is_busy(loop: LoopPaths) -> bool:
    """Whether its runner lives, or a guard still ends its processes."""
    return locks.is_held(loop.runner_lock) or locks.is_held(loop.tree_lock)


@contextmanager
def kept_still(loop: LoopPaths) -> Iterator[None]:
    """While this lasts, no runner works on the loop and none can start. AlreadyRunning if that cannot be had.

    Where the loop's folder is gone, so is the lock that a runner would need.
    """
    lock = locks.acquire(loop.runner_lock) if loop.dir.is_dir() else None
    with lock or nullcontext():
        if (lock is None and loop.dir.is_dir()) or locks.is_held(loop.tree_lock):
            raise AlreadyRunning(f"loop {loop.name!r} is being worked on", "try again when it has ended")
        yield


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
    found, broken = _entries()
    dead = [
        DeadEntry(one.path, one.path.name, one.reason, None, False) for one in broken if not one.path.is_dir()
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
        if not loop.dir.is_dir():
            dead.append(DeadEntry(one.path, what, "its folder is gone", loop, False))
            continue
        state = read_state(loop)
        done = state is not None and state["status"] in ENDED and state["status"] != "error"
        reason = "its loop has ended" if done else "its runner is dead"
        dead.append(DeadEntry(one.path, what, reason, loop, not done))
    return dead


def _entries() -> tuple[list[registry.Found], list[registry.Broken]]:
    try:
        return registry.entries()
    except OSError:  # no folder that can be read, so there is nothing in it for us
        return [], []


def forget(entry: DeadEntry) -> bool:
    """Remove the entry, unless a runner has come to life behind it; tell whether it is gone."""
    with suppress(AlreadyRunning), kept_still(entry.loop) if entry.loop is not None else nullcontext():
        registry.remove(entry.path)
        return True
    return False


def read_state(loop: LoopPaths) -> State | None:
    """The loop's state; None where it is missing or cannot be read."""
    try:
        return records.read_state(loop)
    except Unreadable:
        return None


def temp_dirs(loop: LoopPaths) -> list[Path]:
    """The temporary folders that the loop's dead runner could not remove."""
    state = read_state(loop)
    return tempdir.of_loop(loop, state["tmpDir"] if state is not None else None)


def half_written(folders: Iterable[Path]) -> list[Path]:
    """Files in these folders that a killed writer had begun and never gave their name (`.tmp-…`)."""
    found = [path for folder in folders for path in sorted(folder.glob(".tmp-*")) if _is_old(path)]
    if not found:
        return []
    in_use = _open_files()
    return [path for path in found if os.path.realpath(path) not in in_use]


def _is_old(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    # Either way: the clock may have been set back since.
    old = abs(time.time() - status.st_mtime) > HALF_WRITTEN_S
    return old and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _open_files() -> set[str]:
    """Every file that a process of this user has open."""
    paths: set[str] = set()
    for process in processes():
        with suppress(psutil.Error, OSError):  # gone, or somebody else's
            paths |= {file.path for file in process.open_files()}
    return paths


def unread_messages(loop: LoopPaths) -> int:
    """How many messages the agent would still get if the loop were resumed: received ones and such in the inbox.

    Raises OSError.
    """
    journal = CommandJournal.read(loop.commands)
    files = [path.name for path in loop.inbox.iterdir()] if loop.inbox.is_dir() else []
    waiting = [free_name(name) or name for name in files if not journal.knows_file(name)]
    received = [command.verb for command in journal.open_commands()]
    return sum(verb in MESSAGES for verb in (*received, *map(verb_of, waiting)))


def worktrees_of(loop: LoopPaths) -> list[Path]:
    """Where a loop's worktrees are or can be: the one of --worktree, and those of tickets."""
    try:
        tickets = sorted(loop.worktrees.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        tickets = []
    return [loop.worktree, *tickets]
