"""pi by ssh on another machine: two network namespaces, each with a PID namespace of its own, so that neither sees the
other's processes; real sshd, a cable that can be cut."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.launchers.far import does, far_rig
from tests.launchers.machines import Machines, launcher, machines, why_not
from tests.process.trees import new_token, nothing_of, survivors, until
from tests.rig import Rig, wait_for

pytestmark = [
    pytest.mark.usefixtures("no_leftovers"),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.timeout(240),
]
TREE = (
    "setsid sleep {t} & env -i /usr/bin/setsid sh -c '/bin/sleep {t} &'; while :; do echo x >> ticks; sleep 0.2; done"
)


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    # The far side has no environment of ours; what a test leaves there is found by its tokens.
    with machines(tmp_path / "machines") as made:
        yield made


def ssh_rig(tmp_path: Path, two: Machines, token: str, *more: str, start: bool = True) -> Rig:
    """A loop on the near machine whose first agent works for ever on the far one."""
    rig = far_rig(tmp_path, [[{"tool": "bash", "run": TREE.format(t=token)}, "never said"], does("echo again > out")])
    rig.started_by = two.near.inside(rig.project)
    if start:
        rig.start("--launcher", launcher(two.to()), *more)
        until(lambda: len(survivors(token)) >= 3, f"the tool\n{rig.log()}")
    return rig


def outside(machine_init: int, inner: int) -> int:
    """The pid here of a process that has the pid `inner` in that PID namespace."""
    space = os.readlink(f"/proc/{machine_init}/ns/pid")  # noqa: PTH115
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns" / "pid") != space:  # noqa: PTH115
                continue
            found = re.search(r"^NSpid:\s+\d+\s+(\d+)$", (entry / "status").read_text(), re.MULTILINE)
        except OSError:
            continue
        if found and int(found[1]) == inner:
            return int(entry.name)
    raise AssertionError(f"no process {inner} in there")


def near_pids(rig: Rig, two: Machines) -> tuple[int, int, int]:
    """(runner, guard, ssh), as numbered here."""
    runner, guard, ssh = (outside(two.near.init, pid) for pid in rig.pids())
    return runner, guard, ssh


def ended(rig: Rig) -> dict[str, object]:
    return rig.wait_status("stopped", "completed", "error", timeout=120)


def test_a_loop_runs_there_to_its_end(tmp_path: Path, two: Machines) -> None:
    rig = far_rig(
        tmp_path, [does("echo $RALPH_LOOP $PI_OFFLINE $GIT_EDITOR > out; ls -d $TMPDIR >> out; ps -ef >> out")]
    )
    rig.started_by = two.near.inside(rig.project)
    rig.start("--launcher", launcher(two.to()))
    assert ended(rig)["status"] == "completed", rig.log()
    told = (rig.project / "out").read_text()
    assert told.startswith("x 1 true\n") and "sshd" in told and "ralph-runner" not in told


@pytest.mark.parametrize("end", ["runner", "runner and guard", "stop", "kill", "ssh"])
def test_nobody_is_left_there(tmp_path: Path, two: Machines, token: str, end: str) -> None:
    rig = ssh_rig(tmp_path, two, token)
    runner, guard, ssh = near_pids(rig, two)
    if end in ("stop", "kill"):
        rig.run(*({"stop": ("stop", "x", "--now"), "kill": ("kill", "x")}[end]))
    else:
        for pid in {"runner": [runner], "runner and guard": [runner, guard], "ssh": [ssh]}[end]:
            with suppress(ProcessLookupError):  # the runner's death is the guard's end
                os.kill(pid, signal.SIGKILL)
    # Long before a lease has passed; on an idle machine it takes less than three seconds.
    until(lambda: not survivors(token), "nobody left", 20)
    if end == "ssh":  # no agent began beside it: the next one is told so, and waits
        state = rig.wait_status("waiting")
        assert state["waitingFor"] == "lost"
        rig.run("stop", "x")
    if end.startswith("runner"):
        rig.run("resume", "x", "--lease", "4s")
        rig.run("stop", "x", "--now")
    assert ended(rig)["status"] == "stopped"


def test_a_cut_cable_ends_pi_there_and_the_loop_goes_on_when_it_is_back(
    tmp_path: Path, two: Machines, token: str
) -> None:
    lease = 8
    rig = ssh_rig(tmp_path, two, token, "--lease", f"{lease}s")
    ticks = rig.project / "ticks"
    two.far.cable(up=False)
    cut = time.monotonic()
    until(lambda: not survivors(token), "nobody left", lease + 4)
    worked = ticks.stat().st_size
    state = rig.wait_status("waiting")
    assert state["waitingFor"] == "lost", state
    two.far.cable(up=True)
    assert ended(rig)["status"] == "completed", rig.log()
    assert ticks.stat().st_size == worked, "an agent worked on"
    assert time.monotonic() - cut >= lease + 10, "a second agent was started before the first one's lease had run out"
    first, last = rig.records()
    assert (first["errorKind"], last["outcome"]) == ("lost", "ok")
    assert "10.9.8.2" in first["error"] or os.uname().nodename in first["error"]
    assert rig.state()["stats"]["iterations"] == 1


def test_a_cable_that_comes_back_in_time_changes_nothing(tmp_path: Path, two: Machines, token: str) -> None:
    rig = ssh_rig(tmp_path, two, token, "--lease", "40s")
    two.far.cable(up=False)
    time.sleep(3)  # the fault itself
    two.far.cable(up=True)
    rig.run("steer", "x", "hello")
    assert len(survivors(token)) >= 3
    rig.run("stop", "x", "--now")
    assert ended(rig)["status"] == "stopped"
    assert not survivors(token)


@pytest.mark.parametrize(
    ("what", "says"),
    [("host key", "Host key verification failed"), ("key", "Permission denied"), ("port", "Connection refused")],
)
def test_what_ssh_says_is_said_at_once(tmp_path: Path, two: Machines, token: str, what: str, says: str) -> None:
    rig = ssh_rig(tmp_path, two, token, start=False)
    words = two.to(known=what != "host key")
    if what == "key":
        words[words.index("-i") + 1] = "/dev/null"
    if what == "port":
        words[-1:] = ["-p", "23", words[-1]]
    done = rig.start("--launcher", launcher(words), check=5)
    assert says in done.stderr and "ssh:" in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_machine_without_pi_is_named(tmp_path: Path, two: Machines, token: str) -> None:
    rig = ssh_rig(tmp_path, two, token, start=False)
    done = rig.run("start", "x", "-m", "w", "--pi", "nopi", "--launcher", launcher(two.to()), check=5)
    assert "pi cannot be started on" in done.stderr and "nopi: No such file" in done.stderr
    wait_for("no process of it there", lambda: "ralph-far" not in run_there(two, "ps -e -o comm"))


def run_there(two: Machines, command: str) -> str:
    import subprocess

    return subprocess.run(two.ssh(command), capture_output=True, text=True, check=True).stdout
