"""The untracked files that `--worktree-copy` names, brought into a ticket's worktree.

A fresh worktree has only what git tracks; settings, keys and installed packages are missing in it. What was
copied is noted beside the worktree's index, so that it is neither committed with the ticket's work nor taken
for a reason to keep the worktree. Called by the runner before `--worktree-setup`; done again, it copies what
is still missing, and a machine that dies in between leaves no half of a file.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ralph_rpc.git.calls import STATUS_TIMEOUT_S, run, toplevel
from ralph_rpc.git.repository import git_dir
from ralph_rpc.git.status import COPIED, copied_files, is_ours
from ralph_rpc.text import inert


def copy_into(worktree: Path, project: Path, patterns: list[str]) -> list[str]:
    """Copy what the patterns (globs, or folders, relative to the project) name; what there is to say, a line
    each.

    Nothing that is in the worktree already is overwritten, nothing from outside of the project is copied, and
    links are copied as links. Said is: what matches nothing, what is no file, and what git does not ignore,
    as an agent that commits everything would commit it, too.
    """
    top = toplevel(project)
    folder = git_dir(worktree)
    if top is None or folder is None:
        return [f"{worktree} is no worktree of this project"]
    inside = project.resolve().relative_to(top.resolve())
    said: list[str] = []
    names: list[str] = []
    for pattern in patterns:
        found, problem = _matching(project, pattern)
        names += found
        said += [problem] if problem else []
    missing = [name for name in dict.fromkeys(names) if not os.path.lexists(worktree / inside / name)]
    noted = copied_files(folder) | {str(inside / name) for name in missing}
    _note(folder, noted)  # before they are there, as they must never count as the agent's
    for name in missing:
        if problem := _copy(project / name, worktree, inside / name):
            said.append(f"{inert(name, keep_newlines=False)} is not copied: {problem}")
            noted -= {str(inside / name)}
    _note(folder, noted)
    return said + [
        f"{inert(name, keep_newlines=False)} is not ignored by git: an agent might commit it"
        for name in _not_ignored(worktree, noted)
    ]


def _matching(project: Path, pattern: str) -> tuple[list[str], str]:
    """The untracked files below the project that the pattern names, and what is wrong with it."""
    shown = inert(pattern, keep_newlines=False)
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        return [], f"{shown} is not copied: it may lead out of the project"
    args = ["ls-files", "--cached", "--others", "-t", "-z", "--", f":(glob){pattern}"]
    done = run(args, project, STATUS_TIMEOUT_S, check=False)
    if done.code != 0:
        return [], f"{shown} is not copied: {inert(done.last_error, keep_newlines=False)}"
    if not done.fields:
        return [], f"{shown} matches nothing"
    names = [field[2:] for field in done.fields if field.startswith("? ")]
    return [name for name in names if not is_ours(name)], ""


def _copy(source: Path, worktree: Path, name: Path) -> str:
    """Copy one file; why it cannot be, or ""."""
    if not source.is_symlink() and not source.is_file():
        return "it is no file"
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
