"""A pi that says nothing: it hangs, is stopped, takes no more input, or ends before its first word."""

import asyncio
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.files import inbox
from ralph_rpc.files.eventlog import EventLog
from ralph_runner.guarded.process import Guarded
from ralph_runner.pi.client import PiClient
from tests.faults.conftest import Note
from tests.faults.gap_pi import Conversation, in_turn
from tests.faults.tiers import times
from tests.process.trees import is_gone, until
from tests.rig import Rig, fake_rig, wait_for

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(300)]
MARKER = "<promise>COMPLETE</promise>"
IDLE_S = 1.0
DETECT_S, GONE_S = IDLE_S + 10, 15.0
PIPE = 65_536
Step = dict[str, Any]


SILENT: Step = {"hang": True}
DEAF: Step = {"hang": "deaf"}
STOPPED: Step = {"tool": "bash", "run": "kill -STOP $PPID; until grep -q '^State:.T' /proc/$PPID/status; do :; done"}
"""pi stops itself, so that it is in the middle of a run. On a busy machine it could end the run before it stops."""


def rig_with(folder: Path, silence: Step, *, deaf: bool = False) -> Rig:
    """pi falls silent in its first run and is done in its second; it ignores SIGTERM if it is `deaf`."""
    folder.mkdir()
    rig = fake_rig(folder, [["hello", silence], f"done\n{MARKER}"])
    if deaf:
        pi = Path(rig.pi)
        pi.write_text(pi.read_text().replace("\n", "\ntrap '' TERM\n", 1))
    return rig


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def stopped_pi(rig: Rig) -> int:
    """pi's pid, once it is stopped."""
    rig.wait_event("tool_execution_start")
    pi = rig.pids()[2]
    until(lambda: is_stopped(pi), "pi is stopped")
    return pi


SILENCES: dict[str, tuple[Step, bool]] = {
    "its model is silent": (SILENT, False),
    "stopped": (STOPPED, False),
    "deaf to abort": (DEAF, False),
    "deaf to abort and SIGTERM": (DEAF, True),
}
TIMEOUTS = ("--idle-timeout", f"{IDLE_S:.0f}s", "--tool-timeout", f"{IDLE_S:.0f}s")


def silence(folder: Path, kind: str) -> tuple[float, float]:
    """Seconds until it was noticed, and from then until pi was at rest or gone."""
    step, deaf = SILENCES[kind]
    rig = rig_with(folder, step, deaf=deaf)
    rig.start(*TIMEOUTS)
    rig.wait_event("turn_end")
    began, pi = time.monotonic(), rig.pids()[2]
    wait_for("notice", lambda: any("no sign of life" in e["message"] for e in rig.of("ralph_notice")))
    noticed = time.monotonic()
    if kind == "its model is silent":
        rig.wait_records(1)
    else:
        until(lambda: is_gone(pi), "pi is gone", 90.0)
    gone = time.monotonic()
    assert rig.wait_end()["status"] == "completed"
    assert [(r["outcome"], r.get("errorKind")) for r in rig.records()] == [("timeout", "hang"), ("ok", None)]
    return noticed - began, gone - noticed


@times(quick=1, full=4)
def test_row_07_a_silent_pi_is_ended(tmp_path: Path, count: int, figure: Note) -> None:
    told = ""
    with ThreadPoolExecutor() as pool:
        # The last kind takes twice as long as the others.
        kinds = [*SILENCES][: 3 if count == 1 else None]
        runs = [
            [pool.submit(silence, tmp_path / f"{kind.replace(' ', '-')}-{n}", kind) for n in range(count)]
            for kind in kinds
        ]
        for kind, these in zip(kinds, runs, strict=True):
            noticed, gone = (max(one.result()[i] for one in these) for i in (0, 1))
            told += f"{kind}: noticed {noticed - IDLE_S:.1f} s after the deadline, over {gone:.1f} s later; "
            assert noticed <= DETECT_S and gone <= GONE_S, told
    figure(told)


LONGEST_MS = 85_000
"""The longest of the core's patience with this configuration, and ten seconds more: 15 s for the figures of a run
that is over, then 60 s for the next session."""


@pytest.mark.parametrize("new", [True, False], ids=["new", "old"])
def test_row_07_a_pi_that_is_silent_from_any_moment_on_is_ended(new: bool, figure: Note) -> None:
    longest = 0
    for moment in range(80):
        talk = Conversation(new=new, turns=2, choose=in_turn(), idleTimeoutMs=30_000, toolTimeoutMs=40_000)
        for _ in range(moment):
            talk.step()
        began = talk.talk.mono
        while not talk.pi_is_ended:
            talk.wait()
            assert talk.talk.mono - began <= LONGEST_MS, (moment, talk.talk.loop.phase)
        longest = max(longest, talk.talk.mono - began)
    figure(f"80 moments: pi is ended after {longest / 1000:.0f} s of silence at most")


def counting(rig: Rig) -> Path:
    """A file with a line for each pi that was started to work."""
    file = Path(rig.pi).with_name("tries")
    pi = Path(rig.pi)
    pi.write_text(pi.read_text().replace("\n", f'\ncase "$*" in *--version*) ;; *) echo >> {file};; esac\n', 1))
    return file


