"""Launching a runner, and the wait until it works.

Called by `start` and `resume` under the runner lock, which is handed to the runner as an open file, so that it is
held at every instant. The runner is detached from terminal and caller; if the caller dies here, it works on alone.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import identity, nofollow
from ralph_rpc.machine.locks import Lock
from ralph_rpc.model.state import ENDED, State

_POLL_S = 0.005
_TAIL_BYTES = 4096
_TAIL_LINES = 3


class Launched(NamedTuple):
    """A runner that was started: its pid, and the time before, in epoch seconds."""

    pid: int
    at: float


def launch(paths: LoopPaths, lock: Lock, resume: bool, tied: bool = False) -> Launched:
    """Starts the runner of a loop and gives it the lock. `lock` is released here. One that is `tied` ends with this process."""
    at = time.time()
    # -P: a file in the working folder must not stand in for a module of ours.
    argv = [
        sys.executable,
        "-P",
        "-m",
        "ralph_runner",
        str(paths.dir),
        "--lock-fd",
        str(lock.fd),
        f"--launched={at:.3f}",
    ]
    log = nofollow.open_fd(paths.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        process = subprocess.Popen(
            [*argv, *(["--resume"] if resume else []), *([f"--tied={os.getpid()}"] if tied else [])],
            cwd=paths.dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock.fd,),
        )
    finally:
        os.close(log)
    # Only the runner's copy may keep the lock from now on, else the loop would look alive as long as we do.
    lock.release()
    process.returncode = 0  # it outlives us on purpose: no warning that it still runs
    return Launched(process.pid, at)


def await_started(paths: LoopPaths, runner: Launched, timeout: float) -> State | None:
    """The state of the run that `launch` began, once it works or has ended; None after `timeout` seconds.

    Raises RalphError with the last lines of runner.log if the runner is gone without having said anything.
    """
    deadline = time.monotonic() + timeout
    seen: tuple[int, ...] = ()
    while time.monotonic() < deadline:
        gone = identity.start_time(runner.pid) is None
        # Read only when it is another one: pi boots meanwhile, and should have the processor.
        written = _written(paths.state)
        if written != seen or gone:
            seen = written
            state = _state_of_run(paths, runner)
            if state is not None and state["status"] not in ("starting", "stopping"):
                return state
        if gone:
            raise RalphError(f"the runner of {paths.name!r} ended at once: {_log_tail(paths)}", f"see {paths.log}")
        time.sleep(_POLL_S)
    return None


def _written(path: Path) -> tuple[int, ...]:
    """Another one whenever the file has been replaced; empty where there is none."""
    try:
        found = nofollow.lstat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _state_of_run(paths: LoopPaths, runner: Launched) -> State | None:
    """The state that this runner wrote. An ended one names no pid, but is younger than the launch."""
    try:
        written = nofollow.lstat(paths.state).st_mtime
        state = records.read_state(paths)
    except (FileNotFoundError, Unreadable):
        return None
    if state is None or state["pid"] == runner.pid:
        return state
    # Files are stamped by a clock that ticks every 4 ms; python alone takes longer to start.
    return state if state["status"] in ENDED and written > runner.at - 0.02 else None


def _log_tail(paths: LoopPaths) -> str:
    try:
        with os.fdopen(nofollow.open_fd(paths.log, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-_TAIL_LINES:]) or "it wrote nothing to its log"
