"""Merges of trees, computed outside of any checkout: what comes out is an object, and nothing changes by it.

Used by `update` and `merge` before they move anything. Files of the tickets (`by_line`: the folder that holds them) are merged
line by line where git sees a conflict, as a note that is added to a ticket must never be in the way of its work.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, run
from ralph_rpc.git.line_merge import merged

_PLAIN = ("100644", "100755")


@dataclass(frozen=True)
class Conflict:
    """What the agent has to resolve: the files, and git's words about them (many lines)."""

    files: tuple[str, ...]
    text: str


def merge_trees(
    project: Path, ours: str, theirs: str, by_line: str = "", target: Literal["ours", "theirs"] = "ours"
) -> str | Conflict:
    """The merged tree of two commits, of which one is the `target`'s; a ticket that is gone from there stays gone."""
    args = ["merge-tree", "--write-tree", "--name-only", "-z", "--messages", ours, theirs]
    done = run(args, project, CHECKOUT_TIMEOUT_S, check=False)
    if done.code not in (0, 1):
        raise GitError("merge-tree --write-tree", done.code, done.last_error)
    tree, *fields = done.fields
    if done.code == 0:
        return tree
    end = fields.index("") if "" in fields else len(fields)
    files = tuple(dict.fromkeys(fields[:end]))
    where = (ours, theirs) if target == "ours" else (theirs, ours)
    gone = {file: ("0", "0" * len(tree)) for file in files if _is_gone(project, *where, file, by_line)}
    lines = gone | {
        file: made for file in files if (made := _by_line(project, ours, theirs, file, by_line)) is not None
    }
    left = tuple(file for file in files if file not in lines)
    return Conflict(left, "\n".join(_messages(fields[end + 1 :]))) if left else _with(project, tree, lines)


def merge_on(project: Path, base: str, ours: str, theirs: str, by_line: str = "") -> str | Conflict:
    """The merged tree of two revisions as if they had grown from `base`, whatever their history says."""
    root = _commit(project, base)
    return merge_trees(project, _commit(project, ours, root), _commit(project, theirs, root), by_line)


def is_by_line(path: str, by_line: str) -> bool:
    """Whether a file is one of the tickets."""
    return bool(by_line) and path.startswith(f"{by_line}/") and path.endswith(".md")


def _commit(project: Path, revision: str, parent: str | None = None) -> str:
    parents = [] if parent is None else ["-p", parent]
    return run(["commit-tree", f"{revision}^{{tree}}", *parents, "-m", "for a merge"], project).line


def _is_gone(project: Path, target: str, branch: str, file: str, by_line: str) -> bool:
    """Whether somebody has removed a ticket from the target whose status or notes the branch has changed."""
    if not is_by_line(file, by_line) or _entry(project, target, file) is not None:
        return False
    entry = _entry(project, branch, file)
    return entry is not None and entry[0] in _PLAIN


def _by_line(project: Path, ours: str, theirs: str, file: str, by_line: str) -> tuple[str, str] | None:
    """Mode and object of a file that both sides have changed and that may be merged by lines."""
    if not is_by_line(file, by_line):
        return None
    entries = [_entry(project, commit, file) for commit in (ours, theirs)]
    if any(entry is None or entry[0] not in _PLAIN for entry in entries):
        return None
    base = run(["merge-base", ours, theirs], project, CHECKOUT_TIMEOUT_S, check=False).line
    texts = [blob(project, f"{commit}:{file}") for commit in (base, ours, theirs)]
    made = run(["hash-object", "-w", "--stdin"], project, stdin=merged(*texts))
    return entries[0][0] if entries[0] else _PLAIN[0], made.line


def _entry(project: Path, commit: str, file: str) -> tuple[str, str] | None:
    found = run(["ls-tree", "-z", "--full-tree", commit, "--", file], project, env_extra=_LITERAL).fields
    if not found:
        return None
    mode, _, object = found[0].partition("\t")[0].split(" ")
    return mode, object


def blob(project: Path, name: str) -> bytes:
    """The content of a file of a commit; nothing where there is none."""
    found = run(["cat-file", "blob", name], project, check=False)
    return found.out if found.code == 0 else b""


_LITERAL = {"GIT_LITERAL_PATHSPECS": "1"}


def _with(project: Path, tree: str, files: dict[str, tuple[str, str]]) -> str:
    """The tree with these files in it, or without those of mode 0."""
    with tempfile.TemporaryDirectory(prefix="ralph-merge-") as folder:
        env = {"GIT_INDEX_FILE": f"{folder}/index"}
        run(["read-tree", tree], project, CHECKOUT_TIMEOUT_S, env)
        lines = [f"{mode} {object}\t{file}" for file, (mode, object) in files.items()]
        given = b"".join(os.fsencode(line) + b"\0" for line in lines)
        run(["update-index", "-z", "--index-info"], project, CHECKOUT_TIMEOUT_S, env, stdin=given)
        return run(["write-tree"], project, CHECKOUT_TIMEOUT_S, env).line


def _messages(fields: list[str]) -> list[str]:
    """git's words, from groups of: number of paths, the paths, kind, words."""
    words = []
    while fields and fields[0].isdecimal():
        after = 1 + int(fields[0])
        if any(kind in fields[after] for kind in ("CONFLICT", "conflict")):
            words.append(fields[after + 1].strip())
        fields = fields[after + 2 :]
    return words
