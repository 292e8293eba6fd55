"""`doctor`: finds what is wrong, says what to do, and mends only what is safe to mend."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ralph_rpc.cli.main import run
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.remains import processes
from ralph_rpc.machine import identity
from tests.cli import forged
from tests.cli.examined import Capture, examined, install_pi, of, private_loop, troubles

STUBBORN = "import signal,sys; signal.signal(15, signal.SIG_IGN); print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and a pi that answers on PATH."""
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    install_pi(tmp_path, monkeypatch)
    return folder


def test_a_sound_machine_and_project_have_nothing_to_complain_of(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "x")
    private_loop(project, alive=True)
    code, findings = examined(capsys)
    assert troubles(findings) == []
    assert code == 0
    assert {"python", "pi", "node", "npm", "git", "inotify", "disk", "registry", "permissions", "orphans"} <= {
        finding["check"] for finding in findings
    }
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
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, does: str, level: str, words: str
) -> None:
    install_pi(tmp_path, monkeypatch, does)
    code, findings = examined(capsys)
    (pi,) = of(findings, "pi")
    assert pi["level"] == level and words in pi["message"]
    assert bool(pi["hint"]) == (level != "ok")
    assert code == (1 if level == "fail" else 0)


def test_tools_that_are_missing_are_named(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
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
def test_this_process_and_what_started_it_are_no_orphans(project: Path) -> None:
    loop = private_loop(project)
    command, env = forged.program("doctor", "--json")
    inner = f"import subprocess, sys; sys.exit(subprocess.run({command!r}).returncode)"
    marked = env | {"RALPH_LOOP_DIR": str(loop.dir)}
    done = subprocess.run([sys.executable, "-c", inner], env=marked, capture_output=True, text=True, check=False)
    assert [finding["level"] for finding in of(json.loads(done.stdout), "orphans")] == ["ok"]


@pytest.mark.usefixtures("no_leftovers")
def test_a_runner_that_an_agent_started_is_no_orphan_of_that_agent_s_loop(project: Path) -> None:
    dead = private_loop(project)
    with start(dead) as runner:
        start_time = identity.start_time(runner.pid)
        forged.register("inner", forged.entry(project, "inner") | {"pid": runner.pid, "pidStartTime": start_time})
        assert processes.orphans({project}) == []


@pytest.mark.usefixtures("no_leftovers")
def test_a_process_that_got_the_pid_of_an_orphan_is_not_ended(project: Path) -> None:
    loop = private_loop(project)
    with start(loop) as process:
        (orphan,) = processes.orphans({project})
        reused = processes.Orphan(orphan.pid, orphan.start - 1, orphan.loop, orphan.command)
        assert processes.end([reused]) == []
        assert process.poll() is None


@pytest.mark.usefixtures("no_leftovers")
def test_processes_are_left_to_a_runner_that_has_come_back(project: Path) -> None:
    loop = private_loop(project)
    with start(loop) as process:
        found = processes.orphans({project})
        assert len(found) == 1
        with forged.runner_of(loop):
            assert processes.end(found) == []
        assert process.poll() is None
