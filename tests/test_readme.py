"""The README tells the truth: its commands work word for word, and it names all there is."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from ralph_rpc.cli.main import COMMANDS, program
from ralph_rpc.options.table import OPTIONS
from ralph_rpc.pi.find import OLDEST
from ralph_rpc.pi.install import PINNED
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
    command = "pip install '.[pi]' && ralph-rpc demo --yes"
    assert command in console_commands()
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
    [both] = [command for command in console_commands() if "pytest" in command]
    install, tests = both.split(" && ")
    script = (ROOT / ".ci" / "run").read_text()
    assert tests in script.splitlines() and install.removeprefix("pip install ") in script


def test_the_workflow_runs_it_on_every_python_that_the_package_names() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    runs = {name: [step.get("run") for step in job["steps"]] for name, job in jobs.items()}
    assert ".ci/run" in runs["all"] and ".ci/lowest" in runs["lowest"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert jobs["all"]["strategy"]["matrix"]["python"] == named
    oldest = project["requires-python"].removeprefix(">=")
    assert oldest == named[0] and jobs["lowest"]["container"]["image"].startswith(f"python:{oldest}-")


def test_the_oldest_and_the_newest_pi_that_it_names_are_those_of_the_installer() -> None:
    assert f"pi {OLDEST} to {PINNED[0][1]} " in README
    assert PINNED[-1][1] == OLDEST


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_named(name: str) -> None:
    assert f"`{name}" in README or f"ralph-rpc {name}" in README


@pytest.mark.parametrize("option", [option.name for option in OPTIONS if option.name != "pi-args"])
def test_every_option_is_named(option: str) -> None:
    assert f"--{option}" in README


def test_it_begins_with_the_tool_the_doctor_and_a_loop_with_a_limit() -> None:
    commands = console_commands()
    first = ["pipx install '.[pi]'", "ralph-rpc doctor", "ralph-rpc completion --install"]
    assert commands[:3] == first and re.fullmatch(r"ralph-rpc start .* --max-cost \d+", commands[3])


def commands_in(words: list[str]) -> list[list[str]]:
    """The words of each command of a line."""
    found: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "|"):
            found.append([])
        else:
            found[-1].append(word)
    return found


def test_every_command_that_it_shows_is_read_as_the_program_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[list[str]] = []
    for line in re.findall(r"^\$ (.+)$", README.replace("\\\n", " "), re.MULTILINE):
        calls += [words[1:] for words in commands_in(shlex.split(line, comments=True)) if words[0] == "ralph-rpc"]
    assert len(calls) > 20
    for args in calls:
        with click.Context(program, info_name="ralph-rpc", help_option_names=["-h", "--help"]) as ctx:
            found, command, rest = program.resolve_command(ctx, args)
            assert command is not None
            command.make_context(found, rest, ctx).close()
