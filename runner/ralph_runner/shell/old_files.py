"""What ended iterations leave is bounded: pi's session files beyond the newest, and a record file for each iteration.

Made by the runner, told by the performer of each record that is written. The work is done in a thread and costs the
same however many iterations there were: no folder is read again but once in a thousand. If the machine dies here, a
session file too many is left, or records that the next fold removes (`files/iterations.py`). Failures are noted only.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ralph_rpc.files import iterations
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration

KEEP_SESSIONS = 100
"""What a loop that was started by an older version keeps."""


class OldFiles:
    """`ended` is called on the event loop's thread, once for each record."""

    def __init__(
        self,
        paths: LoopPaths,
        config: Config,
        later: Callable[[Coroutine[Any, Any, None]], None],
        note: Callable[[str], None],
    ) -> None:
        self._paths, self._later, self._note = paths, later, note
        self._keep = config.get("keepSessions", KEEP_SESSIONS)
        # Before any pi has made one of this run: all of them are of ended iterations.
        self._sessions = deque(_oldest_first(paths.sessions))

    def ended(self, record: Iteration) -> None:
        """The record of an iteration is on disk."""
        session = _inside(self._paths.sessions, record["sessionFile"])
        if session is not None:
            if session in self._sessions:  # a pi that gave no new session
                self._sessions.remove(session)
            self._sessions.append(session)
        surplus = [self._sessions.popleft() for _ in range(len(self._sessions) - self._keep)]
        newest = record["iteration"] if iterations.is_due(record["iteration"]) else None
        if surplus or newest is not None:
            self._later(asyncio.to_thread(self._tidy, surplus, newest))

    def _tidy(self, surplus: list[Path], newest: int | None) -> None:
        try:
            for file in surplus:
                nofollow.unlink(file, missing_ok=True)
            if newest is not None:
                iterations.fold(self._paths, newest)
        except OSError as error:
            self._note(f"old files stay: {error.filename}: {error.strerror}")


def _oldest_first(folder: Path) -> list[Path]:
    try:
        return sorted(nofollow.files_below(folder, ".jsonl"), key=lambda file: nofollow.lstat(file).st_mtime_ns)
    except OSError:
        return []


def _inside(folder: Path, file: str | None) -> Path | None:
    """The path that pi named, if it lies in the folder: nothing else is ours to remove."""
    if file is None:
        return None
    path = Path(file)
    inside = path.is_relative_to(folder) and ".." not in path.parts and path.suffix == ".jsonl"
    return path if inside else None
