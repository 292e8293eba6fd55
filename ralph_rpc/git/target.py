"""The branch that the work of a ticket loop goes to, checked before anything is made.

Called by `start` and `resume` of a ticket loop with worktrees. It only looks. It refuses whatever would make a merge
lose something, wait for a person, or differ from what the agent saw: a work tree that lies apart from its repository (git
does not know where the checkout is), submodules without a setup that fills them in (git does not), LFS without git-lfs,
and a missing identity. A shallow clone is fine, as only new commits are merged; so is a sparse checkout, whose worktrees
are as sparse, and a worktree of a bare repository.
"""

from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import UsageError
from ralph_rpc.git.calls import OLDEST, GitError, head, run, version
from ralph_rpc.git.repository import (
    Worktree,
    branch_head,
    branch_in_use,
    common_dir,
    git_dir,
    list_worktrees,
    operation_in,
    same_place,
)
from ralph_rpc.git.submodules import pointers

_SERIAL = "or work without worktrees, one ticket after the other"


@dataclass(frozen=True)
class Target:
    """Where work goes: the root of the project's checkout, the branch, and the branch's commit."""

    top: Path
    branch: str
    head: str


def check_target(project: Path, into: str | None, setup: bool = False) -> Target:
    """The target: `into`, or the branch that the project has checked out. UsageError if it cannot be one.

    With `setup` there is a command that prepares each worktree, which may fill in submodules.
    """
    try:
        if version() < OLDEST:
            raise UsageError("git is older than 2.38", f"update git, {_SERIAL}")
    except GitError as error:
        raise UsageError(error.message, error.hint) from error
    top = _top(project)
    if head(project) is None and (into is None or branch_head(project, into) is None):
        raise UsageError(f"{project} has no commit yet", "commit something first: tickets start from a commit")
    trees = list_worktrees(project)
    _check_layout(top, trees)
    branch = into if into is not None else _current_branch(project, top)
    commit = branch_head(project, branch)
    if commit is None:
        raise UsageError(f"there is no branch {branch!r} in {top}", "create it, or name another one with --into")
    _check_nothing_under_way(project, branch, trees)
    _check_content(project, commit, setup)
    check_identity(project)
    return Target(top, branch, commit)


def _top(project: Path) -> Path:
    asked = run(["rev-parse", "--is-bare-repository", "--is-inside-work-tree"], project, check=False)
    if asked.code != 0:
        if "dubious ownership" in asked.err:
            raise UsageError(f"git does not trust {project}: {asked.last_error}", "git help config: safe.directory")
        raise UsageError(f"{project} is not a git repository", f"git init, {_SERIAL}")
    bare, inside = asked.out.split()
    if bare == b"true" or inside != b"true":
        raise UsageError(f"{project} is in a bare repository, or in .git", "start in a worktree of it")
    return Path(run(["rev-parse", "--show-toplevel"], project).line)


def _check_layout(top: Path, trees: list[Worktree]) -> None:
    if not any(same_place(tree.path, top) for tree in trees) or git_dir(top) is None:
        raise UsageError(f"{top} lies apart from its git repository", f"start in an ordinary clone of it, {_SERIAL}")


def _current_branch(project: Path, top: Path) -> str:
    found = run(["symbolic-ref", "--quiet", "HEAD"], project, check=False)
    if found.code == 0 and found.line.startswith("refs/heads/"):
        return found.line.removeprefix("refs/heads/")
    folder = git_dir(top)
    what = operation_in(folder) if folder is not None else None
    during = f": {what} is under way" if what else ""
    raise UsageError(
        f"{top} is not on a branch{during}", "switch to the branch that work should go to, or name it with --into"
    )


def _check_nothing_under_way(project: Path, branch: str, trees: list[Worktree]) -> None:
    for tree in trees:
        folder = git_dir(tree.path)
        if tree.branch == branch and folder is not None and (what := operation_in(folder)):
            raise UsageError(f"{what} is under way in {tree.path}, on {branch}", "finish or abort it first")
    if what := branch_in_use(common_dir(project), branch):
        raise UsageError(f"{what} of {branch} is under way", "finish or abort it first")


def _check_content(project: Path, commit: str, setup: bool) -> None:
    if not setup and pointers(project, commit):
        raise UsageError(
            "the project has submodules, which the worktrees of tickets would lack",
            f"fill them in: --worktree-setup 'git submodule update --init --recursive', {_SERIAL}",
        )
    found = run(["grep", "-q", "-e", "filter=lfs", commit, "--", ":(top,glob)**/.gitattributes"], project, check=False)
    if found.code == 0 and not _has_lfs(project):
        raise UsageError("the project uses git LFS, which is not set up here", "install git-lfs, then: git lfs install")


def _has_lfs(project: Path) -> bool:
    filters = run(["config", "--get-regexp", r"^filter\.lfs\.(process|smudge)$"], project, check=False)
    # Without the program, the repository's settings could say what `git lfs` is to run.
    return filters.code == 0 and run(["lfs", "version"], project, check=False, settings=["alias.lfs="]).code == 0


def check_identity(project: Path) -> None:
    for ident in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        # Otherwise git would make up an address from the names of the user and the machine.
        if run(["var", ident], project, check=False, settings=["user.useConfigOnly=true"]).code != 0:
            raise UsageError(
                "git has no author for commits", "set one: git config user.name NAME, and git config user.email ADDRESS"
            )
