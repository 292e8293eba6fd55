"""Wakes the runner when a file arrives in the inbox. A hint only: the runner scans anyway, once a second.

watchdog's own thread calls `wake`, which must be thread-safe. Only arrivals are watched (closed after write, moved
to), and only this one folder: a recursive watch would cost most of a core while pi writes. Where the system has no
inotify instance left the scan alone serves, four times a second.
"""

from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileClosedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver


class Watch:
    """Use as `watch = Watch(inbox, wake)`, then `start`, then `stop`."""

    def __init__(self, inbox: Path, wake: Callable[[], None]) -> None:
        self._inbox = inbox
        self._handler = _Handler(wake)
        self._observer: BaseObserver | None = None

    def start(self) -> str | None:
        """Begins to watch; returns why that is not possible, in one line, or None."""
        observer = Observer()
        try:
            observer.schedule(
                self._handler, str(self._inbox), recursive=False, event_filter=[FileClosedEvent, FileMovedEvent]
            )
            observer.start()
        except OSError as error:
            return f"no watch on the inbox ({error.strerror}); it is scanned four times a second"
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
