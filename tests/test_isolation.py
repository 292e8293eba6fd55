"""The fixtures that keep tests away from the real home and from each other do hold."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from ralph_rpc.files.paths import registry_dir

pytest_plugins = ["pytester"]


def test_the_real_home_cannot_be_reached_by_any_name_the_program_uses(isolated: Path) -> None:
    real = Path(pwd.getpwuid(os.getuid()).pw_dir)
    reached = [
        Path.home(),
        Path("~").expanduser(),
        registry_dir(),
        platformdirs.user_data_path("ralph-rpc"),
        platformdirs.user_config_path("ralph-rpc"),
        platformdirs.user_cache_path("ralph-rpc"),
        platformdirs.user_log_path("ralph-rpc"),
    ]
    for path in reached:
        assert path.is_relative_to(isolated), path
    assert isolated != real


def test_child_processes_inherit_the_isolation(isolated: Path) -> None:
    code = "import pathlib, ralph_rpc.files.paths as p; print(pathlib.Path.home(), p.registry_dir())"
    root = Path(__file__).parent.parent
    said = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root)
    assert said.split() == [str(isolated), str(isolated / ".ralph/registry")]


def test_git_commits_as_nobody_in_particular(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True)
    said = subprocess.check_output(["git", "log", "--format=%ae"], cwd=tmp_path, text=True)
    assert said.strip() == "test@example.invalid"


def test_settings_of_the_person_who_runs_the_tests_are_not_seen() -> None:
    ours = {"RALPH_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"}
    foreign = {name for name in os.environ if name.startswith(("RALPH_", "PI_", "GIT_", "XDG_"))}
    assert foreign == ours


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_left_behind_fails_its_test_and_is_ended(pytester: pytest.Pytester) -> None:
    conftest = Path(__file__).with_name("conftest.py").read_text()
    pytester.makeconftest(conftest.replace("GRACE_S = 5.0", "GRACE_S = 0.2"))
    pytester.makepyfile(
        """
        import pathlib, subprocess

        def test_careless(no_leftovers):
            # Its word says that it runs: for an instant after the start a process shows no environment.
            argv = ["sh", "-c", "echo up; read line"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            child = subprocess.Popen(argv, start_new_session=True, **pipes)
            child.stdout.readline()
            globals()["kept"] = child
            pathlib.Path("pid").write_text(str(child.pid))

        def test_careful(no_leftovers):
            subprocess.run(["true"], check=True)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    pid = (pytester.path / "pid").read_text()
    command = Path(f"/proc/{pid}/cmdline")
    assert not command.exists() or command.read_bytes() == b"", "neither gone nor a zombie"
