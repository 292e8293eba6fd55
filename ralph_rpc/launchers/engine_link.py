"""The process that speaks with an engine (`jobs_by_psij`, `jobs_by_kubectl`): how it is started, and what is said to it.

Used by the runner, and by `kill`, `clean` and `doctor` for what a dead runner has left. The jobs are the engine's: they
outlive this process.
"""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from ralph_rpc.launchers import engines
from ralph_rpc.launchers.engines import Engine

CANCEL_S = 20.0
_SAME_THERE = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "PI_CODING_AGENT_DIR")
_SAME_BEGINNINGS = ("LC_", "XDG_", "RALPH_TEST_")


def environment() -> dict[str, str]:
    """Of the helper: ours, without what marks a process as part of a loop."""
    return {name: value for name, value in os.environ.items() if name not in ("RALPH_LOOP", "RALPH_LOOP_DIR")}


def job_environment() -> dict[str, str]:
    """Of a job: what says where things are, and no key. The engine writes it into its files."""
    return {
        name: value for name, value in os.environ.items() if name in _SAME_THERE or name.startswith(_SAME_BEGINNINGS)
    }


def command(engine: Engine, ticket: str, hub: str, loop: str, job: str) -> list[str]:
    """What a job runs."""
    program = ["ralph-rpc"] if engine.kind == "kubernetes" else [sys.executable, "-P", "-m", "ralph_rpc"]
    return [*program, "work", ticket, "--hub", hub, "--name", loop, "--job", job]


def submit(job: str, argv: Sequence[str], out: Path) -> bytes:
    """The line that submits a job."""
    return _line(op="submit", job=job, argv=list(argv), env=job_environment(), cwd="/", out=str(out))


def attach(job: str, id: str, out: Path) -> bytes:
    """The line that makes the helper tell of a job that somebody else has submitted."""
    return _line(op="attach", job=job, id=id, out=str(out))


def cancel(job: str) -> bytes:
    """The line that ends a job, queued or running."""
    return _line(op="cancel", job=job)


def _line(**members: Any) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def end_all(engine: Engine, ids: Mapping[str, str], folder: Path) -> list[str]:
    """Ends these jobs, by name and the engine's id; the names of those of which the engine says that they are over."""
    with subprocess.Popen(
        engines.helper(engine),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    ) as helper:
        assert helper.stdin is not None and helper.stdout is not None
        over: list[str] = []
        try:
            for job, id in ids.items():
                helper.stdin.write(attach(job, id, folder / f"{job}.log") + cancel(job))
            helper.stdin.flush()
            os.set_blocking(helper.stdout.fileno(), False)
            rest, until = b"", time.monotonic() + CANCEL_S
            with selectors.DefaultSelector() as ready:
                ready.register(helper.stdout, selectors.EVENT_READ)
                while len(over) < len(ids) and (left := until - time.monotonic()) > 0:
                    if not ready.select(left):
                        break
                    if not (data := helper.stdout.read(1 << 16)):
                        break
                    *lines, rest = (rest + data).split(b"\n")
                    told = [orjson.loads(line) for line in lines]
                    over += [one["job"] for one in told if one["is"] == "ended" and one["job"] not in over]
        finally:
            helper.stdin.close()
            helper.terminate()
        return over
