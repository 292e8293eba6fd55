"""Writes that happen wholly or not at all, and the reading that belongs to them.

Every file of a loop and of the registry goes through here. A small file is replaced: a dot-named temporary
file in the same folder, fsync, rename, fsync of the folder; a reader or a crash meets the old content or the
new. A line file (events.jsonl, commands.jsonl) is appended to: what does not fit is cut off again, and what a
crash left behind the last LF is found by `end_of_lines`. Folders are 0700 and files 0600 under any umask.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import orjson

from ralph_rpc.errors import RalphError

BLOCK = 1 << 16
LARGEST = 64 << 20
"""Bytes that a JSON file of ours may have: what is larger is not read, it could take all memory."""


class Unreadable(RalphError):
    """A file that is there but is not what it must be: no regular file, no JSON object, not allowed."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}", "Repair it or move it aside")
        self.path = path
        self.reason = reason


def write_atomic(path: Path, data: bytes, mode: int = 0o600, durable: bool = True) -> None:
    """Replace or create `path`; with `durable` it survives a power loss once this returns.

    Raises OSError; then the old content stands and no temporary file is left. A temporary file that a crash
    leaves is named `.tmp-…` and is nobody's content.
    """
    temp = path.parent / f".tmp-{os.urandom(16).hex()}"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.fchmod(fd, mode)
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    if durable:
        fsync_dir(path.parent)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte: a disk that fills up takes a part of a write and reports only a short count."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def append_whole(fd: int, data: bytes, size: int) -> int:
    """Append all of `data` to an O_APPEND file of `size` bytes and return its new size.

    Raises OSError; then the file is cut back, so that no part of a line stays for the next one to be glued
    to.
    """
    try:
        write_all(fd, data)
    except BaseException:
        cut_to(fd, size)
        raise
    return size + len(data)


def cut_to(fd: int, size: int) -> None:
    """Cut a file to `size` bytes, but never lengthen one that somebody else has cut already."""
    if os.fstat(fd).st_size > size:
        os.ftruncate(fd, size)


def end_of_lines(fd: int, before: int | None = None) -> int:
    """Return the position after the last LF (before a position), 0 where there is none.

    What follows it at the end of a file is the line that a crash tore.
    """
    position = os.fstat(fd).st_size if before is None else before
    while position > 0:
        start = max(0, position - BLOCK)
        at = os.pread(fd, position - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        position = start
    return 0


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_private_dir(path: Path) -> None:
    """Create a folder, and those missing above it, with mode 0700; one that is there is left as it is."""
    if path.is_dir():
        return
    if not path.parent.exists():
        make_private_dir(path.parent)
    try:
        path.mkdir(0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(0o700)  # a umask can only have taken bits away


def ensure_ralph_dir(project: Path) -> Path:
    """Create `<project>/.ralph` with the .gitignore that keeps all of it out of the repository; return it."""
    ralph_dir = project / ".ralph"
    make_private_dir(ralph_dir)
    ignore = ralph_dir / ".gitignore"
    if not ignore.exists():
        write_atomic(ignore, b"*\n")
    return ralph_dir


def read_plain(path: Path, limit: int, follow: bool = True) -> bytes:
    """Return the content of a regular file, of a larger one the first `limit` + 1 bytes. Raises OSError."""
    # Without O_NONBLOCK a FIFO of that name would hold the reader for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with open(fd, "rb", closefd=False) as file:
            return file.read(limit + 1 if found.st_size > limit else -1)
    finally:
        os.close(fd)


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None if there is no file; raises Unreadable for all else."""
    try:
        data = read_plain(path, LARGEST, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from error
    if len(data) > LARGEST:
        raise Unreadable(path, f"it is larger than {LARGEST >> 20} MiB")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unreadable(path, f"it is not JSON ({error.msg}, line {error.lineno})") from error
    if not isinstance(value, dict):
        raise Unreadable(path, "it is not a JSON object")
    return value
