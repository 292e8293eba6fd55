"""Runs the command of `--notify`, or sends a notification to its address, when a person should know something.

It is guarded like pi: its whole tree ends with it.

The runner makes one `Notifier` and closes it before it leaves; the performer calls `tell`. Nothing here delays the
loop: commands run in the background, one at a time and for at most `LONGEST_S` each, and a failure is only reported.
If the machine dies here, a notice is lost.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.story.notifications import (
    DESKTOP,
    Notification,
    desktop_argv,
    desktop_notifier,
    environment,
    post_of,
    shown,
)
from ralph_rpc.terminal.inert import inert
from ralph_runner.guarded.process import Guarded
from ralph_runner.guarded.spawn import GuardFault
from ralph_runner.shell import post
from ralph_runner.shell.environment import child_environment
from ralph_runner.shell.patience import LOOK_AGAIN_S, LOOK_GAP_S

LONGEST_S = 30.0
"""For one command."""
PATIENCE_S = 40.0
"""For all that still run or wait when the runner leaves, the end of their trees included."""
WAITING_AT_MOST = 20
_KEPT_BYTES = 4096


class Notifier:
    """Does nothing without a command. For the event loop's thread."""

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

    def tell(self, notice: Notification) -> None:
        """Run the command in the background, after the notices that came before."""
        argv = self._argv(notice)
        if argv is None:
            return
        if len(self._tasks) >= WAITING_AT_MOST:
            self._warn(f"no notification, {WAITING_AT_MOST} are waiting already: {notice['message']}")
            return
        task = asyncio.create_task(self._in_turn(argv, notice), name=f"notify {notice['event']}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait until every notice is delivered, for at most `PATIENCE_S`; what still runs then is ended."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=PATIENCE_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
            self._note(f"{len(late)} notifications were not delivered: the command takes too long")

    def _argv(self, notice: Notification) -> Sequence[str] | None:
        if self._command is None:
            return None
        if post_of(self._command, notice) is not None:
            return [sys.executable, "-I", post.__file__]
        if self._command != DESKTOP:
            return ["/bin/sh", "-c", self._command]
        notifier = desktop_notifier()
        if notifier is not None:
            return desktop_argv(notifier, notice)
        if not self._without:
            self._without = True
            self._warn("--notify desktop: this system has no notifier (notify-send); no notification will be sent")
        return None

    async def _in_turn(self, argv: Sequence[str], notice: Notification) -> None:
        async with self._turn:
            problem = await self._tried(argv, notice)
        if problem is not None:
            self._warn(f"{self._who()} {problem}; not delivered: {notice['message']}")

    def _who(self) -> str:
        """What did not deliver; of an address only the host."""
        told = shown(self._command or "")
        return "the command of --notify" if told == self._command else f"--notify {told}"

    async def _tried(self, argv: Sequence[str], notice: Notification) -> str | None:
        """Gives what went wrong; where nothing could be run at all, that is looked at again for some seconds."""
        until = time.monotonic() + LOOK_AGAIN_S
        while True:
            try:
                return await self._run(argv, notice)
            except OSError as error:
                if not isinstance(error, GuardFault) or time.monotonic() >= until:
                    return f"cannot be run ({error.strerror}: {error.filename or argv[0]})"
            await asyncio.sleep(LOOK_GAP_S)

    async def _run(self, argv: Sequence[str], notice: Notification) -> str | None:
        """Gives what went wrong, if anything did."""
        posted = post_of(self._command or "", notice)
        stdin = _filled(orjson.dumps(posted._asdict() if posted is not None else notice) + b"\n")
        try:
            process = await Guarded.spawn(
                argv, cwd=self._workdir, env=self._env | environment(notice), stdin=stdin, stderr=subprocess.STDOUT
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
            # Also after a cancellation: nothing that the command started outlives the runner.
            process.kill()
            await process.wait()
            if await asyncio.to_thread(output.is_complete):
                process.close()
        lines = output.lines()
        if posted is not None and problem is not None and lines:
            return f"failed: {lines[-1]}"
        for line in lines:
            self._note(f"notify: {line}")
        return problem


class _Output:
    """The end of the command's output, read in a thread of its own, so that the command never blocks on a full pipe."""

    def __init__(self, fd: int) -> None:
        self._tail = b""
        self._reader = threading.Thread(target=self._drain, args=(fd,), name="notify output", daemon=True)
        self._reader.start()

    def is_complete(self) -> bool:
        """Wait a little for the end; False if it has not come."""
        self._reader.join(2)
        return not self._reader.is_alive()

    def lines(self) -> list[str]:
        """The output or its end, made inert."""
        text = inert(self._tail.decode("utf-8", "replace")).strip("\n")
        return text.split("\n") if text else []

    def _drain(self, fd: int) -> None:
        while chunk := os.read(fd, 65536):
            self._tail = (self._tail + chunk)[-_KEPT_BYTES:]


def _filled(data: bytes) -> int:
    """The reading end of a pipe that holds all of `data`, so that a command which does not read cannot block us.

    Not a pipe of the guard's: it ends a program a few seconds after the program's stdin was closed.
    """
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        os.write(writing, data)
    finally:
        os.close(writing)
    return reading
