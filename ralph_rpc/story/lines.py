"""What one line of events.jsonl says, parsed no further than its reader needs. Pure.

Called by every viewer. `parse_line` gives the whole event; the others look at the stamp that the runner put at the end
of pi's lines, or at the type at their beginning, which costs a fraction of that.
"""

import json
import re
from functools import lru_cache

import orjson

from ralph_rpc.model import members, pi
from ralph_rpc.story.items import Event

_REPEATS = (pi.head(pi.AGENT_END), pi.head(pi.TURN_END))
"""Events that repeat whole messages, of which the fold needs nothing but that they came."""
_LONG = 1 << 14
_STAMP = re.compile(rb',"ralph":\{"at":(\d+),"iteration":(\d+)(?:,"ticket":("(?:[^"\\]|\\.)+"))?\}\}\s*$')
_STAMP_BYTES = 360
"""No stamp is longer: an id has at most 128 bytes, of which each may need a backslash."""


def parse_line(line: bytes) -> Event | None:
    """One line of events.jsonl as a mapping; None for what is no JSON object."""
    event: object
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        # pi may write half of a surrogate pair, which orjson refuses and json lets pass.
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return event if isinstance(event, dict) else None


def skim_line(line: bytes) -> Event | None:
    """As `parse_line`, but of long lines that only repeat what was said, no more than the fold needs.

    The end of a run repeats all of its messages, images included: hundreds of megabytes that need no parsing.
    """
    if len(line) < _LONG or not line.startswith(_REPEATS):
        return parse_line(line)
    stamp = line.rfind(b',"ralph":{')
    tail = b"{" + line[stamp + 1 :] if stamp > 0 else b"{}"
    return {"type": line[9 : line.index(b'"', 9)].decode(), **(parse_line(tail) or {})}


def ticket_of(event: Event) -> str | None:
    """The ticket that an event belongs to; None in a task loop, and for what concerns the whole loop."""
    return members.text(event, "ticket") or members.text(members.mapping(event, "ralph"), "ticket") or None


def time_of(event: Event) -> int | None:
    """When it happened, in epoch milliseconds: the runner's stamp."""
    at = event.get("at", members.mapping(event, "ralph").get("at"))
    return at if isinstance(at, int) else None


def runner_event(line: bytes, prefix: str) -> Event | None:
    """The parsed line if it is an event of the runner whose type begins with `prefix`."""
    if prefix.encode() not in line[:80]:
        return None
    event = parse_line(line)
    return event if event and str(event.get("type")).startswith(prefix) else None


def stamped_iteration(line: bytes) -> int | None:
    """The iteration that one of pi's lines belongs to; None for an event of the runner."""
    stamp = _STAMP.search(line[-_STAMP_BYTES:])
    return int(stamp[2]) if stamp else None


def stamped_time(line: bytes) -> int | None:
    """When a line was written, in epoch milliseconds; None where it does not say."""
    stamp = _STAMP.search(line[-_STAMP_BYTES:])
    if stamp:
        return int(stamp[1])
    event = parse_line(line)
    return time_of(event) if event else None


@lru_cache(256)
def _id_in(text: bytes) -> str:
    id: str = orjson.loads(text)
    return id


def stamped_ticket(line: bytes) -> str:
    """The ticket that a line is about; empty where it is about none, or the loop has no tickets."""
    stamp = _STAMP.search(line[-_STAMP_BYTES:])
    if stamp:
        return _id_in(stamp[3]) if stamp[3] else ""
    event = parse_line(line) if b'"ticket":' in line else None
    return str(event.get("ticket") or "") if event else ""
