"""Results and ends that come when nobody waits for them any more, and money that is told late."""

from typing import Any

import pytest

from ralph_runner.core import charges
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import Charged, PiExited, ToolStart, Usage
from ralph_runner.core.results import Terminate, Verified
from ralph_runner.core.run import Run
from ralph_runner.core.step import next_deadline
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.batch import Link
from tests.core.talk import MARKER, Talk, done
from tests.core.ticket_talk import World, ticket, verdict

RUN: Any = {"command": "make", "exitCode": 1, "durationMs": 1, "tail": "no"}
LATE = [
    results.Opened("a", "other", "/other", reused=False),
    results.WasSetUp("a", RUN),
    results.Committed("a", "problem"),
    results.Updated("a", "both"),
    results.BatchBuilt("h", "t", (Link("a", "c", "t"),)),
    results.BatchBuilt("h", "t", conflicts={"a": "both"}),
    results.BatchVerified(RUN),
    results.BatchLanded("commit"),
    results.BatchLanded(waits="in the way"),
    results.BatchFailed("no"),
    results.TicketClosed("a"),
    results.Removed("a", "busy"),
]


@pytest.mark.parametrize("late", LATE, ids=[f"{type(one).__name__} {n}" for n, one in enumerate(LATE)])
@pytest.mark.parametrize("where", ["working", "unknown"])
def test_a_result_that_no_job_waits_for_changes_nothing(late: Any, where: str) -> None:
    world = World(ticket("a" if where == "working" else "b", "x"), verify="make", worktreeSetup="npm ci")
    world.begin()
    before, count = world.loop, len(world.all)
    world.say(late)
    assert world.loop == before and len(world.all) == count


def test_a_failure_of_a_ticket_that_has_no_job_changes_nothing() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    before = world.loop
    world.say(results.JobFailed("b", "no"))
    assert world.loop == before


@pytest.mark.parametrize("status", ["waiting", "paused"])
def test_a_pi_that_ends_while_the_loop_rests_is_replaced_when_it_continues(status: str) -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    if status == "paused":
        talk.command("pause")
    talk.turn("", stop="error", error="503 no")
    talk.settle()
    assert talk.status == status
    talk.say(PiExited(0, "natural", ""))
    assert talk.loop.pi is None and talk.did(fx.Save) and talk.status == status
    if status == "paused":
        talk.command("resume", id="r")
    else:
        talk.due()
    assert talk.did(fx.StartPi)


def test_a_wait_ends_in_its_own_time_although_the_clock_was_set_back() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.exit(1)
    deadline = next_deadline(talk.loop)
    assert talk.status == "waiting" and deadline is not None
    talk.wall -= 3_600_000
    talk.later(deadline - talk.mono)
    assert talk.did(fx.StartPi)


def test_a_last_answer_that_reaches_a_limit_is_not_aborted() -> None:
    talk = Talk(maxCost=0.5)
    talk.boot()
    talk.accept()
    talk.turn("done", cost=0.5)
    assert not talk.ever_sent("abort")
    talk.settle()
    assert talk.records[-1]["outcome"] == "ok" and done(talk) == ("stopped", "max-cost")


def test_a_verification_that_could_not_be_run_ends_the_loop_and_is_no_work() -> None:
    talk = Talk(verify="make")
    talk.boot()
    talk.accept()
    talk.turn(MARKER)
    talk.settle()
    talk.say(Verified(None, own="the folder of the loop cannot be written"))
    record = talk.records[-1]
    assert (record["outcome"], record.get("errorKind")) == ("failed", "own")
    assert record.get("error") == "the folder of the loop cannot be written"
    assert done(talk) == ("error", "blocked") and talk.loop.error == "the folder of the loop cannot be written"
    assert talk.loop.stats["iterations"] == 0


def test_a_timeout_is_work_if_the_model_had_answered_or_a_tool_had_run() -> None:
    for happened, counted in (("nothing", 0), ("a turn", 1), ("a tool", 1)):
        talk = Talk(iterationTimeoutMs=60_000)
        talk.boot()
        talk.accept()
        if happened == "a turn":
            talk.turn("x", stop="toolUse")
        elif happened == "a tool":
            talk.say(ToolStart("t", "bash"))
        talk.later(60_000)
        talk.later(5_000)
        talk.say(PiExited(-15, "sigterm", ""))
        assert talk.records[-1]["outcome"] == "timeout"
        assert talk.loop.stats["iterations"] == counted, happened


