"""Worktrees of loops that are gone, what a killed git left in those of dead loops, and merges that were cut short.

Only git's record of a folder that no longer exists is ever removed here; branches stay, and a worktree that holds
anything is only reported. A merge that was cut short is finished as the next ticket run would do it.
"""

from functools import partial
from pathlib import Path

import psutil

from ralph_rpc import git
from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.errors import RalphError
from ralph_rpc.files.paths import LoopPaths, project_key
from ralph_rpc.git import checkout, repository
from ralph_rpc.loops.consent import made_here
from ralph_rpc.loops.find import exists, valid_name
from ralph_rpc.loops.hold import is_busy, kept_still
from ralph_rpc.loops.remains.worktrees import of_gone_projects, worktrees_of
from ralph_rpc.machine import locks, nofollow
from ralph_rpc.machine.processes import processes

LOCKS = ("index.lock", "HEAD.lock")


def left_worktrees(place: Place) -> Findings:
    for path in _of_no_loop(place.project):
        if path.exists():
            hint = f"save what you need, then: git worktree remove {path}"
            yield Finding("worktrees", "warn", f"{path} belongs to no loop", hint)
        else:
            text = f"git still lists the worktree {path}, whose loop is gone"
            hint = "doctor --fix removes it from git's list; its branch stays"
            yield Finding("worktrees", "warn", text, hint, partial(_forget, place.project, path))


def worktrees_of_gone_projects(_: Place) -> Findings:
    for path in of_gone_projects():
        hint = f"if the project was moved, there: git worktree repair {path}; else save what you need and remove it"
        yield Finding("worktrees", "warn", f"{path} belongs to a project that is no longer where it was", hint)


def _of_no_loop(project: Path) -> list[Path]:
    if not git.is_repo(project):
        return []
    found: list[tuple[LoopPaths, Path]] = []
    for path in git.worktree_paths(project):
        if path.name == "worktree":
            found.append((LoopPaths(path.parent), path))
        elif path.parent.name == "worktrees":
            found.append((LoopPaths(path.parent.parent), path))
        elif path.parent.parent.name == project_key(project):
            found.append((LoopPaths.of(project, path.parent.name), path))
    return [
        path
        for loop, path in found
        if loop.dir.parent == project / ".ralph" and valid_name(loop.name) and not exists(loop) and not is_busy(loop)
    ]


def _forget(project: Path, path: Path) -> str:
    if path in _of_no_loop(project) and not path.exists():
        git.remove_worktree(project, path)
    return f"removed the worktree {path} from git's list"


def git_locks(place: Place) -> Findings:
    for loop in place.own_loops():
        for worktree, lock in _stale_locks(loop):
            text = f"a git that was killed left {lock}"
            hint = f"git refuses to work in the worktree of {loop.name}; doctor --fix removes it"
            yield Finding("worktrees", "warn", text, hint, partial(_unlock, loop, worktree, lock))


def _stale_locks(loop: LoopPaths) -> list[tuple[Path, Path]]:
    """Locks in the loop's own worktrees, unless a git runs in there: worktree, lock."""
    found: list[tuple[Path, Path]] = []
    for worktree in worktrees_of(loop):
        if not nofollow.is_file(worktree / ".git"):
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
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    return False


def _unlock(loop: LoopPaths, worktree: Path, lock: Path) -> str:
    with kept_still(loop):
        if (worktree, lock) in _stale_locks(loop):
            lock.unlink(missing_ok=True)
    return f"removed {lock}, left by a git that was killed"


def interrupted_merges(place: Place) -> Findings:
    for checked_out, move in _half_merged(place.project):
        text = f"a merge into {move.branch} was cut short in {checked_out}, where git refuses to work (index.lock)"
        if not any(map(made_here, place.loops)):
            # Its repository may have come with the note, and with filters that the checkout would run.
            yield Finding(
                "worktrees", "warn", text, "no loop was started here: look at it, then remove that index.lock"
            )
            continue
        hint = "the next ticket run finishes it, and so does doctor --fix"
        yield Finding("worktrees", "warn", text, hint, partial(_finish, place.project, checked_out, move))


def _half_merged(project: Path) -> list[tuple[Path, checkout.Move]]:
    """The checkouts of the repository in which a dead runner left its note, and what the note says."""
    if not git.is_repo(project):
        return []
    places = [tree.path for tree in repository.list_worktrees(project)]
    noted = [(path, move) for path in places if (move := checkout.interrupted_in(path)) is not None]
    # Whatever moves a checkout holds this lock.
    return noted if noted and not locks.is_held(repository.lock_path(project)) else []


def _finish(project: Path, place: Path, move: checkout.Move) -> str:
    git.allow_fetching()
    with repository.repository_lock(project) as repo:
        checkout.finish_interrupted(repo, place)
    if repository.branch_head(project, move.branch) == move.new:
        return f"finished the merge of {move.why} into {move.branch}, cut short in {place}"
    return f"unlocked {place}, where a merge into {move.branch} was cut short; the next ticket run merges again"
