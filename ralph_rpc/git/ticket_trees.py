"""The worktree of a ticket: made, taken up again, and removed once its work has been merged.

Called by the runner of a ticket loop, in a worker thread, and always under the lock of the repository. After a crash
at any point, an unfinished add is replaced by the next one, a worktree with work in it is taken up as it is, a folder
that is gone is checked out again from its branch, and a removal that has begun (of merged work only) is finished. A
branch is deleted only if the target contains all of it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import UsageError
from ralph_rpc.git import update
from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, run
from ralph_rpc.git.repository import (
    LOCK_REASON,
    TICKET_PATIENCE_S,
    Repository,
    Worktree,
    branch_head,
    end_orphans,
    find_worktree,
    git_dir,
    is_ancestor,
    list_worktrees,
    repository_lock,
    same_place,
)
from ralph_rpc.git.set_up import left_by_setup
from ralph_rpc.git.status import status_of
from ralph_rpc.git.submodules import unsaved
from ralph_rpc.git.worktrees import check_branch_name, discard, lost_with_memory, past_closed_folders

CLEAN = ".verify-"
"""Begins the name of a checkout in which only a verification runs; nothing in it is worth keeping."""

REMOVING = "ralph-removing"
"""In a worktree's git_dir: its removal has begun, so files that are missing in it were not deleted by anybody."""


@dataclass(frozen=True)
class Base:
    """Where a ticket's branch left the target; `reused` if something of an earlier attempt was kept."""

    commit: str
    reused: bool


def add_ticket_worktree(project: Path, path: Path, branch: str, into: str) -> Base:
    """Check `branch` out at `path`: a new one from the head of `into`, an old one with all that is in it.

    The worktree is locked, so that no `git worktree prune` forgets it. UsageError if something else lies at
    `path` or the branch is checked out elsewhere; GitError when git fails, which leaves nothing unfinished
    behind.
    """
    with repository_lock(project, TICKET_PATIENCE_S) as repo:
        start = branch_head(project, into)
        if start is None:
            raise GitError(
                "rev-parse", None, f"branch {into!r} is gone from {project}", "restore it, then resume the loop"
            )
        new = None if os.path.lexists(path) else _add_new(repo, path, branch, start)
        return new or _take_up(repo, path, branch, into, start)


def _add_new(repo: Repository, path: Path, branch: str, start: str) -> Base | None:
    """The usual case, in as few commands as git needs; None if something of an earlier attempt is there."""
    added = _worktree_add(repo, path, ["--no-track", "-b", branch, str(path), start], check=False)
    return Base(start, reused=False) if added else None


def _take_up(repo: Repository, path: Path, branch: str, into: str, start: str) -> Base:
    _clear_the_way(repo, path)
    if path.exists():
        _make_usable(repo, path)
        return Base(_fork_point(repo.project, branch_head(repo.project, branch) or start, start), reused=True)
    own = branch_head(repo.project, branch)
    for tree in list_worktrees(repo.project):
        if tree.branch == branch:
            raise UsageError(
                f"branch {branch!r} is checked out at {tree.path}", "switch that checkout to another branch"
            )
    if own is None or is_ancestor(repo.project, own, start):
        # Without work of its own it begins where the target is now.
        _worktree_add(repo, path, ["--no-track", "-B", branch, str(path), start])
        return Base(start, reused=False)
    _worktree_add(repo, path, [str(path), branch])
    return Base(_fork_point(repo.project, own, start), reused=True)


def _clear_the_way(repo: Repository, path: Path) -> None:
    """Clear `path` of what holds no work: an unfinished add or removal, a folder that is gone."""
    known = _known(repo, path)
    if known is None:
        if os.path.lexists(path):
            raise UsageError(f"{path} exists and is not a worktree of this repository", "move it away")
        return
    if known.is_left_over or _is_being_removed(repo, path):
        if (lost := lost_with_memory(repo.project, path)) is not None:
            raise UsageError(
                f"the worktree {path} was deleted, but git still knows {lost}", f"git branch NAME {known.head}"
            )
        discard(repo.project, path)
    elif git_dir(path) is None or path.is_symlink():
        raise UsageError(f"{path} is not an intact worktree of this repository", "save what you need, and move it away")


def _known(repo: Repository, path: Path) -> Worktree | None:
    """What git knows of the worktree, after the two have found each other again where the project was moved."""
    known = find_worktree(repo.project, path)
    if not path.is_symlink() and (path / ".git").is_file() and (known is None or git_dir(path) is None):
        repo.run(["worktree", "repair", str(path)], check=False)
        known = find_worktree(repo.project, path)
    return known


def _make_usable(repo: Repository, path: Path) -> None:
    """Make a worktree ready that a dead runner left: no git of ours still runs in it, no merge is half done."""
    end_orphans(str(path))
    update.finish_interrupted(path)
    tree = find_worktree(repo.project, path)
    if tree is not None and tree.locked is None:
        _lock(repo, path)


