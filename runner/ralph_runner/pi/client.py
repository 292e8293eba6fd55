"""One pi, spoken to: a thread records its stdout, its stdin is fed without blocking, its stderr is drained.

Made by the shell for each pi, on the event loop's thread, where all methods and callbacks run. Lines are in
the event log before their inputs are handed on, in pi's order. A log that cannot be written holds pi back,
nothing is lost. If the machine dies here, what the log holds has happened; a request without a reply may or
may not have.
"""

import asyncio
import codecs
import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ralph_rpc.files.reserve import lacks_room
from ralph_runner.core.inputs import LogBlocked, LogUnblocked, PiInput, Reply, StreamActivity
from ralph_runner.pi.framing import Log, Recorder
from ralph_runner.pi.process import Exit
from ralph_runner.pi.protocol import encode, encode_dialog_answer
from ralph_runner.pi.stamp import stamp_tail

CHUNK = 65_536
"""Larger reads are slower (cache), and a pipe holds no more."""
DRAIN_S = 2.0
"""How long pi's pipes are read after its tree is gone; something that escaped may hold them open."""
LOG_RETRY_S = 0.5
ACTIVITY_S = 1.0
HOLD_S = 0.005
"""How long inputs wait for more while pi writes without a pause."""
PAUSE_S = 0.025
"""How long pi's next words wait after some that decide nothing: at a model's pace it is the waking up that costs."""
SOME = 4_096
"""Bytes that came at once: pi is in a hurry, and must not find its pipe full."""
HURRY_S = 1.0
STDIN_RETRY_S = 0.005
STDERR_LINES = 20
STDERR_TAIL = 4_096
STDERR_LINE = 8_192
"""A longer line is cut into several, so that stderr without LF takes no memory."""

T = TypeVar("T")


class Child(Protocol):
    """What is needed of `process.Guarded`. An fd becomes -1 when it is closed."""

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int

    async def wait(self) -> Exit: ...
    def close(self) -> None: ...


