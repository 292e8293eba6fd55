"""A program under guard, as the runner's event loop sees it: its pipes, the steps of ending it, and how it ended.

Used for pi, for the verify command and for --notify. The guard (guard.py) ends the whole tree, also when the runner
dies at any instruction here; if the guard itself is killed, the runner, being a subreaper, has inherited the tree and
sweeps it. That sets a rule: whatever else the runner starts stays in the runner's own session (no `start_new_session`),
because a child of the runner in another session counts as such an orphan. All spawning happens in the event loop's
thread.
"""

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from ralph_rpc.machine import identity
from ralph_runner.guarded import guard
from ralph_runner.guarded.spawn import GuardFault, Spawned, guards, spawn, spawning

Method = Literal["natural", "eof", "sigterm", "sigkill"]

KILL_PATIENCE_S = guard.SWEEP_TERM_S + guard.SWEEP_KILL_S + 3.0
"""A guard that has not answered `kill` by then (it is stopped, say) is killed itself, and the runner sweeps."""
_REAP_POLL_S = 0.005


class Exit(NamedTuple):
    """How a program ended: exit status, or minus the signal, or None if the guard was killed; and by which step."""

    code: int | None
    method: Method


class Guarded:
    """A running program; its whole tree ends with it.

    The caller reads `stdout_fd` and `stderr_fd` (blocking read ends) until their end, writes to `stdin_fd`
    (non-blocking write end), and calls `close()` after `wait()`. An fd that was not asked for is -1.
    """

    def __init__(self, spawned: Spawned) -> None:
        process, lifeline, fds = spawned
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
        """`spawn.spawn`, with these arguments, and `started`."""
        return await cls(spawn(argv, cwd=cwd, env=env, tree_lock=tree_lock, stdin=stdin, stderr=stderr)).started(
            argv[0]
        )

    async def started(self, program: str) -> "Guarded":
        """Wait until the program runs. Raises OSError if it cannot be executed, GuardFault if the guard is gone before
        that can be known; then nothing is left behind."""
        try:
            await asyncio.shield(self._started)
        except OSError as error:
            self.close()
            await self.wait()
            error.filename = program
            raise
        except asyncio.CancelledError:
            self.kill()
            self.close()
            raise
        return self

    def close_stdin(self) -> None:
        """Let the program see the end of its input; the guard ends it if it then stays for EOF_GRACE_S."""
        if self.stdin_fd >= 0:
            # Said first: otherwise the program could end before the guard knows why.
            self._tell(b"e")
            os.close(self.stdin_fd)
            self.stdin_fd = -1

    def terminate(self) -> None:
        """Send the program one SIGTERM, however often this is called; TERM_GRACE_S later the tree is swept."""
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
        guards.discard(self.guard_pid)
        if self._last_resort is not None:
            self._last_resort.cancel()
        if ended is None:
            term_s = guard.ORPHAN_SWEEP_TERM_S
            await asyncio.to_thread(guard.sweep, _not_orphaned, _reap, term_s=term_s)
            ended = Exit(None, "sigkill")
        if not self._started.done():
            self._started.set_exception(GuardFault(errno.ECHILD, "the guard ended before it had started the program"))
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
        # A guard that is gone needs no command: `_watch` is dealing with it.
        with contextlib.suppress(OSError):
            self._lifeline.send(command)


def _not_orphaned(table: dict[int, guard.Process]) -> set[int]:
    # Living guards, and the runner's own helpers (git, say): they never left its session.
    with spawning:
        living = set(guards)
    me, session = os.getpid(), os.getsid(0)
    return living | {pid for pid, p in table.items() if p.parent == me and p.session == session}


def _reap(left: dict[int, guard.Process]) -> bool:
    # One by one: waitpid(-1) would steal the exit codes that the subprocess module waits for.
    for pid, process in left.items():
        if process.zombie and process.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return not left
