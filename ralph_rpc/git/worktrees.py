"""The worktree that a task loop works in, and the removal of any worktree of ours.

Called by `start` (check, add) and `clean` (risk, remove). A worktree is added and removed under the lock of
the repository; a machine that dies in between leaves at worst an unfinished worktree, which the next add
replaces. Branches are never deleted here.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ralph_rpc.errors import UsageError
from ralph_rpc.files.removal import remove_tree
from ralph_rpc.git.calls import (
    CHECKOUT_TIMEOUT_S,
    OLDEST,
    STATUS_TIMEOUT_S,
    GitError,
    head,
    is_repo,
    run,
    toplevel,
    version,
)
from ralph_rpc.git.repository import LOCK_REASON, Worktree, find_worktree, list_worktrees, repository_lock, same_place
from ralph_rpc.git.submodules import unsaved

QUEUE_PLACE = "_queue"
"""Where the merge queue verifies: its name in the folder of the tickets' worktrees, which no ticket can have."""


def check_worktree(project: Path, path: Path, branch: str) -> None:
    """Raise UsageError unless `add_worktree` can give `branch` a worktree at `path`. Makes nothing."""
    if version() < OLDEST:
        raise UsageError("git is older than 2.38", "update git, or start without --worktree")
    inside = run(["rev-parse", "--show-toplevel"], project, check=False)
    if inside.code != 0:
        reason = inside.last_error if "dubious ownership" in inside.err else f"{project} is not a git repository"
        raise UsageError(f"--worktree needs git: {reason}", "git init, or start without --worktree")
    if head(project) is None:
        raise UsageError(f"{project} has no commit yet", "commit something first: --worktree starts from a commit")
    check_branch_name(project, branch)
    for tree in list_worktrees(project):
        if same_place(tree.path, path):
            if tree.branch == branch:
                continue
            if tree.is_left_over:
                if (lost := lost_with_memory(project, path)) is None:
                    continue
                raise UsageError(
                    f"the worktree {path} was deleted, but git still knows {lost}", f"git branch NAME {tree.head}"
                )
            where = f"branch {tree.branch!r}" if tree.branch else "no branch"
            raise UsageError(f"the worktree {path} is on {where}, not on {branch!r}", "switch it, or clean it first")
        if tree.branch == branch:
            hint = f"git worktree prune (in {project})" if not tree.path.exists() else "choose another branch"
            raise UsageError(f"branch {branch!r} is checked out at {tree.path}", hint)
    tree_there = find_worktree(project, path)
    intact = tree_there is not None and (tree_there.is_left_over or (path / ".git").is_file())
    if os.path.lexists(path) and not intact:
        raise UsageError(f"{path} exists and is not a worktree of this repository", "move it away")


def add_worktree(project: Path, path: Path, branch: str) -> None:
    """Check `branch` out at `path`, created from HEAD if it does not exist; a worktree it has there is kept.

    UsageError as check_worktree, which is called first; GitError when git fails. Hooks do not run, and
    submodules are not filled in.
    """
    with repository_lock(project):
        check_worktree(project, path, branch)
        existing = find_worktree(project, path)
        if existing is not None:
            if not existing.is_left_over:
                return
            discard(project, path)
        if _has_branch(project, branch):
            how = [str(path), branch]
        else:
            how = ["--no-track", "-b", branch, str(path), "HEAD"]
        try:
            run(["worktree", "add", "--quiet", *how], project, CHECKOUT_TIMEOUT_S)
        except BaseException:
            if find_worktree(project, path) is not None:  # git was killed before it could undo what it had begun
                discard(project, path)
            raise


def project_in(worktree: Path, project: Path) -> Path:
    """Where the project is in a worktree of its repository: at the root, unless the project is a subfolder."""
    top = toplevel(project)
    inside = worktree / project.relative_to(top) if top is not None and project.is_relative_to(top) else worktree
    return inside if inside.is_dir() else worktree


def worktree_risk(project: Path, path: Path, settings: Sequence[str] = ()) -> str | None:
    """What removing the worktree at `path` would lose or leave unmerged, as one line; None when it is safe.

    Uncommitted: changed, staged, or untracked and not ignored. Unmerged: commits that are in no other branch,
    no remote branch and no other checkout, though the branch itself survives a removal.
    """
    if path.is_symlink():
        return "a link in its place"
    if not path.exists():
        return lost_with_memory(project, path) if is_repo(project) else None
    tree = find_worktree(project, path)
    if tree is None or not (path / ".git").is_file():
        return "content that cannot be judged, as it is not an intact worktree of this repository"
    if tree.is_left_over or (path.name == QUEUE_PLACE and tree.branch is None):
        return None  # in the merge queue's place nobody works
    if (lost := unsaved(path, Path(run(["rev-parse", "--absolute-git-dir"], path).line))) is not None:
        return f"something to lose: {lost}"
    risks = []
    everything = ["--untracked-files=all", "--ignore-submodules=none", "--no-renames"]
    status = run(["status", "--porcelain=v1", "-z", *everything], path, STATUS_TIMEOUT_S, settings=settings)
    if dirty := len(status.fields):
        risks.append(f"{dirty} uncommitted file{'s'[: dirty != 1]}")
    if commits := _unmerged(project, tree):
        where = f"of branch {tree.branch!r}" if tree.branch else "of no branch"
        risks.append(f"{commits} unmerged commit{'s'[: commits != 1]} {where}")
    return " and ".join(risks) or None


