"""The near end of the far guard's language: what goes to it on stdin, and its own lines picked out of pi's stdout.

One for each start of a launcher, made by the shell. `feed` is called by the reader's thread, the rest on the event loop's.
All that the far guard says carries a key that only this start knows, so nothing that pi or a launcher writes is taken
for it. If the machine dies here, the far guard sees the end of its stdin.
"""

import json
import os
from typing import Any, NamedTuple, cast

from ralph_runner.core.inputs import FarRuns, FarSaid, PiInput
from ralph_runner.guarded.process import Method
from ralph_runner.pi.protocol import decode

KEEP = b'{"type":"ralph_keep"}\n'
_RUNS = b'{"type":"ralph_far",'
_EXIT = b'{"type":"ralph_far_exit",'
LONGEST_LINE = 8_192
"""Of what a launcher writes."""
SHOWN_CHARS = 300


class FarExit(NamedTuple):
    """The far guard's last word."""

    code: int
    method: Method
    by: str
    """pi (its own end), near (this side), signal, lease."""
    error: str
    """Why pi could not be executed; empty where it could."""


class FarStream:
    """One launcher's stdin and stdout."""

    def __init__(self, name: str, env: dict[str, str], cwd: str, tmp: str, lease_s: float) -> None:
        self._key = os.urandom(12).hex()
        told = {"key": self._key, "name": name, "env": env, "cwd": cwd, "tmp": tmp, "lease": lease_s}
        self.opening = json.dumps(told).encode() + b"\n"
        self.lease_s = lease_s
        self.runs: FarRuns | None = None
        self.made_cwd = False
        """The folder that pi works in was not there, and is empty."""
        self.exit: FarExit | None = None
        self.answers = False
        """It has answered a keep-alive: that it would is known then."""
        self._rest = b""

    @staticmethod
    def end(graceful: bool) -> bytes:
        """Ends pi: by the end of its input first, or by SIGTERM at once."""
        return b'{"type":"ralph_end","grace":%d}\n' % (3 if graceful else 0)

    def is_pulse(self, line: str) -> bool:
        """Whether a line of stderr is the far guard's answer to a keep-alive."""
        if line.strip() != f"ralph-far {self._key}":
            return False
        self.answers = True
        return True

    def feed(self, chunk: bytes) -> tuple[bytes, list[PiInput]]:
        """What of the launcher's stdout is pi's, and what the far guard tells in it."""
        found: list[PiInput] = []
        if self.runs is None:
            chunk = self._before(self._rest + chunk, found)
            if self.runs is None:
                return b"", found
        elif self._rest:
            chunk = self._rest + chunk
        self._rest = b""
        begin = chunk.rfind(_EXIT)
        if begin == 0 or chunk[begin - 1 : begin] == b"\n":
            end = chunk.find(b"\n", begin)
            if end < 0:
                self._rest = chunk[begin:]
                return chunk[:begin], found
            if self._take_exit(chunk[begin:end]):
                return chunk[:begin], found
        cut = chunk.rfind(b"\n") + 1
        rest = chunk[cut:]
        if rest and _EXIT.startswith(rest):  # the line's beginning, at the end of a chunk
            self._rest, chunk = rest, chunk[:cut]
        return chunk, found

    def _before(self, data: bytes, found: list[PiInput]) -> bytes:
        """Until the far guard speaks: the launcher's lines; gives what comes after its first one."""
        while b"\n" in data:
            line, data = data.split(b"\n", 1)
            told = self._told(line, _RUNS)
            if told is not None:
                host, boot, space = (str(told.get(key, "")) for key in ("host", "bootId", "pidSpace"))
                self.runs = FarRuns(host, int(told.get("pid", 0)), boot, space)
                self.made_cwd = told.get("made") is True
                found.append(self.runs)
                return data
            # An echo of the opening line holds what is nobody's business.
            if line.strip() and self._key.encode() not in line:
                found.append(FarSaid(line.decode("utf-8", "replace").strip()[:SHOWN_CHARS]))
        self._rest = data[-LONGEST_LINE:]
        return b""

    def _take_exit(self, line: bytes) -> bool:
        told = self._told(line, _EXIT)
        if told is None:
            return False
        method = cast(Method, told.get("method", "natural"))
        self.exit = FarExit(int(told.get("code", 0)), method, str(told.get("by", "")), str(told.get("error", "")))
        return True

    def _told(self, line: bytes, beginning: bytes) -> dict[str, Any] | None:
        """The far guard's line, found also after what a launcher has left without a line feed."""
        begin = line.find(beginning)
        if begin < 0:
            return None
        try:
            told = decode(line[begin:].strip())
        except ValueError:
            return None
        return told if isinstance(told, dict) and told.get("key") == self._key else None
