"""Starts a program under a guard (guard.py): pipes, lifeline, process. Only this, and without asyncio.

A running loop must survive an upgrade of this program, its removal, and a venv that is moved: so the guard is executed
from memory, by the interpreter that runs us and not by the link to it in a venv.

Called by takeover.py, so that pi boots while the rest of the runner is loaded, and by `process.Guarded`, which takes
over what was started. If the runner dies at any instruction here, a guard that exists sees the end of its lifeline and
ends its tree. All spawning happens in the main thread.
"""

import marshal
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import NamedTuple

from ralph_runner.guarded import guard

guards: set[int] = set()
"""The pids of all guards that were started and not yet waited for."""
spawning = threading.Lock()
"""Held while a guard exists that is not in `guards` yet; a sweep in another thread waits for it."""


class GuardFault(OSError):
    """The guard could not be started, or was gone before it had started the program: our fault or the machine's.

    It says nothing about the program, which never ran.
    """


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

    `stdin` may also be DEVNULL, `stderr` STDOUT (subprocess's constants). Raises GuardFault, also if `cwd` is missing; the
    guard reports a program that cannot be executed.
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
        if _CODE_FD is not None:
            passed.append(_CODE_FD)
        with spawning:
            try:
                process = subprocess.Popen(
                    [_PYTHON, "-I", "-S", _CODE, *fds, "--", *argv],
                    stdin=for_stdin,
                    stdout=for_stdout,
                    stderr=for_stderr,
                    pass_fds=passed,
                    cwd=cwd,
                    env=env,
                    start_new_session=True,
                )
            except OSError as error:
                raise GuardFault(error.errno, error.strerror, error.filename) from error
            guards.add(process.pid)
        ours.pop_all()
    return Spawned(process, lifeline, (stdin_fd, stdout_fd, stderr_fd))


def _pipe(theirs: ExitStack, ours: ExitStack, *, write: bool = False) -> tuple[int, int]:
    reading, writing = os.pipe()
    their_end, our_end = (reading, writing) if write else (writing, reading)
    theirs.callback(os.close, their_end)
    ours.callback(os.close, our_end)
    return their_end, our_end


def interpreter() -> str:
    """The program that runs us, by a path that has nothing to do with a venv."""
    if not sys.platform.startswith("linux"):
        return sys.executable
    program = str(Path("/proc/self/exe").readlink())
    if sys.prefix != sys.base_prefix and program.startswith(f"{sys.prefix}/"):
        # The venv has a copy of it; `python -m venv --copies` notes the original.
        base: str = getattr(sys, "_base_executable", program)
        return base
    return program


def _in_memory() -> int | None:
    """An fd of the guard's code, compiled; None where the system has no such files."""
    if not hasattr(os, "memfd_create") or not Path(guard.IN_MEMORY).exists():
        return None
    loader = guard.__spec__.loader if guard.__spec__ is not None else None
    if not isinstance(loader, SourceFileLoader):
        return None
    code = loader.get_code(guard.__name__)
    try:
        fd = os.memfd_create("ralph-guard")
    except OSError:  # a sandbox
        return None
    with open(fd, "wb", closefd=False) as file:
        file.write(MAGIC_NUMBER + bytes(12) + marshal.dumps(code))  # the head of a .pyc
    return fd


_PYTHON = interpreter()
_CODE_FD = _in_memory()
_CODE = guard.__file__ if _CODE_FD is None else f"{guard.IN_MEMORY}{_CODE_FD}"
