"""The merge queue at work: real git and processes, agents of the fake pi."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.rig import git, wait_for
from tests.ticket_rig import HOLD, TicketRig, does, fake_tickets, hold

pytestmark = pytest.mark.usefixtures("no_leftovers")


def rig_of(tmp_path: Path, count: int, *before: str, **scripts: Any) -> TicketRig:
    """A loop's project with so many tickets, each in a component of its own; none is begun."""
    rig = fake_tickets(tmp_path, {"usual": [does(*before)], **{id.replace("_", "-"): s for id, s in scripts.items()}})
    for number in range(1, count + 1):
        rig.add(f"t-{number}", f"c{number}")
    rig.commit()
    return rig


def batches(rig: TicketRig, state: str) -> list[list[str]]:
    return [event["tickets"] for event in rig.of("ralph_batch") if event["state"] == state]


def queue_runs(rig: TicketRig) -> list[list[str]]:
    """What the queue's verify has seen, one list for each run."""
    return [event["tickets"] for event in rig.of("ralph_verify") if "tickets" in event]


def fill(rig: TicketRig, *ids: str) -> None:
    """The queue is held in its verify of t-2, and these wait behind it."""
    rig.wait_held("t-1", "t-2", *ids)
    rig.let_go("t-1")
    rig.wait_dispatch("t-1", "closed")
    rig.let_go("t-2")
    rig.wait_held("first", at="queue")
    for id in ids:
        rig.let_go(id)
        rig.wait_queued(id)


FIRST = f'[ "$RALPH_TICKETS" != t-2 ] || {{ {hold("queue", "first")}; }}'
"""The queue's verify of t-2 waits until the test lets it go."""


def test_what_waits_lands_together_after_one_verify_and_is_shown_meanwhile(tmp_path: Path) -> None:
    rig = rig_of(tmp_path, 5, HOLD)
    more = f'[ "$RALPH_TICKETS" != "t-3 t-4 t-5" ] || {{ {hold("queue", "more")}; }}'
    rig.begin("--parallel", "5", "--verify", f"{FIRST}; {more}")
    fill(rig, "t-3", "t-4", "t-5")
    assert "verifying t-2" in rig.run("tickets", "x").stdout and "in the merge queue" in rig.run("tickets", "x").stdout
    rig.let_go("first", at="queue")
    rig.wait_held("more", at="queue")
    assert "merge queue: verifying t-3, t-4, t-5 for" in rig.run("tickets", "x").stdout
    assert "verifying t-3, t-4, t-5 for" in rig.run("status", "x").stdout
    assert rig.state()["tickets"]["batch"]["tickets"] == ["t-3", "t-4", "t-5"]
    rig.let_go("more", at="queue")
    ids = [f"t-{number}" for number in range(1, 6)]
    rig.check_done(*ids)
    assert batches(rig, "landed") == [["t-1"], ["t-2"], ["t-3", "t-4", "t-5"]]
    assert queue_runs(rig) == [["t-2"], ["t-3", "t-4", "t-5"]]
    first = git(rig.project, "log", "--first-parent", "--format=%s", "-4", "main").splitlines()
    assert first == [f"Merge t-{number}: Do t-{number}" for number in (5, 4, 3, 2)]
    assert rig.dispatch("t-5")["waitedMs"] >= 0 and rig.dispatch("t-5")["queuedAt"] is None
    assert "t-3, t-4, t-5: landed" in rig.run("logs", "x", "--tail", "999").stdout.replace("merge of ", "")
    assert "## Merges" in rig.run("report", "x", "--format", "md").stdout


