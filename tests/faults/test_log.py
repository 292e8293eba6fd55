"""The log and the other line files under damage, floods and viewers: whole lines, each once, and none that is joined.

Readers are checked against a writer in another process; floods and viewers against the whole program.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from ralph_rpc.attach.blocks import TextBlock
from ralph_rpc.attach.window import Window
from ralph_rpc.cli.main import run
from ralph_rpc.clock import now_ms
from ralph_rpc.files import records
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.inbox import drop
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.config import Config
from ralph_runner.shell.recover import recover
from tests.cli import forged
from tests.cli.forged import program
from tests.faults.conftest import Note
from tests.faults.tiers import times
from tests.rig import Rig, alive, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
ROOT = Path(__file__).parents[2]
MARKER = "<promise>COMPLETE</promise>"
BIG = 1 << 30
MOST_MEMORY = 150 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def line(n: int, pad: int = 0) -> bytes:
    return b'{"n":%d,"pad":"%s"}\n' % (n, b"x" * pad)


def numbers(lines: list[bytes]) -> list[int]:
    return [event["n"] for raw in lines if "n" in (event := orjson.loads(raw))]


def read_all(path: Path) -> list[dict[str, Any]]:
    """Every event that is kept, each on a line of its own, at the offset that the reader tells."""
    reader = EventReader.at_start(path)
    events, before = [], reader.offset
    while lines := reader.read():
        for offset, raw in lines:
            assert offset == before + len(raw) + 1
            before = offset
            events.append(orjson.loads(raw))
    assert reader.missed == 0
    reader.close()
    return events


# -- row 13: power loss


DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda whole, at: whole[:at],
    "nuls": lambda whole, at: whole[:at] + b"\0" * (len(whole) - at),
    "nuls and more": lambda whole, at: whole[:at] + b"\0" * 5000,
}
"""What a power loss leaves from a byte on: nothing, or blocks that were allocated and never written."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, dict[Path, bytes]]]:
    """A loop whose runner was killed in its second iteration, and its files."""
    tmp = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RALPH_HOME", str(tmp / ".ralph"))
        patch.setenv("HOME", str(tmp))
        patch.setenv("TMPDIR", str(tmp))  # a runner that is killed cannot remove its own folder there
        (tmp / ".gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.invalid\n")
        rig = fake_rig(tmp, ["one", ["two", {"hang": True}], f"three\n{MARKER}"])
        rig.start()
        rig.wait_event("ralph_iteration_start", iteration=2)
        rig.drop("followup-1.json", '{"id": "kept", "message": "not lost", "when": "next"}')
        rig.wait_step("kept", "queued")
        wait_for("state of iteration 2", lambda: rig.state()["iteration"] == 2)
        runner, guard, pi = rig.pids()
        rig.kill(runner)
        wait_for("the end of all", partial(are_gone, runner, guard, pi))
        files = {p: p.read_bytes() for p in rig.paths.dir.rglob("*") if p.is_file()}
        yield rig, files


def are_gone(*pids: int) -> bool:
    return not any(map(alive, pids))


def restore(paths: LoopPaths, files: dict[Path, bytes]) -> None:
    for path in paths.dir.rglob("*"):
        if path.is_file() and path not in files:
            path.unlink()
    for path, data in files.items():
        path.write_bytes(data)


def take_over(paths: LoopPaths) -> tuple[list[dict[str, Any]], list[str], int]:
    """What a runner does with the files when it starts: the events, the open commands and the iteration it finds."""
    config = records.read_config(paths)
    assert config is not None
    found = recover(paths, config, "task.md", True, now_ms())
    log = EventLog.open(paths.events, limit=BIG, keep=3)
    log.append(line(1))
    log.close()
    journal = CommandJournal.open(paths.commands)
    ids = [command.id for command in journal.open_commands()]
    journal.append({"at": 1, "id": "new", "command": "steer", "state": "received", "body": {}}, durable=False)
    journal.close()
    for raw in paths.commands.read_bytes().split(b"\n")[:-1]:
        orjson.loads(raw)
    return read_all(paths.events), ids, found.core.iteration()


