"""Where a ticket's branch left its target, also after a person has rewritten the target: a rebase, an amend, a reset.

By their history alone, the old versions of rewritten commits look like the ticket's own work. So the worktree's git_dir
notes each head of the target that the branch came to contain. Written by the runner after the branch has it; without a
note, the history decides. Work is carried over by `carry`, which computes new commits and moves nothing.
"""

from pathlib import Path

from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, run
from ralph_rpc.git.repository import git_dir, is_ancestor
from ralph_rpc.git.trees import Conflict, merge_on

NOTED = "ralph-targets"
_AUTHOR = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_DATE")


def note_target(worktree: Path, commit: str) -> None:
    """The branch of this worktree contains this head of its target."""
    folder = git_dir(worktree)
    if folder is None or commit in noted_targets(worktree)[-1:]:
        return
    with (folder / NOTED).open("a") as notes:
        notes.write(f"{commit}\n")


def noted_targets(worktree: Path) -> list[str]:
    """What `note_target` has noted, the oldest first."""
    folder = git_dir(worktree)
    try:
        return [] if folder is None else (folder / NOTED).read_text().split()
    except OSError:
        return []


def fork_point(project: Path, worktree: Path, target: str, head: str) -> str | None:
    """The last head of the target that the branch contains; by history where nothing is noted. None: they share nothing."""
    for commit in reversed(noted_targets(worktree)):
        if _is_in(project, commit, head):
            if not is_ancestor(project, commit, target):
                return commit
            break
    found = run(["merge-base", target, head], project, CHECKOUT_TIMEOUT_S, check=False)
    return found.line if found.code == 0 else None


def is_rewritten(project: Path, fork: str | None, target: str) -> bool:
    """Whether the target no longer has the commit at which the branch left it."""
    return fork is not None and not is_ancestor(project, fork, target)


def _is_in(project: Path, commit: str, head: str) -> bool:
    # It may be gone after a `git gc`: then it is in no branch.
    return run(["merge-base", "--is-ancestor", commit, head], project, check=False).code == 0


def carry(project: Path, fork: str, head: str, target: str, into: str, by_line: str = "") -> str | Conflict:
    """The branch's own commits on top of the target: the new head. One commit where they hold a merge."""
    merges = run(["rev-list", "--merges", "--max-count=1", f"{fork}..{head}"], project, CHECKOUT_TIMEOUT_S).line
    listed = run(["rev-list", "--reverse", "--topo-order", f"{fork}..{head}"], project, CHECKOUT_TIMEOUT_S)
    commits = listed.out.decode().split()
    steps = [(fork, head)] if merges else [(f"{commit}^", commit) for commit in commits]
    onto = target
    for before, commit in steps:
        tree = merge_on(project, before, onto, commit, by_line)
        if isinstance(tree, Conflict):
            return _told(tree, into, fork)
        if tree != run(["rev-parse", f"{onto}^{{tree}}"], project).line:
            onto = _again(project, commit, tree, onto)
    return onto


def _again(project: Path, commit: str, tree: str, parent: str) -> str:
    """The commit, by its author and with its message, on another parent."""
    said = run(["show", "--no-patch", "--format=%an%x00%ae%x00%ad%x00%B", "--date=raw", commit], project).out
    *author, message = said.split(b"\0", 3)
    env: dict[str, str] = dict(zip(_AUTHOR, (part.decode(errors="surrogateescape") for part in author), strict=True))
    return run(["commit-tree", tree, "-p", parent, "-F", "-"], project, env_extra=env, stdin=message).line


def _told(conflict: Conflict, into: str, fork: str) -> Conflict:
    how = (
        f"{into} was rewritten (rebased, amended or reset) after this branch had left it at {fork[:12]}. Do not merge it, as "
        f"that would bring the old commits back. Instead: git rebase --onto {into} {fork[:12]}, and resolve what it stops at."
    )
    return Conflict(conflict.files, f"{how}\n\n{conflict.text}")
