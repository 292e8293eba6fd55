"""Trees of real processes for these tests, and the eye that finds what survived of them.

Every process of a tree carries a token in its command line, which neither setsid nor a wiped environment hides.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ralph_runner.guarded import guard
from ralph_runner.guarded.process import Guarded

ROOT = Path(__file__).parents[2]
BOUND_S = 30.0
SET_CHILD_SUBREAPER = 36
"""prctl(2)"""


def new_token() -> str:
    """A number of seconds that `sleep` accepts and nobody else uses."""
    return f"300.{uuid4().int % 10**15:015}"


KINDS = {
    "background": "sleep TOKEN & sleep TOKEN &",
    "setsid": "setsid sleep TOKEN &",
    "double-fork": "setsid sh -c 'sleep TOKEN &'",
    "env-wiped": "env -i /usr/bin/setsid sh -c '/bin/sleep TOKEN &'",
    "deaf": "(trap '' TERM HUP INT; setsid sleep TOKEN) &",
}
"""Shell code that leaves processes behind."""


def survivors(token: str) -> dict[int, str]:
    """The living processes whose command line holds `token`, by pid. Zombies have no command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if token.encode() in command and int(entry.name) != os.getpid():
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def until(condition: Callable[[], object], what: str, bound_s: float = BOUND_S) -> None:
    """Return as soon as `condition` holds; fail with `what` if it does not within the bound."""
    deadline = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {bound_s} s: {what}"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """No such process, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@contextmanager
def subreaper() -> Iterator[None]:
    """This process as a runner is, and only here: what others left behind later would stay its zombies for ever."""
    guard.become_subreaper()
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Runner:
    """A stand-in for the runner (stand_in.py) in a process of its own, which a test may kill."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def order(self, line: str) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def die(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def runner(tree_lock: Path | None = None, env: dict[str, str] | None = None) -> Iterator[Runner]:
    """Start a stand-in runner; it takes `tree_lock` and gives it to the guards it starts."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "runner")])
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("stand_in.py")), str(tree_lock or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | (env or {}),
        start_new_session=True,
    )
    with process:
        try:
            yield Runner(process)
        finally:
            process.kill()


@asynccontextmanager
async def guarded(*argv: str) -> AsyncIterator[Guarded]:
    """A program under a guard in this process, ended with all its tree."""
    program = await Guarded.spawn(argv, cwd=Path("/"), env=os.environ)
    try:
        yield program
    finally:
        program.kill()
        await program.wait()
        program.close()


@contextmanager
def nothing_of(token: str) -> Iterator[None]:
    """Whatever the test does, no process with `token` outlives it."""
    try:
        yield
    finally:
        for pid in survivors(token):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
