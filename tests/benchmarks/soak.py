"""Ten minutes at full speed: does a runner leak, and does an iteration cost the more the longer the loop runs?

    python -m tests.benchmarks.soak [--minutes 10] [--iterations 10000]

A fake pi answers at once, so what bounds the speed is the runner, its measure of the work tree and the disk. A dozen
times the loop is paused, and the runner is looked at while it rests: then everything it has open is something it
keeps. Prints a table and a verdict; the exit code is 1 if a bound is not met. It touches nothing but a folder of its own.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.conftest import GITCONFIG
from tests.rig import Rig, fake_rig, wait_for

CHECKPOINTS = 12
WARM = 3
"""The looks that only warm up: by then every code path has run and every buffer has its size."""
RSS_GROWTH = 0.05
"""Over the second half: the first fills the pools of the interpreter, most of them within a thousand iterations."""
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_TOP_PAD_": "0",
}
"""Has glibc give back what is free, so that RSS shows what the runner holds, and a bound on its growth finds a leak.

Left to itself, glibc raises these limits as it goes, and each thread has a pool of its own: RSS then grows in steps of
1 MiB, 6 % from the 4,000th to the 8,000th iteration and as much again to the 13,000th. What is in use (mallinfo2,
sys.getallocatedblocks) grows by 0.3 % from the 4,000th to the 8,000th.
"""
POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio starts when it first has use for them, and then keeps."""
COST_GROWTH = 0.25
"""Of the runner's own CPU time an iteration; a machine that is busy with other things makes it vary by less."""
COMPARABLE_S = 1.0
"""Of CPU time between two looks. Less is a few of the kernel's ticks, and says nothing about growth."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True)
class Look:
    """The runner at rest, after so many iterations."""

    iterations: int
    seconds: float
    """Spent at work, rests left out."""
    cpu_s: float
    """The runner's own, without git and pi."""
    fds: int
    threads: int
    children: int
    zombies: int
    rss_kib: int
    state_bytes: int


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def children_of(pid: int) -> list[str]:
    """The state letter of every child."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = stat_of(int(entry.name))
        except OSError:  # gone
            continue
        if int(fields[1]) == pid:
            found.append(fields[0])
    return found


def look(rig: Rig, seconds: float) -> Look:
    """The least of three looks: what is about to be closed is no leak."""
    looks = []
    for _ in range(3):
        looks.append(look_once(rig, seconds))
        time.sleep(0.1)
    return min(looks, key=lambda one: (one.zombies, one.fds, one.threads))


def look_once(rig: Rig, seconds: float) -> Look:
    state = rig.state()
    pid = state["pid"]
    fields, children = stat_of(pid), children_of(pid)
    return Look(
        state["iteration"],
        seconds,
        (int(fields[11]) + int(fields[12])) / TICKS,
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(fields[17]),
        len(children),
        children.count("Z"),
        int(fields[21]) * PAGE_KIB,
        rig.paths.state.stat().st_size,
    )


def soak(folder: Path, iterations: int, minutes: float, patience_s: float = 60.0) -> list[Look]:
    """Runs a loop to so many iterations or for so many minutes, whichever comes first; what was seen."""
    rig = fake_rig(folder, ["on with it"])
    rig.env |= ALLOCATOR
    rig.start("-n", "0", "--stall-after", "0")
    looks: list[Look] = []
    worked, began = 0.0, time.monotonic()
    per_look, longest = iterations / CHECKPOINTS, minutes * 60 / CHECKPOINTS
    try:
        for number in range(1, CHECKPOINTS + 1):

            def is_due(number: int = number, began: float = began) -> bool:
                return rig.state().get("iteration", 0) >= per_look * number or time.monotonic() - began > longest

            wait_for(f"look {number}", is_due, longest + patience_s)
            rig.drop(f"pause-{number}.json", "{}")
            rig.wait_status("paused")
            worked += time.monotonic() - began
            looks.append(look(rig, worked))
            rig.drop(f"resume-{number}.json", "{}")
            began = time.monotonic()
            rig.wait_status("running")
    finally:
        rig.run("kill", "x", check=None)
    return looks


def cost_ms(looks: list[Look]) -> list[float]:
    """The runner's CPU time an iteration between two looks, from the first that counts."""
    warm = looks[WARM - 1 :]
    return [1000 * (b.cpu_s - a.cpu_s) / max(1, b.iterations - a.iterations) for a, b in pairwise(warm)]


def rss_growth(looks: list[Look]) -> float:
    """Of the second half, as a fraction."""
    return looks[-1].rss_kib / looks[len(looks) // 2 - 1].rss_kib - 1


def failures(looks: list[Look]) -> list[str]:
    """The bounds that were not met."""
    warm, last = looks[WARM - 1], looks[-1]
    found = []
    for name, more in (("fds", 0), ("children", 0), ("threads", POOL)):
        was, now = getattr(warm, name), getattr(last, name)
        if now > was + more:
            found.append(f"{name} grew from {was} to {now}")
    if any(one.zombies for one in looks):
        found.append(f"{max(one.zombies for one in looks)} zombies")
    if rss_growth(looks) > RSS_GROWTH:
        found.append(f"RSS grew by {100 * rss_growth(looks):.1f} % to {last.rss_kib} KiB")
    if last.state_bytes > warm.state_bytes + 200:  # numbers get longer
        found.append(f"state.json grew from {warm.state_bytes} to {last.state_bytes} bytes")
    costs = cost_ms(looks)
    third = len(costs) // 3
    before, after = statistics.median(costs[:third]), statistics.median(costs[-third:])
    comparable = last.cpu_s - warm.cpu_s >= COMPARABLE_S * len(costs)
    if comparable and after > before * (1 + COST_GROWTH):
        found.append(f"CPU time an iteration grew from {before:.2f} to {after:.2f} ms")
    return found


def summary(looks: list[Look]) -> str:
    """One line of figures."""
    warm, last, costs = looks[WARM - 1], looks[-1], cost_ms(looks)
    return (
        f"{last.iterations} iterations, {last.iterations / last.seconds:.1f}/s, fd delta {last.fds - warm.fds}, "
        f"zombies {max(one.zombies for one in looks)}, RSS {last.rss_kib / 1024:.1f} MiB ({100 * rss_growth(looks):+.1f} %), "
        f"CPU {costs[0]:.1f} -> {costs[-1]:.1f} ms an iteration"
    )


def table(looks: list[Look]) -> str:
    """A line for each look."""
    lines = ["iterations  at work s     /s  cpu ms  fds  threads  children  zombies   RSS KiB  state B"]
    before = Look(0, 0.0, 0.0, 0, 0, 0, 0, 0, 0)
    for one in looks:
        done = max(1, one.iterations - before.iterations)
        speed = done / max(0.001, one.seconds - before.seconds)
        cpu = 1000 * (one.cpu_s - before.cpu_s) / done
        lines.append(
            f"{one.iterations:10} {one.seconds:10.1f} {speed:6.1f} {cpu:7.2f} {one.fds:4} {one.threads:8} "
            f"{one.children:9} {one.zombies:8} {one.rss_kib:9} {one.state_bytes:8}"
        )
        before = one
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--iterations", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ralph-soak-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(GITCONFIG)
        os.environ |= {"HOME": str(home), "RALPH_HOME": str(home / ".ralph"), "XDG_CONFIG_HOME": str(home / ".config")}
        looks = soak(Path(folder), given.iterations, given.minutes)
    print(table(looks))
    missed = failures(looks)
    print(f"\n{summary(looks)}\n" + ("ok" if not missed else "NOT MET: " + "; ".join(missed)))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
