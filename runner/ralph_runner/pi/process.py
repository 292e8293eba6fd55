"""A program under guard, as the runner's event loop sees it: its pipes, the ladder's rungs, and how it ended.

Used for pi and for the verify command. The guard (guard.py) ends the whole tree, also when the runner dies at
any instruction here; if the guard itself is killed, the runner, being a subreaper, has inherited the tree and
sweeps it. Hence a rule for the runner: what else it starts stays in the runner's own session (no
`start_new_session`), because a child of the runner in another session counts as such an orphan. All spawning
happens in the event loop's thread.
"""

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple, cast

from ralph_rpc.files import identity
from ralph_runner import guard

Method = Literal["natural", "eof", "sigterm", "sigkill"]

KILL_PATIENCE_S = guard.SWEEP_TERM_S + guard.SWEEP_KILL_S + 3.0
"""A guard that has not answered `kill` by then (stopped, say) is killed itself, and the runner sweeps."""
_REAP_POLL_S = 0.005

_guards: set[int] = set()
_spawning = threading.Lock()
"""Held while a guard exists that is not in `_guards` yet; a sweep in another thread waits for it."""


class Exit(NamedTuple):
    """How a program ended: exit status, minus the signal, or None if the guard was killed; and by which rung."""

    code: int | None
    method: Method


def become_subreaper() -> None:
    """Let the runner inherit the tree of a guard that is killed. Called once, before the first spawn."""
    guard.become_subreaper()


class Guarded:
    """A running program whose whole tree ends with it.

    The caller reads `stdout_fd` and `stderr_fd` (blocking read ends) until their end, writes to `stdin_fd`
    (non-blocking write end), and calls `close()` after `wait()`. An fd that was not asked for is -1.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], lifeline: socket.socket, fds: tuple[int, int, int]
    ) -> None:
        self._process = process
        self._lifeline = lifeline
        self._last_resort: asyncio.TimerHandle | None = None
        self.guard_pid = process.pid
        self.guard_start_time = identity.start_time(process.pid) or 0.0
        self.pid = 0
        self.start_time = 0.0
        self.stdin_fd, self.stdout_fd, self.stderr_fd = fds
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exit = asyncio.create_task(self._watch(), name=f"guard {process.pid}")

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        tree_lock: int | None = None,
        stdin: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> "Guarded":
        """Start `argv` under a guard that keeps `tree_lock` (an fd) open as long as anything of the tree lives.

        `stdin` may also be DEVNULL, `stderr` STDOUT (subprocess's constants). Raises OSError if `cwd` is missing
        or the program cannot be executed; then nothing is left behind.
        """
        self = cls(*_launch(argv, cwd, env, tree_lock, stdin, stderr))
        try:
            await asyncio.shield(self._started)
        except OSError as error:
            self.close()
            await self.wait()
            error.filename = argv[0]
            raise
        except asyncio.CancelledError:
            self.kill()
            self.close()
            raise
        return self

    def close_stdin(self) -> None:
        """Let the program see the end of its input; the guard ends it if it then stays for EOF_GRACE_S."""
        if self.stdin_fd >= 0:
            # Said before it is done: else the program could end before the guard knows why.
            self._tell(b"e")
            os.close(self.stdin_fd)
            self.stdin_fd = -1

    def terminate(self) -> None:
        """Send the program SIGTERM, once however often this is called; TERM_GRACE_S later the tree is swept."""
        self._tell(b"t")

    def kill(self) -> None:
        """End the whole tree now: SIGTERM, and SIGKILL after SWEEP_TERM_S."""
        self._tell(b"k")
        if self._last_resort is None and not self._exit.done():
            loop = asyncio.get_running_loop()
            self._last_resort = loop.call_later(KILL_PATIENCE_S, self._process.kill)

    async def wait(self) -> Exit:
        """Wait until nothing of the tree lives. May be called any number of times and cancelled."""
        return await asyncio.shield(self._exit)

    def close(self) -> None:
        """Close the pipes; end the reading of `stdout_fd` and `stderr_fd` first. Doing it twice is fine."""
        for fd in (self.stdin_fd, self.stdout_fd, self.stderr_fd):
            if fd >= 0:
                os.close(fd)
        self.stdin_fd = self.stdout_fd = self.stderr_fd = -1

    async def _watch(self) -> Exit:
        ended = None
        try:
            async for words in self._said():
                match words:
                    case ["pid", pid, start]:
                        self.pid = int(pid)
                        self.start_time = float(start) or identity.start_time(self.pid) or 0.0
                        self._started.set_result(None)
                    case ["failed", number]:
                        ended = Exit(None, "natural")
                        self._started.set_exception(OSError(int(number), os.strerror(int(number))))
                    case ["exit", code, method]:
                        ended = Exit(int(code), cast(Method, method))
                    case _:
                        pass
        finally:
            self._lifeline.close()
        while self._process.poll() is None:
            await asyncio.sleep(_REAP_POLL_S)
        _guards.discard(self.guard_pid)
        if self._last_resort is not None:
            self._last_resort.cancel()
        if ended is None:
            await asyncio.to_thread(guard.sweep, _not_orphaned, _reap)
            ended = Exit(None, "sigkill")
        if not self._started.done():
            self._started.set_exception(OSError(errno.ECHILD, "the guard was ended before it started"))
        return ended

    async def _said(self) -> AsyncIterator[list[str]]:
        rest = b""
        while data := await self._hear():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode("ascii").split()

    async def _hear(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._lifeline, 4096)
        except ConnectionError:  # killed with a command of ours unread
            return b""

    def _tell(self, command: bytes) -> None:
        # A guard that is gone needs no telling: `_watch` is dealing with it.
        with contextlib.suppress(OSError):
            self._lifeline.send(command)


def _launch(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], tree_lock: int | None, stdin: int, stderr: int
) -> tuple[subprocess.Popen[bytes], socket.socket, tuple[int, int, int]]:
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
        with _spawning:
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
            _guards.add(process.pid)
        ours.pop_all()
    return process, lifeline, (stdin_fd, stdout_fd, stderr_fd)


def _pipe(theirs: ExitStack, ours: ExitStack, *, write: bool = False) -> tuple[int, int]:
    reading, writing = os.pipe()
    their_end, our_end = (reading, writing) if write else (writing, reading)
    theirs.callback(os.close, their_end)
    ours.callback(os.close, our_end)
    return their_end, our_end


def _not_orphaned(table: dict[int, guard.Process]) -> set[int]:
    # Living guards, and the runner's own helpers (git, say): they never left its session.
    with _spawning:
        guards = set(_guards)
    me, session = os.getpid(), os.getsid(0)
    return guards | {pid for pid, p in table.items() if p.parent == me and p.session == session}


def _reap(left: dict[int, guard.Process]) -> bool:
    # One by one: waitpid(-1) would steal the exit codes that the subprocess module waits for.
    for pid, process in left.items():
        if process.zombie and process.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return not left
