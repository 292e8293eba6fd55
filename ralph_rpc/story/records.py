"""Records of iterations as viewers read them: kindly, unchecked, and None for what is missing or broken. Only reads.

Called by `logs` (through `story.excerpt`) and `attach`, which need an offset or a commit of one record, not its shape.
"""

from typing import Any

from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.iterations import record_of
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.records import read_state
from ralph_rpc.story.items import Event


def newest_iteration(paths: LoopPaths) -> int:
    """The number of the current or last iteration; 0 where state.json tells none."""
    try:
        state = read_state(paths)
    except Unreadable:
        return 0
    return state["iteration"] if state else 0


def iteration_record(paths: LoopPaths, iteration: int) -> Event | None:
    """The record of an iteration that has ended, unchecked; None for one that cannot be read."""
    return record_of(paths, iteration)


def last_commit(record: Event) -> str | None:
    """The newest commit that a record names."""
    commits: Any = record.get("commits")
    return commits[-1] if isinstance(commits, list) and commits and isinstance(commits[-1], str) else None
