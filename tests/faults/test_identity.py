"""Pids that lie: written down under another boot, or handed on to a process that never had to do with the loop.

Every command that may signal runs against a loop whose files name such a pid everywhere. The process that has the
pid blocks all signals, so that even one it would not have died of is seen.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.errors import RalphError
from ralph_rpc.files import registry
from ralph_rpc.loops import kill
from ralph_rpc.loops.status import loop_status
from ralph_rpc.machine import identity, locks
from ralph_runner.shell.orphans import sweep_orphans
from tests.cli import forged
from tests.faults.conftest import Note
from tests.faults.tiers import times
from tests.process.trees import until
from tests.rig import ENDED, Rig, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
BOOT = identity.boot_id()
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
PID_MAX = Path("/proc/sys/kernel/pid_max")

BYSTANDER = """
import os, signal, sys

signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
mine = []

def end(word):
    for pid in mine:
        os.kill(pid, signal.SIGKILL)
    print(word, flush=True)  # last, as whoever hears it may kill this process
    sys.exit()

for wanted in map(int, sys.argv[1:]):
    while True:
        if os.path.exists(f"/proc/{wanted}"):
            end("taken")
        try:
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(wanted - 1))
        except OSError:
            pass  # not allowed: every fork is one step on the long way round
        pid = os.fork()
        if pid == 0:
            if os.getpid() == wanted:
                while True:
                    signal.pause()
            os._exit(0)
        if pid == wanted:
            mine.append(pid)
            break
        os.waitpid(pid, 0)
print("ready", flush=True)
sys.stdin.read()
end("ended")
"""
"""Stands by until its stdin ends; with arguments so do its children, each of which has one of these pids."""


class Taken(Exception):
    """Somebody else's process has one of the pids by now."""


