"""Ends the view when its terminal is gone."""

import os
import select
import signal
import sys


def end_with_terminal() -> None:
    """Ends the process when its terminal is gone: there is nothing to restore, and no one to see an error.

    A closed window sends SIGHUP, but not to every process; Textual would wait for ever to write to it, and loop on
    the end of its input.
    """
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)
    while not any(what & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, what in poll.poll()):
        continue
    os._exit(128 + signal.SIGHUP)
