"""Times as the files show them: ISO 8601 UTC with milliseconds, and epoch milliseconds inside the program.

Pure but for `now_ms`. What a file holds may be anything, so parsing answers None instead of raising.
"""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def now_ms() -> int:
    """Return the wall clock as epoch milliseconds."""
    return time.time_ns() // 1_000_000


def iso(ms: int) -> str:
    """Return epoch milliseconds as `2026-02-06T17:50:00.123Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def parse_iso(text: object) -> int | None:
    """Return the epoch milliseconds of an ISO 8601 time that names its zone; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else (moment - _EPOCH) // _MS
    except (ValueError, OverflowError):
        return None
