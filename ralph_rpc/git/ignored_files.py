"""Files that git ignores: those that were in a checkout before a ticket's work began, and those that it made.

What git ignores is not merged and goes with the worktree, although verify has seen it; so do the things of `unkept.py`,
which are counted with them. Caches, which nothing needs, are left out. Called by the runner; it only looks, and looks
into no folder of more than MOST_FILES.
"""

import os
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from ralph_rpc.git.calls import STATUS_TIMEOUT_S, run
from ralph_rpc.git.repository import git_dir
from ralph_rpc.git.status import copied_files, is_ours
from ralph_rpc.git.unkept import empty_folders, unseen_changes

MOST_FILES = 20_000

_CACHES = frozenset(
    {
        *("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".cache", ".eslintcache"),
        *(".DS_Store", "Thumbs.db", ".coverage", ".tsbuildinfo", ".turbo", ".parcel-cache", ".nyc_output", ".idea"),
    }
)
_CACHE_ENDS = (".pyc", ".pyo", ".swp", ".swo", "~", ".tsbuildinfo")

INSTALLED = frozenset(
    {
        *("node_modules", ".venv", "venv", ".tox", ".nox", ".gradle", ".m2", ".yarn", ".pnpm-store", ".bundle"),
        *(".direnv", ".cargo", "bower_components", "jspm_packages", "Pods", ".eggs", ".terraform", ".stack-work"),
    }
)
"""Folders that a package manager fills: no ticket's work, but verify may need them."""

_OUTPUTS = frozenset(
    {
        *("build", "dist", "out", "target", "bin", "obj", "coverage", "htmlcov", ".next", ".nuxt", ".output"),
        *(".svelte-kit", "logs", "log", "tmp", "temp", "test-results", "playwright-report", "_build"),
    }
)
_OUTPUT_ENDS = (".log", ".tmp", ".o", ".obj", ".class", ".so", ".a", ".exe", ".egg-info", ".out", ".pid", ".map")
"""What a build usually makes, and makes again."""


class Made(NamedTuple):
    """What was not there before, and does not come along with a commit."""

    own: tuple[str, ...]
    """Nobody knows whether they can be made again."""
    outputs: tuple[str, ...]
    """They look as if a build made them."""
    unseen: tuple[str, ...] = ()
    """Changes of which git says nothing."""
    empty: tuple[str, ...] = ()
    """Folders without a file."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Files that git ignores."""
        return (*self.own, *self.outputs)

    @property
    def other(self) -> tuple[str, ...]:
        """All else, as a message names it."""
        return (*self.unseen, *(f"{name} (an empty folder)" for name in self.empty))


def ignored_files(checkout: Path) -> list[str]:
    """What git ignores there, except caches and installed packages; sorted."""
    asked = ["ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"]
    return sorted(set(_files(checkout, run(asked, checkout, STATUS_TIMEOUT_S).fields)))


def left_behind(checkout: Path) -> list[str]:
    """All that there is and that no commit takes along, as `made_since` compares it."""
    return [*ignored_files(checkout), *unseen_changes(checkout), *empty_folders(checkout)]


def made_since(checkout: Path, before: AbstractSet[str]) -> Made:
    """What is ignored there now and was not `before`, nor brought by `--worktree-copy`."""
    folder = git_dir(checkout)
    copied = copied_files(folder) if folder is not None else frozenset()
    new = [path for path in ignored_files(checkout) if path not in before and path not in copied]
    outputs = tuple(path for path in new if _is_output(path))
    unseen = tuple(line for line in unseen_changes(checkout) if line not in before)
    empty = tuple(name for name in empty_folders(checkout) if name not in before and not _is_left_out(name))
    return Made(tuple(path for path in new if path not in set(outputs)), outputs, unseen, empty)


def _files(checkout: Path, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if is_ours(name) or _is_left_out(name):
            continue
        if name.endswith("/"):
            yield from _below(checkout, name)
        else:
            yield name


def _below(checkout: Path, folder: str) -> Iterator[str]:
    seen = 0
    top = os.fspath(checkout)
    for here, folders, files in os.walk(f"{top}/{folder}"):
        inside = os.path.relpath(here, top)
        folders[:] = sorted(name for name in folders if not _is_left_out(name) and name not in (".git", ".ralph"))
        links = [name for name in folders if os.path.islink(f"{here}/{name}")]  # noqa: PTH114 - a path is slower
        for name in (*files, *links):
            seen += 1
            if seen > MOST_FILES:
                return
            if not _is_left_out(name):
                yield f"{inside}/{name}"


def _is_left_out(path: str) -> bool:
    parts = path.rstrip("/").split("/")
    return not (_CACHES | INSTALLED).isdisjoint(parts) or parts[-1].endswith(_CACHE_ENDS)


def _is_output(path: str) -> bool:
    parts = path.split("/")
    return not _OUTPUTS.isdisjoint(parts[:-1]) or any(part.endswith(_OUTPUT_ENDS) for part in parts)
