"""What an event and an iteration cost, counted instead of timed: parsed lines, bytes of memory, system calls.

Time depends on the machine; these figures do not, and any of them that grows shows a mistake of order.
"""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from ralph_rpc.files.eventlog import EventLog
from ralph_runner.pi import stamp
from ralph_runner.pi.framing import Recorder
from ralph_runner.pi.stamp import stamp_tail
from tests.rig import Rig, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
TRANSCRIPTS = sorted((Path(__file__).parents[1] / "data" / "transcripts").glob("*/*.jsonl"))
STAMP = stamp_tail(1_795_231_904_405, 7)
CHUNK = 65_536

DELTA = {
    "type": "message_update",
    "usage": {"input": 200, "output": 50},
    "assistantMessageEvent": {"type": "text_delta", "contentIndex": 0, "delta": "some words "},
}


class Nowhere:
    """A log that keeps nothing."""

    size = 0

    def append(self, data: bytes) -> int:
        self.size += len(data)
        return self.size

    def begin_line(self) -> None: ...

    def extend(self, chunk: bytes) -> None:
        self.append(chunk)

    def end_line(self, tail: bytes) -> int:
        return self.append(tail)

    def abandon_line(self) -> None: ...


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every text that anything parses as JSON."""
    texts: list[bytes] = []

    def counted(loads: Callable[..., Any]) -> Callable[..., Any]:
        def call(text: str | bytes, *args: Any, **kwargs: Any) -> Any:
            texts.append(text.encode() if isinstance(text, str) else bytes(text))
            return loads(text, *args, **kwargs)

        return call

    monkeypatch.setattr(json, "loads", counted(json.loads))
    monkeypatch.setattr(orjson, "loads", counted(orjson.loads))
    monkeypatch.setattr(stamp, "_members", counted(stamp._members))  # how an update of older pi is taken apart
    return texts


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_of_a_recorded_run_only_the_few_lines_that_matter_are_parsed(path: Path, parsed: list[bytes]) -> None:
    data = path.read_bytes()
    Recorder(Nowhere(), note=pytest.fail).feed(data, STAMP)
    assert parsed
    # They repeat the whole message or run: to parse each of them is quadratic.
    needless = tuple(b'{"type":"%s"' % kind for kind in (b"agent_end", b"turn_end", b"tool_execution_update"))
    assert not [text for text in parsed if text.startswith(needless)]
    # Of older pi's deltas, only the last of a block can differ in its two copies of the message.
    deltas = [text for text in parsed if text.startswith(b'{"type":"message_update"') and b'_delta"' in text[:100]]
    blocks = sum(b'_end","contentIndex"' in line[:100] for line in data.split(b"\n"))
    assert len(deltas) <= blocks


def test_a_flood_of_deltas_parses_nothing_and_keeps_nothing(parsed: list[bytes]) -> None:
    line = orjson.dumps(DELTA) + b"\n"
    lines = 100_000
    data = line * (4 * CHUNK // len(line))
    log = Nowhere()
    recorder = Recorder(log, note=pytest.fail)

    def flood(upto: int) -> None:
        done = 0
        while done < upto:
            for start in range(0, len(data), CHUNK):
                assert recorder.feed(data[start : start + CHUNK], STAMP) == []
            done += len(data) // len(line)

    flood(1_000)
    tracemalloc.start()
    try:
        flood(lines)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parsed == []
    assert log.size > lines * len(line)
    assert kept < CHUNK // 4
    assert peak < 16 * CHUNK


def test_a_hundred_thousand_events_leave_the_log_no_larger_in_memory(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path / "events.jsonl", limit=1 << 22, keep=1)
    recorder = Recorder(log, note=pytest.fail)
    tool = {"type": "tool_execution_start", "toolCallId": "call", "toolName": "bash", "args": {"command": "make"}}
    line = orjson.dumps(DELTA) + b"\n"
    chunk = line * 99 + orjson.dumps(tool) + b"\n"
    try:
        for _ in range(10):
            recorder.feed(chunk, STAMP)
        tracemalloc.start()
        for _ in range(1_000):
            assert len(recorder.feed(chunk, STAMP)) == 1
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        log.close()
    assert kept < CHUNK // 4
    assert peak < 16 * CHUNK


class Work(NamedTuple):
    """What the kernel counted for the runner (proc_pid_io(5)), when so many iterations had ended."""

    iterations: int
    reads: int
    writes: int
    written: int

    def each(self, later: "Work") -> tuple[float, float, float]:
        """Reads, writes and bytes written an iteration, from here on."""
        more = later.iterations - self.iterations
        return (
            (later.reads - self.reads) / more,
            (later.writes - self.writes) / more,
            (later.written - self.written) / more,
        )


def work_of(rig: Rig, runner: int) -> Work:
    counted = dict(line.split(": ") for line in Path(f"/proc/{runner}/io").read_text().splitlines())
    return Work(rig.state()["iteration"], int(counted["syscr"]), int(counted["syscw"]), int(counted["wchar"]))


def test_an_iteration_takes_as_much_work_after_a_hundred_as_after_ten(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["on with it"])
    rig.start("-n", "0", "--stall-after", "0")
    runner = rig.pids()[0]

    def after(iterations: int) -> Work:
        wait_for(f"iteration {iterations}", lambda: rig.state()["iteration"] >= iterations)
        return work_of(rig, runner)

    early = after(10).each(after(40))
    late = after(100).each(after(130))
    rig.run("kill", "x")
    for name, before, then in zip(("reads", "writes", "bytes"), early, late, strict=True):
        assert then < 1.15 * before + 1, f"{name} an iteration: {before:.1f}, later {then:.1f}"
