"""Waiting for a loop: until it has ended, until its runner is gone, until anything else is so.

It reads state.json and the runner's lock by polling and holds nothing, so that a wait may be ended at any time.
Called by commands that people type all day, so it imports nothing heavy.
"""

import time
from collections.abc import Callable, Sequence

from ralph_rpc.errors import TIMED_OUT, RalphError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.status import LoopStatus, loop_status

POLL_S = 0.05
END_POLL_S = 0.2
LEAVE_S = 10.0
"""From a runner's last word to its end: pi has ended by then, what is left to do are files."""


class TimedOut(RalphError):
    """The time to wait is over. Nothing was changed: the loop works on as before."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, TIMED_OUT)


def deadline_of(timeout: float | None) -> float | None:
    """The monotonic time `timeout` seconds from now; None: no deadline."""
    return None if timeout is None else time.monotonic() + timeout


def await_end(
    paths: LoopPaths, deadline: float | None = None, look: Callable[[LoopStatus], None] | None = None
) -> LoopStatus:
    """The status of a loop once it has ended and its runner is gone, or has crashed; `look` sees it until then.

    Raises TimedOut after `deadline` (monotonic seconds).
    """
    while True:
        found = loop_status(paths)
        if look is not None:
            look(found)
        if found.ended and found.runner == "dead":
            return found
        if deadline is not None and time.monotonic() > deadline:
            raise TimedOut(f"loop {paths.name!r} is still {found.shown}", f"see: ralph-rpc status {paths.name}")
        time.sleep(END_POLL_S)


def await_first(loops: Sequence[LoopPaths], deadline: float | None = None) -> tuple[LoopPaths, LoopStatus]:
    """The first of them to have ended, as `await_end` says it; of several that have, the one that stands first."""
    while True:
        statuses = [(paths, loop_status(paths)) for paths in loops]
        for paths, found in statuses:
            if found.ended and found.runner == "dead":
                return paths, found
        if deadline is not None and time.monotonic() > deadline:
            still = ", ".join(f"{paths.name!r} is still {found.shown}" for paths, found in statuses)
            raise TimedOut(f"no loop has ended: {still}", "see: ralph-rpc list")
        time.sleep(END_POLL_S)


def settled_status(paths: LoopPaths) -> LoopStatus:
    """The loop's status; a runner that has just said its last word gets the time to leave."""
    deadline = time.monotonic() + LEAVE_S
    while True:
        found = loop_status(paths)
        if found.runner == "dead" or not found.ended or time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)


def await_gone(paths: LoopPaths) -> None:
    """Until the runner has left, so that what is done next does not find its lock still held."""
    until(lambda: loop_status(paths).runner == "dead", LEAVE_S)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls the condition; tells whether it came true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
