"""The runner of a ticket loop is killed, or told to stop at once, at every step from claim to removal.

Whatever the instant, a `resume` ends where a run without the fault would have: every ticket merged exactly once and
closed, no work done again that was committed, no worktree, branch or process left, the user's own edits as they were.
What git itself leaves when it is killed is for the tests of merges.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Note
from tests.faults.tiers import times
from tests.rig import alive, wait_for
from tests.ticket_rig import (
    BATCH_STEPS,
    GROWTH_STEPS,
    HOLD,
    MARKER,
    STEPS,
    GrowingBatch,
    Held,
    HeldBatch,
    TicketRig,
    does,
    fake_tickets,
    hold,
    with_own_edits,
)

pytestmark = pytest.mark.usefixtures("no_leftovers")
Held_at = Callable[[str], Held]


@pytest.fixture
def held_at(tmp_path: Path) -> Iterator[Held_at]:
    """A loop on the fake pi that was brought to a step; what is held is let go in the end."""
    made: list[Held] = []

    def bring(step: str) -> Held:
        scripts = {id: [does(*before)] for id, before in Held.AGENTS.items()}
        held = Held(tmp_path / "gate", fake_tickets(tmp_path, scripts), STEPS[step])
        made.append(held)
        held.reach()
        return held

    yield bring
    for held in made:
        held.open()


def some_of(steps: Iterable[str], *quick: str) -> pytest.MarkDecorator:
    """All of the steps in the full tier, these in every run."""
    assert set(quick) <= set(steps)
    full = [pytest.mark.full]
    return pytest.mark.parametrize("step", [pytest.param(one, marks=[] if one in quick else full) for one in steps])


def kill_and_resume(held: Held | HeldBatch | GrowingBatch) -> None:
    """The runner is killed, and the git that is held; the next runner has the end that there would have been."""
    held.rig.kill_runner()
    if held.step.gates:
        held.gate.kill()
    held.open()
    held.rig.resume()
    held.check()


@some_of(STEPS, "running", "before its commit", "after the checkout moved", "merged, not closed")
def test_row_42_a_runner_killed_at_a_step_is_followed_by_one_that_ends_in_the_same_state(
    held_at: Held_at, step: str
) -> None:
    held = held_at(step)
    kill_and_resume(held)


@pytest.fixture
def batch_at(tmp_path: Path) -> Iterator[Callable[[str], HeldBatch]]:
    """A loop whose batch was brought to a step; what is held is let go in the end."""
    made: list[HeldBatch] = []

    def bring(step: str) -> HeldBatch:
        made.append(HeldBatch(tmp_path, BATCH_STEPS[step]))
        made[-1].reach()
        return made[-1]

    yield bring
    for held in made:
        held.open()


@some_of(BATCH_STEPS, "before its second merge", "verifying all of it", "before its first half lands")
def test_row_42_a_runner_killed_at_a_step_of_a_batch_is_followed_by_one_that_ends_in_the_same_state(
    batch_at: Callable[[str], HeldBatch], step: str
) -> None:
    held = batch_at(step)
    kill_and_resume(held)


@pytest.fixture
def growing_at(tmp_path: Path) -> Iterator[Callable[[str], GrowingBatch]]:
    """A loop whose batch grows while it is verified, brought to a step of that; what is held is let go in the end."""
    made: list[GrowingBatch] = []

    def bring(step: str) -> GrowingBatch:
        made.append(GrowingBatch(tmp_path, GROWTH_STEPS[step]))
        made[-1].reach()
        return made[-1]

    yield bring
    for held in made:
        held.open()


@some_of(GROWTH_STEPS, "ending the verify that is started over")
def test_row_42_a_runner_killed_while_its_batch_grows_is_followed_by_one_that_ends_in_the_same_state(
    growing_at: Callable[[str], GrowingBatch], step: str
) -> None:
    held = growing_at(step)
    kill_and_resume(held)


@some_of(GROWTH_STEPS, "verifying the batch that has grown")
def test_a_batch_that_is_stopped_at_once_while_it_grows_goes_on_from_there(
    growing_at: Callable[[str], GrowingBatch], step: str
) -> None:
    held = growing_at(step)
    held.rig.run("stop", "x", "--now")
    held.rig.wait_event("ralph_command", command="stop", state="accepted")
    held.gate.open()
    state = held.rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop"), state
    assert held.rig.merges() == {"t-1": 1}, "nothing lands that was not verified"
    held.open()
    held.rig.resume()
    held.check()


@some_of(BATCH_STEPS, "verifying its first half")
def test_a_batch_that_is_stopped_at_once_at_a_step_goes_on_from_there(
    batch_at: Callable[[str], HeldBatch], step: str
) -> None:
    held = batch_at(step)
    held.rig.run("stop", "x", "--now")
    held.rig.wait_event("ralph_command", command="stop", state="accepted")
    held.gate.open()
    state = held.rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop"), state
    assert not any(path.name == "_queue" for path in map(Path, held.rig.worktrees())), "its own place goes with it"
    held.open()
    held.rig.resume()
    held.check()


GITS = [name for name, step in STEPS.items() if step.gates and step.gates[-1][0] == "before"]


@some_of(GITS, "before it lands")
def test_row_42_a_git_that_a_killed_runner_left_does_no_harm_beside_the_next_one(held_at: Held_at, step: str) -> None:
    held = held_at(step)
    held.rig.kill_runner()
    held.rig.resume()
    held.open()
    held.check()


@some_of(STEPS, "running", "verifying the merge")
def test_a_loop_stopped_at_once_at_a_step_goes_on_from_there(held_at: Held_at, step: str) -> None:
    held = held_at(step)
    rig = held.rig
    rig.run("stop", "x", "--now")
    rig.wait_event("ralph_command", command="stop", state="accepted")
    held.gate.open()
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop"), state
    wait_for("the end of all processes", lambda: not rig.of_mine(), timeout=20)
    rig.resume()
    held.open()
    held.check()


@pytest.mark.parametrize("how", ["killed", pytest.param("stopped", marks=pytest.mark.full)])
def test_a_merged_tree_whose_verification_did_not_end_does_not_land(tmp_path: Path, how: str) -> None:
    rig = fake_tickets(tmp_path, {id: [does(HOLD)] for id in ("t-1", "t-2")})
    rig.add("t-1", "one")
    rig.add("t-2", "two")
    rig.commit()
    apart = "! { test -e t-1.txt && test -e t-2.txt; }"
    verify = f"if [ $RALPH_TICKET = t-2 ] && {STEPS['verifying the merge'].verify}; then {hold('verify')}; fi; {apart}"
    rig.begin("--parallel", "2", "--attempts", "1", "--verify", verify)
    rig.wait_held("t-1", "t-2")
    rig.let_go("t-1")
    rig.wait_dispatch("t-1", "closed")
    rig.let_go("t-2")
    rig.wait_held("t-2", at="verify")
    if how == "killed":
        rig.kill_runner()
    else:
        rig.run("stop", "x", "--now")
        rig.wait_end()
    rig.let_go("t-2", at="verify")
    rig.resume()
    assert rig.wait_end()["status"] == "error"
    assert rig.merges() == {"t-1": 1}
    assert rig.dispatch("t-2")["status"] == "needs-merge"
    rig.check_whole()


def test_what_needed_a_merge_goes_back_to_no_more_agents_at_once_than_there_are_places(tmp_path: Path) -> None:
    ids = [f"t-{n}" for n in range(1, 5)]
    gives_up = [{"tool": "bash", "run": "sleep 0.5"}, f"cannot\n{MARKER}"]
    rig = fake_tickets(tmp_path, {id: [does(HOLD, f"echo {id} > app.txt"), gives_up] for id in ids})
    for id in ids:
        rig.add(id, id)
    rig.commit()
    rig.begin("--parallel", "4", "--attempts", "1")
    rig.wait_held(*ids)
    rig.let_go(*ids)
    assert rig.wait_end()["tickets"]["needsMerge"] == 3
    rig.resume("--parallel", "1")
    state = rig.wait_end()
    assert state["tickets"]["needsMerge"] == 3
    assert (rig.seen().most, most_agents(rig)) == (1, 1)
    assert sorted(len(rig.attempts(id)) for id in ids) == [1, 3, 3, 3]
    rig.check_whole()


def most_agents(rig: TicketRig) -> int:
    """How many worked at one time under the last runner, as their pis say. A pi may end while the next one begins."""
    most, at_work = 0, set[str]()
    for event in rig.events():
        if event["type"] == "ralph_loop_start":
            most, at_work = 0, set()
        elif event["type"] == "agent_start":
            at_work.add(event["ralph"]["ticket"])
        elif event["type"] == "agent_end":
            at_work.discard(event["ralph"]["ticket"])
        most = max(most, len(at_work))
    return most


TICKETS = {f"t-{n}": (("one", "two", "three")[n % 3],) for n in range(1, 8)}
KILLS = 3
"""In one life."""


def live(folder: Path, seed: int) -> int:
    """A loop whose runner is killed some times; how often it was."""
    folder.mkdir()
    dice = random.Random(seed)
    rig = fake_tickets(folder, {"usual": [does("sleep 0.1")]}, tracked=bool(seed % 2))
    for id, components in TICKETS.items():
        rig.add(id, *components, deps=("t-1", "t-2") if id == "t-7" else ())
    with_own_edits(rig.project)
    own = rig.users_own()
    rig.begin("--parallel", "3", "--verify", "test -e $RALPH_TICKET.txt")
    kills = 0
    for _ in range(KILLS):
        time.sleep(dice.uniform(0, 1.2))
        if rig.state()["status"] in ("completed", "error") or not alive(rig.state()["pid"]):
            break
        rig.kill_runner()
        kills += 1
        rig.resume()
    rig.check_done(*TICKETS)
    assert rig.users_own() == own
    rig.seen(TICKETS)
    return kills


@times(quick=3, full=60)
def test_row_42_a_runner_killed_at_any_instant_merges_every_ticket_once(
    tmp_path: Path, count: int, figure: Note
) -> None:
    kills = lives = 0
    while kills < count:
        kills += live(tmp_path / f"{lives}", lives)
        lives += 1
    figure(f"{kills} kills in {lives} lives of {len(TICKETS)} tickets, all merged once")


WORDS = 1500
LONG = 1_500_000
"""Characters: such a line comes in pieces."""


def test_a_log_that_several_pis_write_keeps_every_line_whole_and_with_its_ticket_when_it_rotates(
    tmp_path: Path,
) -> None:
    def chatty(id: str) -> list[object]:
        run = f"echo work of {id} >> {id}.txt"
        return [
            {"tool": "bash", "run": run, "output": f"<{id}>" * (LONG // len(f"<{id}>"))},
            {"reply": f"I am {id}", "deltas": WORDS},
            {"reply": f"done, says {id}\n{MARKER}"},
        ]

    ids = [f"t-{n}" for n in range(1, 7)]
    rig = fake_tickets(tmp_path, {id: [chatty(id)] for id in ids})
    for id in ids:
        rig.add(id, id)
    rig.commit()
    rig.begin("--parallel", "3", "--log-size", "100K", "--log-keep", "1000")
    rig.check_done(*ids)
    assert len(list(rig.paths.dir.glob("events.jsonl.*"))) > 5, "it has rotated"
    words: Counter[str] = Counter()
    for event in rig.events():
        if "ralph" not in event:
            continue
        id = event["ralph"]["ticket"]
        text = json.dumps(event)
        assert not [other for other in ids if other != id and f"{other}>" in text], "a line of two tickets"
        words[id] += event["type"] == "message_update" and event["assistantMessageEvent"].get("delta", "").startswith(
            "tok"
        )
    assert words == dict.fromkeys(ids, WORDS)
