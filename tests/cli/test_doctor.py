"""`doctor`: finds what is wrong, says what to do, and mends only what is safe to mend."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc import leftovers
from ralph_rpc.cli.main import run
from ralph_rpc.files import identity, locks
from ralph_rpc.files.paths import LoopPaths
from tests.cli import forged

Capture = pytest.CaptureFixture[str]
Finding = dict[str, Any]
STUBBORN = "import signal,sys; signal.signal(15, signal.SIG_IGN); print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and a pi that answers on PATH."""
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    install_pi(tmp_path, monkeypatch, "echo 1.5.2")
    return folder


def install_pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    pi = tmp_path / "bin/pi"
    pi.parent.mkdir(exist_ok=True)
    pi.write_text(f"#!/bin/sh\n{does}\n")
    pi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pi.parent}:{os.environ['PATH']}")


def private_loop(project: Path, name: str = "api", **changes: Any) -> LoopPaths:
    """A loop with the modes that `start` gives."""
    loop = forged.loop(project, name, **changes)
    for path in (project / ".ralph", *(project / ".ralph").rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return loop


def examined(capsys: Capture, *args: str) -> tuple[int, list[Finding]]:
    capsys.readouterr()
    code = run(["doctor", "--json", *args])
    findings: list[Finding] = json.loads(capsys.readouterr().out)
    return code, findings


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding["check"] == check]


def troubles(findings: list[Finding]) -> list[Finding]:
    return [
        finding
        for finding in findings
        if finding["level"] != "ok" and finding["check"] not in ("node", "npm")
    ]


def test_a_sound_machine_and_project_have_nothing_to_complain_of(project: Path, capsys: Capture) -> None:
    private_loop(project, alive=True)
    code, findings = examined(capsys)
    assert troubles(findings) == []
    assert code == 0
    assert {
        "python",
        "pi",
        "node",
        "npm",
        "git",
        "inotify",
        "disk",
        "registry",
        "permissions",
        "orphans",
    } <= {finding["check"] for finding in findings}
    assert not any(finding["hint"] for finding in findings if finding["level"] == "ok")


def test_the_table_is_plain_and_inert_where_it_is_no_terminal(project: Path, capsys: Capture) -> None:
    forged.register("evil", forged.entry(Path("/nowhere/\x1b[31m\n"), "x"))
    run(["doctor"])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "warn  registry     stale entry" in shown


@pytest.mark.parametrize(
    ("does", "level", "words"),
    [
        ("echo 0.73.1 >&2", "ok", "0.73.1"),
        ("echo 0.60.0", "fail", "too old"),
        ("echo 99.0.0", "warn", "99.0.0"),
        ("echo no; exit 3", "fail", "gives no version"),
    ],
)
def test_pi_is_run_and_its_version_judged(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    does: str,
    level: str,
    words: str,
) -> None:
    install_pi(tmp_path, monkeypatch, does)
    code, findings = examined(capsys)
    (pi,) = of(findings, "pi")
    assert pi["level"] == level and words in pi["message"]
    assert bool(pi["hint"]) == (level != "ok")
    assert code == (1 if level == "fail" else 0)


def test_tools_that_are_missing_are_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("PATH", str(project))
    code, findings = examined(capsys)
    assert code == 1
    levels = {finding["check"]: finding["level"] for finding in findings}
    assert (levels["pi"], levels["node"], levels["npm"], levels["git"]) == ("fail", "warn", "warn", "warn")
    assert all(finding["hint"] for finding in troubles(findings))


def test_a_wrong_option_in_a_config_file_is_found(project: Path, capsys: Capture) -> None:
    (project / ".ralph").mkdir(mode=0o700)
    (project / ".ralph/config.toml").write_text("max-iteratoins = 3\n")
    code, findings = examined(capsys)
    assert code == 1
    assert "max-iteratoins" in of(findings, "pi")[0]["message"]


def test_what_others_could_read_or_write_is_found_and_closed(project: Path, capsys: Capture) -> None:
    loop = private_loop(project, alive=True)
    loop.events.write_text("{}\n")
    (project / ".ralph").chmod(0o755)
    loop.inbox.chmod(0o777)
    loop.events.chmod(0o644)
    loop.task.write_text("mine")  # the user's own file, in a closed folder
    loop.task.chmod(0o644)
    code, findings = examined(capsys)
    assert code == 1 and len(of(findings, "permissions")) == 3
    assert loop.inbox.stat().st_mode & 0o777 == 0o777  # only looked
    code, findings = examined(capsys, "--fix")
    assert code == 0
    assert [finding["fixed"] for finding in of(findings, "permissions")] == [True] * 3
    modes = [path.stat().st_mode & 0o777 for path in (project / ".ralph", loop.inbox, loop.events, loop.task)]
    assert modes == [0o700, 0o700, 0o600, 0o644]
    assert examined(capsys)[0] == 0


def test_stale_entries_are_found_and_removed_and_needed_ones_stay(
    project: Path, tmp_path: Path, capsys: Capture
) -> None:
    private_loop(project, "failed", status="error")
    private_loop(project, "crashed")
    private_loop(project, "done", status="completed")
    needed = [
        forged.register("failed", forged.entry(project, "failed", status="error")),
        forged.register("crashed", forged.entry(project, "crashed")),
        forged.register("live", forged.entry(project, "live", alive=True)),
    ]
    stale = [
        forged.register("done", forged.entry(project, "done", status="completed")),
        forged.register("gone", forged.entry(tmp_path / "nowhere", "gone")),
        forged.register("broken", b"{"),
    ]
    code, findings = examined(capsys)
    assert code == 0
    assert [finding["level"] for finding in of(findings, "registry")] == ["ok", "warn", "warn", "warn"]
    assert all(path.exists() for path in (*needed, *stale))
    _, findings = examined(capsys, "--fix")
    assert sum(finding["fixed"] for finding in of(findings, "registry")) == 3
    assert all(path.exists() for path in needed) and not any(path.exists() for path in stale)


