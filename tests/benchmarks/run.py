"""All benchmarks, side by side with what they are measured against: `python tests/benchmarks/run.py [NAME...]`.

Prints one table. Exits with 1 if a goal is not met; a reference that is missing counts as not met.
"""

import argparse
import importlib
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "runner")]

from tests.benchmarks.measure import Context
from tests.benchmarks.table import Row, as_json, show

MODULES = (
    "bench_events",
    "bench_latency",
    "bench_commands",
    "bench_scale",
    "bench_attach",
    "bench_inside_pi",
    "bench_tickets",
    "bench_worktrees",
    "bench_queue",
    "bench_launchers",
)
CACHE = ROOT / ".cache" / "benchmarks"

Benchmark = Callable[[Context], Iterable[Row]]


def benchmarks() -> dict[str, Benchmark]:
    """Every benchmark by name, in the order in which they run."""
    found: dict[str, Benchmark] = {}
    for module in MODULES:
        found |= importlib.import_module(f"tests.benchmarks.{module}").BENCHMARKS
    return found


def main() -> int:
    known = benchmarks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(known)}")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of the table")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    given = parser.parse_args()
    if given.list:
        print("\n".join(known))
        return 0
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in given.names or known:
        began = time.monotonic()
        scratch = Path(tempfile.mkdtemp(prefix="ralph-bench-"))
        try:
            rows += known[name](Context(scratch, CACHE))
        except Exception as error:  # noqa: BLE001 - the others shall still be told, and this one is not met
            rows.append(Row(0, name, missing=f"{type(error).__name__}: {error}"))
            traceback.print_exc()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(as_json(rows) if given.json else show(rows))
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
