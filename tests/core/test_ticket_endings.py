"""Conversations about the status of a ticket loop, its end, and what it tells a person then."""

from pathlib import Path

import pytest

from ralph_rpc.tickets.ticket import Backlog, BadTicket
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.results import Broken, PiSpawned, SpawnFailed, Terminate
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.step import next_deadline
from tests.core.test_ticket_records import record
from tests.core.ticket_talk import World, ticket, verdict


def statuses(world: World) -> list[tuple[str, str, str | None]]:
    return [(e["from"], e["to"], e.get("reason")) for e in world.events("ralph_status")]


def test_the_status_changes_once_for_each_change_and_the_end_is_told_last() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.attempt("a")
    assert statuses(world) == [("starting", "running", None), ("running", "completed", None)]
    last = [e.event for e in world.all if isinstance(e, fx.Emit)][-1]
    assert dict(last) == {
        "type": "ralph_loop_end",
        "at": world.wall,
        "status": "completed",
        "stopReason": "tickets-done",
        "error": None,
    }
    assert world.all[-1] == fx.Finish("completed")


def test_nothing_happens_any_more_after_the_end() -> None:
    world = World()
    world.begin()
    assert verdict(world) == ("completed", "tickets-done") and next_deadline(world.loop) is None
    count = len(world.all)
    world.later(1_000_000)
    world.command("stop")
    assert len(world.all) == count


def test_a_loop_is_shown_as_running_by_the_first_answer_or_after_four_seconds_of_worktrees() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.later(3_999)
    assert verdict(world)[0] == "starting"
    world.later(1)
    assert verdict(world)[0] == "running"


def test_a_worker_that_starts_pi_keeps_the_loop_starting_until_pi_has_worked_for_four_seconds() -> None:
    world = World(ticket("a", "x"))
    world.hold = {fx.StartPi}
    world.begin()
    world.later(10_000)
    assert verdict(world)[0] == "starting", "a pi that cannot start is no running loop"
    world.hold = set()
    world.say(results.From("a", PiSpawned(101, "1.5.2", ("pi",), 1.0)))
    assert verdict(world)[0] == "starting"
    world.later(4_000)
    assert verdict(world)[0] == "running"


def test_tickets_that_need_a_person_are_told_with_their_reasons_up_to_three() -> None:
    world = World(*(ticket(f"t{n}", f"c{n}") for n in range(4)), ticket("u", "x", deps=("t0",)), attempts=1, parallel=9)
    world.begin()
    for n in range(4):
        world.attempt(f"t{n}", "no")
    assert verdict(world) == ("error", "failures")
    assert world.loop.error == (
        "5 tickets need a person: u: blocked, depends on t0, which failed; t0: failed, not done after 1 attempts; "
        "t1: failed, not done after 1 attempts; and 2 more"
    )


def test_a_single_ticket_that_needs_a_person_is_told_in_the_singular() -> None:
    world = World(ticket("a", "x", deps=("gone",)))
    world.begin()
    assert verdict(world) == ("error", "blocked")
    assert world.loop.error == "1 ticket needs a person: a: blocked, dep gone does not exist (a.md:1)"


def test_two_tickets_that_need_a_person_are_told_in_the_plural() -> None:
    world = World(ticket("a", deps=("gone",)), ticket("b", deps=("gone",)))
    world.begin()
    assert str(world.loop.error).startswith("2 tickets need a person: a: blocked, ")


def test_three_tickets_that_need_a_person_are_all_told() -> None:
    world = World(*(ticket(f"t{n}", deps=("gone",)) for n in range(3)))
    world.begin()
    assert str(world.loop.error).count("does not exist") == 3 and "more" not in str(world.loop.error)


def test_of_chosen_tickets_alone_the_others_do_not_matter_for_the_end() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("gone",)), only=["a"])
    world.begin()
    world.attempt("a")
    assert verdict(world) == ("completed", "tickets-done")
    world = World(ticket("a", "x", deps=("b",)), ticket("b", "y"), only=["a"])
    world.begin()
    assert verdict(world) == ("error", "blocked")


def test_branches_that_are_kept_by_wish_need_no_person_but_a_failed_ticket_does() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), merge=False, attempts=1)
    world.begin()
    world.attempt("a")
    world.attempt("b", "no")
    assert verdict(world) == ("error", "failures")
    assert world.loop.error == "1 ticket needs a person: b: failed, not done after 1 attempts"


def test_a_merge_by_hand_that_is_needed_ends_the_loop_as_blocked() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.BuildBatch}
    world.begin()
    world.attempt("a")
    world.say(results.BatchBuilt("h", "t", faults={"a": "no"}))
    assert verdict(world) == ("error", "blocked")
    assert world.loop.error == "1 ticket needs a person: a: needs-merge, no"


