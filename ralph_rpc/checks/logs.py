"""The last lines of a dead loop's logs: one that a crash or a power loss cut short is repaired as the runner would do it.

The fragment is kept: that of events.jsonl as a ralph_unparsed line, that of commands.jsonl in a file beside it.
"""

import os
import stat
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.files.atomic import end_of_lines, write_atomic
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.hold import kept_still
from ralph_rpc.machine import nofollow


def torn(place: Place) -> Findings:
    repair: Callable[[LoopPaths], str]
    for loop in place.dead_loops():
        for log, repair in ((loop.events, _repair_events), (loop.commands, _repair_commands)):
            try:
                length = len(_torn_tail(log))
            except OSError as error:
                hint = "move it away: the loop cannot run with it"
                yield Finding("logs", "fail", f"{log} cannot be read: {error.strerror}", hint)
                continue
            if length:
                text = f"the last line of {log} was cut short by a crash ({length} bytes)"
                hint = "the next resume repairs it, and so does doctor --fix"
                yield Finding("logs", "warn", text, hint, partial(repair, loop))


def _torn_tail(log: Path) -> bytes:
    """What follows the last LF. Raises OSError unless it is a regular file."""
    try:
        # Neither follows a link nor waits for a FIFO's writer.
        fd = nofollow.open_fd(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file", str(log))
        end = end_of_lines(fd)
        return os.pread(fd, status.st_size - end, end)
    finally:
        os.close(fd)


def _repair_events(loop: LoopPaths) -> str:
    with kept_still(loop):
        log = EventLog.open(loop.events, limit=sys.maxsize, keep=1)  # a rotation is the next runner's
        try:
            log.sync()
        finally:
            log.close()
    return f"repaired {loop.events}: the fragment is kept as a ralph_unparsed line"


def _repair_commands(loop: LoopPaths) -> str:
    with kept_still(loop):
        tail = _torn_tail(loop.commands)
        if not tail:
            return f"repaired {loop.commands}"
        aside = loop.commands.with_name(f"{loop.commands.name}.torn-{time.time_ns()}")
        write_atomic(aside, tail)
        CommandJournal.open(loop.commands).close()
    return f"repaired {loop.commands}: the fragment is kept in {aside.name}"
