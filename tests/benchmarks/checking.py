"""Is the log what pi wrote? Line by line, with the two exceptions that the log is allowed.

Every line must be pi's bytes with the `ralph` member in the place of the last brace. Where it is not, both are parsed
and must be equal, member by member in the same order, once older pi's repetitions of the message are taken away; and a
last line without LF must be there as `ralph_unparsed`.
"""

import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

RALPH = re.compile(rb',"ralph":\{"at":\d{13},"iteration":\d+\}\}\n')
AGENT_END = b'{"type":"agent_end"'


@dataclass(frozen=True)
class Found:
    """Lines that pi wrote, and of these: logged byte for byte, logged shorter, wrong or missing; runs that ended."""

    written: int
    same: int
    shortened: int
    wrong: int
    agent_ends: int


def compare(written: Path, log: Path) -> Found:
    """Holds the log against pi's stdout."""
    lines = same = shortened = wrong = ends = 0
    with written.open("rb") as theirs, log.open("rb") as ours:
        for line, logged in zip_longest(theirs, ours, fillvalue=b""):
            lines += bool(line)
            ends += logged.startswith(AGENT_END)
            if _is_same(line, logged):
                same += 1
            elif line and logged and _is_allowed(line, logged):
                shortened += 1
            else:
                wrong += 1
    return Found(lines, same, shortened, wrong, ends)


def _is_same(line: bytes, logged: bytes) -> bool:
    head = line.removesuffix(b"}\n")
    return line.endswith(b"}\n") and logged.startswith(head) and RALPH.fullmatch(logged, len(head)) is not None


def _is_allowed(line: bytes, logged: bytes) -> bool:
    ours, theirs = _object(logged), _object(line)
    if ours is None or next(reversed(ours), "") != "ralph":
        return False
    del ours["ralph"]
    if theirs is None:
        raw = line.removesuffix(b"\n").decode("utf-8", "replace")
        return bool(ours == {"type": "ralph_unparsed", "raw": raw})
    if theirs.get("type") == "message_update":
        _without_repetition(theirs)
    # The order counts, and 1 is not 1.0.
    return orjson.dumps(ours) == orjson.dumps(theirs)


def _object(line: bytes) -> dict[str, Any] | None:
    """None for a line that is no JSON object, or that has no LF."""
    try:
        value = orjson.loads(line) if line.endswith(b"\n") else None
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _without_repetition(event: dict[str, Any]) -> None:
    event.pop("message", None)
    change = event.get("assistantMessageEvent")
    if isinstance(change, dict):
        change.pop("partial", None)
