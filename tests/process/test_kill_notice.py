"""An end by a signal notifies, unless the signal came from this program's own `kill`."""

import os
import signal
from pathlib import Path

import pytest

from tests.rig import Rig, fake_rig

pytestmark = pytest.mark.usefixtures("no_leftovers")
NOTIFY = 'echo "$RALPH_MESSAGE" >> "$RALPH_LOOP_DIR/told"'


def begun(tmp_path: Path) -> Rig:
    rig = fake_rig(tmp_path, [[{"hang": True}]])
    rig.start("--notify", NOTIFY)
    rig.wait_status("running")
    return rig


def told(rig: Rig) -> str:
    file = rig.paths.dir / "told"
    return file.read_text() if file.exists() else ""


def test_a_signal_from_elsewhere_notifies(tmp_path: Path) -> None:
    rig = begun(tmp_path)
    os.kill(rig.state()["pid"], signal.SIGTERM)
    assert rig.wait_end()["stopReason"] == "kill"
    assert "x: was ended from outside: the runner was told to end (SIGTERM)" in told(rig)


def test_a_kill_that_was_ordered_does_not(tmp_path: Path) -> None:
    rig = begun(tmp_path)
    rig.run("kill", "x")
    assert rig.wait_end()["stopReason"] == "kill"
    assert told(rig) == "" and not rig.paths.kill_order.exists()


def test_what_a_dead_kill_left_is_no_order(tmp_path: Path) -> None:
    rig = begun(tmp_path)
    rig.run("stop", "x", "--now")
    rig.wait_end()
    rig.paths.kill_order.touch()
    rig.run("resume", "x")
    rig.wait_status("running")
    os.kill(rig.state()["pid"], signal.SIGTERM)
    rig.wait_end()
    assert "was ended from outside" in told(rig)
