"""The program's frame: its commands, and the boundary where every failure becomes one line."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ralph_rpc import __version__
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
        (["abort", "x", "--then", "dance"], "ralph-rpc: Invalid value for '--then'"),
        (["status", "no/name"], "ralph-rpc: 'no/name' is no name for a loop. Names are"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told_in_one_line(stage: Stage, args: list[str], told: str) -> None:
    done = stage.run(*args, code=2)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(told), done.stderr


def test_an_expected_failure_is_one_inert_line_with_its_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(monkeypatch, RalphError("bad\nthing \x1b[2J", "mend it", 7))
    assert frame.run(["list"]) == 7
    assert capsys.readouterr().err == "ralph-rpc: bad thing ␛[2J. Mend it\n"


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(monkeypatch, RalphError("bad thing", "", 7))
    assert frame.run(["--debug", "list"]) == 7
    assert "Traceback" in (shown := capsys.readouterr().err) and "bad thing" in shown


def test_a_bug_is_one_line_that_names_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], isolated: Path
) -> None:
    failing_with(monkeypatch, KeyError("oops"))
    assert frame.run(["list"]) == 1
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1 and "internal error, KeyError: 'oops'" in shown
    [log] = isolated.rglob("crash-*.log")
    assert str(log) in shown and "Traceback" in log.read_text() and __version__ in log.read_text()


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
    done = subprocess.run(
        command, cwd=stage.project, env=stage.env, stdout=write, stderr=subprocess.PIPE, check=False
    )
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
