"""Room on the disk kept in reserve: a file of zeros and two empty ones in the loop's folder, given up when it is full.

A disk can be out of blocks, or out of inodes while it has blocks; the empty files stand for the latter.

The runner takes it with pi's first line. When a write does not fit, it is given up, so that receipts, records,
state.json and the end of the loop can still be written; pi's own lines may not use it (`EventLog`), so pi waits until
there is space for both again. If the machine dies here, the file is left behind and the next runner uses it.
"""

import contextlib
import errno
import os
import threading
from pathlib import Path

from ralph_rpc.files.atomic import write_all
from ralph_rpc.machine import nofollow

SIZE = 256 << 10

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def lacks_room(error: OSError) -> bool:
    """True if there may be space again later: a full disk, a quota, a limit on the size of files."""
    return error.errno in _NO_ROOM


def space(folder: Path) -> os.statvfs_result:
    """What the folder's disk has left. Raises OSError."""
    fd = nofollow.open_fd(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.statvfs(fd)
    finally:
        os.close(fd)


def spares(path: Path) -> tuple[Path, ...]:
    """The files of the reserve at `path`: those that only hold an inode, then the one that also holds space."""
    return (*(path.with_name(f"{path.name}.{number}") for number in (1, 2)), path)


class Reserve:
    """The reserve of one loop. For any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = False
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Hold the space; False if there is none. Raises OSError for any other failure.

        Where the folder is gone there is nothing to hold, and what is written goes into files that are still open.
        """
        if self._held:  # called for each of pi's lines
            return True
        with self._lock:
            if not self._held:
                self._held = self._allocate()
            return self._held

    def give(self) -> bool:
        """Give the space up; False if it was not held."""
        with self._lock:
            was_held, self._held = self._held, False
            self._remove()
            return was_held

    def _allocate(self) -> bool:
        try:
            free = space(self._path.parent)
            if free.f_bfree * free.f_frsize < 2 * SIZE:
                return False
            fd = nofollow.open_fd(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                # Twice as much, and half of it back: the last space of a disk would have to be given up again at once.
                write_all(fd, bytes(2 * SIZE))
                os.ftruncate(fd, SIZE)
            finally:
                os.close(fd)
            for path in spares(self._path)[:-1]:
                os.close(nofollow.open_fd(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            if not lacks_room(error):
                raise
            self._remove()
            return False
        return True

    def _remove(self) -> None:
        for path in spares(self._path):
            with contextlib.suppress(OSError):
                nofollow.unlink(path, missing_ok=True)
