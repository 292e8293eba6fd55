"""`python -P -m ralph_runner FOLDER --lock-fd N [--resume]`: started by `ralph-rpc start` and `resume`.

Stdout and stderr are runner.log already; nothing is printed for a person. The lock comes in by its fd, so that
there is no instant at which nobody holds it. pi is started first and boots while the rest is loaded; for that
reason the rest is imported where it is used, and config.json, which the caller has checked and written an instant
ago, is read with what Python has at hand.
"""

import json
import os
import sys
from pathlib import Path

from ralph_rpc.files import locks
from ralph_rpc.files.paths import LoopPaths
from ralph_runner.shell.takeover import take_over


def main() -> int:
    folder, _, lock_fd, *more = sys.argv[1:]
    paths, resume = LoopPaths(Path(folder)), more == ["--resume"]
    lock = locks.adopt(int(lock_fd), paths.runner_lock)
    config = json.loads(paths.config.read_bytes())
    try:
        takeover = take_over(paths, config, resume)
    except OSError as error:
        print(f"the loop cannot be taken over: {error.filename or paths.dir}: {error.strerror}", file=sys.stderr)
        return 1

    import asyncio

    from ralph_rpc.files import records
    from ralph_runner.shell.runner import Runner
    from ralph_runner.shell.runnerlog import runner_log

    records.write_pid(paths, os.getpid())
    log = runner_log(paths)
    try:
        return asyncio.run(Runner(paths, lock, config, resume, takeover, log.info).run())
    except Exception:
        log.exception("the runner failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
