"""A text that is drawn again every second on a terminal, until Ctrl-C: `list --watch`, `status --watch`. Writes no file."""

import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from ralph_rpc.errors import UsageError
from ralph_rpc.terminal.screen import write_text

EVERY_S = 1.0
_BEGIN = "\x1b[2J\x1b[H"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def watched(text: Callable[[], str]) -> NoReturn:
    """Draws the text over itself until KeyboardInterrupt, which leaves the last one there. UsageError without a terminal."""

    if not sys.stdout.isatty():
        raise UsageError("--watch needs a terminal", "leave it out, or use: watch ralph-rpc list")
    write_text(sys.stdout, _BEGIN)
    try:
        while True:
            lines = text().split("\n")
            most = os.get_terminal_size(sys.stdout.fileno()).lines - 1
            if len(lines) > most > 1:
                lines = [*lines[: most - 1], f"… and {len(lines) - most + 1} more lines"]
            write_text(sys.stdout, _HOME + "".join(f"{line}{_REST_OF_LINE}\n" for line in lines) + _REST_OF_SCREEN)
            time.sleep(EVERY_S)
    finally:
        write_text(sys.stdout, "\n")
