"""The only writer of events.jsonl: appends whole lines, rotates by size, repairs what a crash or a person left.

Used by the runner from two threads: one moves pi's output, one adds the runner's own events. If the machine dies here,
every line before the last LF stands; `open` cuts off what follows it, and finishes a rotation that was interrupted.
Offsets are logical: bytes over all files ever rotated, so records that point into the log stay correct. The first line
of each file after a rotation says at which offset it begins. A file that was deleted is written again from the open
one, which takes the lines as long as there is no folder. On a full disk pi's lines are refused, so that pi waits; the
runner's own are written from the reserve.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from ralph_rpc.clock import now_ms
from ralph_rpc.files.atomic import append_whole, cut_to, end_of_lines, fsync_dir, write_all
from ralph_rpc.files.eventreader import base_of, rotated_numbers, rotated_path
from ralph_rpc.files.reserve import Reserve, lacks_room
from ralph_rpc.machine import nofollow

COPIED_AT_ONCE = 4 << 20
TORN_KEPT = 1 << 20
"""Bytes of a torn line that are kept, as the `raw` of a ralph_unparsed line."""


class EventLog:
    """The log, open for appending. Every method may be called from any thread, and none waits for another thread's line:
    an event that arrives while a long line is being streamed is written after that line.
    """

    def __init__(
        self, path: Path, fd: int, base: int, size: int, limit: int, keep: int, reserve: Reserve | None
    ) -> None:
        self._path = path
        self._fd = fd
        self._base = base
        self._size = size
        self._limit = limit
        self._keep = keep
        self._reserve = reserve
        self._beside_the_reserve = _Beside(reserve, path)
        self._line_start: int | None = None
        self._kept: list[bytes] = []
        self._lock = threading.Lock()
        self._folder = _identity(path.parent)

    @classmethod
    def open(cls, path: Path, *, limit: int, keep: int, reserve: Reserve | None = None) -> "EventLog":
        """Open or create the log and repair it; a file of `limit` bytes is rotated, `keep` rotated ones stay.

        A torn last line is cut off and kept as one ralph_unparsed line. Raises OSError.
        """
        nofollow.unlink(_temp(path), missing_ok=True)
        fd = nofollow.open_fd(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            torn = _cut_torn_tail(fd)
            size = os.fstat(fd).st_size
            # A rotation was interrupted before the new file got its name: the old one has its number already.
            if size == 0 and (numbers := rotated_numbers(path)):
                size = append_whole(fd, _log_open(_end_of(rotated_path(path, numbers[0]))), 0)
            log = cls(path, fd, base_of(fd), size, limit, keep, reserve)
        except BaseException:
            os.close(fd)
            raise
        if torn:
            log.append_event(_unparsed(torn))
        return log

    @property
    def offset(self) -> int:
        """The logical offset after the last whole line."""
        with self._lock:
            return self._offset()

    def append(self, data: bytes) -> int:
        """Append one or more whole lines from pi, each ending in LF; return the logical offset after them.

        Raises OSError; then nothing of them is in the log.
        """
        with self._lock, self._beside_the_reserve:
            self._expect_no_line()
            self._write(data)
            return self._offset()

    def append_event(self, event: Mapping[str, Any]) -> int:
        """Append one of the runner's own events; return the logical offset after it.

        While even the reserve does not hold it or a long line is being streamed, the event is kept in memory
        and written before anything else; the offset returned is then that of the log as it is. Other errors
        raise OSError.
        """
        line = orjson.dumps(event) + b"\n"
        with self._lock:
            self._kept.append(line)
            if self._line_start is None:
                try:
                    self._write_kept()
                except OSError:
                    self._kept.pop()
                    raise
            return self._offset()

    def begin_line(self) -> None:
        """Start a line that is too long to be held in memory; `extend` it and `end_line` it."""
        with self._lock, self._beside_the_reserve:
            self._expect_no_line()
            self._write(b"")
            self._renew()
            self._line_start = self._size

    def extend(self, chunk: bytes) -> None:
        """Append a piece of the line; raises OSError, and then nothing of the piece is in the log."""
        with self._lock, self._beside_the_reserve:
            self._size = append_whole(self._fd, chunk, self._size)

    def end_line(self, tail: bytes) -> int:
        """Append the line's last piece, which ends in LF; return the logical offset after the line."""
        with self._lock, self._beside_the_reserve:
            self._size = append_whole(self._fd, tail, self._size)
            self._line_start = None
            offset = self._offset()
            # The line is complete: an error now is not about it, and would make the caller append its end again.
            with contextlib.suppress(OSError):
                self._write(b"")
            return offset

    def abandon_line(self) -> None:
        """Give up a line whose end will not come: it is cut off and kept as one ralph_unparsed line."""
        with self._lock:
            if self._line_start is None:
                return
            raw = os.pread(self._fd, TORN_KEPT, self._line_start)
            cut_to(self._fd, self._line_start)
            self._size, self._line_start = self._line_start, None
            if raw:
                self._kept.insert(0, orjson.dumps(_unparsed(raw)) + b"\n")
            self._write_kept()

    def sync(self) -> None:
        """Make everything appended so far durable; the other thread may append meanwhile.

        If somebody has removed or cut the file, the log continues in a new one. Raises OSError.
        """
        with self._lock:
            if self._line_start is None:
                if self._is_elsewhere():
                    self._begin_again()
                self._write_kept()
            fd = os.dup(self._fd)  # a rotation closes the log's own
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Write the events held back, as far as the disk takes them, and close; a second call does nothing."""
        self.abandon_line()
        with self._lock:
            if self._fd < 0:
                return
            try:
                self._write_kept()
            finally:
                os.close(self._fd)
                self._fd = -1

    def _offset(self) -> int:
        return self._base + (self._size if self._line_start is None else self._line_start)

    def _expect_no_line(self) -> None:
        if self._line_start is not None:
            raise RuntimeError("a long line is open: end or abandon it first")

    def _write_kept(self) -> None:
        try:
            self._write(b"")
        except OSError as error:
            if not lacks_room(error):
                raise
            if self._reserve is not None and self._reserve.give():
                self._write_kept()

    def _is_lost(self) -> bool:
        """True if the file has no name any more, or was cut; cheap enough for every append."""
        own = os.fstat(self._fd)
        return own.st_nlink == 0 or own.st_size < self._size

    def _is_elsewhere(self) -> bool:
        """True if the path names another file, or none."""
        try:
            return not os.path.samestat(os.fstat(self._fd), nofollow.lstat(self._path))
        except (FileNotFoundError, NotADirectoryError):
            return True

    def _write(self, data: bytes) -> None:
        """Append the events held back and then `data`, all or nothing."""
        if not self._kept and not data:
            return
        self._renew()
        if self._kept:
            data = b"".join(self._kept) + data
        self._size = append_whole(self._fd, data, self._size)
        self._kept.clear()

    def _renew(self) -> None:
        if self._is_lost():
            self._begin_again()
        elif self._size >= self._limit and _identity(self._path.parent) == self._folder:
            self._begin_file()

    def _begin_again(self) -> None:
        folder = _identity(self._path.parent)
        if folder is None:
            return  # nowhere to begin: the lines are in the file that we hold
        self._folder = folder
        if os.fstat(self._fd).st_nlink == 0 and not nofollow.exists(self._path):  # not what somebody has put there
            try:
                self._restore()
            except OSError as error:
                if not lacks_room(error):
                    raise
            else:
                return
        self._begin_file()
        message = "events.jsonl was deleted, replaced or cut; the log continues in a new file"
        notice = {"type": "ralph_notice", "at": now_ms(), "level": "warning", "message": message}
        self._kept.append(orjson.dumps(notice) + b"\n")

    def _restore(self) -> None:
        """Put a deleted log back: all of it is in the file that we hold."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        fd = nofollow.open_fd(_temp(self._path), flags, 0o600)
        try:
            position = 0
            while chunk := os.pread(self._fd, COPIED_AT_ONCE, position):
                write_all(fd, chunk)
                position += len(chunk)
            os.fsync(fd)
            nofollow.rename(_temp(self._path), self._path)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._size = fd, position
        fsync_dir(self._path.parent)

    def _begin_file(self) -> None:
        """Rotate. Each step leaves a log that `open` and every reader understand."""
        os.fdatasync(self._fd)  # sync() will only reach the new file
        base = self._base + self._size
        fd = _new_file(self._path, base)
        try:
            # It is missing if an earlier try failed after this step (then the old file has its number already), or if
            # somebody removed it.
            if nofollow.exists(self._path):
                self._make_room()
                if self._keep:
                    nofollow.rename(self._path, rotated_path(self._path, 1))
            nofollow.rename(_temp(self._path), self._path)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._base, self._size = fd, base, os.fstat(fd).st_size
        fsync_dir(self._path.parent)

    def _make_room(self) -> None:
        """Free the number 1 by moving files up to the first gap; without a gap the oldest one is dropped."""
        numbers = rotated_numbers(self._path)
        for number in numbers:
            if number > self._keep:
                nofollow.unlink(rotated_path(self._path, number), missing_ok=True)
        free = next((n for n in range(1, self._keep) if n not in numbers), self._keep)
        for number in range(free - 1, 0, -1):
            nofollow.rename(rotated_path(self._path, number), rotated_path(self._path, number + 1))


