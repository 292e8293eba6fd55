"""Wakes a caller that waits for files in a folder. A hint only: a caller that is woken looks, and also looks now and then.

Used by the runner for its inbox, by `logs -f` and by `attach` for the log. A thread of watchdog's calls `wake`, which
must be thread-safe. Only one folder is watched: a recursive watch would cost most of a core while pi writes. Where the
system has no inotify instance left, looking now and then has to do. Nothing is kept on disk.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

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
            self._thread = self._begin()
        except OSError as error:
            return error.strerror or str(error)
        return None

    def _begin(self) -> "_Thread":
        if sys.platform == "linux":
            # Not watchdog's public part: another release may lack it, or have it in another shape.
            with suppress(ImportError, AttributeError, TypeError):
                return _with_inotify(self._folder, self._kinds, self._wake)
        return _with_observer(self._folder, self._kinds, self._wake)

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.stop()
            self._thread.join(2)
            self._thread = None


class _Thread(Protocol):
    def stop(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


def _with_inotify(folder: Path, kinds: Kinds, wake: Wake) -> _Thread:
    """watchdog's thread that reads inotify calls `wake` itself.

    Its observer hands each event on to a second thread and a third, and holds back the beginning of a rename for half a
    second, and with it all that follows. Raises ImportError, AttributeError or TypeError where watchdog's inside differs
    from what this knows, and then leaves no thread.
    """
    from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD, Mask, WatchCallback

    meant = {
        FileClosedEvent: InotifyConstants.IN_CLOSE_WRITE,
        FileCreatedEvent: InotifyConstants.IN_CREATE,
        FileModifiedEvent: InotifyConstants.IN_MODIFY,
        FileMovedEvent: InotifyConstants.IN_MOVED_TO,
    }
    called = {name for name in vars(WatchCallback) if name.startswith("on_")}
    if not called or not called <= set(vars(_Callback)):
        raise AttributeError(f"watchdog calls {', '.join(sorted(called)) or 'something else'}")
    thread = InotifyFD()
    thread.start()
    try:
        thread.add_callback(
            os.fsencode(folder), Mask(sum(meant[kind] for kind in kinds)), _Callback(wake), CallbackId(0)
        )
    except (OSError, AttributeError, TypeError):
        thread.stop()
        thread.join()
        raise
    return thread


class _Callback:
    """What InotifyFD calls."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake

    def on_event(self, event: object) -> None:
        name = getattr(event, "name", None)
        if isinstance(name, (bytes, str)):
            _tell(os.fsdecode(name), self._wake)
        else:
            self._wake("")

    def on_watch_deleted(self, wd: object) -> None:
        """The folder is gone, which a caller sees when it looks."""
        self._wake("")

    def on_queue_overflow(self) -> None:
        self._wake("")


def _with_observer(folder: Path, kinds: Kinds, wake: Wake) -> _Thread:
    """watchdog's public observer: on every system and in every release, and slower.

    After a rename out of the folder it says nothing for half a second; callers that look every second miss nothing.
    """
    from watchdog.observers import Observer

    # Where it cannot start because the folder is gone, it leaves a thread behind.
    os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
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
