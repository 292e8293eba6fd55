"""Writes state.json and the registry entry from a thread of its own, so that a slow disk never delays an event.

The event loop hands over whole values; only the newest of each is written. A write that fails leaves the old file
as it was, is reported once, and is tried again with the next value. If the machine dies here the files are old or
new, never torn, and at most one transition behind the journal and the events.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from ralph_rpc.files import records, registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import State


class Saver:
    """`put` from any thread; `close` writes what is left and ends the thread."""

    def __init__(self, paths: LoopPaths, note: Callable[[str], None]) -> None:
        self._paths = paths
        self._note = note
        self._state: State | None = None
        self._entry: RegistryEntry | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._trouble = False
        self.entry_path: Path | None = None
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)
        self._thread.start()

    def put(self, state: State | None, entry: RegistryEntry) -> None:
        """The newest values; state None leaves state.json as it is (a heartbeat)."""
        with self._changed:
            self._state = state or self._state
            self._entry = entry
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(30)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._state is None and self._entry is None and not self._closing:
                    self._changed.wait()
                state, entry = self._state, self._entry
                self._state = self._entry = None
                if state is None and entry is None:
                    return
            self._write(state, entry)

    def _write(self, state: State | None, entry: RegistryEntry | None) -> None:
        try:
            if state is not None:
                records.write_state(self._paths, state)
            if entry is not None:
                self.entry_path = registry.publish(self.entry_path, entry)
        except OSError as error:
            if not self._trouble:
                self._note(f"cannot write {error.filename or 'state.json'}: {error.strerror}; trying again")
            self._trouble = True
        else:
            self._trouble = False
