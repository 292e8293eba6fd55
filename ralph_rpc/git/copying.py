"""The untracked files that `--worktree-copy` names, or the project's `.worktreeinclude`, brought into a ticket's worktree.

A fresh worktree has only what git tracks; settings, keys and installed packages are missing in it. Copied files are
noted beside the worktree's index, so that they are neither committed with the ticket's work nor taken as a reason to
keep the worktree. Called by the runner before `--worktree-setup`; done again, it copies what is still missing, and a
machine that dies in between leaves no half-written file.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ralph_rpc.git.calls import STATUS_TIMEOUT_S, run, toplevel
from ralph_rpc.git.repository import git_dir
from ralph_rpc.git.status import COPIED, copied_files, is_ours

INCLUDE = ".worktreeinclude"


def copy_into(worktree: Path, project: Path, patterns: list[str]) -> list[str]:
    """Copy what the patterns (globs, or folders, relative to the project) name; without any, what `.worktreeinclude` names.

    Nothing that is in the worktree already is overwritten, nothing from outside the project is copied, and links are
    copied as links. Returns a text for each pattern that matches nothing, for each thing that is not a file, and for
    each file that git does not ignore, because an agent that commits everything would commit it as well.
    """
    top = toplevel(project)
    folder = git_dir(worktree)
    if top is None or folder is None:
        return [f"{worktree} is not a worktree of this project"]
    top = top.resolve()
    inside = project.resolve().relative_to(top)
    said: list[str] = []
    names: list[str] = [] if patterns else _included(project, top)
    for pattern in patterns:
        found, problem = _matching(project, pattern)
        names += [str(inside / name) for name in found]
        said += [problem] if problem else []
    missing = [name for name in dict.fromkeys(names) if not os.path.lexists(worktree / name)]
    noted = copied_files(folder) | set(missing)
    _note(folder, noted)  # before they are there, because they must never count as the agent's
    for name in missing:
        if problem := _copy(top / name, worktree, Path(name)):
            said.append(f"{name} is not copied: {problem}")
            noted -= {name}
    _note(folder, noted)
    return said + [f"{name} is not ignored by git: an agent might commit it" for name in _not_ignored(worktree, noted)]


def _included(project: Path, top: Path) -> list[str]:
    """What `.worktreeinclude` names, in the syntax of .gitignore, and git ignores: files from the root of the repository.

    Other tools read the same file; it lies in the project, or at the root.
    """
    here = next((place for place in (project.resolve(), top) if (place / INCLUDE).is_file()), None)
    if here is None or (here / INCLUDE).is_symlink():
        return []
    args = ["ls-files", "--others", "--ignored", f"--exclude-from={INCLUDE}", "-z"]
    done = run(args, here, STATUS_TIMEOUT_S, check=False)
    names = [str(here.relative_to(top) / name) for name in (done.fields if done.code == 0 else [])]
    left = set(_not_ignored(top, frozenset(names)))
    return [name for name in names if name not in left and not is_ours(name)]


def _matching(project: Path, pattern: str) -> tuple[list[str], str]:
    """The untracked files below the project that the pattern names, and what is wrong with it."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        return [], f"{pattern} is not copied: it may lead outside the project"
    args = ["ls-files", "--cached", "--others", "-t", "-z", "--", f":(glob){pattern}"]
    done = run(args, project, STATUS_TIMEOUT_S, check=False)
    if done.code != 0:
        return [], f"{pattern} is not copied: {done.last_error}"
    if not done.fields:
        return [], f"{pattern} matches nothing"
    names = [field[2:] for field in done.fields if field.startswith("? ")]
    return [name for name in names if not is_ours(name)], ""


def _copy(source: Path, worktree: Path, name: Path) -> str:
    """Copy one file; why it cannot be, or ""."""
    if not source.is_symlink() and not source.is_file():
        return "it is not a file"
    target = worktree / name
    # Tracked links to folders lead anywhere.
    if not target.parent.resolve().is_relative_to(worktree.resolve()):
        return "its folder in the worktree is a link to another place"
    draft = worktree.parent / f".{worktree.name}.copy"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        shutil.copy2(source, draft, follow_symlinks=False)
        draft.rename(target)
    except OSError as error:
        return error.strerror or "it cannot be read"
    return ""


def _note(folder: Path, names: Iterable[str]) -> None:
    draft = folder / f"{COPIED}.new"
    draft.write_bytes(b"".join(os.fsencode(name) + b"\0" for name in sorted(names)))
    draft.replace(folder / COPIED)


def _not_ignored(worktree: Path, names: frozenset[str]) -> list[str]:
    if not names:
        return []
    given = b"".join(os.fsencode(name) + b"\0" for name in sorted(names))
    ignored = set(run(["check-ignore", "-z", "--stdin"], worktree, check=False, stdin=given).fields)
    return sorted(names - ignored)