@contextmanager
def bystander(*pids: int) -> Iterator[int]:
    """An innocent process, or some with these very pids; its own pid."""
    argv = [sys.executable, "-c", BYSTANDER, *map(str, pids)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            said = process.stdout.readline()
            if said == "taken\n":
                raise Taken
            assert said == "ready\n"
            yield process.pid
            process.stdin.close()
            process.wait(10) if pids else process.kill()
        finally:
            process.kill()  # it has ended, unless something went wrong


def signals(pid: int) -> str:
    """What has been done to a bystander: nothing is `unharmed`."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "it is gone"
    told = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if told["State"][0] in "ZTX":
        return told["State"]
    pending = int(told["SigPnd"], 16) | int(told["ShdPnd"], 16)
    return ", ".join(signal.Signals(n + 1).name for n in range(64) if pending >> n & 1) or "unharmed"


def spared(pids: tuple[int, ...]) -> None:
    assert {signals(pid) for pid in pids} == {"unharmed"}


@pytest.mark.parametrize("sent", [signal.SIGCONT, signal.SIGTERM, signal.SIGWINCH, signal.SIGKILL, signal.SIGSTOP])
def test_a_signal_to_a_bystander_is_seen(sent: signal.Signals) -> None:
    with bystander() as pid:
        assert signals(pid) == "unharmed"
        os.kill(pid, sent)
        until(lambda: signals(pid) != "unharmed", "the signal shows")


Forge = Callable[[str], None]

COMMANDS: list[tuple[str, list[str], int | None]] = [
    ("running", ["kill", "x"], 6),
    ("running", ["stop", "x"], 6),
    ("running", ["stop", "x", "--now"], 6),
    ("running", ["abort", "x", "--then", "stop"], 6),
    ("running", ["pause", "x"], 6),
    ("running", ["doctor"], None),
    ("running", ["doctor", "--fix"], None),
    ("running", ["start", "x", "-m", "again"], 2),
    ("running", ["resume", "x", "-n", "0"], 0),
    ("stopped", ["resume", "x", "-n", "0"], 0),
    ("stopped", ["doctor", "--fix"], None),
    ("stopped", ["start", "x", "-m", "again", "-n", "1"], 0),
    ("running", ["clean", "--yes"], 0),
]
"""All that may signal, the status that state.json tells, and the exit code."""


def no_signal_by_any_command(rig: Rig, forge: Forge, unharmed: Callable[[], None]) -> int:
    """Runs each against the forged files; how many they were."""
    for status, command, code in COMMANDS:
        forge(status)
        shown = loop_status(rig.paths)
        assert (shown.runner, shown.shown) == ("dead", "crashed" if status == "running" else status)
        pi = ["--pi", rig.pi] if command[0] in ("start", "resume") else []
        rig.run(*command, *pi, check=code)
        unharmed()
        if code == 0 and pi:
            rig.wait_end()
            until(lambda: not locks.is_held(rig.paths.runner_lock), "the runner has left")
            unharmed()
    assert not rig.paths.dir.exists()  # cleaned
    return len(COMMANDS)


def forger(rig: Rig, pids: tuple[int, int, int], start: float | None, boot: str) -> Forge:
    """Writes pids of runner, guard and pi into every file that names one."""
    last: dict[str, Any] = {}

    def forge(status: str) -> None:
        if not last:
            last.update(rig.state())
        starts = [identity.start_time(pid) if start is None else start for pid in pids]
        state = {
            **last,
            "status": status,
            "stopReason": "stop" if status in ENDED else None,
            "bootId": boot,
            "pid": pids[0],
            "pidStartTime": starts[0],
            "guardPid": pids[1],
            "guardStartTime": starts[1],
            "piPid": pids[2],
            "piStartTime": starts[2],
        }
        rig.paths.state.write_text(json.dumps(state))
        rig.paths.pid.write_text(f"{pids[0]}\n")
        entry = forged.entry(
            rig.project,
            "x",
            pid=pids[0],
            pidStartTime=starts[0],
            bootId=boot,
            status=status,
            ralphDir=str(rig.paths.dir),
        )
        forged.register("forged", entry).rename(registry.entry_path(rig.project, "x"))

    return forge


def ended_loop(tmp_path: Path) -> Rig:
    """A loop with one iteration behind it, and nothing to do."""
    rig = fake_rig(tmp_path, ["one", "two\n<promise>COMPLETE</promise>", "three"])
    rig.start("-n", "1")
    rig.wait_end()
    until(lambda: not locks.is_held(rig.paths.runner_lock), "the runner has left")
    return rig


def test_row_12_after_a_reboot_every_pid_is_void_and_the_loop_can_be_resumed(tmp_path: Path, figure: Note) -> None:
    """Worst of all: the same pid with the same start time, so that only the boot id tells."""
    rig = ended_loop(tmp_path)
    with bystander() as runner, bystander() as guard, bystander() as pi:
        pids = (runner, guard, pi)
        tried = no_signal_by_any_command(rig, forger(rig, pids, None, "another-boot"), partial(spared, pids))
    figure(f"{tried} commands, 3 living pids of another boot: 0 signals, shown as crashed, resumed")


def test_row_19_a_reused_pid_gets_no_signal_from_any_command(tmp_path: Path, figure: Note) -> None:
    rig = ended_loop(tmp_path)
    with bystander() as runner, bystander() as guard, bystander() as pi:
        pids = (runner, guard, pi)
        start = identity.start_time(runner)
        assert start is not None
        tried = no_signal_by_any_command(rig, forger(rig, pids, start - 1, BOOT), partial(spared, pids))
    figure(f"{tried} commands, 3 living pids that started at another time: 0 signals")


@pytest.mark.parametrize("start", [0.0, 1.0, None])
def test_row_19_a_lock_that_is_held_is_no_leave_to_signal_the_pid_in_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: float | None
) -> None:
    monkeypatch.setattr(kill, "LEAVE_S", 0.1)
    with bystander() as pid:
        paths = forged.loop(tmp_path / "p", "x", pid=pid, pidStartTime=start)
        with forged.runner_of(paths), pytest.raises(RalphError, match="cannot be signalled"):
            kill.kill(paths)
        assert signals(pid) == "unharmed"


@pytest.mark.parametrize(("earlier", "boot"), [(1, None), (-1, None), (0, "another-boot"), (0, "")])
def test_row_19_identity_is_pid_and_start_time_and_boot(tmp_path: Path, earlier: int, boot: str | None) -> None:
    boot = BOOT if boot is None else boot
    with bystander() as pid:
        start = identity.start_time(pid)
        assert start is not None and identity.is_same(pid, start, BOOT)
        assert not identity.is_same(pid, start - earlier, boot)
        for sent in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
            assert not identity.signal_same(pid, start - earlier, boot, sent)
        assert sweep_orphans(tmp_path, [(pid, start - earlier)], boot) == []
        assert signals(pid) == "unharmed"


def test_row_19_a_pid_that_changes_hands_between_look_and_signal_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pidfd is opened after the first look; the second look, through it, finds another process there."""
    with bystander() as pid:
        start = identity.start_time(pid)
        answers = iter([start, None])
        monkeypatch.setattr(identity, "start_time", lambda _pid: next(answers))
        assert not identity.signal_same(pid, start, BOOT, signal.SIGKILL)
        assert signals(pid) == "unharmed"


@times(quick=1, full=10)
def test_row_19_the_pids_of_a_dead_loop_really_go_to_others(tmp_path: Path, count: int, figure: Note) -> None:
    """The counter of pids is set back, or where that is not allowed goes once round by forking."""
    set_back = os.access(LAST_PID, os.W_OK)
    if not set_back and count == 1:
        pytest.skip("a wrap of the pid counter by forks takes a minute: only in the full tier")
    if not set_back and int(PID_MAX.read_text()) > 65_536:
        pytest.skip("there are too many pids to go round, and their counter may not be set")
    tried = reused = 0
    wanted = count if set_back else 1
    for turn in range(3 * wanted):
        if reused == wanted:
            break
        (folder := tmp_path / str(turn)).mkdir()
        rig = fake_rig(folder, ["one", "two\n<promise>COMPLETE</promise>", "three"])
        (folder / "script.json").write_text(json.dumps({"prompts": [["hello", {"hang": True}], "two"]}))
        rig.start()
        pids = rig.pids()
        rig.kill(pids[0])
        for pid in pids:
            # Not only dead: init may take its time to let the pid go.
            wait_for("a free pid", lambda pid=pid: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]
        (folder / "script.json.count").write_text("1")
        with suppress(Taken), bystander(*pids):
            spared(pids)
            tried += no_signal_by_any_command(rig, as_left_behind(rig), partial(spared, pids))
            reused += 1
    if not reused:
        pytest.skip("other processes were faster, each time")
    figure(f"3 pids reused {reused} times ({'counter set' if set_back else 'one wrap'}), {tried} commands: 0 signals")


def as_left_behind(rig: Rig) -> Forge:
    """Puts the files back as the killed runner left them, but for the status."""
    kept = rig.paths.dir.with_name("kept")
    shutil.copytree(rig.paths.dir, kept)
    entry = registry.entry_path(rig.project, "x")
    registered = entry.read_bytes()

    def forge(status: str) -> None:
        shutil.rmtree(rig.paths.dir)
        shutil.copytree(kept, rig.paths.dir)
        state = json.loads(rig.paths.state.read_text())
        assert identity.start_time(state["pid"]) not in (None, state["pidStartTime"])
        stop = {"status": status, "stopReason": "stop"} if status in ENDED else {}
        rig.paths.state.write_text(json.dumps({**state, **stop}))
        entry.write_bytes(registered)

    return forge