def test_a_source_that_cannot_be_read_ends_the_loop() -> None:
    world = World()
    world.hold = {tx.Scan}
    world.begin()
    world.say(results.Scanned(None, error="the folder is gone"))
    assert verdict(world) == ("error", "blocked") and world.loop.error == "the folder is gone"


def test_a_bad_ticket_is_told_of_once() -> None:
    bad = BadTicket(Path("/t/b.md"), 3, "no id")
    other = BadTicket(Path("/t/c.md"), 1, "no status")
    world = World(ticket("a", "x"))
    world.hold = {tx.Scan}
    world.begin()
    for found in ((bad,), (bad,), (bad, other)):
        world.say(results.Scanned(Backlog(dict(world.tickets), found)))
    notices = [(e["level"], e["message"]) for e in world.events("ralph_notice")]
    assert notices == [
        ("warning", "skipped: /t/b.md, line 3: no id"),
        ("warning", "skipped: /t/c.md, line 1: no status"),
    ]


def test_tickets_are_looked_for_every_two_seconds_and_less_often_where_a_look_takes_long() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    assert next_deadline(world.loop) == world.mono + 2_000
    world.hold = {tx.Scan}
    world.later(1_999)
    assert sum(isinstance(e, tx.Scan) for e in world.all) == 1
    world.later(1)
    assert sum(isinstance(e, tx.Scan) for e in world.all) == 2
    world.later(10_000)
    assert sum(isinstance(e, tx.Scan) for e in world.all) == 2, "one look at a time"
    world.say(results.Scanned(Backlog(dict(world.tickets)), took_ms=1_000))
    assert world.loop.next_scan == world.mono + 20_000
    world.say(results.Scanned(None))
    assert world.loop.next_scan == world.mono + 2_000


def test_a_backlog_that_has_not_changed_starts_nothing_anew() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.later(2_000)
    assert sum(isinstance(e, tx.OpenWorktree) for e in world.all) == 1


def test_a_loop_whose_workers_all_wait_waits_until_the_first_of_them_goes_on() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.say(results.From("a", PiExited(1, "natural", "first")))
    assert verdict(world)[0] == "starting"
    world.later(100)
    world.say(results.From("b", PiExited(1, "natural", "second")))
    assert verdict(world)[0] == "waiting" and "first" in str(world.loop.error)
    assert world.loop.next_wake == world.wall - 100 + 750
    world.due()
    assert verdict(world)[0] == "running" and world.loop.next_wake is None and world.loop.error is None


def test_a_merge_that_waits_beside_a_worker_that_works_is_no_waiting_loop() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.waits["a"] = ["in the way"] * 9
    world.begin()
    world.attempt("a")
    assert verdict(world)[0] == "running"
    world.attempt("b")
    assert verdict(world)[0] == "waiting" and world.loop.error == "in the way"


def test_a_stop_is_shown_until_the_last_worker_has_left() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.command("stop")
    assert verdict(world)[0] == "stopping" and world.loop.stop_reason is None
    world.attempt("a")
    assert verdict(world) == ("stopped", "stop")


@pytest.mark.parametrize("how", ["sigterm", "broken"])
def test_an_end_at_once_gives_up_what_waits_and_cancels_what_runs(how: str) -> None:
    event = Terminate() if how == "sigterm" else Broken("the disk is gone")
    world = World(ticket("a", "x"), ticket("b", "y"), ticket("c", "z"), verify="make", worktreeSetup="npm ci")
    world.hold = {tx.VerifyBatch, tx.SetUp}
    world.begin()
    world.target = ("other",)
    setup: list[str] = [e.ticket for e in world.all if isinstance(e, tx.SetUp)]
    for id in ("a", "b"):
        world.say(results.WasSetUp(id, {"command": "npm ci", "exitCode": 0, "durationMs": 1, "tail": ""}))
        world.attempt(id)
    assert setup == ["a", "b", "c"]
    world.say(event)
    assert [e.ticket for e in world.all if isinstance(e, tx.CancelSetUp)] == ["c"]
    assert [e for e in world.all if isinstance(e, tx.CancelVerifyBatch)] == [tx.CancelVerifyBatch()]
    assert world.statuses["b"] == "merging" and "b" not in world.loop.jobs
    world.say(results.WasSetUp("c", None), results.BatchVerified(None))
    assert verdict(world) == (("stopped", "kill") if how == "sigterm" else ("error", "blocked"))
    assert world.loop.error == ("the runner was told to end (SIGTERM)" if how == "sigterm" else "the disk is gone")
    assert world.statuses == {"a": "merging", "b": "merging", "c": "orphaned"}
    assert not any(isinstance(e, tx.LandBatch) for e in world.all)


