"""Starts a program under a guard (guard.py): pipes, lifeline, process. Only this, and without asyncio.

So pi can be booting while the rest of the runner is loaded; `process.Guarded` then takes what was started in hand.
If the runner dies at any instruction here, a guard that exists sees the end of its lifeline and ends its tree.
All spawning happens in the main thread.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from ralph_runner import guard

guards: set[int] = set()
"""The pids of all guards that were started and not yet waited for."""
spawning = threading.Lock()
"""Held while a guard exists that is not in `guards` yet; a sweep in another thread waits for it."""


class Spawned(NamedTuple):
    """A guard that has been started, our end of its lifeline, and our ends of the program's pipes.

    `fds` are stdin (non-blocking), stdout and stderr; one that was not asked for is -1.
    """

    process: subprocess.Popen[bytes]
    lifeline: socket.socket
    fds: tuple[int, int, int]


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    tree_lock: int | None = None,
    stdin: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Spawned:
    """Start `argv` under a guard that keeps `tree_lock` (an fd) open as long as anything of the tree lives.

    `stdin` may also be DEVNULL, `stderr` STDOUT (subprocess's constants). Raises OSError if `cwd` is missing; that
    the program cannot be executed is for the guard to say.
    """
    # Blocks for one exec: a thread would cost more, and a sweep may have to wait for it.
    theirs, ours = ExitStack(), ExitStack()
    with theirs, ours:
        for_stdin, stdin_fd = _pipe(theirs, ours, write=True) if stdin == subprocess.PIPE else (stdin, -1)
        for_stdout, stdout_fd = _pipe(theirs, ours)
        for_stderr, stderr_fd = _pipe(theirs, ours) if stderr == subprocess.PIPE else (stderr, -1)
        lifeline, guards_end = socket.socketpair()
        ours.callback(lifeline.close)
        theirs.callback(guards_end.close)
        lifeline.setblocking(False)
        if stdin_fd >= 0:
            os.set_blocking(stdin_fd, False)
        passed = [guards_end.fileno()] if tree_lock is None else [guards_end.fileno(), tree_lock]
        fds = [str(passed[0]), "-1" if tree_lock is None else str(tree_lock)]
        with spawning:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *fds, "--", *argv],
                stdin=for_stdin,
                stdout=for_stdout,
                stderr=for_stderr,
                pass_fds=passed,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
            guards.add(process.pid)
        ours.pop_all()
    return Spawned(process, lifeline, (stdin_fd, stdout_fd, stderr_fd))


def _pipe(theirs: ExitStack, ours: ExitStack, *, write: bool = False) -> tuple[int, int]:
    reading, writing = os.pipe()
    their_end, our_end = (reading, writing) if write else (writing, reading)
    theirs.callback(os.close, their_end)
    ours.callback(os.close, our_end)
    return their_end, our_end