class PiClient:
    """`on_inputs` gets what pi says in batches, `note` single lines for runner.log.

    `iteration` and `ticket` are asked for what the stamp tells, by the reader thread.
    """

    def __init__(
        self,
        process: Child,
        log: Log,
        on_inputs: Callable[[list[PiInput]], None],
        note: Callable[[str], None],
        iteration: Callable[[], int],
        ticket: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._process = process
        self._on_inputs = on_inputs
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._requests: dict[str, str] = {}
        self._sent = 0
        self._unwritten: deque[bytes] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._stderr = _Stderr(note)
        self._reader = _Reader(process.stdout_fd, log, iteration, ticket, self._deliver, note, self._loop)
        self._end: asyncio.Task[Exit] | None = None

    def start(self) -> None:
        """Begin to read. Called once."""
        os.set_blocking(self._process.stderr_fd, False)
        self._loop.add_reader(self._process.stderr_fd, self._read_stderr)
        self._reader.start()

    def send(self, command: str, **members: Any) -> str:
        """Queue a request and return its id, which is the member `id` if there is one.

        Never blocks, never fails. The answer comes as a `Reply` with that id, or never.
        """
        self._sent += 1
        request = str(members.pop("id", f"{command}-{self._sent}"))
        self._requests[request] = command
        self._write(encode(command, request, members))
        return request

    def answer_dialog(self, id: str, **members: Any) -> None:
        """Answer an extension's dialog: value=…, confirmed=…; without members it is cancelled."""
        self._write(encode_dialog_answer(id, members))

    @property
    def pending_bytes(self) -> int:
        """Bytes of requests that pi's full stdin has not taken."""
        return sum(map(len, self._unwritten))

    @property
    def stderr_tail(self) -> str:
        """The last lines pi wrote to stderr."""
        return self._stderr.tail()

    async def finish(self) -> Exit:
        """Wait until pi's tree is gone and all it wrote is recorded and handed on, then close its pipes.

        After this no callback comes any more. PiExited is the caller's to say. May be called and cancelled
        any number of times.
        """
        if self._end is None:
            self._end = asyncio.create_task(self._finish(), name="pi's end")
        return await asyncio.shield(self._end)

    async def _finish(self) -> Exit:
        ended = await self._process.wait()
        if self._retry is not None:
            self._retry.cancel()
        self._unwritten.clear()
        await self._reader.stop()
        self._loop.remove_reader(self._process.stderr_fd)
        until = time.monotonic() + DRAIN_S
        while time.monotonic() < until and self._read_stderr():
            await asyncio.sleep(0)
        self._stderr.end()
        self._process.close()
        return ended

    def _write(self, line: bytes) -> None:
        self._unwritten.append(line)
        if self._retry is None:
            self._flush()

    def _flush(self) -> None:
        self._retry = None
        while self._unwritten:
            fd = self._process.stdin_fd
            try:
                if fd < 0:
                    raise BrokenPipeError
                line = self._unwritten[0]
                written = os.write(fd, line)
            except BlockingIOError:
                # Not add_writer: the fd is the process's, and one that is closed while it is registered would
                # make the loop trip over the next file of the same number.
                self._retry = self._loop.call_later(STDIN_RETRY_S, self._flush)
                return
            except BrokenPipeError:  # pi's exit is what tells
                self._unwritten.clear()
                return
            if written == len(line):
                self._unwritten.popleft()
            else:
                self._unwritten[0] = line[written:]

    def _deliver(self, inputs: list[PiInput]) -> None:
        if not any(isinstance(one, Reply) for one in inputs):
            self._on_inputs(inputs)
            return
        matched = [self._matched(one) if isinstance(one, Reply) else one for one in inputs]
        if kept := [one for one in matched if one is not None]:
            self._on_inputs(kept)

    def _matched(self, reply: Reply) -> Reply | None:
        """The reply to a request of ours; old pi leaves the id out where it does not know the command."""
        request = reply.id
        if not request:
            request = next((r for r, command in self._requests.items() if command == reply.request), "")
        command = self._requests.pop(request, None)
        if command is None:
            about = f" ({reply.error})" if reply.error else ""
            self._note(f"pi answered what was not asked: {reply.request} {reply.id or 'without id'}{about}")
            return None
        return Reply(command, request, reply.success, reply.data, reply.error)

    def _read_stderr(self) -> bool:
        """Takes one chunk; False when there is none."""
        try:
            chunk = os.read(self._process.stderr_fd, CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._loop.remove_reader(self._process.stderr_fd)
            return False
        self._stderr.feed(chunk)
        return True


class _Stderr:
    """pi's stderr as lines, the last ones kept."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._lines: deque[str] = deque(maxlen=STDERR_LINES)

    def feed(self, chunk: bytes, final: bool = False) -> None:
        *lines, self._rest = (self._rest + self._decoder.decode(chunk, final)).split("\n")
        if len(self._rest) > STDERR_LINE:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._take(line)

    def end(self) -> None:
        self.feed(b"", final=True)
        self._take(self._rest)
        self._rest = ""

    def tail(self) -> str:
        lines = [*self._lines, self._rest] if self._rest else [*self._lines]
        text = "\n".join(lines[-STDERR_LINES:]).encode()
        return text[-STDERR_TAIL:].decode("utf-8", "ignore")

    def _take(self, line: str) -> None:
        line = line.rstrip()
        for at in range(0, len(line), STDERR_LINE):
            piece = line[at : at + STDERR_LINE]
            self._lines.append(piece)
            self._note(piece)


class _Reader(threading.Thread):
    """The thread that moves pi's stdout into the log, and what it found to the event loop."""

    def __init__(
        self,
        fd: int,
        log: Log,
        iteration: Callable[[], int],
        ticket: Callable[[], str | None],
        deliver: Callable[[list[PiInput]], None],
        note: Callable[[str], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(name="pi's stdout", daemon=True)
        self._fd = fd
        self._iteration, self._ticket = iteration, ticket
        self._on_inputs = deliver
        self._on_note = note
        self._loop = loop
        self._log = log
        self._recorder = Recorder(_PatientLog(log, self), self._tell)
        self._wake_read, self._wake_write = os.pipe()
        self._held: list[PiInput] = []
        self._done = asyncio.Event()
        self.stopping = threading.Event()
        self.blocked = False  # held by the log: to wait for the rest of pi's output would be in vain

    async def stop(self) -> None:
        """Take what pi's pipe still holds, at most for DRAIN_S, and end. pi's tree must be gone."""
        os.write(self._wake_write, b"x")
        for _ in range(2):
            if self.blocked:
                self.stopping.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await self._done.wait()
            # A reader that is held by the log, or by a stranger who goes on writing, gives up now.
            self.stopping.set()
        if (
            self._done.is_set()
        ):  # else it hangs in a write to the disk and must not find other files under these
            os.close(self._wake_read)
            os.close(self._wake_write)

    def run(self) -> None:
        try:
            self._read()
        except OSError as error:
            self._tell(f"what pi wrote last could not be logged: {error}")
            with contextlib.suppress(OSError):
                self._log.abandon_line()
        finally:
            self.hand_on()
            self._call(self._done.set)

    def hand_on(self, *more: PiInput) -> None:
        """What waits, and then `more`."""
        held, self._held = [*self._held, *more], []
        if held:
            self._call(self._on_inputs, held)

    def _read(self) -> None:
        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        waiting.register(self._wake_read, select.POLLIN)
        leaving = select.poll()
        leaving.register(self._wake_read, select.POLLIN)
        spoken = hurry = 0.0
        while not self.stopping.is_set():
            # With inputs in hand only a look: as long as pi goes on without a pause they are handed on together, since
            # each time the event loop wakes up it takes the interpreter from this thread.
            ready = waiting.poll(0 if self._held else None)
            now = time.monotonic()
            if self._held and (not ready or now - spoken >= HOLD_S):
                self.hand_on()
                spoken = now
            if not ready:
                continue
            # The wake-up means that pi's tree is gone: an empty pipe is then the end, whoever holds it open.
            if self._fd not in dict(ready):
                break
            chunk = os.read(self._fd, CHUNK)
            if not chunk:
                break
            self._held += self._recorder.feed(chunk, self._stamp())
            if not self._held and now - spoken >= ACTIVITY_S:
                self._held.append(StreamActivity())
            if len(chunk) >= SOME:
                hurry = now
            elif not self._held and now - hurry >= HURRY_S:
                leaving.poll(PAUSE_S * 1000)
        self._recorder.end(self._stamp())

    def _stamp(self) -> bytes:
        return stamp_tail(time.time_ns() // 1_000_000, self._iteration(), self._ticket())

    def _tell(self, text: str) -> None:
        self._call(self._on_note, text)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # A closed loop raises: the runner ends by a bug of its own, and nobody listens any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)


class _PatientLog:
    """The event log, tried again until it can be written, or until the reader must end."""

    def __init__(self, log: Log, reader: _Reader) -> None:
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
