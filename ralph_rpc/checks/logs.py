"""The last lines of a dead loop's logs: one that a crash or a power loss cut off is mended as the runner would.

What is cut off is kept: of events.jsonl as a ralph_unparsed line, of commands.jsonl in a file beside it.
"""

import os
import stat
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ralph_rpc import leftovers
from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.files.atomic import end_of_lines, write_atomic
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths


def torn(place: Place) -> Findings:
    mend: Callable[[LoopPaths], str]
    for loop in place.dead_loops():
        for log, mend in ((loop.events, _mend_events), (loop.commands, _mend_commands)):
            try:
                length = len(_torn_tail(log))
            except OSError as error:
                hint = "move it away: the loop cannot go on with it"
                yield Finding("logs", "fail", f"{log} cannot be read: {error.strerror}", hint)
                continue
            if length:
                text = f"the last line of {log} was cut off by a crash ({length} bytes)"
                hint = "the next resume mends it, and so does doctor --fix"
                yield Finding("logs", "warn", text, hint, partial(mend, loop))


def _torn_tail(log: Path) -> bytes:
    """What follows the last LF. Raises OSError for what is no plain file."""
    try:
        # Neither follows a link nor waits for a FIFO's writer.
        fd = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no plain file", str(log))
        end = end_of_lines(fd)
        return os.pread(fd, status.st_size - end, end)
    finally:
        os.close(fd)


def _mend_events(loop: LoopPaths) -> str:
    with leftovers.kept_still(loop):
        log = EventLog.open(loop.events, limit=sys.maxsize, keep=1)  # a rotation is the next runner's
        try:
            log.sync()
        finally:
            log.close()
    return f"mended {loop.events}: what was cut off is kept as a ralph_unparsed line"


def _mend_commands(loop: LoopPaths) -> str:
    with leftovers.kept_still(loop):
        tail = _torn_tail(loop.commands)
        if not tail:
            return f"mended {loop.commands}"
        aside = loop.commands.with_name(f"{loop.commands.name}.torn-{time.time_ns()}")
        write_atomic(aside, tail)
        CommandJournal.open(loop.commands).close()
    return f"mended {loop.commands}: what was cut off is kept in {aside.name}"
