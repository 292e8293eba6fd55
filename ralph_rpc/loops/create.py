"""Makes the folder of a loop, and takes back what it made when the start fails.

Called by `start` under the runner lock. If the machine dies here, a folder without state.json is left,
which is not a loop yet: the next `start` of that name uses it. An earlier, ended run is moved aside,
never overwritten.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ralph_rpc import git
from ralph_rpc.errors import AlreadyRunning, RalphError, UsageError
from ralph_rpc.files import records, registry, trust
from ralph_rpc.files.atomic import (
    Unreadable,
    ensure_ralph_dir,
    make_private_dir,
    read_json_object,
    read_plain,
    write_atomic,
)
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.files.text import LARGEST_FILE
from ralph_rpc.git.shelter import shelter, unshelter
from ralph_rpc.loops.archive import free_place
from ralph_rpc.loops.find import loops_of
from ralph_rpc.machine import identity, locks, nofollow
from ralph_rpc.machine.locks import Lock
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import ENDED

_STAYS = ("inbox", "worktree", "worktrees", "runner.lock", "tree.lock")
"""What an earlier run leaves to the next: commands not taken yet, the worktrees, and the locks."""


def check_startable(paths: LoopPaths) -> None:
    """Raises AlreadyRunning, UsageError or Newer where a loop of that name stands in the way. Changes nothing."""
    if locks.is_held(paths.runner_lock):
        raise _running(paths)
    refuse_living(paths)
    for other in loops_of(paths.project):
        if other.name != paths.name and other.name.lower() == paths.name.lower():
            raise UsageError(
                f"there is a loop {other.name!r}, which many file systems cannot tell from {paths.name!r}",
                "choose another name",
            )
    _check_left_behind(paths)


def _check_left_behind(paths: LoopPaths) -> None:
    records.refuse_newer(paths)
    try:
        state = records.read_state(paths)
    except Unreadable:
        why = "its state.json cannot be read"
    else:
        if state is None or state["status"] in ENDED:
            return
        if identity.is_same(state["pid"], state["pidStartTime"], state["bootId"]):
            # Another start has won since the lock was looked at, or somebody has deleted the lock's file.
            raise _running(paths)
        why = f"its runner died while it was {state['status']}"
    raise UsageError(
        f"loop {paths.name!r} has not ended: {why}",
        f"resume it with: ralph-rpc resume {paths.name}, or remove it: ralph-rpc clean {paths.name}",
    )


def refuse_living(paths: LoopPaths) -> None:
    """Raises AlreadyRunning where a runner of this loop lives whose folder, and with it the lock, was removed.

    It makes them again in a moment; a second runner beside it would end its pi.
    """
    with suppress(Unreadable):
        entry: dict[str, Any] = read_json_object(registry.entry_path(paths.project, paths.name)) or {}
        ours = entry.get("ralphDir") == str(paths.dir) and not locks.is_held(paths.runner_lock)
        if ours and identity.is_same(entry.get("pid"), entry.get("pidStartTime"), entry.get("bootId")):
            raise _running(paths)


def protect(project: Path) -> None:
    """Keep `git clean` away from the project's loops, as far as that can be done."""
    with suppress(OSError, RalphError):  # the loop works without it
        shelter(project / ".ralph")


def remember(paths: LoopPaths, config: Config) -> None:
    """Remember outside of the project that this loop was made here, as far as that can be done."""
    with suppress(OSError, RalphError):  # the loop works without it; a resume will ask
        trust.remember_loop(paths, config)


def unprotect(project: Path) -> None:
    """Take that back where nothing is left that could be lost."""
    if not loops_of(project) and not nofollow.exists(project / ".ralph" / ".archive"):
        with suppress(OSError, RalphError):  # an empty folder and a line that does nothing
            unshelter(project / ".ralph")


