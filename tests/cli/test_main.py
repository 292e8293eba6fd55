"""The program's frame: its commands, and the boundary where every failure becomes one line."""

import importlib
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import platformdirs
import pytest

from ralph_rpc import __version__
from ralph_rpc.cli import crashlog
from ralph_rpc.cli import main as frame
from ralph_rpc.errors import RalphError
from tests.cli import forged
from tests.cli.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def failing_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`list` raises this."""

    def fail() -> None:
        raise error

    command = click.Command("list", callback=fail)
    monkeypatch.setattr("ralph_rpc.cli.list.list_loops", command)


def test_every_command_of_the_table_is_there_with_a_help_line() -> None:
    for name, (place, help_line) in frame.COMMANDS.items():
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), name
        assert help_line.endswith(".") and command.help, name


def test_help_names_every_command_and_version_the_version(stage: Stage) -> None:
    shown = stage.run("--help").stdout
    assert [name for name in frame.COMMANDS if not re.search(rf"^  {name} ", shown, re.MULTILINE)] == []
    assert stage.run("-h").stdout == shown
    assert stage.run("--version").stdout == f"ralph-rpc {__version__}\n"
    assert "Usage: ralph-rpc stop" in stage.run("stop", "-h").stdout
    bare = subprocess.run(
        stage.command(), cwd=stage.project, env=stage.env, capture_output=True, text=True, check=False
    )
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", shown)


def test_it_leaves_at_once_and_what_it_said_is_whole(stage: Stage) -> None:
    code = "import atexit; atexit.register(print, 'apart'); from ralph_rpc.cli.main import main; main()"
    argv = [sys.executable, "-P", "-c", code, "--help"]
    done = subprocess.run(argv, cwd=stage.project, env=stage.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, stage.run("--help").stdout, "")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["statsu"], "ralph-rpc: no such command 'statsu', did you mean 'status'? Try: ralph-rpc --help"),
        (["list", "--al"], "ralph-rpc: No such option '--al'"),
        (["start"], "ralph-rpc: Missing argument 'NAME'. Try: ralph-rpc start --help"),
        (["start", "foo", "-m"], "ralph-rpc: Option '-m' requires an argument. Try: ralph-rpc start --help"),
        (["abort", "x", "--then", "dance"], "ralph-rpc: Invalid value for '--then'"),
        (["status", "no/name"], "ralph-rpc: 'no/name' is not a valid loop name. Names are"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(stage: Stage, args: list[str], told: str) -> None:
    done = stage.run(*args, code=2)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(told), done.stderr


def test_an_expected_failure_is_one_inert_line_with_its_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(monkeypatch, RalphError("bad\nthing \x1b[2J", "fix it", 7))
    assert frame.run(["list"]) == 7
    assert capsys.readouterr().err == "ralph-rpc: bad thing ␛[2J. Fix it\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing_with(monkeypatch, RalphError("bad thing", "", 7))
    assert frame.run(["--debug", "list"]) == 7
    assert "Traceback" in (shown := capsys.readouterr().err) and "bad thing" in shown
    failing_with(monkeypatch, KeyError("oops"))
    assert frame.run(["--debug", "list"]) == 70
    assert "KeyError" in capsys.readouterr().err


def log_of_a_bug(capsys: pytest.CaptureFixture[str]) -> Path:
    """Runs into the bug that `failing_with` laid; the file that the line on stderr names."""
    assert frame.run(["list"]) == 70
    line = capsys.readouterr().err
    found = re.fullmatch(
        r"ralph-rpc: internal error, KeyError: 'oops'\. This is a bug .* attach (/\S+/crash-\S+\.log)\n", line
    )
    assert found, line
    return Path(found[1])


def test_a_bug_is_one_line_that_names_its_log_and_exits_with_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], isolated: Path
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    failing_with(monkeypatch, KeyError("oops"))
    log = log_of_a_bug(capsys)
    assert log.is_relative_to(isolated)
    said = log.read_text()
    assert said.startswith(f"ralph-rpc {__version__}\nPython {sys.version.split()[0]} ")
    assert "Traceback (most recent call last):" in said and said.endswith("KeyError: 'oops'\n")
    assert "hunter2" not in said and "SECRET" not in said


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_log_of_a_bug_is_private_under_any_umask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], isolated: Path, umask: int
) -> None:
    failing_with(monkeypatch, KeyError("oops"))
    before = os.umask(umask)
    try:
        log = log_of_a_bug(capsys)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (log, log.parent)]
    assert modes == [0o600, 0o700]
    between = [path for path in log.parents if path != isolated and path.is_relative_to(isolated)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in between} == {0o700}


def test_a_folder_of_logs_that_was_open_to_others_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = platformdirs.user_log_path("ralph-rpc")
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    failing_with(monkeypatch, KeyError("oops"))
    assert log_of_a_bug(capsys).parent == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def a_link(folder: Path) -> None:
    folder.symlink_to(folder.parent, target_is_directory=True)


def another_users(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder.mkdir()
    os.chown(folder, 12345, 12345)


def a_file(folder: Path) -> None:
    folder.write_text("")


@pytest.mark.parametrize("lay", [a_link, another_users, a_file])
def test_the_log_of_a_bug_is_never_written_where_another_could_read_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], isolated: Path, lay: Callable[[Path], None]
) -> None:
    folder = platformdirs.user_log_path("ralph-rpc")
    folder.parent.mkdir(parents=True)
    lay(folder)
    failing_with(monkeypatch, KeyError("oops"))
    log = log_of_a_bug(capsys)
    assert log.parent.parent == isolated / "tmp"
    assert list(isolated.rglob("crash-*.log")) == [log]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (log, log.parent)] == [0o600, 0o700]


def test_a_link_laid_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    folder, victim = tmp_path / "log", tmp_path / "victim"
    folder.mkdir(mode=0o700)
    (folder / "crash.log").symlink_to(victim)
    with pytest.raises(FileExistsError):
        crashlog._write_in(folder, "crash.log", b"x")
    assert not victim.exists()


def test_a_bug_without_a_place_for_its_log_is_still_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    platformdirs.user_log_path("ralph-rpc").parent.mkdir(parents=True)
    a_file(platformdirs.user_log_path("ralph-rpc"))
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/none")
    failing_with(monkeypatch, KeyError("oops"))
    assert frame.run(["list"]) == 70
    line = capsys.readouterr().err
    assert "Run it again with --debug" in line and len(line.splitlines()) == 1


def test_trouble_with_a_file_is_told_without_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], isolated: Path
) -> None:
    failing_with(monkeypatch, PermissionError(13, "Permission denied", "/some/file"))
    assert frame.run(["list"]) == 1
    assert capsys.readouterr().err == "ralph-rpc: Permission denied: /some/file\n"
    assert not list(isolated.rglob("crash-*.log"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130_and_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    failing_with(monkeypatch, error)
    assert frame.run(["list"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_failure(stage: Stage) -> None:
    forged.loop(stage.project, "api")
    read, write = os.pipe()
    os.close(read)
    command = [*stage.command("schema", "state")]
    done = subprocess.run(command, cwd=stage.project, env=stage.env, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "command", ["status", "stop", "steer", "logs", "resume", "wait", "kill", "pause", "abort", "followup"]
)
def test_the_shell_completes_names_of_loops(stage: Stage, command: str) -> None:
    forged.loop(stage.project, "api")
    env = {"_RALPH_RPC_COMPLETE": "bash_complete", "COMP_WORDS": f"ralph-rpc {command} a", "COMP_CWORD": "2"}
    done = subprocess.run(
        stage.command(), cwd=stage.project, env=stage.env | env, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["plain,api"], done


def test_the_shell_completes_commands(stage: Stage) -> None:
    env = {"_RALPH_RPC_COMPLETE": "bash_complete", "COMP_WORDS": "ralph-rpc st", "COMP_CWORD": "1"}
    done = subprocess.run(
        stage.command(), cwd=stage.project, env=stage.env | env, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["plain,start", "plain,stop", "plain,steer", "plain,status"], done
