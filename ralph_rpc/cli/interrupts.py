"""Ctrl-C and SIGTERM for a command that stays with the loop it launches.

An interrupt that comes while the runner is being launched is kept until the command can pass it on to the loop, so
that no loop is left running that was to end with its command. A second one does not wait.
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Launch = TypeVar("Launch")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """The first of them waits for `release`; from then on each raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._came = False
        self._held = True
        self._before = [(number, signal.signal(number, self._interrupt)) for number in _SIGNALS]

    def release(self) -> None:
        """Raises KeyboardInterrupt for one that has waited."""
        self._held = False
        if self._came:
            raise KeyboardInterrupt

    def undo(self) -> None:
        """Signals do what they did before; one that has waited is forgotten."""
        for number, handler in self._before:
            signal.signal(number, handler)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        waits = self._held and not self._came
        self._came = True
        if not waits:
            raise KeyboardInterrupt


def held(launch: Callable[[], Launch]) -> tuple[Interrupts, Launch]:
    """Launches with interrupts kept, which the caller releases. Where that fails, nothing runs and none is kept."""
    interrupts = Interrupts()
    try:
        return interrupts, launch()
    except BaseException:
        interrupts.undo()
        raise
