"""Takes commands from the inbox: claim, refuse or accept, journal, hand to the core, remove the file.

The runner makes one and lets it `catch_up` before the core's first decision; after that inbox_watch.py calls `look`.
If the machine dies anywhere, nothing is lost and nothing done twice: a file is removed only once the journal has its
command on disk, and a file whose command the journal knows is removed without a second effect (files/inbox.py,
files/journal.py).
"""

import asyncio
import errno
import time
from collections.abc import Callable

from ralph_rpc.clock import now_ms
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.inbox import Claimed, Inbox, Rejected
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.reserve import Reserve, lacks_room
from ralph_rpc.model.commands import CONTROL, JournalLine, Verb
from ralph_rpc.model.events import CommandStep
from ralph_runner.core.results import Broken, CommandCame
from ralph_runner.shell.cores import Core, Feed
from ralph_runner.shell.notices import Notices
from ralph_runner.shell.perform import how_to_fix

HELD_AT_MOST = 2_000
"""Messages held for the model; more are left in the inbox, so that a flood fills the folder and not the memory."""
RETRY_S = 0.05
SETTLE_S = 3.0


class Intake:
    """The runner's side of one inbox. For the event loop's thread."""

    def __init__(
        self,
        inbox: Inbox,
        *,
        core: Core,
        feed: Feed,
        journal: CommandJournal,
        log: EventLog,
        reserve: Reserve,
        notices: Notices,
        note: Callable[[str], None],
    ) -> None:
        self._inbox, self._core, self._feed, self._journal, self._log = inbox, core, feed, journal, log
        self._reserve, self._notices, self._note = reserve, notices, note
        self._trouble = ""

    async def catch_up(self, orders_from: float) -> None:
        """The commands that an earlier runner did not finish, and those that are in the inbox already.

        All of them before the first prompt. An order to hold or to end counts if its file is not older than
        `orders_from`, in seconds since the epoch: then it was meant for this run. Raises OSError.
        """
        for command in self._journal.open_commands():
            self._feed(CommandCame(command.id, command.verb, command.body, known=True, maybe=command.sent))
        until = time.monotonic() + SETTLE_S
        while True:
            scan = self._inbox.scan(time.monotonic())
            if not scan.commands and not scan.rejected:
                if not scan.retry or time.monotonic() > until:
                    return
                # An empty file counts as a command only when it has not changed for a second.
                await asyncio.sleep(RETRY_S)
            self._report(scan.rejected)
            for claimed in scan.commands:
                if claimed.verb in CONTROL and claimed.mtime_ns < orders_from * 1e9:
                    self._refuse(
                        claimed, f"left over from before this start; to {claimed.verb} the loop now, send it again"
                    )
                else:
                    self.accept(self._without_refused([claimed]))

    def look(self, scan_s: float) -> float:
        """Take what is there; gives the seconds until the next look if nothing arrives before, mostly `scan_s`."""
        found: list[Claimed] = []
        try:
            scan = self._inbox.scan(time.monotonic(), messages=self._core.held_messages() < HELD_AT_MOST)
            found = scan.commands
            self._report(scan.rejected)
            self.accept(self._without_refused(scan.commands))
        except OSError as error:
            return self._cannot_take(found, error)
        self._trouble = ""
        if scan.commands or scan.rejected:
            return 0.0
        return RETRY_S if scan.retry else scan_s

    def _cannot_take(self, found: list[Claimed], error: OSError) -> float:
        """The files stay where they are; most often the disk is full, and space comes back."""
        if error.errno in (errno.EIO, errno.EROFS):
            self._feed(Broken(how_to_fix(error)))
        if lacks_room(error) and self._reserve.give():
            return 0.0
        # There is no room for its receipt, but a stop must work: its file stays, so that a crash does not forget it.
        for stop in [one for one in found if one.verb == "stop" and not self._journal.knows(one.id)]:
            self._feed(CommandCame(stop.id, stop.verb, stop.body))
        if self._trouble != str(error):
            self._note(f"the inbox cannot be read now: {error}")
        self._trouble = str(error)
        return 1.0

    def _without_refused(self, commands: list[Claimed]) -> list[Claimed]:
        """Those that the loop can take as it is now; the others' files are kept, with the reason."""
        taken: list[Claimed] = []
        for claimed in commands:
            reason = self._core.refuses(claimed.verb, claimed.body)
            if reason is None:
                taken.append(claimed)
            else:
                self._refuse(claimed, reason)
        return taken

    def accept(self, commands: list[Claimed]) -> None:
        """Receipts for all of them, then the core gets them, then, with the receipts on disk, the files go.

        Before a message is written to pi its `sent` is on disk (performer), and its receipt with it: one sync for both.
        What is in the journal is fed even if the rest fails: the next scan knows it and only removes its file.
        """
        journaled: list[Claimed] = []
        try:
            for claimed in commands:
                if not self._is_known(claimed):
                    self._journal.append(_receipt(claimed), durable=False)
                    journaled.append(claimed)
        finally:
            self._feed(*(CommandCame(c.id, c.verb, c.body) for c in journaled))
        self._journal.sync(now_ms())
        for claimed in commands:
            self._inbox.done(claimed)

    def _is_known(self, claimed: Claimed) -> bool:
        """An earlier look, or an earlier runner, wrote its receipt."""
        journal = self._journal
        return journal.knows_file(claimed.file) or journal.knows(claimed.id) or journal.had_origin(claimed.origin)

    def _refuse(self, claimed: Claimed, reason: str) -> None:
        self._inbox.set_aside(claimed, reason)
        self._log_rejected(claimed.id, claimed.verb, reason)

    def _report(self, rejected: list[Rejected]) -> None:
        for file in rejected:
            self._notices.add("warning", f"inbox: {file.name} was rejected: {file.reason}")
            if file.verb is not None:
                self._log_rejected(file.id, file.verb, file.reason)

    def _log_rejected(self, id: str, verb: Verb, reason: str) -> None:
        event: CommandStep = {
            "type": "ralph_command",
            "at": now_ms(),
            "id": id,
            "command": verb,
            "state": "rejected",
            "reason": reason,
        }
        self._log.append_event(event)


def _receipt(claimed: Claimed) -> JournalLine:
    line: JournalLine = {
        "at": now_ms(),
        "id": claimed.id,
        "command": claimed.verb,
        "state": "received",
        "body": claimed.body,
        "file": claimed.file,
    }
    if claimed.origin is not None:
        line["origin"] = claimed.origin
    return line
