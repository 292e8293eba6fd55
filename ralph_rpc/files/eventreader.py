"""Reads events.jsonl and its rotated files as one long log, whole lines only, from any position.

For `logs`, `status` and every other viewer; any number of readers at once, none of which affects the runner. Only reads,
so a machine that dies here loses nothing. A position is a *logical* offset: bytes over all files ever rotated. It stays
valid across rotations and crashes of the writer. Files are read in blocks and never loaded whole; an unterminated last
line is not an event yet.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from ralph_rpc.files.atomic import BLOCK, end_of_lines
from ralph_rpc.machine import nofollow

LOG_OPEN = b'{"type":"ralph_log_open",'
"""How the first line of every file after a rotation begins."""


class EventReader:
    """A position in the log. `offset` is where the next line starts, `missed` counts bytes that were dropped by rotation
    before they were read.

    Make one with `at`, `at_start` or `at_end`. It keeps the file that it reads open, so a rename can't take it away.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.missed = 0
        self._fd: int | None = None
        self._base = 0
        self._scanned = 0  # bytes of a long unfinished line that are known to hold no LF

    @classmethod
    def at(cls, path: Path, offset: int) -> "EventReader":
        """Open at a logical offset: at the start of the line that holds it; at the end of a shorter log."""
        reader = cls(path, offset)
        reader._open()
        return reader

    @classmethod
    def at_start(cls, path: Path) -> "EventReader":
        """Open at the oldest line that is kept."""
        reader = cls(path)
        reader._open()
        reader.missed = 0
        return reader

    @classmethod
    def at_end(cls, path: Path, lines: int) -> "EventReader":
        """Open before the last `lines` whole lines, found by reading backwards from the end."""
        reader = cls(path)
        for fd, base in log_files(path):
            reader._hold(fd, base)
            position, found = _lines_back(fd, lines)
            reader.offset = base + position
            lines -= found
            if lines <= 0:
                break
        return reader

    def read(self, max_bytes: int = BLOCK) -> list[tuple[int, bytes]]:
        """Return the next whole lines, about `max_bytes` of them or one longer line; [] if there are none now.

        Each comes as (logical offset after the line, the line without its LF).
        """
        while True:
            if self._fd is None and not self._open():
                return []
            lines = self._read_file(max_bytes)
            if lines or not self._is_rotated():
                return lines
            # What the writer appended between our last read and its rename is still to be read here.
            lines = self._read_file(max_bytes)
            if lines or not self._advance():
                return lines

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _hold(self, fd: int, base: int) -> None:
        """Continue in this file, through a descriptor of our own: the generator closes the one it gave."""
        self.close()
        self._fd = os.dup(fd)
        self._base = base
        self._scanned = 0

    def _open(self) -> bool:
        """Find the file that holds `offset`; False while there is no log at all."""
        for fd, base in log_files(self.path):
            self._hold(fd, base)
            if base <= self.offset:
                break
        if self._fd is None:
            self.offset = 0
            return False
        self.missed += max(0, self._base - self.offset)
        position = min(max(0, self.offset - self._base), end_of_lines(self._fd))
        self.offset = self._base + end_of_lines(self._fd, position)
        return True

    def _read_file(self, max_bytes: int) -> list[tuple[int, bytes]]:
        assert self._fd is not None
        start = self.offset - self._base
        data = os.pread(self._fd, max_bytes, start)
        end = data.rfind(b"\n")
        if end < 0 and len(data) == max_bytes:
            data = self._long_line(self._fd, start, max_bytes)
            end = data.rfind(b"\n")
        if end < 0:
            return []
        lines = []
        offset = self.offset
        for line in data[:end].split(b"\n"):
            offset += len(line) + 1
            lines.append((offset, line))
        self.offset = offset
        self._scanned = 0
        return lines

    def _long_line(self, fd: int, start: int, known: int) -> bytes:
        """Return the line at `start`, which is longer than `known` bytes; b"" while it has no end."""
        position = start + max(known, self._scanned)
        if position > os.fstat(fd).st_size:  # the writer has cut an abandoned line away
            position = start
        while block := os.pread(fd, BLOCK, position):
            at = block.find(b"\n")
            if at >= 0:
                # Read again from its start: if the writer cut and wrote again, these are several lines.
                return _pread_all(fd, start, position + at + 1)
            position += len(block)
        self._scanned = position - start
        return b""

    def _is_rotated(self) -> bool:
        assert self._fd is not None
        try:
            there = nofollow.lstat(self.path)
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._fd))

    def _advance(self) -> bool:
        """Go to the file that follows this one; False while there is none."""
        assert self._fd is not None
        own, own_base, own_end = os.fstat(self._fd), self._base, self.offset
        moved = False
        for fd, base in log_files(self.path):
            if base <= own_base:
                if moved or os.path.samestat(own, os.fstat(fd)):
                    break
                own_end = base  # the log was replaced by a new one, which is read from its start
            self._hold(fd, base)
            self.offset = base
            moved = True
            if base <= own_base:
                break
        if moved:
            self.missed += self.offset - own_end
        return moved


def rotated_path(path: Path, number: int) -> Path:
    """Return the name of the `number`th file back; 0 is the current one."""
    return path.with_name(f"{path.name}.{number}") if number else path


def rotated_numbers(path: Path) -> list[int]:
    """Return the numbers of the rotated files that are there, ascending."""
    prefix = path.name + "."
    try:
        there = nofollow.names(path.parent)
    except FileNotFoundError:
        return []
    numbers = (name.removeprefix(prefix) for name in there if name.startswith(prefix))
    return sorted(int(n) for n in numbers if n.isascii() and n.isdigit() and not n.startswith("0"))


def log_files(path: Path) -> Iterator[tuple[int, int]]:
    """Yield (open descriptor, base) of every file of the log, newest first; closes each before the next.

    An empty file is skipped: it does not say yet at which offset it begins.
    Files only ever move to higher numbers, so walking upwards meets each one at least once, however many
    rotations happen meanwhile; one that is met again is recognised by its base.
    """
    last_base: int | None = None
    number = 0
    highest = 0
    while number <= highest:
        try:
            fd = nofollow.open_fd(rotated_path(path, number), os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            fd = -1
        if fd >= 0:
            try:
                base = base_of(fd)
                if os.fstat(fd).st_size and (last_base is None or base < last_base):
                    last_base = base
                    yield fd, base
            finally:
                os.close(fd)
        if number == highest:
            highest = max(rotated_numbers(path), default=0)
        number += 1


def base_of(fd: int) -> int:
    """Return the logical offset of a file's first byte, as its first line says; 0 for a log's first file."""
    head = os.pread(fd, 256, 0)
    line, lf, _ = head.partition(b"\n")
    if not lf or not line.startswith(LOG_OPEN):
        return 0
    try:
        base = orjson.loads(line)["base"]
    except (orjson.JSONDecodeError, KeyError):
        return 0
    return base if type(base) is int and base >= 0 else 0


def _lines_back(fd: int, lines: int) -> tuple[int, int]:
    """Return the position of the `lines`th whole line from the end, and how many of them this file has."""
    position = os.fstat(fd).st_size
    found = -1  # the first LF from the end closes the last line, the next ones open the lines before it
    while position > 0:
        start = max(0, position - BLOCK)
        block = os.pread(fd, position - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == lines:
                return start + at + 1, lines
        position = start
    return 0, found + 1


def _pread_all(fd: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(fd, min(end - start, 1 << 20), start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)
