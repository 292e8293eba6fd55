"""The loop's own folder, which the agent's shell can reach: whether it is in its place, and how it is made again.

Asked by the runner's heartbeat, by the inbox watch and when a write fails. After an `rm -rf .ralph` the runner makes the
folder again from the files that it holds open and from its memory, and says what is lost; a folder that was moved away is
waited for. The lock is taken first, so that no second runner can work beside this one. If the machine dies here, the
folder is as far as it has come, and the next runner recovers from what is in it.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson

from ralph_rpc.clock import now_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.atomic import ensure_ralph_dir, make_private_dir
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.eventreader import base_of
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git.shelter import shelter
from ralph_rpc.machine import locks, nofollow
from ralph_rpc.machine.locks import Lock
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_runner.core.results import TaskRead
from ralph_runner.shell.takeover import Takeover
from ralph_runner.shell.task_files import write_again

LOCK_PATIENCE_S = 0.2
"""For the instant in which a viewer probes the new lock."""


class Replaced(Exception):
    """Another runner has the loop's lock: one line for a person."""


class LoopFolder:
    """Of one running loop. For the event loop's thread."""

    def __init__(
        self, paths: LoopPaths, lock: Lock, takeover: Takeover, config: Config, log: EventLog, journal: CommandJournal
    ) -> None:
        """Raises OSError."""
        self._paths, self._takeover, self._config = paths, takeover, config
        self._log, self._journal = log, journal
        self.lock = lock
        self.known_task: Callable[[], TaskRead | None] = lambda: None
        """Set once: the task as it was read last."""
        self._fd = nofollow.open_fd(paths.dir, os.O_RDONLY | os.O_DIRECTORY)

    def look(self) -> str | None:
        """Why the loop has to wait, as one line; None if the folder is in its place and can be written to."""
        paths = self._paths
        if not self._is_in_place():
            where = self.moved_to()
            if where is not None:
                return f"{paths.dir} was moved to {where}; move it back, or end the loop: kill {os.getpid()}"
            return f"{paths.dir} is gone"
        if not all(os.access(folder, os.W_OK | os.X_OK) for folder in (paths.dir, paths.inbox)):
            return f"{paths.dir} can no longer be written to; fix its permissions"
        return None

    def moved_to(self) -> Path | None:
        """Where the folder is now, if it was moved away and not deleted."""
        try:
            if os.fstat(self._fd).st_nlink == 0 or self._is_in_place():
                return None
            where = Path(f"/proc/self/fd/{self._fd}").readlink()
        except OSError:
            return None
        return where if where != self._paths.dir and where.is_dir() else None

    def can_be_made_again(self) -> bool:
        """Whether the folder was deleted and there is still a project that it can lie in."""
        return not self._is_whole() and self.moved_to() is None and self._paths.project.is_dir()

    def make_again(self) -> list[str]:
        """Make all of it again that can be had; returns what is lost, in a few words each, if it was deleted or emptied.

        Raises OSError, and Replaced if another runner has taken the place.
        """
        paths = self._paths
        was_gone = not self._is_in_place() or not nofollow.exists(paths.config)
        ensure_ralph_dir(paths.project)
        make_private_dir(paths.dir)
        if not self.lock.is_intact():
            self._lock_again()
        for folder in (paths.inbox, paths.rejected, paths.iterations, paths.sessions):
            make_private_dir(folder)
        if not was_gone:
            return []
        # The log first: what it holds is the most, and the records are in it.
        self._log.sync()
        self._journal.restore(now_ms())
        known = self.known_task()
        if known is not None and not self._config.get("tickets"):
            write_again(paths, known)
        records.write_config(paths, self._config)
        lost = self._write_records()
        records.write_pid(paths, os.getpid())
        with suppress(OSError, RalphError):
            shelter(paths.dir.parent)
        fd = nofollow.open_fd(paths.dir, os.O_RDONLY | os.O_DIRECTORY)
        os.close(self._fd)
        self._fd = fd
        return lost

    def close(self) -> None:
        """Let go of the folder. Doing it twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), nofollow.lstat(self._paths.dir))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # a disk that fails says nothing of the folder; the next write will say what is wrong

    def _is_whole(self) -> bool:
        return self._is_in_place() and nofollow.is_folder(self._paths.inbox) and self.lock.is_intact()

    def _lock_again(self) -> None:
        again = locks.acquire(self._paths.runner_lock, LOCK_PATIENCE_S)
        if again is None:
            raise Replaced("runner.lock was replaced and another runner holds it")
        self.lock.release()
        self.lock = again
        if not self._takeover.tree_lock.is_intact() and (tree := locks.acquire(self._paths.tree_lock)) is not None:
            # The guards that live hold the old one, and their trees end with this runner anyway.
            self._takeover.tree_lock.release()
            self._takeover.tree_lock = tree

    def _write_records(self) -> list[str]:
        """The iteration records that the log holds; returns what is not to be had again."""
        first = None
        with os.fdopen(nofollow.open_fd(self._paths.events, os.O_RDONLY), "rb") as log:
            is_whole = base_of(log.fileno()) == 0
            for line in log:
                if b'"ralph_iteration_end"' not in line:
                    continue
                event = orjson.loads(line)
                record: Iteration = {key: value for key, value in event.items() if key not in ("type", "at", "ralph")}  # type: ignore[assignment]
                records.write_iteration(self._paths, record)
                first = record["iteration"] if first is None else first
        lost = ["pi's session files", "commands that had not been taken from the inbox"]
        if not is_whole or (first or 1) > 1:
            lost.append("records and events of earlier iterations")
        if self._config["worktree"] is not None:
            lost.append("what was uncommitted in its worktree")
        return lost
