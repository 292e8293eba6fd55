"""A core test that fails tells what was said."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAILING = """\
from tests.core.talk import Talk
from tests.core.ticket_talk import World, ticket


def test_a_task_loop():
    talk = Talk()
    talk.boot()
    talk.later(2_500)
    talk.command("steer", message="look here")
    assert talk.status == "paused"


def test_a_ticket_loop():
    world = World(ticket("a", "x"))
    world.begin()
    assert world.merged


def test_that_passes():
    Talk().boot()
"""


def test_a_failing_test_shows_its_inputs_and_the_effects_of_each(tmp_path: Path) -> None:
    (tmp_path / "test_failing.py").write_text(FAILING)
    plugins = ["-p", "no:cacheprovider", "-p", "tests.core.conftest"]
    command = [sys.executable, "-m", "pytest", *plugins, str(tmp_path)]
    told = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert "2 failed, 1 passed" in told, told
    task, tickets = told.split("test_a_ticket_loop", 1)
    lines = task[task.index("conversation 1 of 1 with the core") :].splitlines()
    assert "    0.000 s > Begin()" in lines
    assert lines[lines.index("    0.000 s > Begin()") + 1] == "            < StartPi(model=None)"
    (steered,) = [n for n, line in enumerate(lines) if line.startswith("    2.500 s > CommandCame(id='c1'")]
    assert lines[steered + 1].startswith("            < Emit(event={'type': 'ralph_command'")
    assert "< OpenWorktree(ticket='a', branch='ralph/x/a')" in tickets