def offsets(whole: bytes, lines: int | None, count: int) -> list[int]:
    """Up to `count` offsets in the last lines of a file, the very first and the very last among them."""
    parts = whole.split(b"\n")
    start = 0 if lines is None else len(whole) - len(b"\n".join(parts[-1 - lines :]))
    every = max(1, (len(whole) - start) // count)
    return sorted({*range(start, len(whole) + 1, every), len(whole) - 1, len(whole)})


@times(quick=25, full=100_000)
@pytest.mark.parametrize("file", ["events", "commands", "state"])
def test_row_13_a_power_loss_leaves_a_prefix_and_a_state_old_or_rebuilt(
    killed: tuple[Rig, dict[Path, bytes]], figure: Note, file: str, count: int
) -> None:
    rig, files = killed
    damaged: Path = getattr(rig.paths, file)
    whole = files[damaged]
    restore(rig.paths, files)
    events, ids, iteration = take_over(rig.paths)
    assert ids == ["kept"] and iteration == 2
    tried = rebuilt = 0
    for how, damage in DAMAGES.items():
        for at in offsets(whole, {"events": 2, "commands": 2, "state": None}[file], count):
            restore(rig.paths, files)
            damaged.write_bytes(damage(whole, at))
            found, open_ids, found_iteration = take_over(rig.paths)
            tried += 1
            stands = whole[:at].count(b"\n") if file == "events" else len(events) - 1
            assert found[:stands] == events[:stands], (how, at)
            assert {e.get("type", "mine") for e in found[stands:]} <= {"ralph_unparsed", "mine"}, (how, at)
            if file == "commands":
                received = b'"received"' in whole[:at].rpartition(b"\n")[0]
                assert open_ids == (["kept"] if received else []), (how, at)
            else:
                assert open_ids == ["kept"]
            if file == "state" and list(rig.paths.dir.glob("state.json.broken-*")):
                rebuilt += 1
                assert found_iteration >= 1  # of the records
            else:
                assert found_iteration == 2
    figure(f"{file}: {tried} damages, 0 unparsable after the start, state rebuilt {rebuilt} times")


@times(quick=2, full=12)
def test_row_13_the_whole_program_goes_on_after_a_power_loss(tmp_path: Path, figure: Note, count: int) -> None:
    rig = fake_rig(tmp_path, [["one", {"hang": True}], f"done\n{MARKER}"])
    # Lines and state that had not reached the disk when the power went, all three at once.
    for n in range(count):
        (tmp_path / "script.json.count").unlink(missing_ok=True)
        rig.start()
        rig.wait_event("ralph_iteration_start", iteration=1)
        rig.drop("followup-1.json", json.dumps({"id": f"kept-{n}", "message": "not lost", "when": "next"}))
        rig.wait_step(f"kept-{n}", "queued")
        runner, guard, pi = rig.pids()
        rig.kill(runner)
        wait_for("the end of all", partial(are_gone, runner, guard, pi))
        for name, keep in (("events", 0.8), ("state", (n % 7) / 7)):
            file: Path = getattr(rig.paths, name)
            whole = file.read_bytes()
            at = int(len(whole) * keep) + n
            file.write_bytes(list(DAMAGES.values())[n % 3](whole, at))
        with rig.paths.commands.open("ab") as journal:
            journal.write(b'{"at":1,"id":"torn' + b"\0" * 100 * (n % 2))
        rig.run("resume", "x", check=None)
        assert rig.wait_end()["status"] == "completed"
        assert f"kept-{n}" in [id for r in rig.records() for id in r["steering"]]
        rig.events()
    figure(f"{count} power losses: each loop went on and completed, no acknowledged command was lost")


# -- row 33: rotation while tailing


@times(quick=3, full=20)
def test_row_33_several_rotations_between_two_looks_are_followed(path: Path, figure: Note, count: int) -> None:
    reader = EventReader.at_start(path)
    log = EventLog.open(path, limit=400, keep=50)
    got: list[int] = []
    n = most = 0
    for step in range(20 * count):
        before = {p.stat().st_ino for p in path.parent.iterdir()}
        for _ in range(step % 60 * 3):  # from none to a dozen files
            log.append(line(n))
            n += 1
        most = max(most, len({p.stat().st_ino for p in path.parent.iterdir()} - before))
        while lines := reader.read():
            got += numbers([raw for _, raw in lines])
    log.close()
    reader.close()
    assert got == list(range(n))
    assert reader.missed == 0
    assert most >= 3
    figure(f"{n} events, up to {most} rotations between two looks: 0 missed, 0 repeated")


def test_row_33_what_comes_between_the_last_look_and_the_rotation_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog.open(path, limit=20, keep=200)
    log.append(line(0))
    reader = EventReader.at_start(path)
    look = EventReader._is_rotated
    n = 1

    def late(self: EventReader) -> bool:
        """In that instant: a line for the old file, and one that begins the new."""
        nonlocal n
        for _ in range(2 if n < 100 else 0):
            log.append(line(n, pad=20))
            n += 1
        return look(self)

    monkeypatch.setattr(EventReader, "_is_rotated", late)
    got: list[int] = []
    while lines := reader.read():
        got += numbers([raw for _, raw in lines])
    assert got == list(range(101))
    assert reader.missed == 0
    reader.close()
    log.close()


WRITER = """
import sys
from pathlib import Path
from ralph_rpc.files.eventlog import EventLog
log = EventLog.open(Path(sys.argv[1]), limit=int(sys.argv[3]), keep=100_000)
for n in range(int(sys.argv[2])):
    if n % 1000 == 0:
        log.begin_line()
        log.extend(b'{"n":%d,"t":"' % n)
        log.extend(b"y" * 50_000)
        log.end_line(b'"}\\n')
    else:
        log.append(b'{"n":%d}\\n' % n)
log.close()
"""


@times(quick=40_000, full=1_000_000)
def test_row_33_another_process_is_followed_through_hundreds_of_rotations(path: Path, figure: Note, count: int) -> None:
    limit = max(20_000, count // 10)  # as many files in either tier
    command = [sys.executable, "-c", WRITER, str(path), str(count), str(limit)]
    readers = [EventReader.at_start(path) for _ in range(2)]
    got = [0, 0]
    with subprocess.Popen(command, cwd=ROOT) as writer:
        while True:
            ended = writer.poll() is not None
            for k, (reader, size) in enumerate(zip(readers, (1 << 16, 1000), strict=True)):
                batches = 0
                while lines := reader.read(size):
                    for n in numbers([raw for _, raw in lines]):
                        assert n == got[k], "missed or repeated"
                        got[k] += 1
                    batches += 1
                    if batches % 50 == 0 and not ended:
                        break  # fall behind: several rotations pass
            if ended:
                break
        assert writer.returncode == 0
    assert got == [count, count]
    assert not any(reader.missed for reader in readers)
    for reader in readers:
        reader.close()
    rotations = len(list(path.parent.glob("events.jsonl.*")))
    assert rotations > 30
    figure(f"{count} events, {rotations} rotations, two readers: 0 missed, 0 repeated")


def test_row_33_the_program_follows_a_loop_that_rotates_all_the_time(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["one", flood(0, 20_000)], [flood(20_000, 20_000), f"done\n{MARKER}"]])
    rig.start("--log-size", "64K", "--log-keep", "1000")
    viewer = follow(rig)
    out, err = viewer.communicate(timeout=60)
    assert viewer.returncode == 0, err
    shown = [json.loads(raw) for raw in out.split(b"\n")[:-1]]
    assert [e["k"] for e in shown if "k" in e] == list(range(40_000))
    assert rig.wait_end()["status"] == "completed"
    assert len(list(rig.paths.dir.glob("events.jsonl.*"))) > 20


def follow(rig: Rig) -> "subprocess.Popen[bytes]":
    """`ralph-rpc logs -f` from the first line on, into a pipe that nobody reads yet."""
    command, env = program("logs", "-f", "--raw", "-n", "1000000", "x")
    return subprocess.Popen(
        command, cwd=rig.project, env={**env, **rig.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


# -- row 34: torn tail


@pytest.mark.parametrize("tail", [b"", b"\0" * 7, b"\0" * 70_000], ids=["cut", "7 nuls", "70,000 nuls"])
def test_row_34_a_torn_line_is_cut_off_and_kept_aside_at_every_offset(path: Path, figure: Note, tail: bytes) -> None:
    whole = line(0) + '{"n":1,"text":"caf\xe9 \u2028 \U0001f600","more":"xxxx"}\n'.encode()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut] + tail)
        for _ in range(2):  # the second start finds nothing to mend
            log = EventLog.open(path, limit=BIG, keep=3)
            log.append(line(2))
            log.close()
        events = read_all(path)
        stands = whole[:cut].count(b"\n")
        torn = whole[:cut].rpartition(b"\n")[2]
        assert [e["n"] for e in events if "n" in e] == [*range(stands), 2, 2], cut
        assert [e["raw"] for e in events if "raw" in e] == ([torn.decode("utf-8", "replace")] if torn else []), cut
        assert b"\0" not in path.read_bytes()
    figure(f"{len(whole) + 1} offsets: 0 joined lines, every cut byte kept")


# -- row 35: floods


def flood(first: int, count: int) -> dict[str, Any]:
    """Lines at the full speed of a pipe, numbered, with separators in them that are no line ends."""
    head = '{"type":"message_update","usage":{"input":0,"output":0},"assistantMessageEvent":{"type":"text_delta",'
    tail = '"contentIndex":0,"delta":"\u2028 word \u2029 \x85 "},"k":%d}'
    return {"raw": "\n".join(head + tail % k for k in range(first, first + count))}


def peak_until_end(rig: Rig, runner: int) -> int:
    """Bytes of memory that the runner had at most, read until it is gone."""
    peak = 0
    while alive(runner):
        for row in _status(runner):
            if row.startswith("VmHWM"):
                peak = max(peak, int(row.split()[1]) * 1024)
        time.sleep(0.02)
    return peak


def _status(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return []


@times(quick=10, full=80)
def test_row_35_a_flood_is_kept_whole_in_little_memory(tmp_path: Path, figure: Note, count: int) -> None:
    size = 10_000
    rig = fake_rig(tmp_path, [[*(flood(n * size, size) for n in range(count)), f"done\n{MARKER}"]])
    rig.start("--log-size", "16M", "--log-keep", "1000")
    peak = peak_until_end(rig, int(rig.paths.pid.read_text()))
    assert rig.state()["status"] == "completed"
    events = [e for e in read_all(rig.paths.events) if "k" in e]
    assert [e["k"] for e in events] == list(range(count * size))
    assert all(e["assistantMessageEvent"]["delta"] == "\u2028 word \u2029 \x85 " for e in events)
    assert peak < MOST_MEMORY
    seconds = (events[-1]["ralph"]["at"] - events[0]["ralph"]["at"]) / 1000
    rate = count * size / max(seconds, 0.001)
    figure(f"{count * size} events, 0 lost, at {rate:,.0f} a second; the runner had {peak >> 20} MiB at most")


BIG_RESULT = '{"type":"tool_execution_end","toolCallId":"1","toolName":"bash","result":{"content":[{"text":"%s"}]}}'


@pytest.mark.parametrize("step", ["a line", pytest.param("a tool", marks=pytest.mark.full)])
@pytest.mark.timeout(900)
def test_row_35_a_line_of_64_mib_passes_whole_in_little_memory(tmp_path: Path, figure: Note, step: str) -> None:
    """From a tool the text comes six times: as its end, in messages, in the ends of the turn and of the run."""
    text, count = "x" * (64 << 20), 1 if step == "a line" else 3
    one: dict[str, Any] = {"raw": BIG_RESULT % text} if step == "a line" else {"tool": "bash", "bytes": len(text)}
    rig = fake_rig(tmp_path, [*([[one, "seen"]] * count), f"done\n{MARKER}"])
    rig.start("--log-size", "4G")
    peak = peak_until_end(rig, int(rig.paths.pid.read_text()))
    assert rig.state()["status"] == "completed"
    reader = EventReader.at_start(rig.paths.events)
    whole = 0
    while lines := reader.read():
        for _, raw in lines:
            if raw.startswith(b'{"type":"tool_execution_end"'):
                whole += orjson.loads(raw)["result"]["content"][0]["text"] == text
    reader.close()
    assert whole == count
    assert peak < MOST_MEMORY
    figure(f"{count} of 64 MiB, whole; the runner had {peak >> 20} MiB at most")


def test_row_35_a_line_is_cut_at_lf_only_and_what_is_no_json_is_marked(tmp_path: Path) -> None:
    noise = [
        "null",
        "[1]",
        "{torn",
        "plain text",
        '{"type":"from the future"}',
        "\u2028",
        "a\x0bb\x0cc\x1cd\x85e\u2029f",
    ]
    rig = fake_rig(tmp_path, [[*({"raw": raw} for raw in noise), {"raw": "y" * (3 << 20)}, f"fine\n{MARKER}"]])
    rig.start()
    assert rig.wait_end()["status"] == "completed"
    kept = [e["raw"] for e in rig.of("ralph_unparsed")]
    assert kept == [raw for raw in noise if "future" not in raw] + ["y" * (3 << 20)]
    assert rig.of("from the future")


# -- row 36: slow and absent viewers


@times(quick=10_000, full=200_000)
def test_row_36_ten_viewers_that_stand_still_change_nothing(tmp_path: Path, figure: Note, count: int) -> None:
    gate = {"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}
    part = 10_000
    floods = [flood(first, part) for first in range(0, count, part)]
    rig = fake_rig(tmp_path, [["one", gate, *floods, "on"], f"done\n{MARKER}"])
    rig.start("--log-size", "1M", "--log-keep", "1000")
    runner = int(rig.paths.pid.read_text())
    rig.wait_event("tool_execution_start")
    viewers = [follow(rig) for _ in range(10)]
    try:
        for viewer in viewers:
            # Each holds the log open and is in the middle of its work; then it stands still.
            wait_for("it reads the log", partial(_holds, viewer.pid, rig.paths.events))
            viewer.send_signal(signal.SIGSTOP)
        (rig.project / "go").touch()
        peak = peak_until_end(rig, runner)
        assert rig.state()["status"] == "completed"
        events = [e for e in read_all(rig.paths.events) if "k" in e]
        assert [e["k"] for e in events] == list(range(count))
        assert peak < MOST_MEMORY
        for viewer in viewers:
            viewer.send_signal(signal.SIGCONT)
        for viewer in viewers:
            out, err = viewer.communicate(timeout=120)
            assert viewer.returncode == 0, err
            seen = [json.loads(raw) for raw in out.split(b"\n")[:-1]]
            assert [e["k"] for e in seen if "k" in e] == list(range(count))
    finally:
        for viewer in viewers:
            viewer.kill()
            viewer.communicate()
    seconds = (events[-1]["ralph"]["at"] - events[0]["ralph"]["at"]) / 1000
    figure(f"{count} events past 10 stopped viewers in {seconds:.1f} s; each of them showed all when it went on")


def _holds(pid: int, path: Path) -> bool:
    try:
        return any(os.path.samestat(fd.stat(), path.stat()) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


# Journal and log


def test_a_delivery_that_only_the_journal_knows_is_told_in_the_log_once(tmp_path: Path) -> None:
    """The runner is killed in the instant between the two; the next one is killed as well."""
    gates = [{"tool": "bash", "run": f"while [ ! -e go-{n} ]; do sleep 0.05; done"} for n in range(3)]
    rig = fake_rig(tmp_path, [[gates[0], gates[1], "on"], [gates[2], "on"], "<promise>COMPLETE</promise>"])
    rig.start()
    rig.wait_event("tool_execution_start")
    id = drop(rig.paths.inbox, "steer", {"message": "look there"})
    rig.wait_step(id, "queued")
    (rig.project / "go-0").touch()
    rig.wait_step(id, "delivered")
    kill_runner(rig)
    lines = rig.paths.events.read_bytes().splitlines(keepends=True)
    (told,) = [n for n, line in enumerate(lines) if b'"ralph_command"' in line and b'"delivered"' in line]
    rig.paths.events.write_bytes(b"".join(lines[:told]))
    assert rig.steps(id) == ["accepted", "queued"]
    tools = len(rig.of("tool_execution_start"))  # pi may have been faster with the second than the journal's disk
    rig.run("resume", "x")
    wait_for("the tool of the second run", lambda: len(rig.of("tool_execution_start")) > tools)
    kill_runner(rig)
    for gate in (1, 2):
        (rig.project / f"go-{gate}").touch()
    rig.run("resume", "x")
    assert rig.wait_end()["status"] == "completed"
    assert rig.steps(id) == ["accepted", "queued", "delivered"]
    kinds = [event["type"] for event in rig.events() if event["type"] in ("ralph_command", "ralph_loop_start")]
    assert kinds[-3:] == ["ralph_command", "ralph_loop_start", "ralph_loop_start"]
    (event,) = [event for event in rig.of("ralph_command") if event["state"] == "delivered"]
    assert event == {k: v for k, v in orjson.loads(lines[told]).items() if k != "at"} | {"at": event["at"]}


def test_a_delivery_of_long_ago_is_not_told_again(tmp_path: Path) -> None:
    """The log goes on for long after it, or was rotated since."""
    loop = forged.loop(tmp_path, "api")
    step = {"at": 1000, "id": "a", "command": "steer", "state": "delivered"}
    loop.commands.write_bytes(orjson.dumps(step) + b"\n")
    forged.write_log(loop, [{"type": "agent_end", "ralph": {"at": 2000, "iteration": 1}}, {"type": "agent_end"}])
    before = loop.events.read_bytes()
    recover(loop, cast(Config, forged.CONFIG), "task.md", True, now_ms())
    assert loop.events.read_bytes() == before


def kill_runner(rig: Rig) -> None:
    """And wait until its guard has ended the rest."""
    runner, guard, _ = rig.pids()
    rig.kill(runner)
    wait_for("the end of the tree", lambda: not alive(guard))


# What a hand wrote into the log


SAID = [
    {"type": "agent_start", "ralph": {"at": 1, "iteration": 1}},
    {"type": "message_start", "message": {"role": "assistant"}, "ralph": {"at": 1, "iteration": 1}},
    {"type": "message_end", "message": {"role": "assistant", "content": "WORDS"}, "ralph": {"at": 1, "iteration": 1}},
]
GARBAGE = {
    "text": b"no JSON at all\n",
    "binary": bytes(n for n in range(256) if n != 10) + b"\n",
    "zeros": bytes(5000) + b"\n",
    "half a line": b'{"type":"message_update","assistantMessageEvent":{"type":"text_del\n',
    "empty lines": b"\n\r\n\n",
    "other JSON": b'[1,2]\n"text"\n12\nnull\n{}\n',
    "nested": b"[" * 100_000 + b"\n" + b'{"type":"message_end","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "wrong types": b"".join(
        b'{"type":"%s","message":[],"iteration":"x","at":true,"id":{},"state":3,"ralph":[],"args":"x","result":1}\n'
        % kind
        for kind in (
            b"message_start",
            b"message_end",
            b"message_update",
            b"tool_execution_start",
            b"tool_execution_end",
            b"response",
            b"ralph_iteration_start",
            b"ralph_iteration_end",
            b"ralph_command",
            b"ralph_status",
            b"ralph_ticket",
            b"ralph_notice",
            b"ralph_loop_end",
            b"ralph_pi_exit",
            b"ralph_verify",
            b"ralph_unparsed",
        )
    ),
    "large numbers": b'{"type":"ralph_iteration_end","iteration":' + b"9" * 5000 + b',"at":1e999}\n',
    "an opening": b'{"type":"ralph_log_open","at":1,"base":99999999}\n',
    "a long line": b"x" * (3 << 20) + b"\n",
}


def log_with(garbage: bytes) -> bytes:
    good = b"".join(orjson.dumps(event) + b"\n" for event in SAID)
    return good.replace(b"WORDS", b"first words") + garbage + good.replace(b"WORDS", b"last words")


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_is_no_event_is_passed_over_by_all_who_read_the_log(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], kind: str
) -> None:
    loop = forged.loop(tmp_path, "api", status="stopped")
    loop.events.write_bytes(log_with(GARBAGE[kind]))

    def shown(*args: str) -> bytes:
        assert run([args[0], "api", "--project", str(tmp_path), *args[1:]]) == 0
        out, err = capsysbinary.readouterr()
        may = {"\n", "\x7f"} if "--json" in args else {"\n"}  # JSON need not escape DEL; on a terminal it is
        assert err == b"" and not {c for c in out.decode() if not c.isprintable()} - may
        return out

    assert b"first words" in shown("logs") and b"last words" in shown("logs")
    assert b"last words" in shown("logs", "-n", "3")
    events = [orjson.loads(line) for line in shown("logs", "--json").splitlines()]
    assert events[:3] + events[-3:] == [orjson.loads(line) for line in log_with(b"").splitlines()]
    shown("status")
    assert orjson.loads(shown("report", "--json"))["summary"]["status"] == "stopped"
    window = Window(loop.events)
    window.open_at_end()
    while window.forward():
        pass
    said = [block.plain for block in window.blocks.all if isinstance(block, TextBlock)]
    window.close()
    assert said == ["first words", "last words"]


def test_a_loop_goes_on_after_what_a_hand_wrote_into_its_log(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["on with it", "<promise>COMPLETE</promise>"])
    rig.start("-n", "1")
    assert rig.wait_end()["status"] == "stopped"
    written = b"".join(GARBAGE.values())
    whole = rig.paths.events.read_bytes() + written
    rig.paths.events.write_bytes(whole + b'{"type":"ha')
    (torn,) = [f for f in json.loads(rig.run("doctor", "--json", check=None).stdout) if f["check"] == "logs"]
    assert "11 bytes" in torn["message"]
    rig.run("resume", "x", "-n", "3")
    assert rig.wait_end()["status"] == "completed"
    data = rig.paths.events.read_bytes()
    assert data.startswith(whole)
    added = [json.loads(line) for line in data[len(whole) :].splitlines()]
    assert added[0] == {"type": "ralph_unparsed", "raw": '{"type":"ha'} and added[1]["type"] == "ralph_loop_start"
    assert "loop completed" in rig.run("logs", "x").stdout
