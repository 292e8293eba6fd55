"""Resuming a loop that lives and is paused or waits: one command in its inbox. One without a runner is for `restart`.

An everyday command, so it imports nothing heavy.
"""

from collections.abc import Sequence

from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.send import Sent, send
from ralph_rpc.loops.status import LoopStatus


def wake(paths: LoopPaths, found: LoopStatus, given: Sequence[str] = ()) -> Sent:
    """Ends the pause or the wait of the loop, whose status is `found`; AlreadyRunning where it neither pauses nor waits.

    `given` are the names of options that are to change, which a running loop refuses.
    """
    name = paths.name
    if given:
        raise AlreadyRunning(
            f"loop {name!r} is running; options change only when it has ended", f"ralph-rpc stop {name}"
        )
    if found.shown not in ("paused", "waiting"):
        raise AlreadyRunning(
            f"loop {name!r} is neither paused nor waiting, it is {found.shown}", f"see: ralph-rpc status {name}"
        )
    return send(paths, "resume", {})
