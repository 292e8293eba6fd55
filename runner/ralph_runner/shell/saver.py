"""Writes state.json and the registry entry from a thread of its own, so that a slow disk never delays an event.

Made by the runner, fed by the performer. The event loop hands over whole values; only the newest of each is written. If
the disk is full, the reserve is given up and the state is tried again until it is written; a folder out of place is
waited for as everywhere (patience.py); any other failure of state.json goes to `on_failure`, in this thread. The
registry is only information: its failures are noted. If the machine dies here, the files are old or new, never torn,
and at most one transition behind the journal and the events.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ralph_rpc.files import records, registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.reserve import Reserve, lacks_room
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import State
from ralph_runner.shell.patience import GIVE_UP_S, PASSING

RETRY_S = 1.0
LAST_TRY_S = 2.0
"""How long a runner that is leaving tries to write its last state."""


class Saver:
    """`put` from any thread; `close` writes what is left and ends the thread."""

    def __init__(
        self, paths: LoopPaths, note: Callable[[str], None], reserve: Reserve, on_failure: Callable[[OSError], None]
    ) -> None:
        self._paths = paths
        self._note = note
        self._reserve = reserve
        self._on_failure = on_failure
        self._state: State | None = None
        self._entry: RegistryEntry | None = None
        self._retry = False
        self._changed = threading.Condition()
        self._closing: float | None = None
        self._trouble = ""
        self._amiss_since: float | None = None
        self.entry_path: Path | None = None
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)
        self._thread.start()

    def put(self, state: State | None, entry: RegistryEntry) -> None:
        """Have these values written; without a state (a heartbeat) state.json stays as it is."""
        with self._changed:
            self._state = state or self._state
            self._entry = entry
            self._changed.notify()

    def follow(self, paths: LoopPaths) -> None:
        """Write the state there from now on: where a folder that was moved away can be found."""
        with self._changed:
            self._paths = paths

    def close(self) -> None:
        """Write what is left. Doing it twice is fine."""
        with self._changed:
            self._closing = self._closing or time.monotonic()
            self._changed.notify()
        self._thread.join(30)

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._retry:
                    self._changed.wait(RETRY_S)
                while self._state is None and self._entry is None and self._closing is None:
                    self._changed.wait()
                state, entry = self._state, self._entry
                self._state = self._entry = None
                if state is None and entry is None:
                    return
                last = self._closing is not None and time.monotonic() - self._closing > LAST_TRY_S
            self._retry = state is not None and not self._write_state(state) and not last
            if self._retry:
                with self._changed:
                    self._state = self._state or state
            if entry is not None:
                self._publish(entry)

    def _write_state(self, state: State) -> bool:
        """False if it may succeed later."""
        try:
            records.write_state(self._paths, state)
        except OSError as error:
            if lacks_room(error):
                return self._reserve.give() and self._write_state(state)
            now = time.monotonic()
            self._amiss_since = self._amiss_since or now
            if error.errno in PASSING and now - self._amiss_since < GIVE_UP_S:
                return False
            self._on_failure(error)
        self._amiss_since = None
        return True

    def _publish(self, entry: RegistryEntry) -> None:
        try:
            self.entry_path = registry.publish(self.entry_path, entry)
        except OSError as error:
            if not self._trouble:
                self._note(f"cannot write {error.filename or 'the registry'}: {error.strerror}; trying again")
            self._trouble = str(error)
        else:
            self._trouble = ""