def worktree_paths(project: Path) -> list[Path]:
    """Where the repository's worktrees are, or were where their folders are gone; without the main one."""
    return [tree.path for tree in list_worktrees(project)[1:]]


def remove_worktree(project: Path, path: Path, force: bool = False, settings: Sequence[str] = ()) -> None:
    """Remove the worktree at `path`, or only git's memory of it where its folder is gone. The branch stays.

    GitError, and nothing removed, when worktree_risk finds something and not `force`. Other worktrees, also
    those whose folders are missing, are left alone.
    """
    with repository_lock(project):
        risk = None if force else worktree_risk(project, path, settings)
        if risk is not None:
            raise GitError("worktree remove", None, f"{path} has {risk}", "merge or commit it, or use --force")
        tree = find_worktree(project, path)
        is_foreign = tree is not None and tree.locked and not tree.locked.startswith(f"{LOCK_REASON} ")
        if tree is not None and is_foreign and not tree.is_left_over and not force:
            raise GitError("worktree remove", None, f"{path} is locked", f"git worktree unlock {path}, or use --force")
        discard(project, path)


def _has_branch(project: Path, branch: str) -> bool:
    return run(["show-ref", "--verify", "--quiet", f"refs/heads/{branch}"], project, check=False).code == 0


def check_branch_name(project: Path, branch: str) -> None:
    """Raises UsageError where a branch cannot have this name."""
    # `@{-1}` is a valid way to name another branch, but not a name: git answers with what it stands for.
    valid = branch.isprintable() and run(["check-ref-format", "--branch", branch], project, check=False)
    if not valid or valid.code != 0 or valid.line != branch:
        raise UsageError(f"{branch!r} is not a valid branch name", "see git help check-ref-format")
    # A branch is a file and its slashes are folders, so `a` and `a/b` cannot both exist.
    names = run(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"], project).out
    for name in os.fsdecode(names).split("\n")[:-1]:
        if name.startswith(f"{branch}/") or branch.startswith(f"{name}/"):
            raise UsageError(f"branch {branch!r} cannot exist beside branch {name!r}", "choose another branch name")


def _unmerged(project: Path, tree: Worktree) -> int:
    if tree.head is None or not tree.head.strip("0"):  # a branch without a commit
        return 0
    others = [other.head for other in list_worktrees(project) if other.head and other.head.strip("0") and other != tree]
    own = [f"--exclude={tree.branch}"] if tree.branch else []
    args = ["rev-list", "--count", tree.head, "--not", *own, "--branches", "--remotes", *others]
    return int(run(args, project, STATUS_TIMEOUT_S).line)


def lost_with_memory(project: Path, path: Path) -> str | None:
    """What only git's memory of a worktree whose folder is gone still holds: commits that are on no branch."""
    tree = find_worktree(project, path)
    commits = _unmerged(project, tree) if tree is not None and tree.branch is None else 0
    return f"{commits} unmerged commit{'s'[: commits != 1]} of no branch" if commits else None


@contextmanager
def past_closed_folders(project: Path, path: Path) -> Iterator[None]:
    """Around a `git worktree remove`, which stops at a folder without write permission, such as Go's module cache.

    By then git has forgotten the worktree; what is left of it is removed here. Any other failure is raised.
    """
    try:
        yield
    except GitError:
        if not os.path.lexists(path) or find_worktree(project, path) is not None:
            raise
        try:
            remove_tree(path)
        except OSError as error:
            raise GitError("worktree remove", None, f"{error.filename}: {error.strerror}") from error


def discard(project: Path, path: Path) -> None:
    """Remove the worktree at `path`, with everything in it and however broken it is. A link is not followed."""
    registered = find_worktree(project, path) is not None
    if registered and (path / ".git").is_file() and not path.is_symlink():
        with past_closed_folders(project, path):
            # Twice: once for its changes, once for its lock.
            run(["worktree", "remove", "--force", "--force", str(path)], project, CHECKOUT_TIMEOUT_S)
        return
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        remove_tree(path)
    if registered:  # git forgets this one; `git worktree prune` would forget others too, on unmounted disks
        run(["worktree", "remove", "--force", "--force", str(path)], project)
