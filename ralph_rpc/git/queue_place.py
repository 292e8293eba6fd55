"""The checkout in which the merge queue verifies what it has merged: a worktree beside the tickets', on no branch.

Called by the runner, under the lock of the repository where git's list of worktrees changes. Nobody works in it, and only
setup and verify ever write there, so nothing in it is worth keeping: what a machine that dies leaves, of whatever kind, is
used again or replaced by the next run, and `clean` removes it without asking.
"""

import os
from pathlib import Path

from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S
from ralph_rpc.git.repository import (
    LOCK_REASON,
    TICKET_PATIENCE_S,
    common_dir,
    end_orphans,
    find_worktree,
    git_dir,
    marked,
    repository_lock,
    run_past_locks,
)
from ralph_rpc.git.worktrees import discard


def check_out(project: Path, path: Path, commit: str, loop: str, everything: bool) -> None:
    """Bring the place at `path` to this commit, without what an earlier run left; ignored files go with `everything`."""
    if _is_usable(project, path):
        common = common_dir(path)
        for args in (["reset", "--quiet", "--hard", commit], ["clean", "--quiet", "-ffdx" if everything else "-ffd"]):
            run_past_locks(args, path, common, CHECKOUT_TIMEOUT_S, marked(path))
        return
    with repository_lock(project, TICKET_PATIENCE_S) as repo:
        _discard(project, path)
        repo.run(["worktree", "add", "--quiet", "--detach", str(path), commit], timeout=CHECKOUT_TIMEOUT_S)
        repo.run(["worktree", "lock", "--reason", f"{LOCK_REASON} {loop}", str(path)])


def remove(project: Path, path: Path) -> None:
    """Remove it, if it is there."""
    if not os.path.lexists(path) and find_worktree(project, path) is None:
        return
    with repository_lock(project, TICKET_PATIENCE_S):
        end_orphans(str(path))
        _discard(project, path)


def _is_usable(project: Path, path: Path) -> bool:
    """Whether it is a whole worktree of this repository that is on no branch."""
    if path.is_symlink() or git_dir(path) is None:
        return False
    known = find_worktree(project, path)
    return known is not None and not known.is_left_over and known.branch is None


def _discard(project: Path, path: Path) -> None:
    if find_worktree(project, path) is not None or os.path.lexists(path):
        discard(project, path)
