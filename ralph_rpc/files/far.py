"""far/<job>.json: what a launcher has started elsewhere, and when it was last spoken to.

The runner writes one before it starts a launcher and removes it when the far side has said how pi ended; its time of
change is that of the last line that was written to the far side. So if the machine dies at any instant, the file says
what may still be running, and until when: `start`, `resume` and `doctor --fix` act on it.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import orjson

from ralph_rpc.files.atomic import Unreadable, make_private_dir, read_json_object, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.shapes import misfit
from ralph_rpc.machine import nofollow
from ralph_rpc.model.far import FarJob

AFTER_LEASE_S = 10.0
"""For what is on its way, and for the far guard to end what it guards."""
_NAME = re.compile(r"ralph-[a-z0-9-]{1,56}")


def write(paths: LoopPaths, job: FarJob) -> None:
    """From now on it may run."""
    make_private_dir(paths.far)
    write_atomic(_path(paths, job["job"]), orjson.dumps(job, option=orjson.OPT_APPEND_NEWLINE))


def touch(paths: LoopPaths, job: FarJob) -> None:
    """A line has been written to the far side just now."""
    try:
        nofollow.touch(_path(paths, job["job"]))
    except FileNotFoundError:  # the folder was deleted
        with suppress(OSError):
            write(paths, job)
    except OSError:
        pass


def remove(paths: LoopPaths, name: str) -> None:
    """Nothing of it is left."""
    nofollow.unlink(_path(paths, name), missing_ok=True)


def read(paths: LoopPaths, name: str) -> FarJob | None:
    """What may run under that name; None: nothing."""
    with suppress(Unreadable, OSError):
        found = read_json_object(_path(paths, name))
        # A file that somebody else wrote must not name another job.
        if found is not None and found.get("job") == name and misfit(found, FarJob) is None:
            return cast(FarJob, found)
    return None


def has_any(paths: LoopPaths) -> bool:
    """Whether anything may run; cheap."""
    return any(True for _ in nofollow.entries(paths.far))


def jobs(paths: LoopPaths) -> Iterator[FarJob]:
    """All that may run."""
    for path in sorted(nofollow.entries(paths.far)):
        if path.suffix == ".json" and _NAME.fullmatch(path.stem) and (job := read(paths, path.stem)) is not None:
            yield job


def fenced_s(paths: LoopPaths, job: FarJob) -> float:
    """Seconds until it cannot run any more, whatever has become of it."""
    span = job["leaseMs"] / 1000 + AFTER_LEASE_S
    try:
        age = time.time() - nofollow.lstat(_path(paths, job["job"])).st_mtime
    except OSError:
        return span
    return span if age < 0 else max(0.0, span - age)  # the clock was set back since


def _path(paths: LoopPaths, name: str) -> Path:
    return paths.far / f"{name}.json"
