"""Runs the verify command, guarded like pi: its whole tree ends with it, and with the runner.

Called once at a time. If the machine dies here, nothing was recorded, and the iteration is judged again never: it
is recorded as crashed.
"""

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ralph_rpc.model.iteration import Verify
from ralph_runner.pi.process import Guarded

TAIL_CHARS = 2_000
_KEPT_BYTES = 64 * 1024
TIMED_OUT = 124


class Verification:
    """One run of the command."""

    def __init__(self) -> None:
        self._process: Guarded | None = None
        self._cancelled = False
        self._tail = b""

    def cancel(self) -> None:
        """Ends it; `run` then returns None."""
        self._cancelled = True
        if self._process is not None:
            self._process.kill()

    async def run(self, command: str, cwd: Path, env: Mapping[str, str], timeout_ms: int) -> Verify | None:
        """Its result; None if it was cancelled. A command that cannot be started has exit code 127."""
        began = time.monotonic()
        try:
            process = await Guarded.spawn(
                ["/bin/sh", "-c", command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT
            )
        except OSError as error:
            return _result(command, 127, began, f"{error.filename}: {error.strerror}")
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
        status = 137 if code is None else 128 - code if code < 0 else code
        return _result(command, status, began, self._tail.decode("utf-8", errors="replace"))

    def _drain(self, fd: int) -> None:
        while chunk := os.read(fd, 65536):
            self._tail = (self._tail + chunk)[-_KEPT_BYTES:]


def _result(command: str, code: int, began: float, output: str) -> Verify:
    duration = int((time.monotonic() - began) * 1000)
    return {"command": command, "exitCode": code, "durationMs": duration, "tail": output[-TAIL_CHARS:]}
