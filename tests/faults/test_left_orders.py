"""Orders that a crash left unfinished: whoever restarts the loop gets what was asked of it before."""

import json
from pathlib import Path

import pytest

from tests.faults.conftest import Note
from tests.rig import Rig, alive, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")


def crash(rig: Rig) -> None:
    """The runner dies; so does its tree."""
    pids = rig.pids()
    rig.kill(pids[0])
    wait_for("the end of all three", lambda: not any(map(alive, pids)))


def order(rig: Rig, verb: str, **body: str) -> None:
    rig.drop(f"{verb}.json", json.dumps({"id": "order", **body}))


def stopped(rig: Rig) -> bool:
    state = rig.wait_end()
    return (state["status"], state["stopReason"]) == ("stopped", "stop")


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "still in the inbox"])
def test_row_28_a_stop_from_before_a_crash_is_honoured_after_it(tmp_path: Path, taken: bool, figure: Note) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}], "never"])
    rig.start()
    if taken:
        order(rig, "stop")
        rig.wait_event("ralph_command", id="order", state="accepted")
    crash(rig)
    if not taken:
        order(rig, "stop")
    rig.run("resume", "x", check=None)
    assert stopped(rig)
    assert [r["outcome"] for r in rig.records()] == ["crashed"]
    assert rig.steps("order") == ["accepted", "delivered"]
    assert not list(rig.paths.rejected.iterdir())
    figure("honoured once")


@pytest.mark.parametrize(("verb", "body"), [("pause", {}), ("abort", {"then": "pause"})], ids=["pause", "abort"])
def test_row_28_a_pause_from_before_a_crash_is_honoured_after_it(
    tmp_path: Path, verb: str, body: dict[str, str]
) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}], "on\n<promise>COMPLETE</promise>"])
    rig.start()
    crash(rig)
    order(rig, verb, **body)
    rig.run("resume", "x", check=None)
    rig.wait_status("paused")
    assert rig.steps("order") == ["accepted", "delivered"]
    rig.run("resume", "x")
    assert rig.wait_end()["status"] == "completed"


def test_row_28_an_order_that_had_its_effect_before_the_crash_has_none_after_it(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}], ["more", {"hang": True}], "on\n<promise>COMPLETE</promise>"])
    rig.start()
    order(rig, "abort")
    rig.wait_step("order", "delivered")
    wait_for("the second iteration", lambda: rig.state()["iteration"] == 2)
    crash(rig)
    rig.run("resume", "x", check=None)
    assert rig.wait_end()["status"] == "completed"
    assert [r["outcome"] for r in rig.records()] == ["aborted", "crashed", "ok"]
    assert rig.steps("order") == ["accepted", "delivered"]
