"""`ralph-rpc pi`: the pi that loops use, with the caller's folder, arguments and exit code."""

from pathlib import Path

import pytest

from ralph_rpc.options.toml import user_config_file
from ralph_rpc.pi.find import installed_where
from tests.cli.stage import Stage


def says(path: Path, who: str, code: int = 0) -> Path:
    """A program that says who it is, what it was given and where it runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nprintf "%s|" {who} "$PWD" "$@"\nexit {code}\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_everything_behind_it_is_pis_own(stage: Stage) -> None:
    pi = says(stage.tmp / "mine", "mine", code=7)
    for args in (["--help"], ["-h", "--version"], ["-p", "two words", "--debug"], []):
        done = stage.run("pi", *args, code=7, env={"RALPH_PI": str(pi)})
        assert done.stdout.split("|")[:-1] == ["mine", str(stage.project), *args]


def test_it_is_the_one_that_a_loop_would_get(stage: Stage) -> None:
    tools = stage.tmp / "bin"
    says(tools / "pi", "path")
    with_path = {"PATH": f"{tools}:/usr/bin:/bin"}
    assert stage.run("pi", env=with_path).stdout.startswith("path|")
    user_config_file().parent.mkdir(parents=True)
    user_config_file().write_text(f'pi = "{says(stage.tmp / "configured", "configured")}"\n')
    assert stage.run("pi", env=with_path).stdout.startswith("configured|")


def test_no_project_says_what_is_run(stage: Stage) -> None:
    (stage.project / ".ralph").mkdir()
    (stage.project / ".ralph/config.toml").write_text(f'pi = "{says(stage.tmp / "evil", "evil")}"\n')
    told = stage.run("pi", code=5, env={"PATH": "/usr/bin:/bin"})
    assert "evil" not in told.stdout and "pi is not on PATH" in told.stderr
    assert "RALPH_PI" in told.stderr and not installed_where().exists()
