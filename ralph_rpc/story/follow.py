"""Follows the log of a loop: batches of whole lines, over rotations, until the loop or its runner ends.

Called by `logs` and by `start --foreground`. It reads events.jsonl by offset, is woken when it grows, holds no lock and
writes nothing: any number of followers may run or die, and none of them matters to the loop.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.story.lines import runner_event

if TYPE_CHECKING:
    from ralph_rpc.machine.watch import Watch

_POLL_S = 0.1
_LIVENESS_S = 1.0


class LogFollower:
    """Iterate over it for batches of (logical offset after the line, the line without its LF).

    An empty batch means that there is nothing more now: a good moment to show what has come. A context manager, which
    closes the reader that it was given.
    """

    def __init__(self, reader: EventReader, runner_lives: Callable[[], bool] | None) -> None:
        """`runner_lives` is asked about once a second; without it, the present end of the log is the end."""
        self.ended = False
        """The last that was seen of the loop's life was its regular end."""
        self._reader = reader
        self._runner_lives = runner_lives
        self._growth = _Growth(reader.path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._growth.stop()
        self._reader.close()

    @property
    def missed(self) -> int:
        """Bytes that were rotated away before they were read."""
        return self._reader.missed

    def __iter__(self) -> Iterator[list[tuple[int, bytes]]]:
        checked = 0.0
        last_look = self._runner_lives is None
        while True:
            batch = self._reader.read()
            for _, line in batch:
                border = runner_event(line, "ralph_loop_")
                if border:
                    self.ended = border.get("type") == "ralph_loop_end"
            yield batch
            if batch:
                continue
            if last_look or self.ended or self._runner_lives is None:
                return
            now = time.monotonic()
            if now - checked >= _LIVENESS_S:
                checked = now
                if not self._runner_lives():
                    # It may have written its last lines after our last read.
                    last_look = True
                    continue
            self._growth.wait()


class _Growth:
    """Waits until the log may have grown, at most _POLL_S."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._grown = threading.Event()
        self._watch: Watch | None = None

    def wait(self) -> None:
        if self._watch is None:
            # Here, because it takes longer to load than the rest of the command, and only following needs it.
            from ralph_rpc.machine.watch import GROWTH, Watch

            self._watch = Watch(self._folder, GROWTH, lambda _: self._grown.set())
            self._watch.start()
        self._grown.wait(_POLL_S)
        self._grown.clear()

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
