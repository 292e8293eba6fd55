"""What the view wants to know that is not in the events: records, and when the last event came.

Only reads, kindly: what is missing or broken is None.
"""

from typing import Any

from ralph_rpc.files.atomic import Unreadable, read_json_object
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.items import Event
from ralph_rpc.text import number


def record_of(paths: LoopPaths, iteration: int) -> Event | None:
    """The record of an iteration that has ended."""
    try:
        return read_json_object(paths.iterations / f"{iteration:03}.json")
    except (Unreadable, OSError):
        return None


def last_commit(record: Event) -> str | None:
    """The newest commit that a record names."""
    commits: Any = record.get("commits")
    return commits[-1] if isinstance(commits, list) and commits and isinstance(commits[-1], str) else None


def newest_commit(paths: LoopPaths, state: Event) -> str | None:
    """The newest commit that the last few records name."""
    newest = int(number(state.get("iteration")))
    records = (record_of(paths, n) for n in range(newest, max(newest - 20, 0), -1))
    return next((commit for record in records if record and (commit := last_commit(record))), None)


def last_written(paths: LoopPaths) -> int | None:
    """When the last event came, in epoch milliseconds."""
    try:
        return paths.events.stat().st_mtime_ns // 1_000_000
    except OSError:
        return None
