"""What `git status` says of a checkout, as values. Used before committing, merging and removing; it only looks."""

import os
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.git.calls import STATUS_TIMEOUT_S, run

COPIED = "ralph-copied"
"""In a worktree's git_dir: the names of the files that `--worktree-copy` brought, each ended by NUL."""

REPOSITORY_MODE = "160000"
"""The mode of an entry that is another repository's commit: a submodule, or a clone that somebody added."""


@dataclass(frozen=True)
class Entry:
    """A path that differs from HEAD: `x` is the state of the index, `y` of the file, as `git status` writes
    them.

    `?` for both is untracked, `u` unmerged. `indexed` is the object in the index, "" if there is none.
    """

    path: str
    x: str
    y: str
    indexed: str = ""
    mode: str = ""
    nested: str = ""
    """Of a submodule: `C` if it has another commit, `M` changed and `U` untracked files in it."""

    @property
    def is_untracked(self) -> bool:
        return self.x == "?"

    @property
    def is_unmerged(self) -> bool:
        return self.x == "u"

    def is_work(self, folder: Path) -> bool:
        """Whether it is work, and not what we put there; `folder` is the git_dir of the worktree."""
        return not is_ours(self.path) and not (self.is_untracked and self.path in copied_files(folder))


@dataclass(frozen=True)
class Status:
    """A checkout: its branch (None: on no branch), its commit, and all that differs from it."""

    branch: str | None
    commit: str
    entries: tuple[Entry, ...]


def status_of(checkout: Path, untracked: str = "all") -> Status:
    """The status of all files that are not ignored, in spite of what the user's settings hide."""
    how = ["--porcelain=v2", "--branch", "-z", f"--untracked-files={untracked}", "--no-renames"]
    fields = iter(run(["status", *how, "--ignore-submodules=none"], checkout, STATUS_TIMEOUT_S).fields)
    branch, commit, entries = None, "", []
    for field in fields:
        kind, _, rest = field.partition(" ")
        if kind == "#":
            key, _, value = rest.partition(" ")
            if key == "branch.head":
                branch = None if value == "(detached)" else value
            elif key == "branch.oid":
                commit = value
        elif kind == "?":
            entries.append(Entry(rest, "?", "?"))
        elif kind == "1":
            states, nested, _, mode, _, _, indexed, path = rest.split(" ", 7)
            inside = nested[1:].replace(".", "") if nested.startswith("S") else ""
            entries.append(Entry(path, states[0], states[1], indexed.strip("0") and indexed, mode, inside))
        elif kind == "u":
            entries.append(Entry(rest.split(" ", 9)[9], "u", "u"))
    return Status(branch, commit, tuple(entries))


def is_ours(path: str) -> bool:
    """Whether it lies in a `.ralph` folder: such things are never committed."""
    return ".ralph" in path.split("/")


def copied_files(folder: Path) -> frozenset[str]:
    """The names that `copy_into` noted in the git_dir of a worktree."""
    try:
        noted = (folder / COPIED).read_bytes()
    except OSError:
        return frozenset()
    return frozenset(os.fsdecode(name) for name in noted.split(b"\0")[:-1])
