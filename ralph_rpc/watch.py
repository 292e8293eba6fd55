"""Wakes whoever waits for files in a folder. A hint only: who is woken looks, and looks now and then anyway.

Used by the runner for its inbox and by `logs -f` for the log. watchdog's own thread calls `wake`, which must be
thread-safe. Only one folder is watched: a recursive watch would cost most of a core while pi writes. Where the
system has no inotify instance left, looking now and then has to serve.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)  # fmt: skip
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

ARRIVAL: list[type[FileSystemEvent]] = [FileClosedEvent, FileMovedEvent, FileCreatedEvent]
"""A file was made, closed after writing, or came by its name."""
GROWTH: list[type[FileSystemEvent]] = [FileModifiedEvent, FileMovedEvent, FileCreatedEvent]
"""A file was written to, made, or came by its name."""


class Watch:
    """Use as `watch = Watch(folder, ARRIVAL, wake)`, then `start`, then `stop`."""

    def __init__(self, folder: Path, kinds: list[type[FileSystemEvent]], wake: Callable[[], None]) -> None:
        self._folder = folder
        self._kinds = kinds
        self._handler = _Handler(wake)
        self._observer: BaseObserver | None = None

    def start(self) -> str | None:
        """Begins to watch; returns why that is not possible, or None."""
        observer = _observer()
        try:
            observer.schedule(self._handler, str(self._folder), recursive=False, event_filter=self._kinds)
            observer.start()
        except OSError as error:
            return error.strerror or str(error)
        self._observer = observer
        return None

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(2)
            self._observer = None


class _Handler(FileSystemEventHandler):
    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        # Names with a dot are half-written or taken already; each command makes several.
        if not Path(os.fsdecode(event.dest_path or event.src_path)).name.startswith("."):
            self._wake()


def _observer() -> BaseObserver:
    if sys.platform != "linux":
        return Observer()
    from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
    from watchdog.observers.inotify_c import InotifyConstants, Mask

    class Emitter(InotifyEmitter):
        """Sees where a rename ends, and not where it begins: watchdog holds back the beginning for half a second, and
        with it all that follows, when it reads it before the end."""

        def get_event_mask_from_filter(self) -> Mask:
            return Mask(super().get_event_mask_from_filter() & ~InotifyConstants.IN_MOVED_FROM)

    observer = InotifyObserver()
    observer._emitter_class = Emitter
    return observer
