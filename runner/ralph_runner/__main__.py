"""`python -P -m ralph_runner FOLDER --lock-fd N --launched=SECONDS [--resume] [--tied=PID]`: by `ralph-rpc start` and `resume`.

Stdout and stderr already go to runner.log; nothing is printed for a person. The lock arrives as an open fd, so that it
is never free in between. pi is started first and boots while the rest is loaded: that is why the rest is imported where
it is used, and why config.json, which the caller has just checked and written, is read with the standard library.
"""

import json
import os
import sys
from pathlib import Path

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import locks, nofollow
from ralph_runner.guarded import guard
from ralph_runner.shell.takeover import take_over


def main() -> int:
    folder, _, lock_fd, launched, *more = sys.argv[1:]
    guard.be_named("ralph-runner")
    signals = guard.watch_signals()  # before the first thread
    paths, resume = LoopPaths(Path(folder)), "--resume" in more
    tied = next((int(word.removeprefix("--tied=")) for word in more if word.startswith("--tied=")), None)
    lock = locks.adopt(int(lock_fd), paths.runner_lock)
    with os.fdopen(nofollow.open_fd(paths.config, os.O_RDONLY), "rb") as file:
        config = json.load(file)
    try:
        takeover = take_over(paths, config, resume)
    except OSError as error:
        print(f"the loop cannot be taken over: {error.filename or paths.dir}: {error.strerror}", file=sys.stderr)
        return 1

    import asyncio

    from ralph_rpc.files import records
    from ralph_runner.shell.runner import run
    from ralph_runner.shell.runnerlog import runner_log

    records.write_pid(paths, os.getpid())
    log = runner_log(paths)
    try:
        at = float(launched.removeprefix("--launched="))
        return asyncio.run(run(paths, lock, config, resume, takeover, log.info, signals, at, tied))
    except Exception:
        log.exception("the runner failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
