"""Writes that happen completely or not at all, and the matching reads.

Every file of a loop and of the registry goes through here. A small file is replaced: a dot-named temporary
file in the same folder, fsync, rename, fsync of the folder; a reader or a crash meets the old content or the
new. A line file (events.jsonl, commands.jsonl) is appended to: what does not fit is cut off again, and what a
crash left behind the last LF is found by `end_of_lines`. Folders are 0700 and files 0600 under any umask.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from ralph_rpc.errors import RalphError
from ralph_rpc.machine import nofollow
from ralph_rpc.model.version import SCHEMA_VERSION

BLOCK = 1 << 16
LARGEST = 64 << 20
"""Bytes that a JSON file of ours may have: what is larger is not read, it could take all memory."""


class Unreadable(RalphError):
    """A file that is there but cannot be used: not a regular file, not a JSON object, or without permission."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}", "Repair it or move it aside")
        self.path = path
        self.reason = reason


class Newer(Unreadable):
    """A file that a newer version of this program wrote: nobody but that version may change or remove it."""

    def __init__(self, path: Path, version: int) -> None:
        super().__init__(
            path, f"written by a newer ralph-rpc (schemaVersion {version}; this one reads {SCHEMA_VERSION})"
        )
        self.hint = "upgrade ralph-rpc, or use the version that wrote it"


def write_atomic(path: Path, data: bytes, mode: int = 0o600, durable: bool = True) -> None:
    """Replace or create `path`; with `durable` it survives a power loss once this returns.

    Raises OSError; then the old content stands and no temporary file is left. A temporary file left by a crash is named
    `.tmp-…`, and no reader looks at it.
    """
    temp = path.parent / f".tmp-{os.urandom(16).hex()}"
    fd = nofollow.open_fd(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, foreign=True)
    try:
        try:
            os.fchmod(fd, mode)
            _give_to_owner(fd, path.parent)
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        nofollow.rename(temp, path)
    except BaseException:
        with suppress(OSError):
            nofollow.unlink(temp)
        raise
    if durable:
        fsync_dir(path.parent)


def _give_to_owner(fd: int, folder: Path) -> None:
    """Root writes for the owner of the folder, as under sudo: the runner could not read a private file of root's."""
    if os.geteuid() == 0 and (owner := nofollow.lstat(folder)).st_uid != 0:
        os.fchown(fd, owner.st_uid, owner.st_gid)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte: a disk that fills up takes a part of a write and reports only a short count."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def append_whole(fd: int, data: bytes, size: int) -> int:
    """Append all of `data` to an O_APPEND file of `size` bytes and return its new size.

    Raises OSError; then the file is cut back, so that no part of a line is left in front of the next one.
    """
    try:
        write_all(fd, data)
    except BaseException:
        cut_to(fd, size)
        raise
    return size + len(data)


def cut_to(fd: int, size: int) -> None:
    """Cut a file to `size` bytes; one that is shorter is left as it is."""
    if os.fstat(fd).st_size > size:
        os.ftruncate(fd, size)


def end_of_lines(fd: int, before: int | None = None) -> int:
    """Return the position after the last LF (before a position), 0 if there is none.

    What follows it at the end of a file is a line torn by a crash.
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
    fd = nofollow.open_fd(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_private_dir(path: Path) -> None:
    """Create a folder, and missing ones above it, with mode 0700; an existing one is left as it is."""
    if nofollow.is_folder(path):
        return
    if not nofollow.exists(path.parent):
        make_private_dir(path.parent)
    try:
        nofollow.make_folder(path)
    except FileExistsError:
        if not nofollow.is_folder(path):
            raise


def ensure_ralph_dir(project: Path) -> Path:
    """Create `<project>/.ralph` with the .gitignore that keeps all of it out of the repository; return it."""
    ralph_dir = project / ".ralph"
    make_private_dir(ralph_dir)
    ignore = ralph_dir / ".gitignore"
    if not nofollow.exists(ignore):
        write_atomic(ignore, b"*\n")
    return ralph_dir


def read_plain(path: Path, limit: int, follow: bool = True) -> bytes:
    """Return the content of a regular file, of a larger one the first `limit` + 1 bytes. Raises OSError.

    `follow` is for files that the user names: below .ralph and .tickets no link is followed whatever it says.
    """
    # Without O_NONBLOCK, a FIFO of that name would block the reader for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    fd = nofollow.open_fd(path, flags if follow else flags | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with open(fd, "rb", closefd=False) as file:
            return file.read(limit + 1 if found.st_size > limit else -1)
    finally:
        os.close(fd)


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None if there is no file; raises Unreadable for all else.

    A file of a newer `schemaVersion` is Newer, whatever else it holds.
    """
    try:
        data = read_plain(path, LARGEST, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from error
    if len(data) > LARGEST:
        raise Unreadable(path, f"it is larger than {LARGEST >> 20} MiB")
    return as_json_object(path, data)


def as_json_object(path: Path, data: bytes) -> dict[str, Any]:
    """Return the JSON object that `data`, read from a file, is; raises Unreadable, Newer for one of a newer version."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unreadable(path, f"it is not JSON ({error.msg}, line {error.lineno})") from error
    if not isinstance(value, dict):
        raise Unreadable(path, "it is not a JSON object")
    version = value.get("schemaVersion")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise Newer(path, version)
    return value
