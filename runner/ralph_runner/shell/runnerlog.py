"""runner.log: what a person reads when a loop behaves strangely. Lines with a time, rotated by size.

Opened by `__main__`. Whatever Python writes to stderr goes to the same file, from the first instant.
"""

import logging
import os
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from ralph_rpc.files.atomic import write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow

NAME = "ralph_runner"
LOG_BYTES = 4 << 20
LOG_KEEP = 2


class _PrivateLog(RotatingFileHandler):
    """Mode 0600 under any umask. The umask itself is left alone: pi and its tools inherit it."""

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            opener=lambda path, flags: nofollow.open_fd(path, flags | os.O_NOFOLLOW, 0o600),
        )


def reopen(paths: LoopPaths) -> None:
    """Copy the log into the folder that was made in the place of one that is gone. Raises OSError."""
    for handler in logging.getLogger(NAME).handlers:
        if not isinstance(handler, _PrivateLog):
            continue
        held = Path(f"/proc/self/fd/{handler.stream.fileno()}") if handler.stream is not None else paths.log
        with suppress(OSError):  # elsewhere than on Linux the log begins anew
            write_atomic(paths.log, held.read_bytes(), durable=False)
        handler.close()
        fd = nofollow.open_fd(paths.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        for standard in (1, 2):  # where Python itself writes when it fails
            os.dup2(fd, standard)
        os.close(fd)


def runner_log(paths: LoopPaths) -> logging.Logger:
    """Open runner.log and return its logger. Called once in a runner's life."""
    logger = logging.getLogger(NAME)
    handler = _PrivateLog(paths.log, maxBytes=LOG_BYTES, backupCount=LOG_KEEP, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return logger
