"""What people type all day starts fast: it loads none of the heavy modules. No milliseconds are counted."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from ralph_rpc.files import registry
from tests.cli import forged

HEAVY = {"pydantic", "asyncio", "watchdog", "psutil", "rich", "textual", "platformdirs", "wcwidth"}
SPARED = {"difflib", "traceback", "hashlib", "subprocess", "logging", "tempfile", "socket", "tomllib", "argparse"}
"""Smaller, but needed only for errors, or by what starts a runner."""
OWN = {
    "list": {"cli", "clock", "errors", "files", "loops", "machine", "model", "story", "terminal"},
    "status": {"cli", "clock", "errors", "files", "loops", "machine", "model", "story", "terminal"},
    "stop": {"cli", "clock", "errors", "files", "loops", "machine", "model", "options", "story", "terminal"},
}
"""The parts of ralph_rpc that a command may load; whatever else it pulls in, all that type it pay for."""
PROBE = """
import sys
from ralph_rpc.cli.main import run
code = run(sys.argv[1:])
print("LOADED", code, *sorted(sys.modules))
"""


@pytest.mark.parametrize(
    "args",
    [
        ["list"],
        ["list", "--all"],
        ["list", "--json"],
        ["status"],
        ["status", "api"],
        ["status", "api", "--json"],
        ["stop", "api"],
        ["stop", "api", "--wait", "--timeout", "0"],
        ["steer", "api", "hello"],
        ["abort", "api"],
        ["pause", "api"],
        ["resume", "api"],
        ["followup", "api", "hello"],
        ["logs", "api", "-n", "5"],
        ["logs", "api", "--raw"],
        ["--version"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_an_everyday_command_loads_nothing_heavy(tmp_path: Path, args: list[str]) -> None:
    status = "paused" if args[0] == "resume" else "running"
    paths = forged.loop(tmp_path, "api", alive=True, status=status)
    forged.register(registry.entry_path(tmp_path, "api").stem, forged.entry(tmp_path, "api", alive=True))
    forged.write_log(paths, [{"type": "ralph_notice", "at": 1, "level": "info", "message": "hello"}])
    env = forged.program()[1]
    with ExitStack() as held:
        held.enter_context(forged.runner_of(paths))
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *args],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    told = next(line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    _, code, *loaded = told.split()
    assert code == ("124" if "--wait" in args else "0"), done
    tops = {name.partition(".")[0] for name in loaded}
    assert HEAVY & tops == set()
    if args[0] != "resume":
        # click itself looks for similar options before it finds that -n is a short one.
        assert SPARED & tops <= ({"difflib"} if "-n" in args else set())
    if args[0] in OWN:
        assert {name.split(".")[1] for name in loaded if name.startswith("ralph_rpc.")} <= OWN[args[0]]


def test_pi_waits_for_nothing_that_the_runner_needs_only_later() -> None:
    code = "import sys, ralph_runner.__main__; print(*sorted(sys.modules))"
    env = forged.program()[1] | {"PYTHONPATH": f"{forged.ROOT}{os.pathsep}{forged.ROOT / 'runner'}"}
    loaded = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True)
    tops = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert tops & (HEAVY | {"orjson", "dataclasses", "inspect", "tempfile", "shutil", "logging", "datetime"}) == set()
    assert "ralph_runner.shell.takeover" in loaded.stdout.split()


def test_a_task_loop_loads_nothing_of_tickets_while_its_pi_boots() -> None:
    code = "import sys, ralph_runner.shell.runner; print(*sorted(sys.modules))"
    env = forged.program()[1] | {"PYTHONPATH": f"{forged.ROOT}{os.pathsep}{forged.ROOT / 'runner'}"}
    loaded = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True)
    ours = {name for name in loaded.stdout.split() if name.startswith("ralph_runner.")}
    assert "ralph_runner.core.step" in ours
    assert {name for name in ours if ".tickets" in name or ".ticket_" in name} == set()
    assert "psutil" not in loaded.stdout.split()


def test_the_probe_sees_what_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "schema"],
        cwd=tmp_path,
        env=forged.program()[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pydantic" in done.stdout.splitlines()[-1].split()
