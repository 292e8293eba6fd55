"""Which loop a name means: the one of this project, else one that the registry knows.

Only reads loop folders and the registry, and never asks: where several loops have the name, the error carries
them. Called by every command, so it imports nothing heavy.
"""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ralph_rpc.errors import NoSuchLoop, UsageError
from ralph_rpc.files import registry
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.machine import nofollow, upward

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("config.toml", "registry")
"""Other things that live in a folder called .ralph."""


class AmbiguousName(NoSuchLoop):
    """Several projects have a loop of that name; `candidates` are those loops, in the order of their folders."""

    def __init__(self, name: str, candidates: Sequence[LoopPaths]) -> None:
        listed = ", ".join(str(paths.project) for paths in candidates)
        super().__init__(f"several projects have a loop {name!r}: {listed}", "choose one with --project DIR")
        self.candidates: Sequence[LoopPaths] = candidates


class Elsewhere(NoSuchLoop):
    """Only other projects have a loop of that name; `candidates` are those, in the order of their folders."""

    def __init__(self, name: str, candidates: Sequence[LoopPaths]) -> None:
        first = candidates[0].project
        listed = ", ".join(str(paths.project) for paths in candidates)
        super().__init__(
            f"there is no loop {name!r} in this project, only in {listed}",
            f"if that one is meant, say so: --project {shlex.quote(str(first)) if len(candidates) == 1 else 'DIR'}",
        )
        self.candidates: Sequence[LoopPaths] = candidates


def valid_name(name: str) -> bool:
    """Whether a loop may have this name."""
    return _NAME.fullmatch(name) is not None and name.lower() not in _RESERVED


def check_name(name: str) -> None:
    """Raises UsageError unless a loop may have this name."""
    if not valid_name(name):
        rule = "is reserved" if name.lower() in _RESERVED else "is not a valid loop name"
        raise UsageError(
            f"{name!r} {rule}",
            "names are letters, digits, '.', '_' and '-', at most 64, and begin with a letter or digit",
        )


def exists(paths: LoopPaths) -> bool:
    """Whether a loop was ever started there; a folder that holds only a task is not a loop yet."""
    return nofollow.is_file(paths.config) or nofollow.is_file(paths.state)


def find_project(folder: Path) -> Path | None:
    """The folder itself or its nearest parent that holds loops, or at least a .ralph of its own; of this user's alone."""
    for project in upward.own_folders(folder):
        ralph = project / ".ralph"
        # ~/.ralph is there for the registry alone, which does not make the home a project.
        if upward.is_own(ralph) and (ralph != registry_dir().parent or loops_of(project)):
            return project
    return None


def project_of(folder: Path) -> Path:
    """The project that a loop started in `folder` belongs to: the nearest one above that has a .ralph, else `folder`.

    One project, one .ralph, as git does it with its own. Not meant are the registry's folder in the home, and a .ralph
    that another user has put there.
    """
    for project in upward.own_folders(folder):
        ralph = project / ".ralph"
        if upward.is_own(ralph) and ralph != registry_dir().parent:
            return project
    return folder


def loops_of(project: Path) -> list[LoopPaths]:
    """Every loop of one project, in the order of their names."""
    names = [entry.name for entry in nofollow.entries(project / ".ralph") if valid_name(entry.name)]
    return [paths for name in names if exists(paths := LoopPaths.of(project, name))]


def refuse_unsafe(paths: LoopPaths) -> None:
    """Raises UsageError where the loop's folder is a link or another user's."""
    try:
        os.close(nofollow.open_fd(paths.dir, os.O_RDONLY | os.O_DIRECTORY))
    except nofollow.Linked as error:
        raise UsageError(f"{paths.dir}: {error.strerror}", "remove the link, or choose another name") from None
    except nofollow.Foreign as error:
        raise UsageError(f"{paths.dir}: {error.strerror}", "run this as its owner, or choose another name") from None
    except OSError:
        return  # there is none, or what is wrong is said by those who need it


