"""Tickets' branches land: one move of the target's ref, to a commit that was built aside and verified.

Called by the runner, for one batch at a time; other runners and people work on the repository at the same time. The order
for a ticket: `commit_leftovers`, verify, `build_batch`, verify what that made, `land`. Nothing is merged until the ref has
moved, and the ref moves only from the commit that was built upon. Every step can be done again after a crash: commits
whose ref did not move are garbage, and those whose ref did move are found by the next build.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.git import checkout
from ralph_rpc.git.alone import left_locked, move_alone
from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, run
from ralph_rpc.git.repository import (
    TICKET_PATIENCE_S,
    Repository,
    Worktree,
    branch_head,
    branch_in_use,
    is_ancestor,
    list_worktrees,
    repository_lock,
)

NAMED = 5


@dataclass(frozen=True)
class Landed:
    """The target contains the branch, through this commit."""

    commit: str


@dataclass(frozen=True)
class Moved:
    """The target or the branch is no longer what was verified: look again. Nothing was changed."""


@dataclass(frozen=True)
class Waits:
    """A checkout of the target would lose something, or is in use. Nothing was changed.

    The reason says what to do.
    """

    reason: str


def land(
    project: Path, into: str, expected: str, commit: str, branches: Sequence[str], by_line: str = ""
) -> Landed | Moved | Waits:
    """Move `into` from `expected` to `commit`, which was built upon it from these branches.

    A checkout of the target is updated if it loses nothing by that. Doing it twice is fine. GitError when git fails; then
    nothing has moved, or another call finishes it.
    """
    with repository_lock(project, TICKET_PATIENCE_S) as repo:
        trees = [tree for tree in list_worktrees(project) if tree.branch == into]
        for tree in trees:
            checkout.finish_interrupted(repo, tree.path)
        now = branch_head(project, into)
        if now == commit:
            return Landed(commit)
        if now != expected or _have_moved(project, commit, branches):
            return Moved()
        if (reason := cannot_move(repo.common, into, trees)) is not None:
            return Waits(reason)
        more = f" and {len(branches) - NAMED} more" if len(branches) > NAMED else ""
        why = ", ".join(branches[:NAMED]) + more
        for lock in left_locked(list_worktrees(project)):
            lock.unlink(missing_ok=True)
        return _move(repo, checkout.Move(into, expected, commit, why, by_line), trees)


def _move(repo: Repository, wanted: checkout.Move, trees: list[Worktree]) -> Landed | Moved | Waits:
    present = [tree for tree in trees if tree.path.exists()]
    if present:
        if (reason := checkout.take_along(repo, present[0].path, wanted)) is not None:
            return Waits(reason)
    else:
        moved = move_alone(repo, wanted)
        if isinstance(moved, str):
            return Waits(moved)
        if moved is None and not any(tree.branch == wanted.branch for tree in list_worktrees(repo.project)):
            why = (
                f"a checkout is on {wanted.branch}, but `git worktree list` does not say so; see: git config core.bare"
            )
            return Waits(why)
        if not moved:
            return Moved()  # also where somebody has just checked the branch out: look again
    return Landed(wanted.new) if branch_head(repo.project, wanted.branch) == wanted.new else Moved()


def _have_moved(project: Path, commit: str, branches: Sequence[str]) -> bool:
    """Whether one of the branches has commits that the batch does not have."""
    refs = [f"refs/heads/{branch}" for branch in branches]
    return bool(run(["for-each-ref", f"--no-merged={commit}", *refs], project, CHECKOUT_TIMEOUT_S).out)


def is_landed(project: Path, branch: str, into: str, base: str) -> bool:
    """For recovery: whether work of the branch, which began at `base`, has reached the target.

    False for a branch without commits of its own, and for one that is gone: `land` and
    `remove_ticket_worktree`, done again, are right for the one and the other.
    """
    target, head = branch_head(project, into), branch_head(project, branch)
    return target is not None and head is not None and head != base and is_ancestor(project, head, target)


def landed_by(project: Path, head: str, target: str) -> str:
    """The merge that brought the head into the target; the head itself if it got there another way."""
    args = ["rev-list", "--first-parent", "--merges", "--parents", f"{head}..{target}"]
    for line in run(args, project, CHECKOUT_TIMEOUT_S).out.decode().splitlines():
        commit, _, *others = line.split(" ")
        if head in others:
            return commit
    return head


def cannot_move(common: Path, into: str, trees: list[Worktree]) -> str | None:
    """Why the target cannot be moved now, whatever would be merged."""
    if what := branch_in_use(common, into):
        return f"{what} of {into} is under way: finish or abort it"
    for tree in trees:
        if tree.locked is not None and not tree.path.exists():
            return f"{into} is checked out in {tree.path}, which is missing and locked"
    present = [str(tree.path) for tree in trees if tree.path.exists()]
    if len(present) > 1:
        return f"{into} is checked out more than once, in {' and '.join(present)}: switch one of them"
    return None
