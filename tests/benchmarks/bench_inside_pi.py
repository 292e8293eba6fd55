"""A loop inside pi's own terminal, in each generation of pi: idle, a fast stream, the keys meanwhile, a large log.

The loop is files only; this process plays its runner and writes its log. The reference is the same pi drawing the same answer
as its own, from a scripted model.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from ralph_rpc.demo.model import Reply
from ralph_rpc.pi.find import Pi
from tests.benchmarks.measure import Context, clean_environment, cpu_seconds, quantile, rss_mib
from tests.benchmarks.table import Row
from tests.cli import forged
from tests.real_pi import provision
from tests.real_pi.inside import (
    ANSWER_BEGINS,
    FOREGROUND,
    SETTINGS,
    Inside,
    Talker,
    by_task,
    delta,
    inside,
    pretended_line,
    word,
)
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, new_project, wait_for

GOAL = 15
ATTACHED = "typing goes to the loop"
IDLE_S = 10.0
IDLE_TIMES = 3
"""The middle one counts: pi collects its garbage in one of them, whoever is attached."""
RATE = 2_000
STREAM_S = 10.0
KEYS = "abcdefghijklmnopqrstuvwxyz"
LARGE = 100 << 20


def inside_pi(context: Context) -> Iterator[Row]:
    """The figures of each pi, the newest first."""
    for version in reversed(provision.VERSIONS):
        pi = provision.provide(version)
        with watched(context.scratch / str(pi.version), pi) as one:
            yield from _of(one, f"pi {pi.version}")


@contextmanager
def watched(folder: Path, pi: Pi) -> Iterator[Inside]:
    """That pi on a terminal, in a project with a loop whose log is empty."""
    folder.mkdir()
    node = Path(pi.command[0]).parent
    environment = clean_environment(folder / "home", PATH=f"{node}{os.pathsep}{os.environ['PATH']}")
    answer = "".join(word(number) for number in range(int(RATE * STREAM_S)))
    foreground = [Reply(answer, piece=8, pace=1 / RATE)]
    with mock.patch.dict(os.environ, environment, clear=True), ScriptedModel(by_task([], foreground)) as model:
        rig = Rig(new_project(folder / "project"), pi.command[-1], model.agent_dir(folder, SETTINGS), MODEL_ARGS)
        paths = forged.loop(rig.project, "x", alive=True)
        paths.events.write_bytes(ANSWER_BEGINS)
        with forged.runner_of(paths), inside(folder, rig, pi.command, model, {}) as one:
            one.starts()
            yield one


def _of(one: Inside, name: str) -> Iterator[Row]:
    pid = one.pid
    one.enters("/ralph attach x")
    one.sees(ATTACHED)
    time.sleep(2)
    idle = sorted(_idle(pid) for _ in range(IDLE_TIMES))[IDLE_TIMES // 2]
    yield Row(GOAL, f"{name}, attached and idle", idle, unit="% of a core", limit=1, value=idle)
    began = cpu_seconds(pid)
    latencies, late = _stream(one)
    ours = cpu_seconds(pid) - began
    yield Row(GOAL, f"{name}, keys meanwhile, p95", latencies, unit="s", limit=0.25, value=latencies)
    yield Row(GOAL, f"{name}, the last word on the screen", late, unit="s", limit=1, value=late)
    yield Row(GOAL, f"{name}, memory after it", rss_mib(pid), unit="MiB")
    one.terminal.presses("C-c")
    one.enters("/ralph detach")
    one.until_gone(ATTACHED)
    began = cpu_seconds(pid)
    one.enters(FOREGROUND)
    wait_for("the answer's end", lambda: one.model.bill)
    one.sees(word(int(RATE * STREAM_S) - 1).strip())
    own = cpu_seconds(pid) - began
    yield Row(GOAL, f"{name}, {RATE:,} deltas a second: CPU", ours, own, "s", "its own answer", 3)
    yield _large(one, name)


def _idle(pid: int) -> float:
    """Of a core, in percent."""
    began = cpu_seconds(pid)
    time.sleep(IDLE_S)
    return (cpu_seconds(pid) - began) / IDLE_S * 100


def _stream(one: Inside) -> tuple[float, float]:
    """What a key takes to its echo (p95) while the loop writes, and how late its last word is seen."""
    latencies: list[float] = []
    with Talker(one.rig.paths.events, RATE) as talker:
        for number in range(1, len(KEYS) + 1):
            began = time.perf_counter()
            one.terminal.types(KEYS[number - 1])
            wait_for("the echo", lambda: KEYS[:number] in one.editor())  # noqa: B023 - called before the next
            latencies.append(time.perf_counter() - began)
            time.sleep(max(0.0, STREAM_S / len(KEYS) - latencies[-1]))
    ended = time.perf_counter()
    one.sees(f"word{talker.written - 1} "[:-1])
    return quantile(latencies, 0.95), time.perf_counter() - ended


def _large(one: Inside, name: str) -> Row:
    """From Enter to the last words of a log of 100 MB."""
    block = b"".join(delta(f"large{number} ") for number in range(10_000))
    with one.rig.paths.events.open("ab") as log:
        for _ in range(LARGE // len(block) + 1):
            log.write(block)
        content: Sequence[object] = [{"type": "text", "text": "The large end."}]
        message = {"role": "assistant", "content": content, "stopReason": "stop"}
        log.write(pretended_line({"type": "message_end", "message": message}))
    one.types("/ralph attach x")
    began = time.perf_counter()
    one.terminal.presses("Enter")
    one.sees("The large end.")
    took = time.perf_counter() - began
    return Row(GOAL, f"{name}, attach to a log of 100 MB", took, unit="s", limit=1, value=took)


BENCHMARKS = {"inside-pi": inside_pi}
