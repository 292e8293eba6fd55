"""The least that speaks to `pi --mode rpc`: lines in, lines out, all waits bounded.

For tests of the scripted model and for recording; independent of the program's own client on purpose.
"""

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Event = dict[str, Any]


class BareClient:
    """A running pi; a context manager that ends it."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], args: Sequence[str]) -> None:
        self.lines: list[bytes] = []
        """What pi wrote to stdout, as it wrote it."""
        self.stderr = b""
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._process = subprocess.Popen(
            [*command, "--mode", "rpc", "--session-dir", str(cwd / "sessions"), *args],
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._drain)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            self._events.put(json.loads(line))
        self._events.put(None)

    def _drain(self) -> None:
        assert self._process.stderr is not None
        self.stderr = self._process.stderr.read()

    def send(self, command: str, **members: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"type": command, **members}).encode() + b"\n")
        self._process.stdin.flush()

    def until(self, wanted: Callable[[Event], bool], timeout: float = 60.0) -> Event:
        """Returns the next event that `wanted` accepts; those before it are used up."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                last = self.lines[-1][:300] if self.lines else b""
                raise TimeoutError(f"not within {timeout} s; last line {last!r}") from None
            if event is None:
                self._events.put(None)
                self._threads[1].join(timeout)
                raise EOFError(f"pi has ended: {self.stderr[-2000:].decode(errors='replace')}")
            if wanted(event):
                return event

    def ask(self, command: str, **members: Any) -> Event:
        """Sends a request and returns pi's response to it."""
        self.send(command, id=command, **members)
        return self.until(lambda event: event["type"] == "response" and event["command"] == command)

    def settled(self, timeout: float = 60.0) -> Event:
        """Waits until the run is over and returns the `agent_end` that was its last.

        0.73.1 has no `agent_settled`: there `get_state` is the barrier behind which a retry or a compaction
        would have shown itself.
        """
        last: Event = {}
        while True:
            event = self.until(_may_be_last, timeout)
            if event["type"] == "agent_end":
                last = event
            if event["type"] == "agent_settled":
                return last
            if self._is_old() and self._nothing_follows():
                return last

    def _is_old(self) -> bool:
        return not any(b'"disposition"' in line or b'"role":"system"' in line for line in self.lines)

    def _nothing_follows(self) -> bool:
        self.send("get_state", id="barrier")
        pending = False
        while True:
            event = self.until(lambda _: True)
            if event["type"] in ("auto_retry_start", "compaction_start"):
                pending = True
            if event.get("id") == "barrier":
                return not pending and not event["data"]["pendingMessageCount"]

    def close(self) -> int:
        """Ends pi and returns its exit code."""
        assert self._process.stdin is not None
        self._process.terminate()
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdin.close()
        for thread in self._threads:
            thread.join(10)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _may_be_last(event: Event) -> bool:
    """A retry that succeeded ends before its run does."""
    kinds = ("agent_end", "agent_settled", "compaction_end")
    return event["type"] in kinds or (event["type"] == "auto_retry_end" and not event["success"])
