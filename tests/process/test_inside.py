"""What an agent asks of the very loop that it works in, from one of its tools."""

import sys
from pathlib import Path

import pytest

from tests.rig import fake_rig

pytestmark = pytest.mark.usefixtures("no_leftovers")
PROGRAM = f"{sys.executable} -P -m ralph_rpc"
ASKED = [
    "stop x --wait",
    "stop --all --wait",
    "wait x",
    "kill x",
    "attach x",
    "pause x --wait",
    "steer x hi --wait",
    "logs x -f",
]


@pytest.mark.parametrize("asked", ASKED)
def test_what_would_wait_for_its_own_end_is_refused_with_one_line(tmp_path: Path, asked: str) -> None:
    run = f"timeout 20 {PROGRAM} {asked} >said 2>&1; echo $? >>said"
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": run}, "done"]])
    rig.start("-n", "1")
    assert rig.wait_end()["stopReason"] == "max-iterations"
    line, code = (rig.project / "said").read_text().splitlines()
    assert line.startswith("ralph-rpc: ") and "inside loop 'x' itself" in line
    assert code == "2"


def test_a_plain_stop_of_its_own_loop_is_fine(tmp_path: Path) -> None:
    run = f"{PROGRAM} stop x >said 2>&1; echo $? >>said"
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": run}, "done"]])
    rig.start()
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop")
    assert (rig.project / "said").read_text().splitlines() == [
        f"x: will stop after this iteration ({rig.project})",
        "0",
    ]
