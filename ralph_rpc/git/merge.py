"""The merge of a ticket's branch into the target, built aside and then shown by one move of the target's ref.

Called by the runner, which merges one ticket after the other; other runners and people work on the repository
at the same time. The order for a ticket: `commit_leftovers`, verify, `preflight`; if it is behind,
`update_from_target`, verify again, and `preflight` again; then `land`. Nothing has been merged before the ref
has moved, and the ref moves only from the commit that was verified against. All of it can be done again after
any death: a merge commit whose ref did not move is garbage, one whose ref did is found.
"""

from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import RalphError
from ralph_rpc.git import checkout
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
from ralph_rpc.git.update import Conflict, merge_trees, unfit


@dataclass(frozen=True)
class Ready:
    """The branch has all of the target (`target`, what `land` expects): its tree is what would be merged."""

    head: str
    target: str


@dataclass(frozen=True)
class Behind:
    """Others have been merged since, without a conflict: update, verify again, and look again."""

    head: str
    target: str


@dataclass(frozen=True)
class Landed:
    """The target has the branch; by this commit."""

    commit: str


@dataclass(frozen=True)
class Moved:
    """The target or the branch is not what was verified any more: look again. Nothing was changed."""


@dataclass(frozen=True)
class Waits:
    """A checkout of the target would lose something, or is in use. Nothing was changed.

    The reason is one line and says what to do.
    """

    reason: str


def preflight(project: Path, branch: str, into: str) -> Ready | Behind | Conflict:
    """How the branch stands to the target now. It changes nothing."""
    target, head = _heads(project, branch, into)
    if is_ancestor(project, head, target):
        return Ready(head, target)  # nothing to merge, or it has been
    if (bad := unfit(project, target, head)) is not None:
        return bad
    if is_ancestor(project, target, head):
        return Ready(head, target)
    merged = merge_trees(project, target, head)
    return merged if isinstance(merged, Conflict) else Behind(head, target)


def land(project: Path, branch: str, into: str, expected: str, message: str) -> Landed | Moved | Waits:
    """Merge the branch into `into`, which must be at `expected`, a commit that the branch contains.

    A checkout of the target goes along if it loses nothing by it. Doing it twice is fine: the second time
    says by which commit it has landed. GitError when git fails; then nothing has moved, or another call
    finishes it.
    """
    with repository_lock(project, TICKET_PATIENCE_S) as repo:
        trees = [tree for tree in list_worktrees(project) if tree.branch == into]
        for tree in trees:
            checkout.finish_interrupted(repo, tree.path)
        target, head = _heads(project, branch, into)
        base = run(["merge-base", target, head], project, CHECKOUT_TIMEOUT_S, check=False).line
        if base == head:
            return Landed(_landed_by(project, head, target))
        if target != expected or base != target:
            return Moved()
        if (reason := _cannot_move(repo, into, trees)) is not None:
            return Waits(reason)
        parents = ["-p", target, "-p", head]
        made = run(["commit-tree", f"{head}^{{tree}}", *parents, "-F", "-"], project, stdin=message.encode())
        return _move(repo, checkout.Move(into, target, made.line, branch), trees)


def _move(repo: Repository, move: checkout.Move, trees: list[Worktree]) -> Landed | Moved | Waits:
    present = [tree for tree in trees if tree.path.exists()]
    if present:
        if (reason := checkout.take_along(repo, present[0].path, move)) is not None:
            return Waits(reason)
    elif not checkout.move_ref(repo, repo.project, move):
        return Moved()
    return Landed(move.new) if branch_head(repo.project, move.branch) == move.new else Moved()


def is_landed(project: Path, branch: str, into: str, base: str) -> bool:
    """For recovery: whether work of the branch, which began at `base`, has reached the target.

    False for a branch without commits of its own, and for one that is gone: `land` and
    `remove_ticket_worktree`, done again, are right for the one and the other.
    """
    target, head = branch_head(project, into), branch_head(project, branch)
    return target is not None and head is not None and head != base and is_ancestor(project, head, target)


def _heads(project: Path, branch: str, into: str) -> tuple[str, str]:
    """The target's commit and the branch's."""
    target, head = branch_head(project, into), branch_head(project, branch)
    if target is None or head is None:
        gone = into if target is None else branch
        raise RalphError(
            f"branch {gone!r} is gone", "restore it (git reflog, git branch), then resume the loop"
        )
    return target, head


def _landed_by(project: Path, head: str, target: str) -> str:
    """The merge that brought the head to the target; the head itself if it got there in another way."""
    args = ["rev-list", "--first-parent", "--merges", "--parents", f"{head}..{target}"]
    for line in run(args, project, CHECKOUT_TIMEOUT_S).out.decode().splitlines():
        commit, _, *others = line.split(" ")
        if head in others:
            return commit
    return head


def _cannot_move(repo: Repository, into: str, trees: list[Worktree]) -> str | None:
    if what := branch_in_use(repo.common, into):
        return f"{what} of {into} is under way: finish or abort it"
    for tree in trees:
        if tree.locked is not None and not tree.path.exists():
            return f"{into} is checked out in {tree.path}, which is not there now and is locked"
    present = [str(tree.path) for tree in trees if tree.path.exists()]
    if len(present) > 1:
        return f"{into} is checked out more than once, in {' and '.join(present)}: switch one of them"
    return None
