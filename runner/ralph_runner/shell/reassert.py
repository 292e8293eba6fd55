"""Writes the runner's files again if they are missing or damaged: the agent's shell can reach all of them.

Called by the runner's heartbeat. This is no boundary against the agent, which has the same rights as the runner; it
keeps a mistake in the agent's shell from ending the loop. If the machine dies here, a file is as it was found, or whole.
"""

import contextlib
import os
from pathlib import Path

from ralph_rpc.files import records
from ralph_rpc.files.atomic import Unreadable, read_plain
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.config import Config


def reassert(paths: LoopPaths, config: Config, journal: CommandJournal, at: int) -> list[str]:
    """The names of the files that were missing or damaged; all are written again but state.json, which the caller writes.

    Never raises OSError: what cannot be written now is tried again with the next heartbeat.
    """
    found: list[str] = []
    if _content(paths.pid) != b"%d" % os.getpid():
        with contextlib.suppress(OSError):
            records.write_pid(paths, os.getpid())
            found.append(paths.pid.name)
    if not _is_there(paths, paths.config):
        with contextlib.suppress(OSError):
            records.write_config(paths, config)
            found.append(paths.config.name)
    if not journal.is_intact():
        with contextlib.suppress(OSError):
            journal.restore(at)
            found.append(paths.commands.name)
    if not _is_there(paths, paths.state):
        found.append(paths.state.name)
    return found


def _is_there(paths: LoopPaths, path: Path) -> bool:
    try:
        return (records.read_state(paths) if path == paths.state else records.read_config(paths)) is not None
    except Unreadable:
        return False


def _content(path: Path) -> bytes:
    try:
        return read_plain(path, 100, follow=False).strip()
    except OSError:
        return b""