def check_writable(project: Path) -> None:
    """Raises UsageError unless loops can live in that folder."""
    ralph = project / ".ralph"
    if not project.is_dir():
        raise UsageError(f"{project} is not a folder", "--project takes the folder of the project")
    try:
        str(project).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the path of {project.name!r} is not UTF-8", "paths must be UTF-8; rename the folder"
        ) from None
    if nofollow.exists(ralph) and not nofollow.is_folder(ralph):
        raise UsageError(f"{ralph} is in the way: it is a link, or no folder", "move it away")
    _check_ours(project, ralph, registry_dir())
    where = ralph if nofollow.exists(ralph) else project
    probe = where / f".tmp-probe-{time.time_ns()}"
    try:
        # access(2) says yes to root even on a read-only file system.
        os.close(nofollow.open_fd(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        nofollow.unlink(probe)
    except OSError as error:
        raise UsageError(f"cannot write in {where}: {error.strerror}", "loops live in the project's .ralph") from None


def _check_ours(*folders: Path) -> None:
    """Raises UsageError where one of them belongs to another user.

    The files there decide what is run here, and their owner could not remove the files that we leave there. Root is no
    exception, but may work on what is root's, as it must in a container.
    """
    for folder in folders:
        try:
            owner = folder.stat().st_uid
        except FileNotFoundError:
            continue
        if owner != os.geteuid():
            raise UsageError(
                f"{folder} belongs to user {owner}, and you are user {os.geteuid()}",
                "run this as its owner, or make it yours: chown -R",
            )


@dataclass
class Creation:
    """A loop's folder in the making, under its lock; `undo` takes back what was made."""

    paths: LoopPaths
    lock: Lock
    is_new: bool
    """The folder was not there before."""
    kept: frozenset[str] = frozenset()
    """Names in the folder that this start did not make."""
    archived_to: Path | None = None
    with_worktree: bool = False
    """`--worktree` made one that was not there before."""

    def undo(self) -> None:
        """Removes what this start made and puts an earlier run back. The caller holds the lock."""
        paths = self.paths
        if self.with_worktree:
            git.remove_worktree(paths.project, paths.worktree, force=True)
        if self.is_new:
            # With the lock's file: a start that waits for it finds no folder, and makes a new one.
            with suppress(OSError):
                nofollow.remove_tree(paths.dir)
            unprotect(paths.project)
            return
        for path in nofollow.entries(paths.dir):
            if path.name not in self.kept and path.name not in _STAYS:
                nofollow.remove_tree(path) if nofollow.is_folder(path) else nofollow.unlink(path)
        if self.archived_to is not None:
            for path in nofollow.entries(self.archived_to):
                nofollow.rename(path, paths.dir / path.name)
            nofollow.remove_tree(self.archived_to)


def create(paths: LoopPaths, config: Config, task: str | None, reflect: str | None) -> Creation:
    """The folder, with everything that a runner needs in it, under the runner lock.

    Raises AlreadyRunning where somebody else has the lock, and what check_startable raises.
    """
    ensure_ralph_dir(paths.project)
    lock = _locked(paths)
    protect(paths.project)
    # Judged by what is in it: the folder may have been made by another start, which then lost the race for the lock.
    there = nofollow.names(paths.dir)
    is_new = there == [paths.runner_lock.name]
    # Before anything can fail: `undo` removes what is not among these.
    creation = Creation(paths, lock, is_new, frozenset(there))
    try:
        _check_left_behind(paths)  # again: another start may have come and gone since the first look
        if nofollow.exists(paths.state) or _differs(paths.task, task):
            creation.archived_to = free_place(paths)
            make_private_dir(creation.archived_to)
            _archive(paths, creation.archived_to)
            creation.kept = frozenset(nofollow.names(paths.dir))
        for folder in (paths.inbox, paths.rejected, paths.iterations, paths.sessions):
            make_private_dir(folder)
        if task is not None:
            write_atomic(paths.task, task.encode())
        if reflect is not None:
            write_atomic(paths.reflect, reflect.encode())
        records.write_config(paths, config)
        remember(paths, config)
    except BaseException:
        creation.undo()
        lock.release()
        raise
    return creation


def _locked(paths: LoopPaths) -> Lock:
    """The runner lock of the folder, which is made if it is missing."""
    for _ in range(3):
        make_private_dir(paths.dir)
        try:
            lock = locks.acquire(paths.runner_lock)
        except FileNotFoundError:
            continue  # a start that failed in this instant has removed its folder
        if lock is not None:
            return lock
        break
    raise _running(paths)


def _differs(path: Path, text: str | None) -> bool:
    """A file that `text` would overwrite."""
    return text is not None and nofollow.is_file(path) and _content(path) != text.encode()


def _content(path: Path) -> bytes:
    return read_plain(path, LARGEST_FILE, follow=False)


def _archive(paths: LoopPaths, place: Path) -> None:
    """Moves what is there aside, file by file; its task is copied, so that a start without one repeats it."""
    # state.json last: while it is there, a start that dies here leaves an ended loop to the next start.
    for path in sorted(nofollow.entries(paths.dir), key=lambda path: path == paths.state):
        if path.name not in _STAYS and path != paths.task:
            nofollow.rename(path, place / path.name)
    if nofollow.is_file(paths.task):
        write_atomic(place / paths.task.name, _content(paths.task))


def _running(paths: LoopPaths) -> AlreadyRunning:
    return AlreadyRunning(
        f"loop {paths.name!r} is already running in {paths.project}",
        f"see: ralph-rpc status {paths.name}, or end it: ralph-rpc stop {paths.name}",
    )
