"""Where an ended run is put aside: `.ralph/.archive/<name>-<date>-<time>`. Called by `start` and `clean`."""

import time
from pathlib import Path

from ralph_rpc.files.atomic import make_private_dir
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow

ARCHIVE = ".archive"


def free_place(paths: LoopPaths) -> Path:
    """A name in the archive, which is made if it is missing, that no other run has; the caller holds the loop's lock."""
    folder = paths.dir.parent / ARCHIVE
    make_private_dir(folder)
    place = folder / f"{paths.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return place.with_name(f"{place.name}-{time.time_ns()}") if nofollow.exists(place) else place
