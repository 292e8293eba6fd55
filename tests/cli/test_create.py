"""Two starts at once: one makes the loop, the other is told so, and nothing is half-made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.talk import config

ROUNDS = 200

STARTER = """
import functools, json, sys
from pathlib import Path
from ralph_rpc import create
from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.files import locks
from ralph_rpc.files.paths import LoopPaths

# The patience is for viewers that look at the lock; it would only make every round longer.
create.locks.acquire = functools.partial(locks.acquire, patience_s=0.02)
paths, config = LoopPaths.of(Path(sys.argv[1]), "x"), json.loads(sys.argv[2])
made = None
for order in sys.stdin:
    if order.strip() == "start":
        try:
            made = create.create(paths, config, "the task", None)
            print("made", flush=True)
        except AlreadyRunning:
            print("refused", flush=True)
    elif made is not None:
        assert paths.task.read_text() == "the task" and paths.config.is_file()
        made.undo()
        made.lock.release()
        made = None
        print("undone", flush=True)
    else:
        print("nothing", flush=True)
"""


@pytest.mark.slow
def test_of_two_starts_at_once_exactly_one_wins_two_hundred_times(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path), json.dumps(config())]
    starters = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]

    def both(order: str) -> list[str]:
        for starter in starters:
            assert starter.stdin is not None
            starter.stdin.write(f"{order}\n")
            starter.stdin.flush()
        return sorted(starter.stdout.readline().strip() for starter in starters if starter.stdout is not None)

    try:
        for _ in range(ROUNDS):
            assert both("start") == ["made", "refused"]
            assert both("undo") == ["nothing", "undone"]
            assert not (tmp_path / ".ralph" / "x").exists()
    finally:
        for starter in starters:
            starter.communicate(timeout=10)
