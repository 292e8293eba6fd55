"""`python -P -m ralph_runner <loop folder> --lock-fd N [--resume]`: started by `ralph-rpc start` and `resume`.

Stdout and stderr are runner.log already; nothing is printed for a person. The lock comes in by its fd, so that
there is no instant at which nobody holds it.
"""

import argparse
import asyncio
import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from ralph_rpc.files import locks
from ralph_rpc.files.paths import LoopPaths
from ralph_runner.shell.runner import Runner, read_config

LOG_BYTES = 4 << 20
LOG_KEEP = 2


class _PrivateLog(RotatingFileHandler):
    """Mode 0600 whatever the umask, which is left alone: pi and its tools inherit it."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600))


def main() -> int:
    parser = argparse.ArgumentParser(prog="ralph_runner")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    paths = LoopPaths(given.folder)
    logger = logging.getLogger("ralph_runner")
    handler = _PrivateLog(paths.log, maxBytes=LOG_BYTES, backupCount=LOG_KEEP, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        lock = locks.adopt(given.lock_fd, paths.runner_lock)
        config = read_config(paths)

        async def run() -> int:
            return await Runner(paths, lock, config, given.resume, logger.info).run()

        return asyncio.run(run())
    except Exception:
        logger.exception("the runner failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
