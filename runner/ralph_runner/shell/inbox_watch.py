"""Says when to look into the inbox: at once when the watch reports a file, and from time to time in any case.

The runner starts it after the core's first decision and stops it at the end. It takes nothing itself (intake.py does),
except that names which others overwrite are claimed in the watch's own thread. If the machine dies here, the files are
still in the inbox.
"""

import asyncio
from collections.abc import Callable

from ralph_rpc.files.inbox import Inbox
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow
from ralph_rpc.machine.watch import ARRIVAL, Watch
from ralph_runner.shell.intake import Intake
from ralph_runner.shell.notices import Notices

SCAN_S = 0.25
WATCHED_SCAN_S = 1.0
"""The safety scan while the watch wakes us: waking up is what an idle runner costs."""


class InboxWatch:
    """For the event loop's thread."""

    def __init__(
        self, paths: LoopPaths, inbox: Inbox, intake: Intake, notices: Notices, missing: Callable[[], object]
    ) -> None:
        """`missing` is called when a look finds no inbox."""
        self._paths, self._inbox, self._intake, self._notices = paths, inbox, intake, notices
        self._missing = missing
        self._watch = Watch(paths.inbox, ARRIVAL, self._arrived)
        self._scan_s = WATCHED_SCAN_S
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._woken = False
        self.failed: asyncio.Future[None] = self._loop.create_future()
        """Gets the exception of a failed look, and never a result: a runner must not continue without its inbox."""

    def start(self) -> None:
        """Begin, with a first look at once."""
        trouble = self._watch.start()
        if trouble is not None:
            self._scan_s = SCAN_S
            self._notices.add("warning", f"no watch on the inbox ({trouble}); it is scanned four times a second")
        self._look()

    def renew(self) -> None:
        """Watch the inbox that was made in the place of one that is gone. Blocks for a moment."""
        self._watch.stop()
        self._watch = Watch(self._paths.inbox, ARRIVAL, self._arrived)
        if self._watch.start() is not None:
            self._scan_s = SCAN_S

    async def stop(self) -> None:
        """End the watch and the looks."""
        self.failed.cancel()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self._watch.stop)

    def _arrived(self, name: str) -> None:
        # In the watch's thread: what others overwrite is safe at once, whatever the event loop is waiting for.
        self._inbox.claim(name)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        # Not a task that waits for an event: that would add a turn of the event loop to each command.
        if self._timer is not None:
            self._timer.cancel()
        self._woken = False
        if self.failed.done():
            return
        if not nofollow.is_folder(self._paths.inbox):
            self._missing()
        try:
            pause = self._intake.look(self._scan_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the runner
            self.failed.set_exception(error)
        else:
            self._timer = self._loop.call_later(pause, self._look)
