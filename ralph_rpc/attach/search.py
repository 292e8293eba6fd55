"""Finds a text in the whole log without folding it: gigabytes at the speed of reading.

Only reads, in slices, so that the caller can do something else in between. What counts are the events
that hold a whole text; deltas hold parts of words, and the end of a run repeats all that was said before.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from ralph_rpc.files.atomic import end_of_lines
from ralph_rpc.files.eventreader import log_files
from ralph_rpc.model import pi

SLICE = 4 << 20
_WHOLE = (*map(pi.head, (pi.MESSAGE_END, pi.TOOL_START, pi.TOOL_END)), b'{"type":"ralph_')


def places(path: Path, text: str, offset: int, back: bool) -> Iterator[int | None]:
    """Offsets of lines that hold the text, nearest first, before `offset` or after it; None after each slice."""
    needle = orjson.dumps(text)[1:-1].lower()
    if not needle:
        return
    files = [(os.dup(fd), base) for fd, base in log_files(path)]
    try:
        for fd, base in files if back else files[::-1]:
            size = os.fstat(fd).st_size
            if back:
                for at in _backwards(fd, needle, min(offset - base, size)):
                    yield None if at is None else base + at
            else:
                for at in _forwards(fd, needle, max(offset - base, 0), size):
                    yield None if at is None else base + at
    finally:
        for fd, _ in files:
            os.close(fd)


def _backwards(fd: int, needle: bytes, end: int) -> Iterator[int | None]:
    while end > 0:
        start = max(0, end - SLICE)
        block = os.pread(fd, end - start + len(needle) - 1, start).lower()
        at = len(block)
        while (at := block.rfind(needle, 0, at)) >= 0:
            line = end_of_lines(fd, start + at)
            if os.pread(fd, 40, line).startswith(_WHOLE):
                yield line
            at = max(line - start, 0)
        yield None
        end = start


def _forwards(fd: int, needle: bytes, start: int, size: int) -> Iterator[int | None]:
    while start < size:
        block = os.pread(fd, SLICE + len(needle) - 1, start).lower()
        at = -1
        while (at := block.find(needle, at + 1)) >= 0:
            line = end_of_lines(fd, start + at)
            if line >= start and os.pread(fd, 40, line).startswith(_WHOLE):
                yield line
            at = block.find(b"\n", at)
            if at < 0:
                break
        yield None
        start += SLICE
