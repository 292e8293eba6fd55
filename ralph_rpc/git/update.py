"""The target's new commits brought into a ticket's branch, inside of the ticket's own worktree.

Called by the runner when others have been merged meanwhile, so that the merged tree can be verified where the
ticket is set up. The merge is computed aside; with a conflict nothing has been touched. Before the worktree
is changed, its git_dir gets a note of the merge commit: a machine that dies in between leaves a worktree of
which nobody could say what is work and what is half a merge, and with the note the next `finish_interrupted`
makes it whole.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import RalphError
from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, run
from ralph_rpc.git.repository import branch_head, common_dir, git_dir, is_ancestor, marked, run_past_locks
from ralph_rpc.git.status import REPOSITORY_MODE
from ralph_rpc.text import inert

UPDATING = "ralph-updating"
MARKED = b": leftover conflict marker"


@dataclass(frozen=True)
class Conflict:
    """What the agent has to resolve: the files, and git's words about them (many lines, inert)."""

    files: tuple[str, ...]
    text: str


def update_from_target(worktree: Path, into: str) -> str | Conflict:
    """Merge the head of `into` into the worktree's branch; the branch's new head, or the conflict.

    `commit_leftovers` goes before: what has been changed in tracked files since then (by a verification) is
    dropped.
    """
    finish_interrupted(worktree)
    branch, own, theirs = _heads(worktree, into)
    merged = merge_trees(worktree, own, theirs)
    if isinstance(merged, Conflict):
        return merged
    # A branch without commits of its own needs no merge commit: it is where the target is.
    commit = theirs if is_ancestor(worktree, own, theirs) else own if is_ancestor(worktree, theirs, own) else None
    if commit is None:
        words = f"Merge {into} into {branch}\n".encode(errors="replace")
        made = run(["commit-tree", merged, "-p", own, "-p", theirs, "-F", "-"], worktree, stdin=words)
        commit = made.line
    folder = _folder(worktree)
    note = folder / UPDATING
    partial = folder / f"{UPDATING}.new"
    partial.write_text(f"{branch}\n{own}\n{commit}\n")
    partial.replace(note)
    _move(worktree, commit)
    note.unlink()
    return commit


def finish_interrupted(worktree: Path) -> None:
    """Complete the update in which this machine, git or we died, if there is one."""
    note = _folder(worktree) / UPDATING
    try:
        branch, own, commit, *_ = note.read_text().split("\n")
    except FileNotFoundError:
        return
    now = run(["symbolic-ref", "--quiet", "--short", "HEAD"], worktree, check=False).line
    # Otherwise somebody has been at work here since.
    if now == branch and branch_head(worktree, branch) in (own, commit):
        _move(worktree, commit)
    note.unlink()


def merge_trees(project: Path, ours: str, theirs: str) -> str | Conflict:
    """The tree of both, computed without touching a checkout."""
    args = ["merge-tree", "--write-tree", "--name-only", "-z", "--messages", ours, theirs]
    done = run(args, project, CHECKOUT_TIMEOUT_S, check=False)
    if done.code not in (0, 1):
        raise GitError("merge-tree --write-tree", done.code, done.last_error)
    tree, *fields = done.fields
    if done.code == 0:
        return tree
    end = fields.index("") if "" in fields else len(fields)
    files = tuple(dict.fromkeys(fields[:end]))
    return Conflict(files, inert("\n".join(_messages(fields[end + 1 :]))))


def _messages(fields: list[str]) -> list[str]:
    """git's words, from groups of: number of paths, the paths, kind, words."""
    words = []
    while fields and fields[0].isdecimal():
        after = 1 + int(fields[0])
        if any(kind in fields[after] for kind in ("CONFLICT", "conflict")):
            words.append(fields[after + 1].strip())
        fields = fields[after + 2 :]
    return words


def unfit(project: Path, target: str, head: str) -> Conflict | None:
    """What a branch must not bring to its target: another repository's commit, or markers of a conflict.

    Markers are looked for only if the branch has merged something: a test or a text may well be about them.
    """
    between = f"{target}...{head}"
    raw = run(
        ["diff", "--raw", "-z", "--no-renames", "--ignore-submodules=none", between],
        project,
        CHECKOUT_TIMEOUT_S,
    )
    entries = zip(raw.fields[::2], raw.fields[1::2], strict=True)
    if nested := [path for entry, path in entries if entry.split(" ")[1] == REPOSITORY_MODE]:
        return _to_resolve(nested, "is a git repository of its own, whose files would not be merged")
    if not run(["rev-list", "--merges", "--max-count=1", f"{target}..{head}"], project).out:
        return None
    files = files_with_markers(project, head, [between])
    return _to_resolve(files, "was committed with conflict markers in it") if files else None


def _to_resolve(files: list[str], what: str) -> Conflict:
    return Conflict(tuple(files), inert("\n".join(f"{file} {what}" for file in files)))


def files_with_markers(checkout: Path, revision: str, difference: Sequence[str]) -> list[str]:
    """The files to which `git diff DIFFERENCE` adds a conflict, as in the revision ("" is the index)."""
    quiet = ["core.quotePath=false"]
    found = run(["diff", "--check", *difference], checkout, CHECKOUT_TIMEOUT_S, check=False, settings=quiet)
    if found.code not in (0, 2):  # 2: there is something
        raise GitError("diff --check", found.code, found.last_error)
    places = [line.rsplit(b":", 2)[0] for line in found.out.split(b"\n") if line.endswith(MARKED)]
    return [
        name
        for name in dict.fromkeys(map(os.fsdecode, places))
        if _has_markers(checkout, f"{revision}:{name}")
    ]


def _has_markers(checkout: Path, file: str) -> bool:
    lines = run(["cat-file", "blob", file], checkout, check=False).out.split(b"\n")
    # A line of `=======` alone is a heading in many a text.
    return all(any(line.startswith(mark) for line in lines) for mark in (b"<<<<<<< ", b">>>>>>> "))


def _heads(worktree: Path, into: str) -> tuple[str, str, str]:
    branch = run(["symbolic-ref", "--short", "HEAD"], worktree).line
    own, theirs = branch_head(worktree, branch), branch_head(worktree, into)
    if own is None or theirs is None:
        raise RalphError(
            f"branch {branch if own is None else into!r} is gone", "restore it, then resume the loop"
        )
    return branch, own, theirs


def _folder(worktree: Path) -> Path:
    folder = git_dir(worktree)
    if folder is None:
        raise RalphError(f"{worktree} is no intact worktree", "resume the loop, which makes it again")
    return folder


def _move(worktree: Path, commit: str) -> None:
    args = ["reset", "--quiet", "--hard", commit]
    run_past_locks(args, worktree, common_dir(worktree), CHECKOUT_TIMEOUT_S, marked(worktree))
