"""What a loop costs while nothing happens, when there are many, and after a long time. All on the fake pi."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.bench_commands import home
from tests.benchmarks.bench_latency import body, drop, latencies, log_size, timed_loop, timed_pi
from tests.benchmarks.measure import Context, cpu_seconds, quantile, rss_mib
from tests.benchmarks.table import Row
from tests.rig import Rig, fake_rig, new_project, wait_for

IDLE_S = 30
LOOPS = 64
FLEET_S = 60
GROWTH_S = 30
WARM_ITERATIONS = 50
FLOOD_S = 15
HEARTBEAT_S = 10
"""The contract's word: a registry entry is never older."""


def idle(context: Context) -> Iterator[Row]:
    """A runner and its guard while the model thinks."""
    with home(context, "idle") as folder, timed_loop(folder / "ours") as rig:
        runner, guard, _ = rig.pids()
        wait_for("nothing written for a second", lambda: is_still(rig.paths.events))
        before = cpu_seconds(runner) + cpu_seconds(guard)
        began = time.monotonic()
        time.sleep(IDLE_S)  # not a wait for something: this is what is measured
        used = (cpu_seconds(runner) + cpu_seconds(guard) - before) / (time.monotonic() - began)
        sizes = rss_mib(runner), rss_mib(guard)
        watches = sum(str(fd.readlink()) == "anon_inode:inotify" for fd in Path(f"/proc/{runner}/fd").iterdir())
    yield Row(10, "idle runner: memory", sizes[0], unit="MiB", limit=45, value=sizes[0])
    yield Row(10, "idle guard: memory", sizes[1], unit="MiB", limit=12, value=sizes[1])
    yield Row(10, f"idle runner and guard, {IDLE_S} s: CPU", used * 100, unit="%", limit=0.1, value=used * 100)
    yield Row(10, "idle runner: inotify instances", watches, limit=1, value=watches)


def is_still(file: Path) -> bool:
    return time.time() - file.stat().st_mtime > 1


@contextmanager
def fleet(folder: Path) -> Iterator[list[Rig]]:
    """Many loops in as many projects, their pis at work."""
    folder.mkdir()
    pi = timed_pi(folder, [{"reply": "done", "deltas": 100_000, "pace": 0.05}])
    rigs = [
        Rig(new_project(folder / f"project{number}"), str(pi), folder / "agent", [], f"loop{number}")
        for number in range(LOOPS)
    ]
    with ThreadPoolExecutor(8) as pool:
        try:
            list(pool.map(lambda rig: rig.run("start", rig.name, "--pi", str(pi), "-m", "work"), rigs))
            for rig in rigs:
                rig.wait_status("running")
            yield rigs
        finally:
            list(pool.map(lambda rig: rig.run("kill", rig.name, check=None), rigs))


def many_loops(context: Context) -> Iterator[Row]:
    """A command every 100 ms to one after the other, while each pi writes twenty events a second."""
    with home(context, "fleet") as folder, fleet(folder / "ours") as rigs:
        sent: dict[str, int] = {}
        oldest = 0.0
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < FLEET_S:
            rig = rigs[number % LOOPS]
            sent[str(number)] = drop(rig.paths.inbox, number, body(str(number)))
            number += 1
            if number % 10 == 0:
                oldest = max(oldest, *map(beat_age, rig.registry()))
            time.sleep(0.1)
        ours = latencies(folder / "ours" / "arrivals", sent)
    p99 = quantile(ours, 0.99)
    yield Row(11, f"{LOOPS} loops, {FLEET_S} s: inbox to pi, p50", quantile(ours, 0.5), unit="ms")
    yield Row(11, f"{LOOPS} loops, {FLEET_S} s: inbox to pi, p99", p99, unit="ms", limit=100, value=p99)
    yield Row(11, f"{LOOPS} loops: oldest sign of life", oldest, unit="s", limit=HEARTBEAT_S, value=oldest)


def beat_age(entry: dict[str, int]) -> float:
    return time.monotonic() - entry["monotonicMs"] / 1000


def growth(context: Context) -> Iterator[Row]:
    """Iterations as fast as they come: what the first and the last of them cost the runner in CPU time."""
    with home(context, "growth") as folder:
        (folder / "ours").mkdir()
        rig = fake_rig(folder / "ours", ["on with it"])
        rig.start("-n", "0", "--stall-after", "0")
        runner = rig.pids()[0]
        looks: list[tuple[int, float, float]] = []
        try:
            wait_for("the first iterations", lambda: rig.state()["iteration"] >= WARM_ITERATIONS)
            began = time.monotonic()
            while time.monotonic() - began < GROWTH_S:
                looks.append((rig.state()["iteration"], cpu_seconds(runner), rss_mib(runner)))
                time.sleep(GROWTH_S / 30)
        finally:
            rig.run("kill", "x", check=None)
    third = len(looks) // 3
    early, late = cost(looks[: third + 1]), cost(looks[-third - 1 :])
    yield Row(
        12, f"an iteration after {looks[-1][0]:,}, CPU", late * 1000, early * 1000, "ms", "one of the first", 1.15
    )
    # The first thousand iterations fill caches that have a bound; what grows after them is a leak.
    half = looks[len(looks) // 2]
    yield Row(
        12,
        f"runner's memory after {looks[-1][0]:,} iterations",
        looks[-1][2],
        half[2],
        "MiB",
        f"after {half[0]:,}",
        1.05,
    )


def cost(looks: Sequence[tuple[int, float, float]]) -> float:
    """CPU seconds an iteration."""
    (first, before, _), (last, after, _) = looks[0], looks[-1]
    return (after - before) / max(1, last - first)


def volume(context: Context) -> Iterator[Row]:
    """Memory while pi writes as fast as it is read."""
    with home(context, "volume") as folder, timed_loop(folder / "ours", flood=0) as rig:
        runner = rig.pids()[0]
        sizes = []
        began = time.monotonic()
        while time.monotonic() - began < FLOOD_S:
            time.sleep(FLOOD_S / 20)
            sizes.append(rss_mib(runner))
        logged = log_size(rig.paths.events) / 1e9
    yield Row(12, f"runner's memory after {logged:.1f} GB of events", sizes[-1], sizes[2], "MiB", "after a tenth", 1.05)


BENCHMARKS = {"idle": idle, "fleet": many_loops, "growth": growth, "volume": volume}
