"""Wakes whoever waits for files in a folder. A hint only: who is woken looks, and looks now and then anyway.

Used by the runner for its inbox, by `logs -f` and by `attach` for the log. A thread of watchdog's calls `wake`, which
must be thread-safe. Only one folder is watched: a recursive watch would cost most of a core while pi writes. Where the
system has no inotify instance left, looking now and then has to serve.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)  # fmt: skip

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import InotifyEvent, WatchDescriptor

Kinds = list[type[FileSystemEvent]]
ARRIVAL: Kinds = [FileClosedEvent, FileMovedEvent, FileCreatedEvent]
"""A file was made, closed after writing, or came by its name."""
GROWTH: Kinds = [FileModifiedEvent, FileMovedEvent, FileCreatedEvent]
"""A file was written to, made, or came by its name."""

Wake = Callable[[str], None]
"""Gets the file's name; an empty one means any file."""


class Watch:
    """Use as `watch = Watch(folder, ARRIVAL, wake)`, then `start`, then `stop`."""

    def __init__(self, folder: Path, kinds: Kinds, wake: Wake) -> None:
        self._folder, self._kinds, self._wake = folder, kinds, wake
        self._thread: _Thread | None = None

    def start(self) -> str | None:
        """Begins to watch; returns why that is not possible, or None."""
        try:
            begin = _with_inotify if sys.platform == "linux" else _with_observer
            self._thread = begin(self._folder, self._kinds, self._wake)
        except OSError as error:
            return error.strerror or str(error)
        return None

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.stop()
            self._thread.join(2)
            self._thread = None


class _Thread(Protocol):
    def stop(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


def _with_inotify(folder: Path, kinds: Kinds, wake: Wake) -> _Thread:
    """watchdog's thread that reads inotify calls `wake` itself. Its observer hands each event on to a second thread and
    a third, and holds back the beginning of a rename for half a second, and with it all that follows."""
    from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD, Mask

    meant = {
        FileClosedEvent: InotifyConstants.IN_CLOSE_WRITE,
        FileCreatedEvent: InotifyConstants.IN_CREATE,
        FileModifiedEvent: InotifyConstants.IN_MODIFY,
        FileMovedEvent: InotifyConstants.IN_MOVED_TO,
    }
    thread = InotifyFD()
    thread.start()
    try:
        thread.add_callback(os.fsencode(folder), Mask(sum(meant[kind] for kind in kinds)), _Callback(wake), CallbackId(0))
    except OSError:
        thread.stop()
        thread.join()
        raise
    return thread


class _Callback:
    """What InotifyFD calls."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake

    def on_event(self, event: "InotifyEvent") -> None:
        _tell(os.fsdecode(event.name), self._wake)

    def on_watch_deleted(self, wd: "WatchDescriptor") -> None:
        """The folder is gone, which is seen by who looks now and then."""

    def on_queue_overflow(self) -> None:
        self._wake("")


def _with_observer(folder: Path, kinds: Kinds, wake: Wake) -> _Thread:
    from watchdog.observers import Observer

    observer = Observer()
    observer.schedule(_Handler(wake), str(folder), recursive=False, event_filter=kinds)
    observer.start()
    return observer


class _Handler(FileSystemEventHandler):
    def __init__(self, wake: Wake) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        _tell(Path(os.fsdecode(event.dest_path or event.src_path)).name, self._wake)


def _tell(name: str, wake: Wake) -> None:
    # Names with a dot are half-written or taken already; each command makes several.
    if not name.startswith("."):
        wake(name)
