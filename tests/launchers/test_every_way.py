"""What is the same by whichever launcher pi runs: how it ended, and every line that it wrote. All of them real."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.launchers import machines
from tests.launchers import slurm as slurms
from tests.launchers.far import does, far_rig
from tests.launchers.test_boxes import NO_BWRAP, NO_PODMAN, image, in_bwrap, in_podman
from tests.rig import Rig

__all__ = ["image"]  # the fixture
pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(240)]

WHY_NOT = {"env": None, "bwrap": NO_BWRAP, "podman": NO_PODMAN, "srun": slurms.why_not(), "ssh": machines.why_not()}
WAYS = [
    pytest.param(way, marks=pytest.mark.skipif(reason is not None, reason=reason or ""))
    for way, reason in WHY_NOT.items()
]
OF_THE_WORK = {"message_update", "tool_execution_start", "tool_execution_end"}
"""Without those that repeat the prompt, which names the project."""
VOLATILE = ("timestamp", "sessionId", "sessionFile", "id", "responseId", "toolCallId", "ralph")
"""Members that are another at each run, whoever starts pi."""

By = Callable[[str, Rig], str]


@pytest.fixture
def by(tmp_path: Path, image: Path) -> Iterator[By]:
    """Makes what a way needs, and the rig run by it; the text of --launcher."""
    with ExitStack() as held:

        def made(way: str, rig: Rig) -> str:
            match way:
                case "bwrap":
                    return in_bwrap(rig)
                case "podman":
                    return in_podman(rig, image)
                case "srun":
                    rig.env |= held.enter_context(slurms.slurm()).env
                case "ssh":
                    two = held.enter_context(machines.machines(tmp_path / "machines"))
                    rig.started_by = two.near.inside(rig.project)
                    return machines.launcher(two.to())
                case _:
                    pass
            return way

        yield made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("ending", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_the_exit_code_is_pis(tmp_path: Path, by: By, way: str, ending: str, code: int) -> None:
    rig = far_rig(tmp_path, [])
    Path(rig.env["PI_CODING_AGENT_DIR"]).mkdir()  # as a box is shown it
    Path(rig.pi).write_text(f'#!/bin/sh\n[ "$1" != --version ] || exec echo 1.5.2\n{ending}\n')
    done = rig.start("--launcher", by(way, rig), check=None)
    if code < 0:  # killed by somebody: tried again
        assert rig.wait_event("ralph_pi_exit")["exitCode"] == code
        rig.run("kill", "x")
    else:
        assert done.returncode == 5 and f"exit code {code}" in done.stderr, done


@pytest.mark.parametrize("way", WAYS)
def test_the_log_is_that_of_a_pi_without_a_launcher(tmp_path: Path, by: By, way: str) -> None:
    script = [[*does("seq 1 3000; printf 'ünïcode \\342\\200\\250 and \\001'")[:-1], "Half of it."], does("true")]
    hashes = []
    for launcher in (None, way):
        folder = tmp_path / (launcher or "near")
        folder.mkdir()
        rig = far_rig(folder, script)
        Path(rig.env["PI_CODING_AGENT_DIR"]).mkdir()
        rig.start(*(["--launcher", by(launcher, rig)] if launcher else []))
        assert rig.wait_status("completed", "error", "stopped", timeout=120)["status"] == "completed", rig.log()
        of_pi = [plain(one) for one in rig.events() if one["type"] in OF_THE_WORK]
        assert {one["type"] for one in of_pi} == OF_THE_WORK
        hashes.append(hashlib.sha256(json.dumps(of_pi, sort_keys=True).encode()).hexdigest())
        told = of_pi
    assert hashes[0] == hashes[1], told


def plain(value: Any) -> Any:
    """Without what differs between any two runs."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key not in VOLATILE}
    return [plain(one) for one in value] if isinstance(value, list) else value
