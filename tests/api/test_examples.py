"""Every example in the documentation of the Python interface runs as it stands, on the fake pi."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ralph_rpc import api
from tests.rig import Rig, fake_rig, git
from tests.ticket_rig import fake_tickets

ROOT = Path(__file__).parents[2]
MARKER = "<promise>COMPLETE</promise>"
MAKEFILE = "test:\n\ttrue\n"

LOOP, TALK, TICKET = (
    textwrap.dedent(found) for found in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", api.__doc__ or "", re.MULTILINE)
)
README = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def run(example: str, rig: Rig) -> str:
    """What the example prints, as a program of its own in the project."""
    env = os.environ | {"PATH": f"{Path(rig.pi).parent}{os.pathsep}{os.environ['PATH']}"}
    code = example if "import api" in example else f"from ralph_rpc import api\n{example}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        check=False,
        cwd=rig.project,
        env=env,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.returncode, done.stderr) == (0, ""), rig.log()
    return done.stdout


def test_there_are_examples() -> None:
    assert README and all("api." in example for example in (LOOP, TALK, TICKET, *README))


@pytest.mark.parametrize("example", [LOOP, *README], ids=lambda _: "")
def test_a_loop_is_started_and_watched(tmp_path: Path, ending: list[Rig], example: str) -> None:
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": "echo x >> work.txt"}, "one step"], f"done\n{MARKER}"])
    (rig.project / "Makefile").write_text(MAKEFILE)
    ending.append(rig)
    shown = run(example, rig)
    assert "1 ok" in shown and "2 ok" in shown and "completed verified" in shown, shown


def test_a_loop_is_found_talked_to_and_stopped(tmp_path: Path, ending: list[Rig]) -> None:
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": "echo x >> work.txt; sleep 0.2"}, "on"]])
    ending.append(rig)
    loop = api.start("fix-tests", rig.project, task="Do it.", pi=rig.pi)
    assert run(TALK, rig) == "delivered\n"
    assert loop.status().shown == "stopped"


def test_a_ticket_is_launched_and_polled(tmp_path: Path, ending: list[Rig]) -> None:
    rig = fake_tickets(tmp_path)
    rig.add("pt-123")
    (rig.project / "Makefile").write_text(MAKEFILE)
    rig.commit()
    ending.append(rig)
    first, last = run(TICKET, rig).splitlines()
    assert first.startswith("pt-123 ticket-pt-123") and last == "True None eof"
    assert git(rig.project, "show", "main:pt-123.txt")
