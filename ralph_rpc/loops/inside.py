"""What an agent cannot ask of the loop that it works in: whatever waits for the end of the very tool that asks.

The runner marks everything that it starts with RALPH_LOOP_DIR. Called by commands that people type all day, so it
imports nothing heavy. Only looks.
"""

import os
from pathlib import Path

from ralph_rpc.errors import UsageError
from ralph_rpc.files.paths import LoopPaths


def refuse_inside(paths: LoopPaths, what: str, hint: str = "leave --wait out") -> None:
    """Raises UsageError where this process was started by the loop itself; `what` would then wait for itself."""
    own = os.environ.get("RALPH_LOOP_DIR")
    if own and _same(Path(own), paths.dir):
        raise UsageError(f"{what} does not work inside loop {paths.name!r} itself: it would wait for its own end", hint)


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False
