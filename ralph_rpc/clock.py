"""Times as the files show them: ISO 8601 UTC with milliseconds, and epoch milliseconds inside the program.

The wall clock is for people: it can be set, and it leaps over a suspend. How long ago something was is told by
the machine's own clock (`up_ms`), which does neither. Pure but for these two. What a file holds may be anything,
so parsing answers None instead of raising. Called by everything that writes or reads a time.
"""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def now_ms() -> int:
    """Return the wall clock as epoch milliseconds."""
    return time.time_ns() // 1_000_000


def up_ms() -> int:
    """Return the milliseconds this machine has been up and awake: one clock for all processes of a boot."""
    return time.monotonic_ns() // 1_000_000


def silent_ms(wall: object, up: object) -> int:
    """Return how long ago a sign of life was written, in ISO time `wall` and, where its writer told it, at `up_ms` `up`.

    The wall clock counts only where there is nothing better: an older writer, another time namespace.
    """
    passed = up_ms() - up if type(up) is int else -1
    return passed if passed >= 0 else now_ms() - (parse_iso(wall) or 0)


def iso(ms: int) -> str:
    """Return epoch milliseconds as `2026-02-06T17:50:00.123Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def local_time(ms: int) -> str:
    """Return epoch milliseconds as people here read them: `2026-02-06 18:50 CET`; the plain number where no calendar
    has them.
    """
    try:
        return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(ms // 1000))
    except (ValueError, OverflowError, OSError):
        return str(ms)


def parse_iso(text: object) -> int | None:
    """Return the epoch milliseconds of an ISO 8601 time that names its zone; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else (moment - _EPOCH) // _MS
    except (ValueError, OverflowError):
        return None
