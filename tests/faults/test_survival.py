"""A loop that runs survives an upgrade, the removal and the move of what it runs from, and works to its end."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.installation import ROOT, Installation
from tests.rig import Rig, fake_rig, wait_for
from tests.ticket_rig import HOLD, TicketRig, does, fake_tickets

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(240)]

MARKER = "<promise>COMPLETE</promise>"
WAYS: dict[str, Callable[[Installation], None]] = {
    "moved": Installation.move_away,
    "overwritten": Installation.overwrite,
    "removed": Installation.uninstall,
}


def hold(name: str) -> dict[str, Any]:
    """A tool call that waits until the test has made the file `name`."""
    return {"tool": "bash", "run": f"touch at-{name}; while [ ! -e {name} ]; do sleep 0.02; done"}


def at(rig: Rig, name: str) -> None:
    wait_for(f"the agent at {name}\n{rig.log()}", (rig.project / f"at-{name}").exists)


def go(rig: Rig, name: str) -> None:
    (rig.project / name).touch()


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installation]:
    yield Installation(tmp_path / "venv")


def started_from(installed: Installation, rig: Rig, *args: str) -> None:
    """`start` from the venv; the rig's later commands are those of another installation."""
    done = subprocess.run(
        [installed.python, "-P", "-m", "ralph_rpc", "start", rig.name, "--pi", rig.pi, *args],
        cwd=rig.project,
        env=rig.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + rig.log()
    loaded_from = Path(f"/proc/{rig.state()['pid']}/cmdline").read_bytes().split(b"\0")[0]
    assert os.fsdecode(loaded_from) == installed.python


def settle(rig: Rig) -> None:
    """What is loaded behind the first prompt is loaded."""
    pid = rig.state()["pid"]
    wait_for("the last module", lambda: b"_psutil" in Path(f"/proc/{pid}/maps").read_bytes())


@pytest.mark.parametrize("way", WAYS)
def test_a_task_loop_works_on_when_its_installation_is(tmp_path: Path, installed: Installation, way: str) -> None:
    claim = f"done\n{MARKER}"
    rig = fake_rig(
        tmp_path,
        [
            [hold("one"), {"tool": "bash", "run": "true", "bytes": 120_000}, claim],  # refused by verify: no `good`
            [{"exit": 3}],  # and pi is gone: another guard, from what is in memory
            [hold("two"), "not yet"],
            [hold("three"), {"tool": "bash", "run": "touch good", "bytes": 120_000}, claim],
        ],
    )
    notified = tmp_path / "notified"
    verify = "no-such-command || test -e good"
    started_from(
        installed, rig, "-m", "Work.", "--verify", verify, "--notify", f"cat >> {notified}", "--log-size", "64k"
    )
    at(rig, "one")
    settle(rig)
    WAYS[way](installed)
    go(rig, "one")
    at(rig, "two")
    assert [record["outcome"] for record in rig.records()] == ["ok", "crashed"], rig.log()
    assert rig.records()[0]["verify"]["exitCode"] == 1
    rig.run("steer", "x", "mind the gap")
    rig.run("pause", "x")
    go(rig, "two")
    rig.wait_status("paused")
    rig.run("resume", "x")
    at(rig, "three")
    go(rig, "three")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("completed", "verified"), (state["error"], rig.log())
    assert [len(record["steering"]) for record in rig.records()] == [0, 0, 1, 0]
    assert (rig.paths.dir / "events.jsonl.1").exists(), "it was not rotated"
    assert '"completed"' in notified.read_text()
    assert not [e for e in rig.of("ralph_notice") if e["level"] == "error"], rig.log()


def test_a_ticket_loop_works_on_when_its_venv_is_moved(tmp_path: Path, installed: Installation) -> None:
    rig: TicketRig = fake_tickets(tmp_path, {"t-1": [does(HOLD)], "t-2": [does(HOLD)]})
    for id in ("t-1", "t-2"):
        rig.add(id, id)
    rig.add("t-3", "t-3", deps=("t-1",))
    rig.commit()
    setup = tmp_path / "set-up"
    started_from(
        installed,
        rig,
        *("--tickets", "--parallel", "2", "--verify", "test -e $RALPH_TICKET.txt"),
        *("--worktree-setup", f"echo ${{RALPH_TICKETS+queue-of-}}$RALPH_TICKET >> {setup}"),
    )
    rig.wait_held("t-1", "t-2")
    settle(rig)
    installed.move_away()
    rig.let_go("t-1", "t-2")
    rig.check_done("t-1", "t-2", "t-3")
    # The merge queue's place is set up as well, for each commit that it verifies.
    own = [line for line in setup.read_text().split() if not line.startswith("queue-of-")]
    assert sorted(own) == ["t-1", "t-2", "t-3"]
    assert [record["outcome"] for record in rig.records()] == ["ok"] * 3


def test_a_loop_whose_installation_is_gone_obeys_a_stop(tmp_path: Path, installed: Installation) -> None:
    rig = fake_rig(tmp_path, [[hold("one"), "a"]])
    started_from(installed, rig, "-m", "Work.")
    at(rig, "one")
    settle(rig)
    installed.move_away()
    rig.run("stop", "x", "--now")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop"), rig.log()
    assert rig.of_mine() == {}


LOADED = """
import sys
import ralph_runner.__main__, ralph_runner.shell.runner, ralph_runner.shell.ticket_effects
import ralph_runner.shell.ticket_core, ralph_runner.core.tickets.snapshot, ralph_runner.shell.runnerlog, asyncio
from ralph_runner.shell.preload import load_rest
from ralph_rpc.machine.watch import Watch, ARRIVAL
from pathlib import Path
watch = Watch(Path("/"), ARRIVAL, print); watch.start(); watch.stop()
load_rest()
print("\\n".join(sorted(sys.modules)))
"""


def test_nothing_is_left_to_be_imported_later() -> None:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runner'}"}
    told = subprocess.run([sys.executable, "-P", "-c", LOADED], env=env, capture_output=True, text=True, check=True)
    loaded = set(told.stdout.split())
    ours = {name for name in loaded if name.partition(".")[0] in ("ralph_rpc", "ralph_runner")}
    late = {target for name in ours for target in imported_in_functions(name)}
    assert {target for target in late if target not in loaded} == set()
    assert late, "none were found"


def imported_in_functions(name: str) -> set[str]:
    """The modules that functions of a module import."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    found: set[str] = set()
    for function in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module is not None:
                    found.add(node.module)
    return found
