"""Makes the folder of a loop, and takes back what it made when the start fails.

Called by `start` under the runner lock. If the machine dies here, a folder without state.json is left,
which is no loop yet: the next `start` of that name goes on in it. An earlier, ended run is moved aside,
never overwritten.
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc import git
from ralph_rpc.errors import AlreadyRunning, UsageError
from ralph_rpc.files import identity, locks, records
from ralph_rpc.files.atomic import Unreadable, ensure_ralph_dir, make_private_dir, write_atomic
from ralph_rpc.files.locks import Lock
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops import loops_of
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import ENDED

_STAYS = ("inbox", "worktree", "worktrees", "runner.lock", "tree.lock")
"""What an earlier run leaves to the next: commands not taken yet, the worktrees, and the locks."""


def check_startable(paths: LoopPaths) -> None:
    """Raises AlreadyRunning or UsageError where a loop of that name stands in the way. Changes nothing."""
    if locks.is_held(paths.runner_lock):
        raise _running(paths)
    for other in loops_of(paths.project):
        if other.name != paths.name and other.name.lower() == paths.name.lower():
            raise UsageError(
                f"there is a loop {other.name!r}, which many file systems do not tell from {paths.name!r}",
                "choose another name",
            )
    _check_left_behind(paths)


def _check_left_behind(paths: LoopPaths) -> None:
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
        f"go on with: ralph-rpc resume {paths.name}, or remove it: ralph-rpc clean {paths.name}",
    )


def check_writable(project: Path) -> None:
    """Raises UsageError unless loops can live in that folder."""
    ralph = project / ".ralph"
    if not project.is_dir():
        raise UsageError(f"{project} is not a folder", "--project takes the folder of the project")
    try:
        str(project).encode()
    except UnicodeEncodeError:
        raise UsageError(f"the path of {project.name!r} is not UTF-8", "loops are told of in JSON files; rename it") from None
    if ralph.exists() and not ralph.is_dir():
        raise UsageError(f"{ralph} is in the way: it is not a folder", "move it away")
    _check_ours(project, ralph, registry_dir())
    where = ralph if ralph.exists() else project
    probe = where / f".tmp-probe-{time.time_ns()}"
    try:
        # access(2) says yes to root on a read-only file system, too.
        probe.touch(0o600)
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write in {where}: {error.strerror}", "loops live in the project's .ralph"
        ) from None


def _check_ours(*folders: Path) -> None:
    """Raises UsageError where one of them belongs to another user.

    What lies there decides what is run here, and files that we leave there its owner could not remove. Root is no
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
            # With the lock's file: one who waits for it finds no folder, and makes it anew.
            shutil.rmtree(paths.dir, ignore_errors=True)
            return
        for path in list(paths.dir.iterdir()):
            if path.name not in self.kept and path.name not in _STAYS:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if self.archived_to is not None:
            for path in list(self.archived_to.iterdir()):
                path.rename(paths.dir / path.name)
            self.archived_to.rmdir()


def create(paths: LoopPaths, config: Config, task: str | None, reflect: str | None) -> Creation:
    """The folder, with everything that a runner needs in it, under the runner lock.

    Raises AlreadyRunning where somebody else has the lock, and what check_startable raises.
    """
    ensure_ralph_dir(paths.project)
    lock = _locked(paths)
    # Judged by what is in it: the folder may have been made by another start, which then lost the race for the lock.
    is_new = [path.name for path in paths.dir.iterdir()] == [paths.runner_lock.name]
    # Before anything can fail: `undo` removes what is not among these.
    creation = Creation(paths, lock, is_new, frozenset(path.name for path in paths.dir.iterdir()))
    try:
        _check_left_behind(paths)  # again: another start may have come and gone since the first look
        if paths.state.exists() or _differs(paths.task, task):
            creation.archived_to = _archive_place(paths)
            _archive(paths, creation.archived_to)
            creation.kept = frozenset(path.name for path in paths.dir.iterdir())
        for folder in (paths.inbox, paths.rejected, paths.iterations, paths.sessions):
            make_private_dir(folder)
        if task is not None:
            write_atomic(paths.task, task.encode())
        if reflect is not None:
            write_atomic(paths.reflect, reflect.encode())
        records.write_config(paths, config)
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
    return text is not None and path.is_file() and path.read_bytes() != text.encode()


def _archive_place(paths: LoopPaths) -> Path:
    """An empty folder for an earlier run."""
    folder = paths.dir.parent / ".archive"
    make_private_dir(folder)
    place = folder / f"{paths.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if place.exists():
        place = place.with_name(f"{place.name}-{time.time_ns()}")
    make_private_dir(place)
    return place


def _archive(paths: LoopPaths, place: Path) -> None:
    """Moves what is there aside, file by file; its task is copied, so that a start without one repeats it."""
    # state.json last: while it is there, a start that dies here leaves an ended loop to the next start.
    for path in sorted(paths.dir.iterdir(), key=lambda path: path == paths.state):
        if path.name not in _STAYS and path != paths.task:
            path.rename(place / path.name)
    if paths.task.is_file():
        shutil.copy2(paths.task, place / paths.task.name)


def _running(paths: LoopPaths) -> AlreadyRunning:
    return AlreadyRunning(
        f"loop {paths.name!r} is already running in {paths.project}",
        f"see: ralph-rpc status {paths.name}, or end it: ralph-rpc stop {paths.name}",
    )
