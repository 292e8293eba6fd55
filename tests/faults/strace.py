"""Faults at system calls: a process is killed at its k-th call of a name, or that call fails, by strace's injection.

The process stops itself (SIGSTOP) when everything is loaded; then strace is attached and it goes on. A kill lands
on entry, so the call is not carried out. strace counts per thread and per name: what the first thread does is
reached without `threads`, what the others do with it (then the first to reach the number is hit). Programs that the
process starts are let go at their exec, and what pi does is never hit.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

CALLS = (
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "ftruncate",
    "mkdir",
    "mkdirat",
    "rmdir",
    "chmod",
    "fchmod",
    "sendto",
    "sendmsg",
)
"""What changes something on disk, or reaches another process."""

ON_NO_FILE = re.compile(r"\(\d+<(pipe|socket|anon_inode):")
KILL = "signal=KILL"
ATTACH_S = 20.0
LIFE_S = 60.0
"""A process that has not ended by itself so long after its fault hangs."""

Start = Callable[[], int]
"""Starts a process that stops itself with SIGSTOP before its work, and returns its pid; a child of ours."""


class Point(NamedTuple):
    """One system call of a process."""

    call: str
    number: int
    threads: bool = False
    """Counted in every thread by itself, the first to reach it is meant; else in the first thread only."""
    file: bool = True
    """It works on a file; not on a pipe or socket."""


def missing() -> str | None:
    """Why processes cannot be traced here."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed"
    tried = subprocess.run([strace, "-o", "/dev/null", "/bin/true"], check=False, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"strace does not work: {tried.stderr.strip()}"


def required() -> None:
    """Skips the test where processes cannot be traced; in CI that is a failure."""
    why = missing()
    if why is not None and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why is not None:
        pytest.skip(why)


class End(NamedTuple):
    """How a process with a fault ended."""

    code: int
    """Its exit code, or minus the signal that ended it."""
    hit: bool
    """It came to the call; an error: and the call was on a file. Threads do not always come in the same order, and
    no pipe was ever full of data."""


def run(start: Start, point: Point, effect: str = KILL) -> End:
    """Runs a process with one fault."""
    injection = f"inject={point.call}:{effect}:when={point.number}"
    code, log = _traced(start(), "-y", "-e", f"trace={point.call}", "-e", injection, threads=point.threads)
    if effect == KILL:
        return End(code, code == -signal.SIGKILL)
    failed = next((line for line in log.splitlines() if line.endswith("(INJECTED)")), None)
    return End(code, failed is not None and ON_NO_FILE.search(failed) is None)


def points(start: Start) -> list[Point]:
    """Every call of a process that lives to its end, as a place for a fault: first those of its first thread, in
    order of names and numbers, then those of the threads that make more calls of a name."""
    first = start()
    code, text = _traced(first, "-y", "-e", f"trace={','.join(CALLS)}", threads=True)
    assert code == 0, f"it failed without any fault: {code}"
    found: dict[str, dict[int, list[bool]]] = {call: {first: []} for call in CALLS}
    for thread, call, rest in re.findall(r"^(\d+) +(\w+)\((.*)", text, re.MULTILINE):
        found[call].setdefault(int(thread), []).append(ON_NO_FILE.match(f"({rest}") is None)
    own = [Point(call, n, False, file) for call in CALLS for n, file in enumerate(found[call][first], 1)]
    most = {call: max(threads.values(), key=len) for call, threads in found.items()}
    more = [call for call in CALLS if len(most[call]) > len(found[call][first])]
    return own + [Point(call, n, True, file) for call in more for n, file in enumerate(most[call], 1)]


def spread(every: list[Point], count: int) -> list[Point]:
    """So many of them, every name among them where there is room, and all parts of the run."""
    if count >= len(every):
        return every
    names: dict[tuple[str, bool], list[Point]] = {}
    for point in every:
        names.setdefault((point.call, point.threads), []).append(point)
    # One of each name, each a bit later in its name than the one before, then evenly from the rest.
    chosen = [found[i * len(found) // len(names)] for i, found in enumerate(names.values())][:count]
    rest = [point for point in every if point not in chosen]
    more = count - len(chosen)
    return chosen + [rest[(2 * i + 1) * len(rest) // (2 * more)] for i in range(more)]


def _traced(pid: int, *arguments: str, threads: bool) -> tuple[int, str]:
    """Attaches strace to a process that has stopped itself, lets it go on; its exit code and strace's words."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"it ended before its work: {os.waitstatus_to_exitcode(status)}"
    more = ["-f", "-b", "execve"] if threads else []
    with tempfile.NamedTemporaryFile("r", errors="replace") as log:
        command = ["strace", "-qqq", *more, *arguments, "-o", log.name, "-p", str(pid)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as strace:
            try:
                deadline = time.monotonic() + ATTACH_S
                while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
                    assert time.monotonic() < deadline and strace.poll() is None, "strace did not attach"
                    time.sleep(0.001)
            finally:
                os.kill(pid, signal.SIGCONT)
            code = _end(pid)
        return code, log.read()


def _end(pid: int) -> int:
    deadline = time.monotonic() + LIFE_S
    while True:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"it has not ended after {LIFE_S:.0f} s")
        time.sleep(0.002)
