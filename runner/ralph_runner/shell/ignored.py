"""Whether files that git ignores were written lately: the work of an agent whose results are not for the repository.

Called by `changes.py` before a loop would be called stalled, and only then. Nothing is compared: a file counts if its
inode changed since a moment, which is told by the files themselves. Bounded in time and number, the folders that tools
fill by the thousand last; what lies beyond the bounds does not count. Only reads.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Iterable

TIME_LIMIT_S = 5.0
MOST_ENTRIES = 200_000
NO_WORK = frozenset({b".git", b".ralph", b"__pycache__", b".pytest_cache", b".mypy_cache", b".ruff_cache"})
"""The loop's own folder, and caches that looking at a project fills."""
LAST = frozenset({b"node_modules", b".venv", b"venv", b"target", b".gradle", b".cache"})


def written_since(places: Iterable[bytes], since: int) -> bool:
    """True if one of these files, or a file below one of these folders, was written since (epoch milliseconds).

    Follows no link. What cannot be read counts as not written.
    """
    until = time.monotonic() + TIME_LIMIT_S
    ahead, last = deque[bytes](), deque[bytes]()
    for place in places:
        _enqueue(place, ahead, last)
    seen = 0
    while ahead or last:
        place = ahead.popleft() if ahead else last.popleft()
        try:
            found = os.lstat(place.rstrip(b"/"))
            if not stat.S_ISDIR(found.st_mode):
                if _is_new(found, since):
                    return True
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    seen += 1
                    if entry.is_dir(follow_symlinks=False):
                        _enqueue(entry.path, ahead, last)
                    elif _is_new(entry.stat(follow_symlinks=False), since):
                        return True
        except OSError:
            continue  # gone meanwhile, or not ours to read
        if seen > MOST_ENTRIES or time.monotonic() > until:
            return False
    return False


def _enqueue(place: bytes, ahead: deque[bytes], last: deque[bytes]) -> None:
    name = place.rstrip(b"/").rpartition(b"/")[2]
    if name not in NO_WORK:
        (last if name in LAST else ahead).append(place)


def _is_new(found: os.stat_result, since: int) -> bool:
    return max(found.st_mtime_ns, found.st_ctime_ns) >= since * 1_000_000
