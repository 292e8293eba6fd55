"""What pi and the verify command find in their environment. Pure but for the copy of our own."""

import os
from pathlib import Path

from ralph_rpc.files.paths import LoopPaths


def child_environment(paths: LoopPaths, tmp: Path, ticket: str | None = None) -> dict[str, str]:
    """Ours, plus the marks by which the loop's whole tree is found again, and a TMPDIR that is removed with the loop.

    The folder of TMPDIR matters: pi leaves a file there for every long tool output and never deletes one.
    """
    env = dict(os.environ)
    env["RALPH_LOOP"] = paths.name
    env["RALPH_LOOP_DIR"] = str(paths.dir)
    env["TMPDIR"] = str(tmp)
    if ticket is not None:
        env["RALPH_TICKET"] = ticket
    env.setdefault("PI_SKIP_VERSION_CHECK", "1")
    env.setdefault("PI_OFFLINE", "1")
    return env
