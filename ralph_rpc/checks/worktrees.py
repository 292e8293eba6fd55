"""Worktrees of loops that are gone, and what a killed git left in those of dead loops.

Only git's memory of a folder that is no more is ever removed here; branches stay, and a worktree that holds
anything is only told of.
"""

from functools import partial
from pathlib import Path

import psutil

from ralph_rpc import git, leftovers
from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.errors import RalphError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import exists, valid_name
from ralph_rpc.processes import processes

LOCKS = ("index.lock", "HEAD.lock")


def left_worktrees(place: Place) -> Findings:
    for path in _of_no_loop(place.project):
        if path.exists():
            hint = f"save what you need, then: git worktree remove {path}"
            yield Finding("worktrees", "warn", f"{path} belongs to no loop", hint)
        else:
            text = f"git remembers the worktree {path}, whose loop is gone"
            hint = "doctor --fix makes git forget it; its branch stays"
            yield Finding("worktrees", "warn", text, hint, partial(_forget, place.project, path))


def _of_no_loop(project: Path) -> list[Path]:
    if not git.is_repo(project):
        return []
    found: list[tuple[LoopPaths, Path]] = []
    for path in git.worktree_paths(project):
        if path.name == "worktree":
            found.append((LoopPaths(path.parent), path))
        elif path.parent.name == "worktrees":
            found.append((LoopPaths(path.parent.parent), path))
    return [
        path
        for loop, path in found
        if loop.dir.parent == project / ".ralph"
        and valid_name(loop.name)
        and not exists(loop)
        and not leftovers.is_busy(loop)
    ]


def _forget(project: Path, path: Path) -> str:
    if path in _of_no_loop(project) and not path.exists():
        git.remove_worktree(project, path)
    return f"git has forgotten the worktree {path}"


def git_locks(place: Place) -> Findings:
    for loop in place.dead_loops():
        for worktree, lock in _stale_locks(loop):
            text = f"a git that was killed left {lock}"
            hint = f"git refuses to work in the worktree of {loop.name}; doctor --fix removes it"
            yield Finding("worktrees", "warn", text, hint, partial(_unlock, loop, worktree, lock))


def _stale_locks(loop: LoopPaths) -> list[tuple[Path, Path]]:
    """Locks in the loop's own worktrees, unless a git runs in there: worktree, lock."""
    found: list[tuple[Path, Path]] = []
    for worktree in leftovers.worktrees_of(loop):
        if worktree.is_symlink() or not (worktree / ".git").is_file():
            continue
        try:
            folder = Path(git.run(["rev-parse", "--absolute-git-dir"], worktree).line)
        except RalphError:
            continue
        locks = [folder / name for name in LOCKS if (folder / name).is_file()]
        if locks and folder.parent.name == "worktrees" and not _git_runs_in(worktree):
            found += [(worktree, lock) for lock in locks]
    return found


def _git_runs_in(worktree: Path) -> bool:
    for process in processes():
        try:
            if process.name() == "git" and Path(process.cwd()).is_relative_to(worktree.resolve()):
                return True
        except (psutil.Error, OSError):  # gone, or somebody else's
            continue
    return False


def _unlock(loop: LoopPaths, worktree: Path, lock: Path) -> str:
    with leftovers.kept_still(loop):
        if (worktree, lock) in _stale_locks(loop):
            lock.unlink(missing_ok=True)
    return f"removed {lock}, left by a git that was killed"
