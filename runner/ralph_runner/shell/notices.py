"""Tells a person something: a line of runner.log and a `ralph_notice` event.

One for each runner; used by everything in the shell that has something to say beside what the core decides. The line
comes first: if the machine dies here, the event may be missing. Nothing follows the loop's last event, so after
`loop_ended` only the line is written.
"""

from collections.abc import Callable
from typing import Literal

from ralph_rpc.clock import now_ms
from ralph_rpc.files.eventlog import EventLog


class Notices:
    """For the event loop's thread."""

    def __init__(self, log: EventLog, note: Callable[[str], None]) -> None:
        self._log, self._note = log, note
        self._ended = False

    def add(self, level: Literal["info", "warning", "error"], message: str) -> None:
        """Raises OSError if the event cannot be written."""
        self._note(message)
        if not self._ended:
            self._log.append_event({"type": "ralph_notice", "at": now_ms(), "level": level, "message": message})

    def loop_ended(self) -> None:
        """The loop's last event is written."""
        self._ended = True