def test_a_registry_that_cannot_be_written_is_found(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RALPH_HOME", str(tmp_path / "file"))
    code, findings = examined(capsys)
    assert code == 1
    assert "cannot be written" in of(findings, "registry")[0]["message"]


def test_crashed_loops_torn_logs_and_temporary_folders_are_found(
    project: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    temp = tmp_path / "ralph-api-x1"
    temp.mkdir()
    loop = private_loop(project, tmpDir=str(temp))
    loop.events.write_bytes(b'{"type":"a"}\n{"type":')
    loop.events.chmod(0o600)
    live = private_loop(project, "live", alive=True)
    live.events.write_bytes(b'{"type":')  # being written
    live.events.chmod(0o600)
    with forged.runner_of(live):
        code, findings = examined(capsys)
        assert code == 0
        assert {finding["check"]: finding["level"] for finding in troubles(findings)} == {
            "loops": "warn",
            "logs": "warn",
            "temp": "warn",
        }
        assert "api has crashed" in of(findings, "loops")[0]["message"]
        assert str(loop.events) in of(findings, "logs")[0]["message"]
        _, findings = examined(capsys, "--fix")
    assert not temp.exists() and of(findings, "temp")[0]["fixed"]
    assert loop.events.read_bytes().endswith(b'{"type":')  # the next start's business


@contextmanager
def start(loop: LoopPaths, code: str = STUBBORN) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the loop that is up, and is killed in the end."""
    env = os.environ | {"RALPH_LOOP_DIR": str(loop.dir)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"up\n"
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("no_leftovers")
def test_processes_of_a_dead_runner_are_found_and_ended(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "TERM_S", 0.3)
    dead = private_loop(project, "dead")
    vanished = LoopPaths.of(project, "vanished")
    live, ending = private_loop(project, "live"), private_loop(project, "ending")
    with (
        start(dead) as orphan,
        start(dead, STUBBORN.replace("signal.SIG_IGN", "signal.SIG_DFL")) as stopped,
        start(vanished) as homeless,
        start(live) as owned,
        start(ending) as guarded,
    ):
        stopped.send_signal(signal.SIGSTOP)
        guard = locks.acquire(ending.tree_lock)
        assert guard is not None
        with forged.runner_of(live), guard:
            code, findings = examined(capsys)
            found = {f"pid {process.pid}" for process in (orphan, stopped, homeless)}
            assert code == 1
            assert {finding["message"].split(" of ")[0] for finding in of(findings, "orphans")} == found
            assert orphan.poll() is None
            code, findings = examined(capsys, "--fix")
            assert code == 0
            assert of(findings, "orphans")[0]["fixed"]
            assert (orphan.wait(10), stopped.wait(10), homeless.wait(10)) == (-9, -15, -9)
            assert owned.poll() is None and guarded.poll() is None


@pytest.mark.usefixtures("no_leftovers")
def test_this_process_and_what_started_it_are_no_orphans(project: Path) -> None:
    loop = private_loop(project)
    command, env = forged.program("doctor", "--json")
    inner = f"import subprocess, sys; sys.exit(subprocess.run({command!r}).returncode)"
    marked = env | {"RALPH_LOOP_DIR": str(loop.dir)}
    done = subprocess.run(
        [sys.executable, "-c", inner], env=marked, capture_output=True, text=True, check=False
    )
    assert [finding["level"] for finding in of(json.loads(done.stdout), "orphans")] == ["ok"]


@pytest.mark.usefixtures("no_leftovers")
def test_a_runner_that_an_agent_started_is_no_orphan_of_that_agent_s_loop(project: Path) -> None:
    dead = private_loop(project)
    with start(dead) as runner:
        start_time = identity.start_time(runner.pid)
        forged.register(
            "inner", forged.entry(project, "inner") | {"pid": runner.pid, "pidStartTime": start_time}
        )
        assert leftovers.orphans({project}) == []


@pytest.mark.usefixtures("no_leftovers")
def test_a_process_that_got_the_pid_of_an_orphan_is_not_ended(project: Path) -> None:
    loop = private_loop(project)
    with start(loop) as process:
        (orphan,) = leftovers.orphans({project})
        reused = leftovers.Orphan(orphan.pid, orphan.start - 1, orphan.loop, orphan.command)
        assert leftovers.end([reused]) == []
        assert process.poll() is None


@pytest.mark.usefixtures("no_leftovers")
def test_processes_are_left_to_a_runner_that_has_come_back(project: Path) -> None:
    loop = private_loop(project)
    with start(loop) as process:
        found = leftovers.orphans({project})
        assert len(found) == 1
        with forged.runner_of(loop):
            assert leftovers.end(found) == []
        assert process.poll() is None


def test_a_full_disk_is_a_failure_and_a_nearly_full_one_a_warning(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, level, code in ((50 << 20, "fail", 1), (500 << 20, "warn", 0)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(1 << 40, 0, free)
        )
        got, findings = examined(capsys)
        assert got == code
        assert {finding["level"] for finding in of(findings, "disk")} == {level}
