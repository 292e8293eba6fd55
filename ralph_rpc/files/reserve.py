"""Room that is kept for bad times: a file of zeros in the loop's folder, given up when the disk is full.

The runner takes it with pi's first line. When something does not fit it is given up, so that receipts, records,
state.json and the end of the loop can still be written; pi's own lines may not use it (`EventLog`), so pi is held
until there is room for both again. If the machine dies here the file is left behind and the next runner uses it.
"""

import contextlib
import errno
import os
import threading
from pathlib import Path

from ralph_rpc.files.atomic import write_all

SIZE = 256 << 10

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def lacks_room(error: OSError) -> bool:
    """Tell whether there may be room again later: a full disk, a quota, a limit on the size of files."""
    return error.errno in _NO_ROOM


class Reserve:
    """The room for one loop. Any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = False
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Hold the room; False where there is none. Raises OSError for all else."""
        if self._held:  # asked for with each of pi's lines
            return True
        with self._lock:
            if not self._held:
                self._held = self._allocate()
            return self._held

    def give(self) -> bool:
        """Give the room up; False if it was not held."""
        with self._lock:
            was_held, self._held = self._held, False
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            return was_held

    def _allocate(self) -> bool:
        try:
            free = os.statvfs(self._path.parent)
            if free.f_bfree * free.f_frsize < 2 * SIZE:
                return False
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                # Twice as much, and half of it back: who takes the last of a disk has to give it up again at once.
                write_all(fd, bytes(2 * SIZE))
                os.ftruncate(fd, SIZE)
            finally:
                os.close(fd)
        except OSError as error:
            if not lacks_room(error):
                raise
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            return False
        return True