def test_a_worktree_that_is_made_when_the_loop_ends_is_kept_for_the_next_run() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.command("stop")
    world.say(results.Opened("a", "base", "/w/a", reused=False))
    assert world.statuses == {"a": "orphaned"} and verdict(world) == ("stopped", "stop")
    assert world.loop.settled["a"]["error"] == "the loop ended"
    assert world.loop.settled["a"]["worktreePath"] == "/w/a"
    assert not any(isinstance(e, tx.Hire) for e in world.all)


@pytest.mark.parametrize("held", [tx.OpenWorktree, tx.SetUp])
def test_finished_work_stays_to_be_merged_when_the_loop_ends_while_its_worktree_is_made_ready(held: type) -> None:
    world = World(ticket("a", "x"), records={"a": record(status="merging")}, worktreeSetup="npm ci")
    world.hold = {held}
    world.begin()
    world.command("stop")
    if held is tx.OpenWorktree:
        world.say(results.Opened("a", "base", "/w/a", reused=True))
    else:
        world.say(results.WasSetUp("a", {"command": "npm ci", "exitCode": 0, "durationMs": 1, "tail": ""}))
    assert world.statuses == {"a": "merging"} and verdict(world) == ("stopped", "stop")
    assert world.loop.settled["a"]["error"] == "the loop ended"


@pytest.mark.parametrize("verify", [True, False])
def test_a_merge_that_is_half_done_when_the_runner_must_end_is_left_for_the_next_run(verify: bool) -> None:
    world = World(ticket("a", "x"), verify="make" if verify else None)
    world.hold = {tx.BuildBatch}
    world.begin()
    world.target = ("other",)
    world.attempt("a")
    world.say(Terminate())
    world.let_go()
    assert world.statuses == {"a": "merging" if verify else "closed"} and verdict(world) == ("stopped", "kill")


def test_work_that_waits_for_its_agent_when_the_loop_ends_keeps_its_stand() -> None:
    for conflict, left in ((True, "merging"), (False, "orphaned")):
        world = World(ticket("a", "x"), ticket("b", "y"), parallel=1)
        world.waits["a"] = ["in the way"]
        world.begin()
        if conflict:
            world.attempt("a")
            world.conflicts["a"] = ["both changed f"]
            world.later(6_000)
        else:
            world.commits["a"] = ["too large"]
            world.command("pause", "p")
            world.hold = {tx.Commit}
            world.attempt("a")
            world.say(results.Committed("a", "too large"))
        assert not (world.loop.jobs["a"].stage is None)
        world.command("stop", "s", when="now")
        for key in list(world.loop.workers):
            world.say(results.From(key, PiExited(0, "sigterm", "")))
        assert world.statuses["a"] == left, conflict
        assert world.loop.settled["a"]["error"] == "the loop ended"
        assert verdict(world) == ("stopped", "stop")


def test_a_pi_that_cannot_work_ends_the_loop_for_all_workers() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.hold = {fx.StartPi}
    world.begin()
    world.hold = set()
    world.say(results.From("a", SpawnFailed("pi cannot be started: no such file")))
    assert world.loop.ending is not None and world.loop.at_once
    world.say(results.From("b", PiSpawned(102, "1.5.2", ("pi",), 1.0)))
    assert verdict(world) == ("error", "crash")
    assert world.loop.error == "pi cannot be started: no such file"
    assert world.statuses == {"a": "orphaned", "b": "orphaned"}
    assert world.loop.settled["a"]["error"] == "pi cannot be started: no such file"


def test_the_first_verdict_stands() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.command("stop", when="now")
    world.say(Terminate())
    for key in ("a", "b"):
        world.say(results.From(key, PiExited(0, "sigterm", "")))
    assert verdict(world) == ("stopped", "stop")


def test_iterations_that_are_used_up_start_no_other_ticket_and_end_the_loop_with_the_last_worker() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), ticket("c", "z"), parallel=2, maxIterations=2)
    world.begin()
    assert sorted(world.loop.workers) == ["a", "b"]
    world.attempt("a")
    assert not world.loop.ended
    world.attempt("b")
    assert verdict(world) == ("stopped", "max-iterations")
    assert world.loop.error == "2 iterations done, the limit is reached"


def test_a_place_that_a_limit_keeps_empty_is_filled_when_a_crash_does_not_count() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), parallel=1, maxIterations=2)
    world.begin()
    world.say(results.From("a", PiExited(1, "natural", "")))
    world.due()
    world.attempt("a")
    assert world.works("b")


def test_time_is_counted_while_anything_runs() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.later(1_234)
    assert world.loop.elapsed_ms == 1_234
    world.mono -= 500
    world.later(0)
    assert world.loop.elapsed_ms == 1_234, "a clock that goes back takes nothing away"
