"""Permissions: prompts and answers are private, and whoever can write to an inbox can run code as you."""

import os
import shlex
import stat
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops.hold import is_busy, kept_still
from ralph_rpc.machine import nofollow


def registry_folder(_: Place) -> Findings:
    folder = registry_dir()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        can = "is" if there == folder else "can be made and is"
        yield Finding("registry", "ok", f"{folder} {can} writable")
    else:
        yield Finding("registry", "fail", f"{there} cannot be written", "make it writable for you, or set RALPH_HOME")


def permissions(place: Place) -> Findings:
    """Folders are 0700, files 0600; those of a living loop are only reported, as it is using them."""
    ralph = place.project / ".ralph"
    places: list[tuple[Path, LoopPaths | None]] = [
        *((path, None) for path in (ralph, ralph / ".archive", registry_dir())),
        *((path, loop) for loop in place.loops for path in _private(loop)),
    ]
    wrong = [(path, loop) for path, loop in places if _wrong_mode(path) is not None]
    for path, loop in wrong:
        mode = stat.S_IMODE(nofollow.lstat(path).st_mode)
        what = "open to others" if mode & 0o077 else "closed to yourself"
        hint = f"chmod {_wrong_mode(path):o} {shlex.quote(str(path))}"
        text = f"{path} is {what} (mode {mode:04o})"
        if loop is not None and is_busy(loop):
            yield Finding("permissions", "fail", text, hint)
        else:
            repair = partial(_set_mode, path, loop, text)
            yield Finding("permissions", "fail", text, f"{hint}, or doctor --fix", repair)
    if nofollow.is_folder(ralph) and not wrong:
        yield Finding("permissions", "ok", f"only you can read {ralph}")


def _private(loop: LoopPaths) -> list[Path]:
    """What `start` and the runner create. task.md belongs to the user."""
    folders = [loop.dir, loop.inbox, loop.rejected, loop.iterations, loop.sessions]
    files = [loop.config, loop.state, loop.pid, loop.commands, loop.runner_lock, loop.tree_lock]
    logs = (path for path in nofollow.entries(loop.dir) if path.name.startswith(("events.jsonl", "runner.log")))
    return [*folders, *files, *logs]


def _wrong_mode(path: Path) -> int | None:
    """The mode that it should have; None where it has that mode, is missing, or is not one of our files."""
    try:
        status = nofollow.lstat(path)
    except OSError:
        return None
    if status.st_uid != os.geteuid():
        return None
    if stat.S_ISDIR(status.st_mode):
        right = 0o700
    elif stat.S_ISREG(status.st_mode):
        right = 0o600
    else:
        return None
    return None if status.st_mode & (0o077 | right) == right else right


def _set_mode(path: Path, loop: LoopPaths | None, text: str) -> str:
    with kept_still(loop) if loop is not None else nullcontext():
        right = _wrong_mode(path)
        if right is not None:
            nofollow.set_mode(path, right)
    return f"{text}: fixed"
