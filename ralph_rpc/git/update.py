"""The target's new commits brought into a ticket's branch, inside the ticket's own worktree.

Called by the runner when others have been merged meanwhile, so that the merged tree can be verified where the ticket
is set up. The merge is computed outside the worktree; in case of a conflict nothing has been touched. Before the
worktree is changed, its git_dir gets a note of the merge commit: a machine that dies in between leaves a worktree in
which work and half a merge cannot be told apart, and with the note the next `finish_interrupted` completes the merge.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ralph_rpc.errors import RalphError
from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, run
from ralph_rpc.git.fork import carry, fork_point, is_rewritten, note_target
from ralph_rpc.git.repository import branch_head, common_dir, git_dir, is_ancestor, marked, run_past_locks
from ralph_rpc.git.set_up import kept, note_again
from ralph_rpc.git.status import REPOSITORY_MODE
from ralph_rpc.git.submodules import declared, pointers, unreachable
from ralph_rpc.git.trees import Conflict, merge_trees

UPDATING = "ralph-updating"
MARKED = b": leftover conflict marker"


def update_from_target(worktree: Path, into: str, by_line: str = "") -> str | Conflict:
    """Merge the head of `into` into the worktree's branch; the branch's new head, or the conflict.

    If the target was rewritten since the branch left it, the branch's own commits are carried over instead, and no others.
    `commit_leftovers` must have been called: changes in tracked files since then (by a verification) are dropped.
    """
    finish_interrupted(worktree)
    branch, own, theirs = _heads(worktree, into)
    commit = _updated(worktree, branch, own, theirs, into, by_line)
    if isinstance(commit, Conflict):
        return commit
    folder = _folder(worktree)
    note = folder / UPDATING
    partial = folder / f"{UPDATING}.new"
    partial.write_text(f"{branch}\n{own}\n{commit}\n")
    partial.replace(note)
    _move(worktree, commit)
    note.unlink()
    note_target(worktree, theirs)
    return commit


def _updated(worktree: Path, branch: str, own: str, theirs: str, into: str, by_line: str) -> str | Conflict:
    """The commit that the branch moves to."""
    fork = fork_point(worktree, worktree, theirs, own)
    if fork is not None and is_rewritten(worktree, fork, theirs):
        return carry(worktree, fork, own, theirs, into, by_line)
    merged = merge_trees(worktree, own, theirs, by_line, target="theirs")
    if isinstance(merged, Conflict):
        return merged
    # A branch without commits of its own needs no merge commit: it is where the target is.
    if is_ancestor(worktree, own, theirs):
        return theirs
    if is_ancestor(worktree, theirs, own):
        return own
    words = f"Merge {into} into {branch}\n".encode(errors="replace")
    return run(["commit-tree", merged, "-p", own, "-p", theirs, "-F", "-"], worktree, stdin=words).line


def finish_interrupted(worktree: Path) -> None:
    """Complete an update that was cut short, if there is one."""
    note = _folder(worktree) / UPDATING
    try:
        branch, own, commit, *_ = note.read_text().split("\n")
    except FileNotFoundError:
        return
    now = run(["symbolic-ref", "--quiet", "--short", "HEAD"], worktree, check=False).line
    # Otherwise somebody has worked here since.
    if now == branch and branch_head(worktree, branch) in (own, commit):
        _move(worktree, commit)
    note.unlink()


def unfit(project: Path, target: str, head: str, worktree: Path | None = None) -> Conflict | None:
    """What a branch must not bring to its target: another repository's commit, or markers of a conflict.

    A submodule may point to another commit, if others can get it. Markers count only if the branch has merged something: a
    test or a text may well be about them.
    """
    between = f"{target}...{head}"
    raw = run(["diff", "--raw", "-z", "--no-renames", "--ignore-submodules=none", between], project, CHECKOUT_TIMEOUT_S)
    entries = [(entry.split(" "), path) for entry, path in zip(raw.fields[::2], raw.fields[1::2], strict=True)]
    nested = [path for entry, path in entries if entry[1] == REPOSITORY_MODE]
    modules = declared(project, head) if nested else {}
    if foreign := [path for path in nested if path not in modules]:
        return _to_resolve(foreign, "is a git repository of its own, whose files would not be merged")
    if nested:
        now = pointers(project, head)
        pointing = [(path, modules[path], now[path]) for path in nested if path in now]
        if lost := unreachable(worktree or project, pointing):
            return Conflict(tuple(path for path, _, _ in pointing), "\n".join(lost))
    if not run(["rev-list", "--merges", "--max-count=1", f"{target}..{head}"], project).out:
        return None
    files = files_with_markers(project, head, [between])
    return _to_resolve(files, "was committed with conflict markers in it") if files else None


def _to_resolve(files: list[str], what: str) -> Conflict:
    return Conflict(tuple(files), "\n".join(f"{file} {what}" for file in files))


def files_with_markers(checkout: Path, revision: str, difference: Sequence[str]) -> list[str]:
    """The files to which `git diff DIFFERENCE` adds a conflict, as in the revision ("" is the index)."""
    quiet = ["core.quotePath=false"]
    found = run(["diff", "--check", *difference], checkout, CHECKOUT_TIMEOUT_S, check=False, settings=quiet)
    if found.code not in (0, 2):  # 2: there is something
        raise GitError("diff --check", found.code, found.last_error)
    places = [line.rsplit(b":", 2)[0] for line in found.out.split(b"\n") if line.endswith(MARKED)]
    return [name for name in dict.fromkeys(map(os.fsdecode, places)) if _has_markers(checkout, f"{revision}:{name}")]


def _has_markers(checkout: Path, file: str) -> bool:
    lines = run(["cat-file", "blob", file], checkout, check=False).out.split(b"\n")
    # A line of `=======` alone is a heading in many texts.
    return all(any(line.startswith(mark) for line in lines) for mark in (b"<<<<<<< ", b">>>>>>> "))


def _heads(worktree: Path, into: str) -> tuple[str, str, str]:
    branch = run(["symbolic-ref", "--short", "HEAD"], worktree).line
    own, theirs = branch_head(worktree, branch), branch_head(worktree, into)
    if own is None or theirs is None:
        raise RalphError(f"branch {branch if own is None else into!r} is gone", "restore it, then resume the loop")
    return branch, own, theirs


def _folder(worktree: Path) -> Path:
    folder = git_dir(worktree)
    if folder is None:
        raise RalphError(f"{worktree} is not an intact worktree", "resume the loop, which makes a new one")
    return folder


def _move(worktree: Path, commit: str) -> None:
    args = ["reset", "--quiet", "--hard", commit]
    before = pointers(worktree, "HEAD") if (worktree / ".gitmodules").is_file() else {}
    with kept(worktree):
        run_past_locks(args, worktree, common_dir(worktree), CHECKOUT_TIMEOUT_S, marked(worktree))
    if before:
        now = pointers(worktree, "HEAD")
        # The submodule itself is where it was: that is no work of the ticket's, and nobody's to commit.
        note_again(worktree, [path for path, commit in before.items() if now.get(path, commit) != commit])
