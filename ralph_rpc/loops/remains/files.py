"""Temporary folders and half-written files that dead runners left. Called by `clean` and `doctor`; changes nothing."""

import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from ralph_rpc.files import tempdir
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.status import read_state
from ralph_rpc.machine import nofollow
from ralph_rpc.machine.processes import processes

HALF_WRITTEN_S = 60.0
"""A file that does not have its name yet is left to its writer this long. Writing one takes milliseconds."""


def temp_dirs(loop: LoopPaths) -> list[Path]:
    """The temporary folders that the loop's dead runner could not remove."""
    state = read_state(loop)
    return tempdir.of_loop(loop, state["tmpDir"] if state is not None else None)


def half_written(folders: Iterable[Path]) -> list[Path]:
    """Files in these folders that a killed writer had begun and never gave their name (`.tmp-…`)."""
    there = (path for folder in folders for path in nofollow.entries(folder) if path.name.startswith(".tmp-"))
    found = [path for path in there if _is_old(path)]
    if not found:
        return []
    in_use = _open_files()
    return [path for path in found if os.path.realpath(path) not in in_use]


def _is_old(path: Path) -> bool:
    try:
        status = nofollow.lstat(path)
    except OSError:
        return False
    # Either way: the clock may have been set back since.
    old = abs(time.time() - status.st_mtime) > HALF_WRITTEN_S
    return old and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _open_files() -> set[str]:
    """Every file that a process of this user has open."""
    paths: set[str] = set()
    for process in processes():
        with suppress(psutil.Error, OSError):  # gone, or somebody else's
            paths |= {file.path for file in process.open_files()}
    return paths
