"""Runs the verify command, guarded like pi: its whole tree ends with it, and with the runner.

Used by `one_pi` and `ticket_effects`, one object for each run. If the machine dies here, nothing is recorded, and the
iteration is not judged again: its record says crashed.
"""

import asyncio
import errno
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ralph_rpc.model.iteration import Verify
from ralph_runner.guarded.process import Guarded
from ralph_runner.guarded.spawn import GuardFault

TAIL_CHARS = 2_000
_KEPT_BYTES = 64 * 1024
TIMED_OUT = 124


class Verification:
    """One run of the command."""

    def __init__(self) -> None:
        self._process: Guarded | None = None
        self._cancelled = False
        self._tail = b""

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """End it; `run` then returns None."""
        self._cancelled = True
        if self._process is not None:
            self._process.kill()

    async def run(self, command: str, cwd: Path, env: Mapping[str, str], timeout_ms: int) -> Verify | None:
        """Run it; None if it was cancelled. `timeout_ms` 0: no limit.

        Raises OSError where the shell could not be started, or its guard was killed: then the command has said nothing. A
        command that the shell does not find is a result, 127 as in any shell. May be called again after an OSError.
        """
        if self._cancelled:
            return None
        began = time.monotonic()
        self._tail = b""
        process = await Guarded.spawn(
            ["/bin/sh", "-c", command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        self._process = process
        if self._cancelled:
            process.kill()
        reader = threading.Thread(target=self._drain, args=(process.stdout_fd,), name="verify output", daemon=True)
        reader.start()
        code: int | None = None
        try:
            ended = await asyncio.wait_for(process.wait(), timeout_ms / 1000 if timeout_ms else None)
            code = ended.code
        except TimeoutError:
            process.kill()
            await process.wait()
            code = TIMED_OUT
            self._tail += f"\n(ended after {timeout_ms // 1000} s, the limit of --tool-timeout)".encode()
        await asyncio.to_thread(reader.join, 2)
        if not reader.is_alive():
            process.close()
        if self._cancelled:
            return None
        if code is None:
            raise GuardFault(errno.ECHILD, "the guard of the command was killed, and the command with it")
        status = 128 - code if code < 0 else code
        return _result(command, status, began, self._tail.decode("utf-8", errors="replace"))

    def _drain(self, fd: int) -> None:
        while chunk := os.read(fd, 65536):
            self._tail = (self._tail + chunk)[-_KEPT_BYTES:]


def _result(command: str, code: int, began: float, output: str) -> Verify:
    duration = int((time.monotonic() - began) * 1000)
    return {"command": command, "exitCode": code, "durationMs": duration, "tail": output[-TAIL_CHARS:]}
