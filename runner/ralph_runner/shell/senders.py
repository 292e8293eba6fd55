"""Whether a signal to end came from inside the loop: from a tool of the agent's, whose `pkill python` means other processes.

Asked by the runner at once when the signal comes, because most senders die in the next instant. Only looks.
"""

import os
import re
from pathlib import Path

import orjson

from ralph_rpc.clock import now_ms
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow
from ralph_runner.guarded import guard

_KILLS = re.compile(rb"kill|\.terminate\(|SIGTERM|fuser|xargs", re.IGNORECASE)
_TAIL_BYTES = 1 << 18
_JUST_NOW_MS = 3_000
"""A tool that has ended so lately may have sent a signal that arrives now."""


def comes_from_inside(sender: int, paths: LoopPaths) -> bool:
    """True if the process `sender` belongs to the loop. One that is gone is judged by what the loop's tools do just now.

    What cannot be known counts as from outside: a person must be able to end the runner.
    """
    if sender == 0:  # the kernel, or another pid namespace
        return False
    below = guard.is_below(sender, os.getpid())
    if below is not None:
        return below or _is_marked(sender, paths)
    return _kills_below() or _a_tool_kills(paths)


def _is_marked(pid: int, paths: LoopPaths) -> bool:
    return b"RALPH_LOOP_DIR=" + os.fsencode(paths.dir) in _read(f"/proc/{pid}/environ").split(b"\0")


def _kills_below() -> bool:
    """Whether a living process of the loop has a command line that kills."""
    below = guard.descendants(guard.processes(), (os.getpid(),))
    return any(_KILLS.search(_read(f"/proc/{pid}/cmdline")) for pid in below)


def _a_tool_kills(paths: LoopPaths) -> bool:
    """Whether the log has a tool call that kills, and that is under way or has just ended."""
    started: dict[str, bool] = {}
    for line in _tail(paths):
        if b'"tool_execution_' not in line:
            continue
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        kind, id = event.get("type"), str(event.get("toolCallId"))
        if kind == "tool_execution_start":
            started[id] = _KILLS.search(orjson.dumps(event.get("args"))) is not None
        elif kind == "tool_execution_end" and now_ms() - event.get("ralph", {}).get("at", 0) > _JUST_NOW_MS:
            started.pop(id, None)
    return any(started.values())


def _tail(paths: LoopPaths) -> list[bytes]:
    try:
        with os.fdopen(nofollow.open_fd(paths.events, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().split(b"\n")
    except OSError:
        return []


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
