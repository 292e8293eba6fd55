"""Sees whether anybody opens, lists, makes, changes or removes something in a folder, by inotify; by whatever way they came."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EVENT = struct.Struct("iIII")
_ALL = 0x1 | 0x2 | 0x4 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
"""Accessed, modified, its attributes changed, opened, moved from and to, created, deleted, itself deleted or moved."""
NAMES = {0x1: "read", 0x2: "written", 0x4: "changed", 0x20: "opened", 0x40: "moved away", 0x80: "moved here"}


class Watch:
    """What happened to a folder and all below it since the last look."""

    def __init__(self, top: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._places: dict[int, Path] = {}
        for path in (top, *top.rglob("*")):
            number = libc.inotify_add_watch(self._fd, os.fsencode(path), _ALL)
            assert number >= 0, os.strerror(ctypes.get_errno())
            self._places[number] = path

    def seen(self) -> list[str]:
        """One line for each thing that happened."""
        found: list[str] = []
        while data := self._read():
            at = 0
            while at < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                name = data[at : at + length].rstrip(b"\0").decode()
                at += length
                what = [text for bit, text in NAMES.items() if mask & bit] or [hex(mask)]
                found.append(f"{self._places.get(number)}/{name}: {', '.join(what)}")
        return found

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def untouched(top: Path) -> Iterator[None]:
    """Fails if anything in the folder is touched while this lasts."""
    watch = Watch(top)
    try:
        yield
        assert watch.seen() == []
    finally:
        watch.close()