def test_the_one_that_breaks_with_another_goes_back_and_the_rest_land_meanwhile(tmp_path: Path) -> None:
    repairs = [does(HOLD), does(hold("repair"), "touch repaired")]
    rig = rig_of(tmp_path, 5, HOLD, t_4=repairs)
    apart = "test -e repaired || ! { test -e t-3.txt && test -e t-4.txt; }"
    rig.begin("--parallel", "5", "--verify", f"{FIRST}; {apart} || {{ echo t-3 and t-4 do not go together; exit 3; }}")
    fill(rig, "t-3", "t-4", "t-5")
    rig.let_go("first", at="queue")
    rig.wait_held("t-4", at="repair")
    rig.wait_dispatch("t-3", "closed")
    rig.wait_dispatch("t-5", "closed")
    prompt = next(e for e in reversed(rig.events()) if e["type"] == "message_start" and e["message"]["role"] == "user")
    assert "with t-1, t-2, t-3; then" in str(prompt) and "do not go together" in str(prompt)
    rig.let_go("t-4", at="repair")
    rig.check_done(*(f"t-{number}" for number in range(1, 6)))
    assert rig.merges() == Counter(f"t-{number}" for number in range(1, 6))
    assert batches(rig, "red") == [["t-3", "t-4", "t-5"], ["t-3", "t-4"]] or batches(rig, "red")[0] == [
        "t-3",
        "t-4",
        "t-5",
    ]


def test_suites_that_share_a_lock_send_nobody_back_and_run_one_at_a_time_from_then_on(tmp_path: Path) -> None:
    rig = rig_of(tmp_path, 4, HOLD)
    ids = [f"t-{number}" for number in range(1, 5)]
    lock = "$RALPH_LOOP_DIR/suite.lock"
    # Whoever finds the lock is red, as is a suite that finds its port in use.
    rig.begin("--parallel", "4", "--verify", f"mkdir {lock} || exit 1; sleep 0.5; rmdir {lock}")
    rig.wait_held(*ids)
    rig.let_go(*ids)
    rig.check_done(*ids)
    assert all(len(rig.attempts(id)) == 1 for id in ids)
    assert rig.state()["tickets"]["verifyAlone"] is True
    assert any("red beside another one and green alone" in event["message"] for event in rig.of("ralph_notice"))


def test_a_target_that_is_red_by_itself_holds_the_loop_until_it_is_repaired(tmp_path: Path) -> None:
    rig = rig_of(tmp_path, 3, HOLD)
    rig.begin("--parallel", "2", "--verify", "test ! -e broken")
    rig.wait_held("t-1", "t-2")
    (rig.project / "broken").touch()
    git(rig.project, "add", "broken")
    git(rig.project, "commit", "-qm", "breaks everything")
    rig.let_go("t-1", "t-2")
    for id in ("t-1", "t-2"):
        wait_for(f"{id} waits", lambda id=id: "does not pass" in (rig.dispatch(id).get("error") or ""))  # type: ignore[misc]
    assert batches(rig, "target-red") == [[]] or len(batches(rig, "target-red")) <= 2
    git(rig.project, "rm", "-q", "broken")
    git(rig.project, "commit", "-qm", "repaired")
    rig.wait_dispatch("t-1", "closed")
    rig.let_go("t-3")
    rig.check_done("t-1", "t-2", "t-3")
    assert all(len(rig.attempts(id)) == 1 for id in ("t-1", "t-2", "t-3"))


def test_a_persons_file_in_the_way_of_one_ticket_does_not_hold_up_the_others(tmp_path: Path) -> None:
    rig = rig_of(tmp_path, 3, HOLD)
    (rig.project / "t-2.txt").write_text("a person's\n")
    rig.begin("--parallel", "3")
    rig.wait_held("t-1", "t-2", "t-3")
    rig.let_go("t-2")
    wait_for("t-2 waits", lambda: "t-2.txt" in (rig.dispatch("t-2").get("error") or ""))
    rig.let_go("t-1", "t-3")
    rig.wait_dispatch("t-1", "closed")
    rig.wait_dispatch("t-3", "closed")
    assert (rig.project / "t-2.txt").read_text() == "a person's\n"
    (rig.project / "t-2.txt").unlink()
    rig.check_done("t-1", "t-2", "t-3")
