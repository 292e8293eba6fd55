"""Ways of measuring that hold on a noisy machine: both sides in turn, many rounds, medians.

A child's CPU time and largest memory are what the kernel says of it (`os.wait4`, getrusage(2)). Its largest memory
is never below that of the process that started it: where less is to be measured, the child reads its own VmHWM.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GITCONFIG = """\
[user]
	name = Bench
	email = bench@example.invalid
[init]
	defaultBranch = main
"""


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds on the wall and of CPU (user and system), and peak resident memory in MiB."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True)
class Context:
    """What every benchmark gets: a scratch folder of its own, a cache that stays, and how thorough to be."""

    scratch: Path
    cache: Path
    rounds: int = 5


def run(
    argv: Sequence[str],
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.DEVNULL,
    stderr: int | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Cost:
    """Runs a program to its end. Raises RuntimeError if it fails and `check`."""
    began = time.perf_counter()
    child = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if check and child.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with {child.returncode}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def in_turn(rounds: int, **sides: Callable[[], Cost]) -> dict[str, Cost]:
    """The median cost of each side; the sides take turns, so that noise meets all of them. One round is for warmth."""
    taken: dict[str, list[Cost]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            cost = side()
            if number:
                taken[name].append(cost)
    return {name: median(costs) for name, costs in taken.items()}


def median(costs: Sequence[Cost]) -> Cost:
    """Each figure's own median."""
    return Cost(
        statistics.median(c.wall for c in costs),
        statistics.median(c.cpu for c in costs),
        statistics.median(c.rss for c in costs),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cpu_seconds(pid: int) -> float:
    """CPU time of a living process, all threads, to the nanosecond (/proc/PID/task/*/schedstat)."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in files) / 1e9


def rss_mib(pid: int) -> float:
    """Resident memory of a living process in MiB (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def python(*args: str) -> list[str]:
    """The argv of a Python that is ours."""
    return [sys.executable, "-P", *args]


def clean_environment(home: Path, **more: Any) -> dict[str, str]:
    """This environment with a home of its own, and nothing that would let a person's settings in."""
    foreign = ("RALPH_", "PI_", "GIT_", "XDG_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitconfig").write_text(GITCONFIG)
    return kept | {"HOME": str(home), "RALPH_HOME": str(home / ".ralph")} | {k: str(v) for k, v in more.items()}
