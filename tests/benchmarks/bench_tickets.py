"""Ten thousand tickets: read, parsed and put into order, by a fresh process and by one that knows them.

In the format of `tk create`: a dozen lines each, two dependencies on average, every tenth without a
component.
"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from ralph_rpc.tickets.schedule import Rules, plan
from ralph_rpc.tickets.sources.markdown import MarkdownTickets
from tests.benchmarks.bench_commands import home, side
from tests.benchmarks.measure import Context, in_turn, python, run
from tests.benchmarks.table import Row
from tests.tickets.folder import write

GOAL = 14
TICKETS = 10_000
COLD_S, WARM_S = 2, 1
PARALLEL = 8
IMPORTS = (
    "import sys, pathlib\nfrom ralph_rpc.tickets.sources.markdown import MarkdownTickets\n"
    "from ralph_rpc.tickets.schedule import Rules, plan\n"
)
READ = (
    "backlog = MarkdownTickets(pathlib.Path(sys.argv[1])).scan()\n"
    f"made = plan(backlog, {{}}, Rules({PARALLEL}))\n"
    f"assert len(made.rows) == {TICKETS} and made.start and not backlog.bad\n"
)


def tickets(context: Context) -> Iterator[Row]:
    """Cold and warm, against `cat` of all files and against a Python that only loads the modules."""
    with home(context, "tickets") as folder:
        backlog = folder / ".tickets"
        create(backlog)
        names = sorted(map(str, backlog.iterdir()))
        cost = in_turn(
            context.rounds,
            cold=side(python("-c", IMPORTS + READ, str(backlog)), folder),
            imports=side(python("-c", IMPORTS), folder),
            cat=lambda: run(["cat", *names]),
        )
        what = f"{TICKETS:,} tickets, fresh process"
        cold, cat = cost["cold"].wall, cost["cat"].wall
        yield Row(GOAL, what, cold * 1000, cat * 1000, "ms", "cat of the folder")
        yield Row(GOAL, what, cold * 1000, cost["imports"].wall * 1000, "ms", "its imports alone")
        yield Row(GOAL, what, cold, unit="s", limit=COLD_S, value=cold)
        yield Row(GOAL, f"{what}: CPU", cost["cold"].cpu * 1000, cost["cat"].cpu * 1000, "ms", "cat of the folder")
        for which, taken in warm(backlog, context.rounds).items():
            yield Row(GOAL, f"{TICKETS:,} tickets, {which}", taken * 1000, cat * 1000, "ms", "cat of the folder")
            yield Row(GOAL, f"{TICKETS:,} tickets, {which}", taken, unit="s", limit=WARM_S, value=taken)


def warm(folder: Path, rounds: int) -> dict[str, float]:
    """Seconds that a process takes which has read the backlog before."""
    source = MarkdownTickets(folder)
    source.scan()
    taken: dict[str, list[float]] = {"nothing changed": [], "one changed": [], "the order alone": []}
    for number in range(2 * rounds):
        for which, times in taken.items():
            if which == "one changed":
                source.set_status(f"ab-{TICKETS - 1:04x}", "closed" if number % 2 else "open")
            began = time.perf_counter()
            backlog = source.scan()
            scanned = time.perf_counter()
            plan(backlog, {}, Rules(PARALLEL))
            times.append(time.perf_counter() - (scanned if which == "the order alone" else began))
    return {which: statistics.median(times) for which, times in taken.items()}


def create(folder: Path) -> None:
    """The same backlog each time; old enough that its files count as still."""
    random = Random(1)
    ids = [f"ab-{number:04x}" for number in range(TICKETS)]
    for number, id in enumerate(ids):
        component = [f"component:{random.randrange(200)}"] if number % 10 else []
        deps = sorted({random.choice(ids[:number]) for _ in range(random.randrange(5))}) if number else []
        write(folder, id, f"Thing {number}", deps=deps, tags=component, priority=random.randrange(5))
    time.sleep(2.1)  # what was written so shortly ago is read once more, which is not what is measured


BENCHMARKS = {"tickets": tickets}
