"""The last step of a command that is in the journal and not in the log: its runner was killed between the two writes.

Called by `recover` after a crash, under the lock. The journal is what counts; the event is appended for those who watch
the log. Only the journal's last line can lack its event. If the machine dies here, the next recovery looks again.
"""

import sys
from typing import Any

import orjson

from ralph_rpc.files.atomic import read_plain
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.config import Config

NEAR = 1 << 20
"""Bytes at the end of the log in which the event is looked for: it was written at once, or never."""
_ENDS = ("delivered", "rejected", "expired")
_MEMBERS = ("id", "command", "state", "reason", "redelivered")


def tell_last_receipt(paths: LoopPaths, config: Config) -> None:
    """Append the event if it is not there. Raises OSError."""
    step = _last_step(paths)
    if step is None or step.get("state") not in _ENDS or _is_logged(paths, step):
        return
    log = EventLog.open(paths.events, limit=config["logSize"], keep=config["logKeep"])
    try:
        event = {key: step[key] for key in _MEMBERS if key in step}
        log.append_event({"type": "ralph_command", "at": step["at"], **event})
    finally:
        log.close()


def _last_step(paths: LoopPaths) -> dict[str, Any] | None:
    """The last whole line of the journal, if it is a command's step."""
    try:
        lines = read_plain(paths.commands, sys.maxsize, follow=False).split(b"\n")
    except FileNotFoundError:
        return None
    step = _parsed(lines[-2]) if len(lines) > 1 else {}
    return step if isinstance(step.get("id"), str) and isinstance(step.get("at"), int) else None


def _is_logged(paths: LoopPaths, step: dict[str, Any]) -> bool:
    """True if the log has the step, or if its last part begins after it: then the step's event is further back."""
    end = EventReader.at_end(paths.events, 0)
    end.close()
    reader = EventReader.at(paths.events, end.offset - NEAR)
    began: int | None = None
    try:
        while lines := reader.read():
            for _, line in lines:
                if began is None:
                    event = _parsed(line)
                    stamp = event.get("ralph")
                    at = event.get("at", stamp.get("at") if isinstance(stamp, dict) else None)
                    began = at if isinstance(at, int) else None
                if line.startswith(b'{"type":"ralph_command"'):
                    event = _parsed(line)
                    if (event.get("id"), event.get("state")) == (step["id"], step["state"]):
                        return True
    finally:
        reader.close()
    return began is None or began > step["at"]


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
