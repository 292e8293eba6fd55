"""Wakes whoever waits for files in a folder. A hint only: who is woken looks, and looks now and then anyway.

Used by the runner for its inbox and by `logs -f` for the log. watchdog's own thread calls `wake`, which must be
thread-safe. Only one folder is watched: a recursive watch would cost most of a core while pi writes. Where the
system has no inotify instance left, looking now and then has to serve.
"""

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
"""A file was closed after writing, renamed, or moved there from another folder (which counts as created)."""
GROWTH: list[type[FileSystemEvent]] = [FileModifiedEvent, FileMovedEvent]
"""A file was written to, or moved there."""


class Watch:
    """Use as `watch = Watch(folder, ARRIVAL, wake)`, then `start`, then `stop`."""

    def __init__(self, folder: Path, kinds: list[type[FileSystemEvent]], wake: Callable[[], None]) -> None:
        self._folder = folder
        self._kinds = kinds
        self._handler = _Handler(wake)
        self._observer: BaseObserver | None = None

    def start(self) -> str | None:
        """Begins to watch; returns why that is not possible, or None."""
        observer = Observer()
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
        self._wake()