def find(name: str, project: Path | None = None) -> LoopPaths:
    """The loop called `name`: in `project` if given, else in the project around the working folder, else in the registry.

    Raises UsageError for what cannot be a name, NoSuchLoop where there is none, AmbiguousName where several other
    projects have one.
    """
    found = _find_here(name, project)
    if found is not None:
        return found
    others = _elsewhere(name)
    if len(others) > 1:
        raise AmbiguousName(name, others)
    return others[0]


def find_to_change(name: str, project: Path | None = None) -> LoopPaths:
    """The same for a command that changes something: the loops of other projects are not taken for this one's.

    Raises Elsewhere where only other projects have one, UsageError where this one is another user's.
    """
    found = _find_here(name, project)
    if found is not None:
        return found
    above = upward.passed_over(Path.cwd())
    if above is not None and project is None:
        raise UsageError(
            f"{above.path}: {above.why}, so no loop {name!r} is looked for there",
            "run this as its owner, or make it yours: chown -R",
        )
    raise Elsewhere(name, _elsewhere(name))


def _find_here(name: str, project: Path | None) -> LoopPaths | None:
    """The loop in `project`, or in the project around the working folder; None where the latter has none."""
    check_name(name)
    if project is not None:
        paths = LoopPaths.of(project.expanduser().resolve(), name)
        refuse_unsafe(paths)
        if not exists(paths):
            raise NoSuchLoop(f"there is no loop {name!r} in {paths.project}", _what_exists(paths.project))
        return paths
    here = find_project(Path.cwd())
    if here is not None:
        refuse_unsafe(LoopPaths.of(here, name))
        if exists(LoopPaths.of(here, name)):
            return LoopPaths.of(here, name)
    # An agent works in a worktree that lies elsewhere; its project is that of the loop which started it.
    own = os.environ.get("RALPH_LOOP_DIR")
    if own and exists(paths := LoopPaths(Path(own).with_name(name))):
        return paths
    return None


def is_here(paths: LoopPaths) -> bool:
    """Whether it is a loop of the project around the working folder."""
    return find_project(Path.cwd()) == paths.project


def on_command_line(paths: LoopPaths) -> str:
    """What a person types for this loop: its name, and its project where they stand in another one."""
    return paths.name if is_here(paths) else f"{paths.name} --project {shlex.quote(str(paths.project))}"


def _elsewhere(name: str) -> list[LoopPaths]:
    """Those of that name that the registry knows, at least one. Raises NoSuchLoop."""
    found = [paths for paths in registered() if paths.name == name and exists(paths)]
    if not found:
        if gone := [paths for paths in registered() if paths.name == name]:
            where = ", ".join(str(paths.dir) for paths in gone)
            raise NoSuchLoop(
                f"the folder of loop {name!r} is gone: it was {where}",
                "if the project was moved, name its folder now with --project; to forget the loop: ralph-rpc clean",
            )
        raise NoSuchLoop(f"there is no loop {name!r}", _what_exists(find_project(Path.cwd())))
    return found


def registered() -> list[LoopPaths]:
    """Loops that the registry knows, each once, in the order of their folders."""
    # A folder that is no `.ralph/<name>` was not written by us, and is not believed.
    found, _ = registry.entries()
    folders = {Path(one.entry["ralphDir"]): one.entry["name"] for one in found}
    return [
        LoopPaths(folder)
        for folder, name in sorted(folders.items())
        if folder.is_absolute() and folder.name == name and folder.parent.name == ".ralph" and valid_name(name)
    ]


def _what_exists(project: Path | None) -> str:
    names = [paths.name for paths in loops_of(project)] if project else []
    if names:
        return f"loops of {project}: {', '.join(names)}"
    others = [paths for paths in registered() if exists(paths)]
    if others:
        return f"running elsewhere: {', '.join(f'{paths.name} ({paths.project})' for paths in others[:5])}"
    return "start one with: ralph-rpc start NAME -m 'what to do'"
