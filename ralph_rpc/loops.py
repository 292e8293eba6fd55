"""Which loop a name means, and how that loop is doing.

Called by every command, so it imports nothing heavy. It only reads: loop folders, state.json, the registry
and whether the runner's lock is held. What a dead runner left in state.json is not believed: its loop is
`crashed`.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ralph_rpc import clock
from ralph_rpc.errors import NoSuchLoop, UsageError
from ralph_rpc.files import identity, locks, records, registry
from ralph_rpc.files.atomic import Unreadable, read_json_object
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.model.state import ENDED, State

if TYPE_CHECKING:
    import click

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("config.toml", "registry")
"""Other things that live in a folder called .ralph."""

Runner = Literal["alive", "stale", "dead"]


@dataclass(frozen=True)
class LoopStatus:
    """A loop as it really is, whatever its last runner wrote."""

    state: State | None
    """None: never written, or unreadable."""
    runner: Runner
    shown: str
    """The state's status, or `crashed` (not ended, but its runner is gone), or `stale` (its runner hangs)."""

    @property
    def ended(self) -> bool:
        """Nothing will happen any more by itself."""
        return self.shown in ENDED or self.shown == "crashed"


def valid_name(name: str) -> bool:
    """Whether a loop may have this name."""
    return _NAME.fullmatch(name) is not None and name.lower() not in _RESERVED


def check_name(name: str) -> None:
    """Raises UsageError unless a loop may have this name."""
    if not valid_name(name):
        rule = "is reserved" if name.lower() in _RESERVED else "is no name for a loop"
        raise UsageError(
            f"{name!r} {rule}",
            "names are letters, digits, '.', '_' and '-', at most 64, and begin with a letter or digit",
        )


def exists(paths: LoopPaths) -> bool:
    """Whether a loop was ever started there; a folder that holds only a task is none."""
    return paths.config.is_file() or paths.state.is_file()


def find_project(folder: Path) -> Path | None:
    """The folder itself or its nearest parent that holds loops, or at least a .ralph of its own."""
    for project in (folder, *folder.parents):
        ralph = project / ".ralph"
        # ~/.ralph is there for the registry alone, which does not make the home a project.
        if ralph.is_dir() and (ralph != registry_dir().parent or loops_of(project)):
            return project
    return None


def loops_of(project: Path) -> list[LoopPaths]:
    """Every loop of one project, in the order of their names."""
    try:
        names = sorted(entry.name for entry in (project / ".ralph").iterdir() if valid_name(entry.name))
    except OSError:
        return []
    return [paths for name in names if exists(paths := LoopPaths.of(project, name))]


def resolve_loop(name: str, project: Path | None) -> LoopPaths:
    """The loop called `name`: in `project` if given, else around here, else in the registry.

    Several projects with such a loop: a terminal is asked, otherwise NoSuchLoop lists them. Raises UsageError
    for what is no name.
    """
    check_name(name)
    if project is not None:
        paths = LoopPaths.of(project.expanduser().resolve(), name)
        if not exists(paths):
            raise NoSuchLoop(f"there is no loop {name!r} in {paths.project}", _what_exists(paths.project))
        return paths
    here = find_project(Path.cwd())
    if here is not None and exists(LoopPaths.of(here, name)):
        return LoopPaths.of(here, name)
    found = [paths for paths in _registered() if paths.name == name and exists(paths)]
    if not found:
        raise NoSuchLoop(f"there is no loop {name!r}", _what_exists(here))
    return found[0] if len(found) == 1 else _pick(name, found)


def loop_status(paths: LoopPaths) -> LoopStatus:
    """The status that a person should see, and whether the runner lives. Never raises for broken files."""
    # The lock first: a runner that ends in between has written its last state by the time that is read.
    held = locks.is_held(paths.runner_lock)
    try:
        state = records.read_state(paths)
    except Unreadable:
        state = None
    writer_lives = state is not None and identity.is_same(state["pid"], state["pidStartTime"], state["bootId"])
    if not held and not writer_lives:
        ended = state is not None and state["status"] in ENDED
        return LoopStatus(state, "dead", state["status"] if state and ended else "crashed")
    if state is None:
        return LoopStatus(None, "alive", "starting")
    if not writer_lives and state["status"] not in ENDED:
        # A crashed loop was resumed: its old state says nothing of the runner that has the lock now.
        return LoopStatus(state, "alive", "starting")
    if state["status"] in ENDED:
        return LoopStatus(state, "alive", state["status"])
    if _silent_ms(paths, state) > registry.STALE_AFTER_MS:
        return LoopStatus(state, "stale", "stale")
    return LoopStatus(state, "alive", state["status"])


def complete_names(ctx: "click.Context", param: "click.Parameter", incomplete: str) -> list[str]:
    """Loop names for the shell's completion: those of this project and of the registry."""
    here = find_project(Path.cwd())
    names = {paths.name for paths in [*(loops_of(here) if here else []), *_registered()]}
    return sorted(name for name in names if name.startswith(incomplete))


def _silent_ms(paths: LoopPaths, state: State) -> int:
    """How long the runner has not shown itself, by state.json and by its registry entry."""
    silent = [clock.silent_ms(state["updatedAt"], state.get("monotonicMs"))]
    try:
        entry: dict[str, Any] = read_json_object(registry.entry_path(paths.project, paths.name)) or {}
    except Unreadable:
        entry = {}
    if entry.get("pid") == state["pid"] and entry.get("ralphDir") == state["ralphDir"]:
        silent.append(clock.silent_ms(entry.get("lastSeen"), entry.get("monotonicMs")))
    return min(silent)


def _registered() -> list[LoopPaths]:
    """Loops that the registry knows, each once."""
    # A folder that is no `.ralph/<name>` was not written by us, and is not believed.
    found, _ = registry.entries()
    folders = {Path(one.entry["ralphDir"]): one.entry["name"] for one in found}
    return [
        LoopPaths(folder)
        for folder, name in sorted(folders.items())
        if folder.is_absolute()
        and folder.name == name
        and folder.parent.name == ".ralph"
        and valid_name(name)
    ]


def _what_exists(project: Path | None) -> str:
    names = [paths.name for paths in loops_of(project)] if project else []
    if names:
        return f"loops of {project}: {', '.join(names)}"
    others = _registered()
    if others:
        return f"running elsewhere: {', '.join(f'{paths.name} ({paths.project})' for paths in others[:5])}"
    return "start one with: ralph-rpc start NAME -m 'what to do'"


def _pick(name: str, found: list[LoopPaths]) -> LoopPaths:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        listed = ", ".join(str(paths.project) for paths in found)
        raise NoSuchLoop(f"several projects have a loop {name!r}: {listed}", "choose one with --project DIR")
    import click

    from ralph_rpc.text import inert

    click.echo(f"Several projects have a loop {name!r}:", err=True)
    for number, paths in enumerate(found, 1):
        click.echo(f"  {number}  {inert(str(paths.project), keep_newlines=False)}", err=True)
    choice: int = click.prompt("Which", type=click.IntRange(1, len(found)), err=True)
    return found[choice - 1]
