"""What the headline shows that is not in the events: the newest commit, and when the last event came. Only reads."""

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow
from ralph_rpc.model.state import State
from ralph_rpc.story.records import iteration_record, last_commit


def newest_commit(paths: LoopPaths, state: State | None) -> str | None:
    """The newest commit that the last few records name."""
    newest = state["iteration"] if state is not None else 0
    records = (iteration_record(paths, n) for n in range(newest, max(newest - 20, 0), -1))
    return next((commit for record in records if record and (commit := last_commit(record))), None)


def last_written(paths: LoopPaths) -> int | None:
    """When the last event came, in epoch milliseconds."""
    try:
        return nofollow.lstat(paths.events).st_mtime_ns // 1_000_000
    except OSError:
        return None