class _Beside:
    """For pi's lines: only while the reserve is held; if they do not fit, it is given up and pi waits."""

    def __init__(self, reserve: Reserve | None, path: Path) -> None:
        self._reserve = reserve
        self._path = path

    def __enter__(self) -> None:
        if self._reserve is not None and not self._reserve.take():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._reserve is not None and isinstance(error, OSError) and lacks_room(error):
            self._reserve.give()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = nofollow.lstat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _temp(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _log_open(base: int) -> bytes:
    return orjson.dumps({"type": "ralph_log_open", "at": now_ms(), "base": base}) + b"\n"


def _unparsed(raw: bytes) -> dict[str, str]:
    return {"type": "ralph_unparsed", "raw": raw.decode("utf-8", "replace")}


def _new_file(path: Path, base: int) -> int:
    """Return a file that will get the name `path` and already has its first line.

    No reader ever sees a file that does not say its base, and no crash leaves one.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    fd = nofollow.open_fd(_temp(path), flags, 0o600)
    try:
        write_all(fd, _log_open(base))
        os.fsync(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _end_of(path: Path) -> int:
    """Return the logical offset after a rotated file's last whole line, cutting off what a crash tore."""
    fd = nofollow.open_fd(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        end = end_of_lines(fd)
        cut_to(fd, end)
        return base_of(fd) + end
    finally:
        os.close(fd)


def _cut_torn_tail(fd: int) -> bytes:
    """Cut off what follows the last LF and return it, without the NULs that a power loss leaves for data."""
    end = end_of_lines(fd)
    torn = os.pread(fd, TORN_KEPT, end).strip(b"\0")
    cut_to(fd, end)
    return torn