def test_row_08_a_pi_that_ends_at_start_is_an_error_of_one_line_and_leaves_nothing(
    tmp_path: Path, figure: Note
) -> None:
    rig = fake_rig(tmp_path, {"start": {"stderr": "Error: Unknown provider: nope", "exit": 1}})
    tries = counting(rig)
    done = rig.start(check=5)
    assert done.stderr.count("\n") == 1 and "Unknown provider: nope" in done.stderr
    assert not rig.paths.dir.exists() and rig.registry() == []
    count = tries.read_text().count("\n")
    assert count <= 2
    figure(f"{count} try")


@pytest.mark.parametrize("crashed", [False, True])
def test_row_08_a_pi_that_ends_at_a_resume_is_tried_twice_at_most_and_the_state_says_why(
    tmp_path: Path, crashed: bool, figure: Note
) -> None:
    rig = fake_rig(tmp_path, ["one", [{"wait": 60 if crashed else 0}, "two"]])
    tries = counting(rig)
    rig.start("-n", "3" if crashed else "1")
    if crashed:
        rig.wait_records(1)
        rig.kill(rig.pids()[0])
        wait_for("the end of the tree", lambda: not rig.of_mine())
    else:
        rig.wait_end()
    tries.unlink()
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"start": {"stderr": "Error: no API key", "exit": 1}}))
    rig.run("resume", "x", "-n", "3", check=None)
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("error", "crash") and "no API key" in state["error"]
    count = tries.read_text().count("\n")
    assert count <= 2
    figure(f"{count} try")


def fill(rig: Rig) -> tuple[list[str], float]:
    """Steers of more than the pipe holds, to a pi that is stopped; the ids, and the longest until one was taken."""
    ids: list[str] = []
    longest = 0.0
    for number in range(30):
        began = time.monotonic()
        ids.append(inbox.drop(rig.paths.inbox, "steer", {"message": f"note {number} " + "x" * (PIPE // 10)}))
        rig.wait_step(ids[-1], "accepted")
        longest = max(longest, time.monotonic() - began)
    return ids, longest


def full_and_hanging(folder: Path) -> str:
    rig = rig_with(folder, STOPPED)
    rig.start(*TIMEOUTS)
    pi = stopped_pi(rig)
    ids, longest = fill(rig)
    until(lambda: is_gone(pi), "pi is gone", 90.0)
    state = rig.wait_end()
    assert state["status"] == "completed" and [r["outcome"] for r in rig.records()] == ["timeout", "ok"]
    assert all(rig.steps(id)[-1] == "delivered" for id in ids)
    return f"{len(ids)} steers to a full pipe: each taken within {longest:.2f} s, pi ended as a hang, 0 lost"


def full_and_told_to_stop(folder: Path) -> str:
    rig = rig_with(folder, STOPPED)
    rig.start()
    pi = stopped_pi(rig)
    fill(rig)
    seen = rig.registry()[0]["lastSeen"]
    wait_for("a heartbeat", lambda: rig.registry()[0]["lastSeen"] != seen, timeout=30)
    assert is_stopped(pi)
    began = time.monotonic()
    rig.drop("stop.json", '{"when": "now"}')
    state = rig.wait_end(timeout=15)
    assert (state["status"], state["stopReason"]) == ("stopped", "stop") and is_gone(pi)
    return f"the heart beats; a stop ends all within {time.monotonic() - began:.1f} s"


def test_row_37_a_pi_with_a_full_stdin_counts_as_a_hang_and_a_stop_is_acted_on(tmp_path: Path, figure: Note) -> None:
    with ThreadPoolExecutor() as pool:
        told = [pool.submit(full_and_hanging, tmp_path / "hang"), pool.submit(full_and_told_to_stop, tmp_path / "stop")]
        figure("; ".join(one.result() for one in told))


@times(quick=1, full=10)
def test_row_37_a_full_stdin_never_blocks_the_event_loop(tmp_path: Path, count: int, figure: Note) -> None:
    async def longest_gap(round_: int) -> float:
        process = await Guarded.spawn([sys.executable, "-S", "-c", "input()"], cwd=tmp_path, env=os.environ)
        os.kill(process.pid, signal.SIGSTOP)
        log = EventLog.open(tmp_path / f"events-{round_}.jsonl", limit=1 << 30, keep=1)
        client = PiClient(process, log, lambda inputs: None, lambda note: None, lambda: 1)
        client.start()
        gap, last = 0.0, time.monotonic()
        try:
            while client.pending_bytes < 20 * PIPE:
                client.send("steer", message="x" * 10_000)
                await asyncio.sleep(0.001)
                now = time.monotonic()
                gap, last = max(gap, now - last), now
        finally:
            process.kill()
            await client.finish()
            log.close()
        return gap

    # Blocking would show every time, a busy machine does not.
    gaps = [min(asyncio.run(longest_gap(3 * n + i)) for i in range(3)) for n in range(count)]
    assert max(gaps) <= 0.05
    figure(f"longest gap {max(gaps) * 1000:.0f} ms")
