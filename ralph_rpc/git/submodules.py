"""Submodules in the worktree of a ticket: their commits are not merged with the ticket's, only what points to them.

A pointer may move only to a commit that others can get: one that the submodule's remote has, as far as the last fetch or
push has told, or the module that all checkouts of this repository share. Whatever a submodule of a worktree holds beyond
that would go with it. It only looks, and asks no network.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ralph_rpc.git.calls import STATUS_TIMEOUT_S, run
from ralph_rpc.git.repository import common_dir
from ralph_rpc.git.status import REPOSITORY_MODE

MOST_COMMITS = 50


def declared(checkout: Path, revision: str) -> dict[str, str]:
    """The names of the submodules that `.gitmodules` of a revision declares, by path; "" is the index."""
    asked = ["config", "-z", f"--blob={revision}:.gitmodules", "--get-regexp", r"^submodule\..*\.path$"]
    found = run(asked, checkout, check=False)
    pairs = (entry.partition("\n") for entry in (found.fields if found.code == 0 else []))
    return {path: key.removeprefix("submodule.").removesuffix(".path") for key, _, path in pairs}


def pointers(checkout: Path, revision: str) -> dict[str, str]:
    """The commits that a revision's submodules point to, by path."""
    listed = run(["ls-tree", "-r", "-z", "--full-tree", revision], checkout, STATUS_TIMEOUT_S).fields
    entries = (entry.partition("\t") for entry in listed if entry.startswith(f"{REPOSITORY_MODE} "))
    return {path: about.split(" ")[2] for about, _, path in entries}


def unreachable(worktree: Path, pointing: Iterable[tuple[str, str, str]]) -> list[str]:
    """Why nobody could get these commits: a line for each (path, name, commit) that only this worktree has."""
    return [
        f"submodule {path} points to {commit[:12]}, which neither its remote nor this repository's own module has: push "
        "it there, or set it back"
        for path, name, commit in pointing
        if not _is_shared(worktree, path, name, commit)
    ]


def unsaved(worktree: Path, folder: Path) -> str | None:
    """What the submodules of a worktree, whose git_dir is `folder`, hold that would go with it; None if nothing."""
    for module in _modules(folder / "modules"):
        name = str(module.relative_to(folder / "modules"))
        shared = common_dir(worktree) / "modules" / name
        asked = ["rev-list", f"--max-count={MOST_COMMITS}", "--all", "HEAD", "--not", "--remotes"]
        listed = run([f"--git-dir={module}", *asked], worktree, STATUS_TIMEOUT_S, check=False)
        if listed.code != 0:
            return f"it has a submodule that cannot be judged: {name}"
        lost = [commit for commit in listed.out.decode().split() if not _has(worktree, shared, commit)]
        if lost:
            return f"its submodule {name} has {len(lost)} commit{'s'[: len(lost) != 1]} that would go with it"
    return None


def _is_shared(worktree: Path, path: str, name: str, commit: str) -> bool:
    if _has(worktree, common_dir(worktree) / "modules" / name, commit):
        return True
    if not os.path.lexists(worktree / path / ".git"):
        return False
    found = run(["branch", "--remotes", "--contains", commit], worktree / path, check=False)
    return found.code == 0 and bool(found.out.strip())


def _has(worktree: Path, module: Path, commit: str) -> bool:
    if not (module / "HEAD").is_file():
        return False
    return run([f"--git-dir={module}", "cat-file", "-e", f"{commit}^{{commit}}"], worktree, check=False).code == 0


def _modules(folder: Path) -> Iterator[Path]:
    """The repositories below; names of submodules may have slashes, and each may have modules of its own."""
    for here, folders, files in os.walk(folder):
        if "HEAD" in files and "objects" in folders:
            yield Path(here)
            folders[:] = [name for name in folders if name == "modules"]
