"""One pi, spoken to: requests go to its stdin without blocking, replies are matched to them, and its end is awaited.

Made by the shell for each pi, on the event loop's thread, where all methods and callbacks run. What pi writes is read
by `reader` (stdout) and kept by `stderr`. If the machine dies here, what the log holds has happened; a request without
a reply may or may not have been carried out.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ralph_runner.core.inputs import FarRuns, FarSaid, PiInput, Reply
from ralph_runner.guarded.process import Exit
from ralph_runner.pi.far import KEEP, SHOWN_CHARS, FarStream
from ralph_runner.pi.framing import Log
from ralph_runner.pi.protocol import encode, encode_dialog_answer
from ralph_runner.pi.reader import CHUNK, DRAIN_S, StdoutReader
from ralph_runner.pi.stderr import StderrLines

STDIN_RETRY_S = 0.005


class Child(Protocol):
    """The part of `process.Guarded` that a client uses. An fd becomes -1 when it is closed."""

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int

    async def wait(self) -> Exit: ...
    def close(self) -> None: ...


class PiClient:
    """`on_inputs` gets pi's inputs in batches, `note` single lines for runner.log.

    `iteration` and `ticket` give the values for the stamp; the reader's thread calls them. With a launcher, `far` is what is
    spoken through it, `on_written` is called when something went there, `on_silence` when it has not answered for a lease.
    """

    def __init__(
        self,
        process: Child,
        log: Log,
        on_inputs: Callable[[list[PiInput]], None],
        note: Callable[[str], None],
        iteration: Callable[[], int],
        ticket: Callable[[], str | None] = lambda: None,
        far: FarStream | None = None,
        on_written: Callable[[], None] = lambda: None,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        self._process = process
        self._far, self._on_written, self._on_silence = far, on_written, on_silence
        self._keeping: asyncio.TimerHandle | None = None
        self._pulse = 0.0
        self._on_inputs = on_inputs
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._requests: dict[str, str] = {}
        self._sent = 0
        self._unwritten: deque[bytes] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._stderr = StderrLines(note, self._is_for_us)
        self._reader = StdoutReader(process.stdout_fd, log, iteration, ticket, self._deliver, note, self._loop, far)
        self._end: asyncio.Task[Exit] | None = None

    def start(self) -> None:
        """Start reading. Called once."""
        os.set_blocking(self._process.stderr_fd, False)
        self._loop.add_reader(self._process.stderr_fd, self._read_stderr)
        self._reader.start()
        if self._far is not None:
            self._write(self._far.opening)
            self._keep(self._far)

    def send(self, command: str, **members: Any) -> str:
        """Queue a request and return its id: the member `id` if given, otherwise a new one.

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

    def end_far(self, far: FarStream, graceful: bool) -> None:
        """Have the far guard end pi, and say how it ended. The caller closes stdin."""
        self._write(far.end(graceful))

    @property
    def pending_bytes(self) -> int:
        """Bytes of requests that are still waiting because pi's stdin is full."""
        return sum(map(len, self._unwritten))

    @property
    def stderr_tail(self) -> str:
        """The last lines pi wrote to stderr."""
        return self._stderr.tail()

    async def finish(self) -> Exit:
        """Wait until pi's tree is gone and everything it wrote is recorded and handed on, then close its pipes.

        No callback comes after this. The caller makes the PiExited. May be called and cancelled any number of times.
        """
        if self._end is None:
            self._end = asyncio.create_task(self._finish(), name="pi's end")
        return await asyncio.shield(self._end)

    async def _finish(self) -> Exit:
        ended = await self._process.wait()
        for timer in (self._retry, self._keeping):
            if timer is not None:
                timer.cancel()
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
                # Not add_writer: the process owns the fd, and one that is closed while registered would make the
                # event loop fail on the next file that gets its number.
                self._retry = self._loop.call_later(STDIN_RETRY_S, self._flush)
                return
            except BrokenPipeError:  # pi's exit says the rest
                self._unwritten.clear()
                return
            self._on_written()
            if written == len(line):
                self._unwritten.popleft()
            else:
                self._unwritten[0] = line[written:]

    def _keep(self, far: FarStream) -> None:
        """Four lines in the time of a lease, and the end of a launcher through which no answer comes."""
        now, pause = self._loop.time(), far.lease_s / 4
        if far.answers and now - self._pulse > far.lease_s:
            self._note(f"no answer from the far side for {far.lease_s:.0f} s; ending the launcher")
            self._on_silence()
            return
        if far.runs is not None and not self._unwritten:
            self._write(KEEP)
        self._keeping = self._loop.call_later(pause, self._keep, far)

    def _is_for_us(self, line: str) -> bool:
        far = self._far
        if far is None:
            return False
        if far.is_pulse(line):
            self._pulse = self._loop.time()
            return True
        if far.runs is None and line.strip():
            self._on_inputs([FarSaid(line.strip()[:SHOWN_CHARS])])
        return False

    def _deliver(self, inputs: list[PiInput]) -> None:
        if self._far is not None and any(isinstance(one, FarRuns) for one in inputs):
            self._write(KEEP)  # whether it answers is known from now on
        if not any(isinstance(one, Reply) for one in inputs):
            self._on_inputs(inputs)
            return
        matched = [self._matched(one) if isinstance(one, Reply) else one for one in inputs]
        if kept := [one for one in matched if one is not None]:
            self._on_inputs(kept)

    def _matched(self, reply: Reply) -> Reply | None:
        """The reply to one of our requests; old pi leaves the id out if it does not know the command."""
        request = reply.id
        if not request:
            request = next((r for r, command in self._requests.items() if command == reply.request), "")
        command = self._requests.pop(request, None)
        if command is None:
            about = f" ({reply.error})" if reply.error else ""
            self._note(f"unexpected reply from pi: {reply.request} {reply.id or 'without id'}{about}")
            return None
        return Reply(command, request, reply.success, reply.data, reply.error)

    def _read_stderr(self) -> bool:
        """Read one chunk; False if there is none."""
        try:
            chunk = os.read(self._process.stderr_fd, CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._loop.remove_reader(self._process.stderr_fd)
            return False
        self._stderr.feed(chunk)
        return True
