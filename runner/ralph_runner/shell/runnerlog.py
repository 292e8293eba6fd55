"""runner.log: what a person looks into when a loop behaves strangely. Lines with a time, rotated by size.

Opened by `__main__`. What Python itself writes to stderr goes to the same file, from the first instant on.
"""

import logging
import os
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler

from ralph_rpc.files.paths import LoopPaths

LOG_BYTES = 4 << 20
LOG_KEEP = 2


class _PrivateLog(RotatingFileHandler):
    """Mode 0600 whatever the umask, which is left alone: pi and its tools inherit it."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600))


def runner_log(paths: LoopPaths) -> logging.Logger:
    """The logger that writes it. Called once in a runner's life."""
    logger = logging.getLogger("ralph_runner")
    handler = _PrivateLog(paths.log, maxBytes=LOG_BYTES, backupCount=LOG_KEEP, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return logger
