"""The thread that moves pi's stdout into the event log, and what it found there to the event loop.

Made and started by the client, one for each pi. Lines are in the log before their inputs are handed on, in pi's order.
While the log cannot be written, pi's pipe is not read: pi blocks on its full pipe and nothing is lost. If the machine
dies here, the log ends in whole lines, or in one torn line that the next `EventLog.open` repairs.
"""

import asyncio
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ralph_rpc.files.reserve import lacks_room
from ralph_runner.core.inputs import LogBlocked, LogUnblocked, PiInput, StreamActivity
from ralph_runner.pi.far import FarStream
from ralph_runner.pi.framing import Log, Recorder
from ralph_runner.pi.stamp import stamp_tail

CHUNK = 65_536
"""Larger reads are slower (cache), and a pipe holds no more."""
DRAIN_S = 2.0
"""How long pi's pipes are read after its tree is gone; a process that escaped may hold them open."""
LOG_RETRY_S = 0.5
ACTIVITY_S = 1.0
HOLD_S = 0.005
"""How long inputs wait for more while pi writes without a pause."""
PAUSE_S = 0.025
"""How long pi's next words wait after a batch that decides nothing: at a model's pace, each wake-up is what costs."""
BURST = 4_096
"""Bytes in one read that mean pi writes fast and must not find its pipe full."""
BURST_S = 1.0
"""How long after such a read there is no pause."""

T = TypeVar("T")


class StdoutReader(threading.Thread):
    """Reads `fd` until its end. `deliver` and `note` are called on the event loop's thread, as said for the client."""

    def __init__(
        self,
        fd: int,
        log: Log,
        iteration: Callable[[], int],
        ticket: Callable[[], str | None],
        deliver: Callable[[list[PiInput]], None],
        note: Callable[[str], None],
        loop: asyncio.AbstractEventLoop,
        far: FarStream | None = None,
    ) -> None:
        super().__init__(name="pi's stdout", daemon=True)
        self._fd = fd
        self._iteration, self._ticket = iteration, ticket
        self._on_inputs = deliver
        self._on_note = note
        self._loop = loop
        self._log, self._far = log, far
        self._recorder = Recorder(_PatientLog(log, self), self._tell)
        self._wake_read, self._wake_write = os.pipe()
        self._held: list[PiInput] = []
        self._done = asyncio.Event()
        self.stopping = threading.Event()
        self.blocked = False  # the log takes nothing now: waiting for the rest of pi's output would be in vain

    async def stop(self) -> None:
        """Read what pi's pipe still holds, for at most DRAIN_S, and end. pi's tree must be gone."""
        os.write(self._wake_write, b"x")
        for _ in range(2):
            if self.blocked:
                self.stopping.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await self._done.wait()
            # A reader blocked by the log, or kept busy by a stray process that still writes, gives up now.
            self.stopping.set()
        if (
            self._done.is_set()
        ):  # otherwise it hangs in a write to the disk, and must not find other files under these numbers
            os.close(self._wake_read)
            os.close(self._wake_write)

    def run(self) -> None:
        try:
            self._read()
        except OSError as error:
            self._tell(f"pi's last output could not be logged: {error}")
            with contextlib.suppress(OSError):
                self._log.abandon_line()
        finally:
            self.hand_on()
            self._call(self._done.set)

    def hand_on(self, *more: PiInput) -> None:
        """Deliver the inputs held back, and then `more`."""
        held, self._held = [*self._held, *more], []
        if held:
            self._call(self._on_inputs, held)

    def _read(self) -> None:
        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        waiting.register(self._wake_read, select.POLLIN)
        leaving = select.poll()
        leaving.register(self._wake_read, select.POLLIN)
        spoken = burst = 0.0
        while not self.stopping.is_set():
            # While inputs are held, poll without waiting: as long as pi writes without a pause they are handed on
            # together, since each wake-up of the event loop takes the interpreter from this thread.
            ready = waiting.poll(0 if self._held else None)
            now = time.monotonic()
            if self._held and (not ready or now - spoken >= HOLD_S):
                self.hand_on()
                spoken = now
            if not ready:
                continue
            # The wake-up means that pi's tree is gone: an empty pipe is then the end, even if a process holds it open.
            if self._fd not in dict(ready):
                break
            chunk = os.read(self._fd, CHUNK)
            if not chunk:
                break
            size = len(chunk)
            if self._far is not None:
                chunk, told = self._far.feed(chunk)
                self._held += told
            self._held += self._recorder.feed(chunk, self._stamp())
            if not self._held and now - spoken >= ACTIVITY_S:
                self._held.append(StreamActivity())
            if size >= BURST:
                burst = now
            elif not self._held and now - burst >= BURST_S:
                leaving.poll(PAUSE_S * 1000)
        self._recorder.end(self._stamp())

    def _stamp(self) -> bytes:
        return stamp_tail(time.time_ns() // 1_000_000, self._iteration(), self._ticket())

    def _tell(self, text: str) -> None:
        self._call(self._on_note, text)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # A closed event loop raises: the runner is ending because of a bug, and nothing listens any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)


class _PatientLog:
    """The event log; each write is retried until it succeeds or the reader must end."""

    def __init__(self, log: Log, reader: StdoutReader) -> None:
        self._log = log
        self._reader = reader

    def append(self, data: bytes) -> int:
        return self._patiently(self._log.append, data)

    def begin_line(self) -> None:
        self._patiently(self._log.begin_line)

    def extend(self, chunk: bytes) -> None:
        self._patiently(self._log.extend, chunk)

    def end_line(self, tail: bytes) -> int:
        return self._patiently(self._log.end_line, tail)

    def abandon_line(self) -> None:
        self._patiently(self._log.abandon_line)

    def _patiently(self, write: Callable[..., T], *data: bytes) -> T:
        while True:
            try:
                result = write(*data)
            except OSError as error:
                if self._reader.stopping.is_set():
                    raise
                if not self._reader.blocked:
                    self._reader.hand_on(LogBlocked(error.strerror or str(error), lacks_room(error)))
                    self._reader.blocked = True
                self._reader.stopping.wait(LOG_RETRY_S)
            else:
                if self._reader.blocked:
                    self._reader.blocked = False
                    self._reader.hand_on(LogUnblocked())
                return result
