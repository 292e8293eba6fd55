"""Runs the command of `--notify` when there is something to tell, guarded like pi: its whole tree ends with it.

The runner builds a `Notifier`, tells it in passing, and closes it before it leaves. Nothing here holds up the loop:
a command runs in the background, one at a time and for at most `LONGEST_S`, and that one fails is told and no more.
If the machine dies here, a notice is lost.
"""

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.notify import DESKTOP, Notice, desktop_argv, desktop_notifier, environment
from ralph_rpc.text import inert
from ralph_runner.pi.process import Guarded
from ralph_runner.shell.environment import child_environment

LONGEST_S = 30.0
"""One command."""
PATIENCE_S = 40.0
"""All that still run or wait when the runner leaves: the end of a tree included."""
WAITING_AT_MOST = 20
_KEPT_BYTES = 4096


class Notifier:
    """The way to a person. Without a command it does nothing. For the event loop's thread."""

    def __init__(
        self,
        command: str | None,
        paths: LoopPaths,
        workdir: Path,
        tmp: Path,
        note: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        """`note` writes a line of runner.log, `warn` that and a `ralph_notice`."""
        self._command = command
        self._workdir = workdir
        self._env = child_environment(paths, tmp)
        self._note, self._warn = note, warn
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._without = False

    def tell(self, notice: Notice) -> None:
        """Starts the command in the background, after those that it was told before."""
        argv = self._argv(notice)
        if argv is None:
            return
        if len(self._tasks) >= WAITING_AT_MOST:
            self._warn(f"not told, {WAITING_AT_MOST} notices wait already: {notice['message']}")
            return
        task = asyncio.create_task(self._in_turn(argv, notice), name=f"notify {notice['event']}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Waits until everything is told, for at most `PATIENCE_S`; what runs then is ended."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=PATIENCE_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
            self._note(f"{len(late)} notices were not told: the command takes too long")

    def _argv(self, notice: Notice) -> Sequence[str] | None:
        if self._command is None:
            return None
        if self._command != DESKTOP:
            return ["/bin/sh", "-c", self._command]
        notifier = desktop_notifier()
        if notifier is not None:
            return desktop_argv(notifier, notice)
        if not self._without:
            self._without = True
            self._warn("--notify desktop: this system has no notifier (notify-send); nobody is told")
        return None

    async def _in_turn(self, argv: Sequence[str], notice: Notice) -> None:
        async with self._turn:
            try:
                problem = await self._run(argv, notice)
            except OSError as error:
                problem = f"cannot be run ({error.strerror}: {error.filename or argv[0]})"
        if problem is not None:
            self._warn(f"the command of --notify {problem}; nobody may know: {notice['message']}")

    async def _run(self, argv: Sequence[str], notice: Notice) -> str | None:
        """What went wrong, if anything did."""
        stdin = _filled(orjson.dumps(notice) + b"\n")
        try:
            process = await Guarded.spawn(
                argv,
                cwd=self._workdir,
                env=self._env | environment(notice),
                stdin=stdin,
                stderr=subprocess.STDOUT,
            )
        finally:
            os.close(stdin)
        output = _Output(process.stdout_fd)
        problem: str | None = None
        try:
            ended = await asyncio.wait_for(process.wait(), LONGEST_S)
            if ended.code is None:
                problem = "was killed together with its guard"
            elif ended.code:
                problem = f"ended with exit code {128 - ended.code if ended.code < 0 else ended.code}"
        except TimeoutError:
            problem = f"was ended after {LONGEST_S:.0f} s"
        finally:
            # After a cancellation, too: nothing that it started outlives the runner.
            process.kill()
            await process.wait()
            if await asyncio.to_thread(output.is_complete):
                process.close()
        for line in output.lines():
            self._note(f"notify: {line}")
        return problem


class _Output:
    """The end of what the command says, read in a thread of its own, so that no full pipe holds it up."""

    def __init__(self, fd: int) -> None:
        self._tail = b""
        self._reader = threading.Thread(target=self._drain, args=(fd,), name="notify output", daemon=True)
        self._reader.start()

    def is_complete(self) -> bool:
        """Waits a little for the end; whether it has come."""
        self._reader.join(2)
        return not self._reader.is_alive()

    def lines(self) -> list[str]:
        """All of it or its end, inert."""
        text = inert(self._tail.decode("utf-8", "replace")).strip("\n")
        return text.split("\n") if text else []

    def _drain(self, fd: int) -> None:
        while chunk := os.read(fd, 65536):
            self._tail = (self._tail + chunk)[-_KEPT_BYTES:]


def _filled(data: bytes) -> int:
    """The reading end of a pipe that holds `data`, which fits: no command that does not read can hold us up.

    A guard ends a program a few seconds after it closes its stdin; this stdin is not the guard's to close.
    """
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        os.write(writing, data)
    finally:
        os.close(writing)
    return reading
