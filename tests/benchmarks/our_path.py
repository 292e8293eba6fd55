"""The program's own event path in a process of its own: pi's stdout through `PiClient` into an `EventLog`.

    our_path.py LOG READY LIFE < pi's stdout

Everything is as the runner has it: the reader thread, the stamp, the log with its reserve, the event loop that gets
what was found. Only the guard is missing: LIFE is an fd that comes to its end when pi does, which is what the guard
would tell. Prints what it saw and the largest memory it had.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "runner")]

from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.reserve import Reserve
from ralph_runner.core.inputs import PiInput
from ralph_runner.guarded.process import Exit
from ralph_runner.pi.client import PiClient

LOG_SIZE, LOG_KEEP = 256 << 20, 4
"""As `start` has them unless told otherwise."""
ITERATION = 7


class Stdin:
    """Our stdin in the place of a pi."""

    def __init__(self, life: int) -> None:
        self.stdin_fd = -1
        self.stdout_fd = 0
        self.stderr_fd, end = os.pipe()
        os.close(end)
        self._life = life

    async def wait(self) -> Exit:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._life, ended.set)
        await ended.wait()
        asyncio.get_running_loop().remove_reader(self._life)
        return Exit(0, "natural")

    def close(self) -> None:
        os.close(self.stderr_fd)


async def main() -> None:
    path, ready, life = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    log = EventLog.open(path, limit=LOG_SIZE, keep=LOG_KEEP, reserve=Reserve(path.with_name("reserve")))
    seen: Counter[str] = Counter()

    def take(inputs: Sequence[PiInput]) -> None:
        for one in inputs:
            seen[type(one).__name__] += 1

    notes: list[str] = []
    client = PiClient(Stdin(life), log, take, notes.append, lambda: ITERATION)
    client.start()
    ready.touch()
    await client.finish()
    log.close()
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"seen": seen, "notes": notes, "rss": peak / 1024}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
