"""The README tells the truth: its first command works word for word, and it names all there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ralph_rpc.cli.main import COMMANDS
from ralph_rpc.options import OPTIONS
from tests.real_pi import provision

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def console_commands() -> list[str]:
    """Every line that a reader is to type."""
    return re.findall(r"^\$ (.+)$", README, re.MULTILINE)


@pytest.mark.pi
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there is no repository to clone")
def test_the_first_command_runs_the_demo_from_a_fresh_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = console_commands()[0]
    assert command == "pip install '.[pi]' && ralph-rpc demo --yes"
    pi = provision.provide(provision.NEWEST)
    provision.use(pi, monkeypatch)
    clone, venv, tools = tmp_path / "clone", tmp_path / "venv", tmp_path / "bin"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    tools.mkdir()
    wrapper = tools / "pi"
    wrapper.write_text(f'#!/bin/sh\nexec {pi.command[0]} {pi.command[-1]} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{venv / 'bin'}{os.pathsep}{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = subprocess.run(["bash", "-c", command], check=False, cwd=clone, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed: the agent said so" in done.stdout and "accepted -> queued -> delivered" in done.stdout
    assert subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, check=True).stdout == b""


def test_ci_calls_the_command_that_passes_the_tests() -> None:
    install, tests = console_commands()[1].split(" && ")
    script = (ROOT / ".ci" / "run").read_text()
    assert tests in script.splitlines() and install.removeprefix("pip install ") in script


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_named(name: str) -> None:
    assert f"`{name}" in README or f"ralph-rpc {name}" in README


@pytest.mark.parametrize("option", [option.name for option in OPTIONS if option.name != "pi-args"])
def test_every_option_is_named(option: str) -> None:
    assert f"--{option}" in README