def test_what_was_asked_for_and_is_answered_is_a_turn_and_nothing_is_open_any_more() -> None:
    run = Run(1, "work", 0, 0, 0, asking=True, begun=True, turns=2)
    answered = charges.answered(run)
    assert (answered.turns, answered.asking, answered.begun) == (3, False, False)
    cut = charges.cut(Run(1, "work", 0, 0, 0, asking=True, summarising=True))
    assert (cut.unpriced, cut.asking, cut.summarising) == (1, False, False)
    assert charges.cut(answered).unpriced == 0


def test_what_is_charged_after_a_tickets_iteration_is_its_cost_and_the_loops() -> None:
    world = World(ticket("a", "x"), maxCost=1.0, attempts=3)
    world.begin()
    world.attempt("a", "not yet", cost=0.25)
    world.command("pause", "p")
    world.attempt("a", "not yet", cost=0.25)
    assert verdict(world)[0] == "paused"
    world.say(results.From("a", Charged(Usage(0, 1, 0, 0, 0.25))))
    assert world.loop.stats["cost"] == 0.75 and world.loop.jobs["a"].record.get("cost") == 0.75
    amended = [e.effect for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.AmendRecord)]
    assert [e.record["cost"] for e in amended] == [0.5]
    world.say(results.From("a", Charged(Usage(0, 1, 0, 0, 0.25))))
    assert world.loop.ending is not None and world.loop.ending.stop_reason == "max-cost"


def test_a_merge_that_waits_and_is_tried_once_more_is_a_waiting_merge_all_the_while() -> None:
    world = World(ticket("a", "x"))
    world.waits["a"] = ["in the way"]
    world.begin()
    world.attempt("a")
    world.hold = {tx.BuildBatch}
    world.later(5_000)
    assert verdict(world)[0] == "waiting" and world.loop.error == "in the way"


def test_a_merge_that_has_to_wait_says_so_once_however_often_it_is_tried() -> None:
    world = World(ticket("a", "x"))
    world.waits["a"] = ["in the way"] * 3 + ["another"]
    world.begin()
    world.attempt("a")
    for _ in range(3):
        world.later(5_000)
    told = [(e["level"], e["ticket"], e["message"]) for e in world.events("ralph_notice")]
    assert told == [
        ("warning", "a", "the merge of a waits: in the way"),
        ("warning", "a", "the merge of a waits: another"),
    ]
    steps = [(e["to"], e.get("reason")) for e in world.events("ralph_ticket")]
    assert steps[-3:] == [("merging", None), ("merging", "in the way"), ("merging", "another")]


def test_a_second_attempt_is_no_change_of_the_ticket() -> None:
    world = World(ticket("a", "x"), attempts=3)
    world.begin()
    world.attempt("a", "not yet")
    world.attempt("a", "not yet")
    assert [e["to"] for e in world.events("ralph_ticket")] == ["claimed", "running"]


def test_a_conflict_that_outlasts_its_attempts_is_told_in_one_line() -> None:
    world = World(ticket("a", "x"), attempts=1)
    world.conflicts["a"] = ["both\n changed " + "f" * 400] * 9
    world.begin()
    world.attempt("a")
    assert len(world.prompts("a")) == 2
    world.attempt("a")
    assert world.statuses == {"a": "needs-merge"}
    assert world.loop.settled["a"]["error"] == ("both changed " + "f" * 400)[:300]


def test_a_merge_check_without_output_says_so() -> None:
    world = World(ticket("a", "x"), verify="make")
    world.hold = {tx.VerifyBatch}
    world.begin()
    world.target = ("other",)
    world.attempt("a")
    run: Any = {**RUN, "tail": " \n"}
    world.hold = set()
    world.say(results.BatchVerified(run))
    assert "The end of its output:\n\n(no output)" in world.prompts("a")[-1]


def test_a_loop_that_stops_says_why_while_it_stops() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.say(Terminate())
    assert verdict(world)[0] == "stopping" and world.loop.error == "the runner was told to end (SIGTERM)"
