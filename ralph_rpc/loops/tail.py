"""The events of a loop as they come: an iterator over events.jsonl that follows it through rotations.

Reads only and holds no lock, so that any number of streams may run without the loop noticing. Called by the Python
interface and by commands that wait for a receipt, so it imports nothing heavy.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Self, TypeAlias

import orjson

from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.status import loop_status

POLL_S = 0.05

Event: TypeAlias = dict[str, Any]
"""A line of events.jsonl: one of `model.events` where its type begins with `ralph_`, else what pi said."""


def end_of_log(paths: LoopPaths) -> int:
    """The offset at which the next event will begin."""
    reader = EventReader.at_end(paths.events, 0)
    try:
        return reader.offset
    finally:
        reader.close()


class EventStream(Iterator[Event]):
    """The events from `offset` on, each once and in order; a line that is no JSON object is skipped.

    With `follow` it waits for more, and ends when the loop has ended or crashed and all was read; without, it ends
    where the log ends for now. An offset counts bytes over all files that the log ever had, so it stays valid when the
    log is rotated. The stream holds a file open until its end, or until it is closed.
    """

    _reader: EventReader | None = None

    def __init__(self, paths: LoopPaths, offset: int = 0, follow: bool = True) -> None:
        self._paths = paths
        self._reader = EventReader.at(paths.events, offset)
        self._until = None if follow else end_of_log(paths)
        self._lines: deque[tuple[int, bytes]] = deque()
        self.offset = self._reader.offset
        """After the last event that was given: a new stream from here begins with the next one."""
        self.missed = self._reader.missed
        """Bytes that were rotated away before they could be read."""

    def __next__(self) -> Event:
        while self._lines or self._read():
            self.offset, line = self._lines.popleft()
            if (event := _parsed(line)) is not None:
                return event
        raise StopIteration

    def _read(self) -> bool:
        """Waits for more lines; False at the end."""
        while self._reader is not None:
            # Before the read: what a runner writes last is then still seen.
            over = self._until is not None or loop_status(self._paths).runner == "dead"
            if self._until is None or self._reader.offset < self._until:
                self._lines.extend(self._reader.read())
                self.missed = self._reader.missed
            if self._lines:
                return True
            if over:
                self.close()
            else:
                time.sleep(POLL_S)
        return False

    def close(self) -> None:
        """Lets go of the file; the stream then ends after what it has read already."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parsed(line: bytes) -> Event | None:
    try:
        event: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None