def _worktree_add(repo: Repository, path: Path, how: list[str], check: bool = True) -> bool:
    try:
        done = repo.run(["worktree", "add", "--quiet", *how], timeout=CHECKOUT_TIMEOUT_S, check=check)
    except BaseException:
        if find_worktree(repo.project, path) is not None:  # ended, it could not take back what it had begun
            discard(repo.project, path)
        raise
    if done.code == 0:
        _lock(repo, path)
    return done.code == 0


def _lock(repo: Repository, path: Path) -> None:
    # Not by `add --lock`: its reason would take the place of git's own mark of an unfinished worktree.
    loop = path.parent if path.parent.name != "worktrees" else path.parent.parent
    repo.run(["worktree", "lock", "--reason", f"{LOCK_REASON} {loop.name}", str(path)])


def _fork_point(project: Path, own: str, target: str) -> str:
    found = run(["merge-base", own, target], project, check=False)
    return found.line if found.code == 0 else target


def remove_ticket_worktree(project: Path, path: Path, branch: str, into: str) -> str | None:
    """Remove the worktree and its branch if the target has all of it; otherwise the reason why both stay.

    Ignored files go with it, and those that `copy_into` brought. Also None if everything is gone already.
    """
    with repository_lock(project, TICKET_PATIENCE_S) as repo:
        format_ = "--format=%(objectname)"
        merged = run(["for-each-ref", format_, f"--merged=refs/heads/{into}", f"refs/heads/{branch}"], project).line
        if not merged and branch_head(project, branch) is not None:
            return f"{into} does not contain all commits of {branch}"
        if _is_being_removed(repo, path):
            discard(project, path)
        elif os.path.lexists(path):
            if (why := _work_in(path, branch)) is not None:
                return why
            _remove(repo, path)
        elif (known := find_worktree(project, path)) is not None:
            if known.branch != branch:
                return f"it was deleted while it was not on {branch}"
            discard(project, path)
        if merged:
            repo.run(["update-ref", "-d", f"refs/heads/{branch}", merged])
    return None


def try_worktree(project: Path, path: Path, branch: str, into: str) -> None:
    """Make a worktree as tickets get one, and remove it with its branch. UsageError where that cannot be done.

    Called before a loop starts: what stands in the way of every ticket is no ticket's fault. No file is checked out.
    """
    with repository_lock(project, TICKET_PATIENCE_S) as repo:
        try:
            check_branch_name(project, branch)
            how = ["--no-checkout", "--no-track", "-B", branch, str(path), f"refs/heads/{into}"]
            _worktree_add(repo, path, how)
            discard(project, path)
            repo.run(["update-ref", "-d", f"refs/heads/{branch}"])
        except (GitError, UsageError) as error:
            reason = error.reason if isinstance(error, GitError) else error.message
            raise UsageError(f"tickets cannot get worktrees here: {reason}", error.hint or "fix that first") from error


def open_clean(project: Path, path: Path, commit: str) -> None:
    """A checkout of the commit itself, on no branch; whatever is at `path` from an earlier one goes."""
    with repository_lock(project, TICKET_PATIENCE_S) as repo:
        if os.path.lexists(path) or find_worktree(project, path) is not None:
            discard(project, path)
        _worktree_add(repo, path, ["--detach", str(path), commit])


def close_clean(project: Path, path: Path) -> None:
    """Remove such a checkout, if it is there."""
    with repository_lock(project, TICKET_PATIENCE_S):
        if os.path.lexists(path) or find_worktree(project, path) is not None:
            discard(project, path)


def _work_in(path: Path, branch: str) -> str | None:
    folder = git_dir(path)
    if folder is None or path.is_symlink():
        return f"{path} is not an intact worktree"
    if (lost := unsaved(path, folder)) is not None:
        return lost
    status = status_of(path)
    if status.branch != branch:
        return f"it is on {status.branch or 'no branch'}, not on {branch}"
    left = left_by_setup(path)
    if changed := [entry.path for entry in status.entries if entry.is_work(folder) and entry.path not in left]:
        return f"it has {len(changed)} uncommitted file{'s'[: len(changed) != 1]}: {changed[0]}"
    return None


def _remove(repo: Repository, path: Path) -> None:
    folder = git_dir(path)
    if folder is not None:
        (folder / REMOVING).touch()
    with past_closed_folders(repo.project, path):
        # Forced twice, for files that may go and for the lock; we have looked for changes ourselves.
        repo.run(["worktree", "remove", "--force", "--force", str(path)], timeout=CHECKOUT_TIMEOUT_S)


def _is_being_removed(repo: Repository, path: Path) -> bool:
    """Whether a removal died in the middle; the worktree's own link to its git_dir may be gone already."""
    for note in (repo.common / "worktrees").glob(f"*/{REMOVING}"):
        try:
            link = Path(os.fsdecode((note.parent / "gitdir").read_bytes().strip()))
        except OSError:
            continue
        if same_place(link.parent, path):
            return True
    return False
