"""Locks between processes: flock on a file that is never unlinked.

`runner.lock` says "a runner lives", `tree.lock` says "processes of this loop live"; both are held by an open
file, so that the kernel frees them however the holder dies, and an inherited copy keeps them held. flock and
not lockf: any close() of the same file anywhere in the process would drop an lockf lock. Unlinking is
forbidden because two processes could then hold "the" lock on two different inodes.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ralph_rpc.machine import nofollow

_RETRY_S = 0.01


class Lock:
    """A held lock. It ends when this and every inherited copy of `fd` is closed."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self.path = path

    def is_intact(self) -> bool:
        """Return whether the path still names the locked file; if not, another process may hold "the" lock."""
        try:
            here, there = os.fstat(self.fd), nofollow.lstat(self.path)
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def release(self) -> None:
        """Give up this copy of the lock. Doing it twice is fine."""
        if self.fd >= 0:
            # Closed, not unlocked: LOCK_UN would also take the lock from a guard that inherited it.
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(path: Path, patience_s: float = 0.5) -> Lock | None:
    """Take the lock, or return None if another process holds it longer than `patience_s` seconds.

    The patience is for viewers, whose probes (`is_held`) hold the lock for an instant. Raises OSError if the
    file cannot be opened (a symbolic link is refused).
    """
    deadline = time.monotonic() + patience_s
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        lock = Lock(nofollow.open_fd(path, flags, 0o600), path)
        try:
            if _try_lock(lock.fd, fcntl.LOCK_EX) and lock.is_intact():
                return lock
        except BaseException:
            lock.release()
            raise
        lock.release()
        if time.monotonic() >= deadline:
            return None
        time.sleep(_RETRY_S)


def adopt(fd: int, path: Path) -> Lock:
    """Take over an inherited fd that holds the lock on `path`; it is close-on-exec from here on.

    Raises OSError if the fd is not open on that file, or if another process holds the lock.
    """
    os.set_inheritable(fd, False)
    lock = Lock(fd, path)
    if not lock.is_intact():
        raise OSError(errno.ESTALE, "the inherited lock is not on this file", str(path))
    if not _try_lock(fd, fcntl.LOCK_EX):
        raise OSError(errno.EWOULDBLOCK, "the inherited lock is held by another process", str(path))
    return lock


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock; a missing file means no, an unreadable one means yes."""
    try:
        fd = nofollow.open_fd(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # unsure whether the owner lives: it does
    try:
        return not _try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _try_lock(fd: int, mode: int) -> bool:
    try:
        fcntl.flock(fd, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
