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
    loops = [LoopPaths(path.parent) for path in git.worktree_paths(project) if path.name == "worktree"]
    return [
        loop.worktree
        for loop in loops
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
        for lock in _stale_locks(loop):
            text = f"a git that was killed left {lock}"
            hint = f"git refuses to work in the worktree of {loop.name}; doctor --fix removes it"
            yield Finding("worktrees", "warn", text, hint, partial(_unlock, loop, lock))


def _stale_locks(loop: LoopPaths) -> list[Path]:
    """Locks in the loop's own worktree, unless a git runs in there."""
    if loop.worktree.is_symlink() or not (loop.worktree / ".git").is_file():
        return []
    try:
        folder = Path(git.run(["rev-parse", "--absolute-git-dir"], loop.worktree).line)
    except RalphError:
        return []
    found = [folder / name for name in LOCKS if (folder / name).is_file()]
    return [] if not found or folder.parent.name != "worktrees" or _git_runs_in(loop.worktree) else found


def _git_runs_in(worktree: Path) -> bool:
    for process in psutil.process_iter():
        try:
            if process.name() == "git" and Path(process.cwd()).is_relative_to(worktree.resolve()):
                return True
        except (psutil.Error, OSError):  # gone, or somebody else's
            continue
    return False


def _unlock(loop: LoopPaths, lock: Path) -> str:
    with leftovers.kept_still(loop):
        if lock in _stale_locks(loop):
            lock.unlink(missing_ok=True)
    return f"removed {lock}, left by a git that was killed"
