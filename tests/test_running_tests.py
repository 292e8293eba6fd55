"""Running the tests does what the README says of it: collecting installs nothing, and the profiles are chosen as named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TELLS = """
from hypothesis import settings
from tests.effort import examples, register_profiles
register_profiles()
print(settings().max_examples, examples(1_000), examples(2))
"""


@pytest.mark.parametrize(("env", "told"), [({}, "20 200 1"), ({"CI": "true"}, "100 1000 2")])
def test_property_tests_try_more_in_ci(env: dict[str, str], told: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", TELLS], cwd=ROOT, env=inherited | env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == told


def run_tests_of_pi(folder: Path, *options: str) -> tuple[str, str]:
    """Runs those of one file with a cache of pis that is empty and an npm that only notes its call.

    Returns what pytest printed, and what npm was called with.
    """
    tools, called = folder / "bin", folder / "called"
    tools.mkdir()
    npm = tools / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {called}\nexit 1\n')
    npm.chmod(0o755)
    env = os.environ | {
        "RALPH_TEST_PI_CACHE": str(folder / "cache"),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "pi", *options]
    tests = "tests/real_pi/test_provisioning.py"
    done = subprocess.run([*argv, tests], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.stdout, called.read_text() if called.exists() else ""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "workers"])
def test_collecting_tests_of_real_pi_installs_none(tmp_path: Path, workers: list[str]) -> None:
    said, called = run_tests_of_pi(tmp_path, "--collect-only", *workers)
    assert "test_the_installer_provides_a_real_pi_that_runs" in said
    assert called == "" and not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "workers"])
def test_running_tests_of_real_pi_installs_it_before_the_first(tmp_path: Path, workers: list[str]) -> None:
    said, called = run_tests_of_pi(tmp_path, "-k", "the_installer_provides and 0.73.1", *workers)
    assert "1 failed" in said and "pi could not be installed" in said
    assert "@0.73.1" in called
    assert "@0.87.1" in called, "all of them, which no single test asks for"
