"""What the far guard adds to a launcher: the bytes of pi's stdout, a line there and back, the start.

Beside the bare launcher with the same program, in turn: nothing at all, bubblewrap, ssh to the other of two network
namespaces, srun of a Slurm of our own. Where one of these cannot be had, its rows are left out.
"""

import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ralph_rpc.launchers import far_guard
from ralph_rpc.machine.carried import carried
from ralph_runner.pi.far import FarStream
from tests.benchmarks.measure import Context, Cost, in_turn
from tests.benchmarks.table import Row
from tests.launchers import machines, slurm

LINES = 200_000
LINE = b"x" * 399 + b"\n"
ECHOES = 400
WRITER = f"import os\nfor _ in range({LINES // 1000}): os.write(1, {LINE!r} * 1000)"
PYTHON = [sys.executable, "-I", "-S", "-c"]


class Side:
    """A launcher, bare or with the far guard behind it."""

    def __init__(self, prefix: Callable[[Sequence[str]], list[str]], env: Mapping[str, str] | None, far: bool) -> None:
        self._prefix, self._env, self._far = prefix, env, far

    def begin(self, program: Sequence[str]) -> "subprocess.Popen[bytes]":
        """It runs: with the far guard, its first line has been read."""
        inner = [sys.executable, *carried(Path(far_guard.__file__)), *program] if self._far else list(program)
        process = subprocess.Popen(
            self._prefix(inner), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._env
        )
        assert process.stdin is not None and process.stdout is not None
        if self._far:
            process.stdin.write(FarStream("ralph-bench", {}, "/tmp", "/tmp", 60).opening)
            process.stdin.flush()
            while b"ralph_far" not in process.stdout.readline():
                pass
        return process

    def throughput(self) -> Cost:
        """From the first byte to the last: the start is measured apart."""
        with self.begin([*PYTHON, WRITER]) as process:
            assert process.stdin is not None and process.stdout is not None
            got = len(process.stdout.readline())
            while got < len(LINE):  # the end of the far guard's line
                got = len(process.stdout.readline())
            began = time.perf_counter()
            while chunk := process.stdout.read(1 << 16):
                got += len(chunk)
            took = time.perf_counter() - began
            process.stdin.close()
        assert got >= LINES * len(LINE), f"{got} bytes came"
        return Cost(took, 0, 0)

    def start(self) -> Cost:
        """Until the program's first word."""
        began = time.perf_counter()
        with self.begin(["echo", "here"]) as process:
            assert process.stdin is not None and process.stdout is not None
            while b"here" not in process.stdout.readline():
                pass
            took = time.perf_counter() - began
            process.stdin.close()
            process.stdout.read()
        return Cost(took, 0, 0)

    def round_trip(self) -> Cost:
        """The median of many lines, there and back."""
        taken = []
        with self.begin(["cat"]) as process:
            assert process.stdin is not None and process.stdout is not None
            for number in range(ECHOES):
                line = b'{"n":%d}\n' % number
                began = time.perf_counter()
                process.stdin.write(line)
                process.stdin.flush()
                while process.stdout.readline() != line:
                    pass
                taken.append(time.perf_counter() - began)
            process.stdin.close()
            process.stdout.read()
        return Cost(statistics.median(taken), 0, 0)


def launchers(context: Context) -> Iterator[Row]:
    """Each launcher that can be had here."""
    with ExitStack() as held:
        ways: dict[str, tuple[Callable[[Sequence[str]], list[str]], Mapping[str, str] | None]] = {
            "no launcher": (list, None)
        }
        if shutil.which("bwrap"):
            box = [
                "bwrap",
                "--bind",
                "/",
                "/",
                "--dev",
                "/dev",
                "--proc",
                "/proc",
                "--unshare-pid",
                "--die-with-parent",
            ]
            ways["bwrap"] = (lambda inner: [*box, "--", *inner], None)
        if machines.why_not() is None:
            two = held.enter_context(machines.machines(context.scratch / "machines"))
            ways["ssh"] = (lambda inner: two.ssh("-T", shlex.join(inner)), None)
        if slurm.why_not() is None:
            cluster = held.enter_context(slurm.slurm())
            ways["srun"] = (lambda inner: ["srun", "--ntasks=1", *inner], {"PATH": "/usr/bin:/bin", **cluster.env})
        for name, (prefix, env) in ways.items():
            bare, guarded = Side(prefix, env, far=False), Side(prefix, env, far=True)
            rounds = max(2, context.rounds - 2)
            took = in_turn(rounds, ours=guarded.throughput, bare=bare.throughput)
            size = LINES * len(LINE) / 1e6
            ours, theirs = size / took["ours"].wall, size / took["bare"].wall
            yield Row(16, f"{name}: pi's stdout", ours, theirs, "MB/s", "without the far guard")
            took = in_turn(rounds, ours=guarded.round_trip, bare=bare.round_trip)
            ours, theirs = took["ours"].wall * 1000, took["bare"].wall * 1000
            yield Row(16, f"{name}: a line there and back, p50", ours, theirs, "ms", "without the far guard")
            took = in_turn(rounds, ours=guarded.start, bare=bare.start)
            ours, theirs = took["ours"].wall * 1000, took["bare"].wall * 1000
            yield Row(16, f"{name}: start", ours, theirs, "ms", "without the far guard")


BENCHMARKS = {"launchers": launchers}
