"""Conversations with the core of a ticket loop."""

from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.reports import Broken, Terminate
from ralph_runner.core.state import Paused
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import reports as rp
from ralph_runner.core.tickets.orders import refusal
from ralph_runner.core.tickets.state import SHARED, Queued
from tests.core.talk import MARKER
from tests.core.ticket_talk import World, ticket


def finish(world: World) -> fx.Finish:
    return next(e for e in world.all if isinstance(e, fx.Finish))


def verdict(world: World) -> tuple[str, str | None]:
    return world.loop.status, world.loop.stop_reason


def test_tickets_are_worked_on_merged_and_closed_one_after_the_other_where_they_depend() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)))
    world.begin()
    assert list(world.loop.workers) == ["a"]
    world.attempt("a")
    assert world.merged == ["a"]
    assert list(world.loop.workers) == ["b"]
    world.attempt("b")
    assert verdict(world) == ("completed", "tickets-done")
    assert world.statuses == {"a": "closed", "b": "closed"}
    assert world.merged == ["a", "b"]
    assert finish(world).how == "completed"


def test_the_record_is_on_disk_before_each_step_that_it_tells_of() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.attempt("a")
    kept = [e.record["status"] for e in world.all if isinstance(e, tx.KeepRecord)]
    assert [s for n, s in enumerate(kept) if n == 0 or kept[n - 1] != s] == [
        "claimed", "running", "merging", "merged", "closed",
    ]  # fmt: skip
    order = [type(e).__name__ for e in world.all]
    landed = order.index("Land")
    assert [e.record["status"] for e in world.all[:landed] if isinstance(e, tx.KeepRecord)][-1] == "merging"


def test_as_many_run_as_parallel_says_and_never_two_of_one_component() -> None:
    world = World(ticket("a", "x"), ticket("b", "x"), ticket("c", "y"), ticket("d", "z"), parallel=2)
    world.begin()
    assert sorted(world.loop.workers) == ["a", "c"]
    world.attempt("a")
    assert sorted(world.loop.workers) == ["b", "c"]


def test_one_pi_is_kept_for_all_tickets_without_worktrees_and_gets_a_new_session_for_each() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, into="")
    world.begin()
    assert list(world.loop.workers) == [SHARED]
    world.attempt(SHARED)
    world.attempt(SHARED)
    assert verdict(world) == ("completed", "tickets-done")
    starts = [e for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.StartPi)]
    assert len(starts) == 1
    sessions = [send for send in world.sent[SHARED] if send.command == "new_session"]
    assert len(sessions) == 2
    assert not world.merged


def test_an_attempt_without_a_claim_is_followed_by_another_until_they_are_used_up() -> None:
    world = World(ticket("a", "x"), attempts=2)
    world.begin()
    world.attempt("a", "not yet")
    assert world.statuses == {"a": "running"}
    world.attempt("a", "still not")
    assert world.statuses == {"a": "failed"}
    assert verdict(world)[0] == "error"
    assert "a: failed" in (world.loop.error or "")
    notes = [e.note for e in world.all if isinstance(e, tx.MarkTicket) and e.note]
    assert len(notes) == 1 and "not done after 2 attempts" in notes[0]
    (remembered,) = [e.record for e in world.all if isinstance(e, tx.Remember)]
    assert remembered["status"] == "failed" and remembered["endedAt"] is not None
    assert not any(isinstance(e, tx.RemoveWorktree) for e in world.all), "its work is kept"


def test_a_red_verify_is_told_to_the_agent_and_never_merged() -> None:
    world = World(ticket("a", "x"), verify="make check", attempts=2)
    world.verifies["a"] = [1, 1]
    world.begin()
    world.attempt("a")
    assert "`make check` ended with exit code 1" in world.prompts("a")[-1]
    world.attempt("a")
    assert world.statuses == {"a": "failed"}
    assert not world.merged
    assert "make check" in (world.loop.settled["a"]["error"] or "")


def test_dependents_of_a_failed_ticket_are_blocked_with_the_reason_and_the_others_go_on() -> None:
    world = World(ticket("a", "x", priority=0), ticket("b", "y", deps=("a",)), ticket("c", "z"), attempts=1)
    world.begin()
    world.attempt("a", "no")
    world.attempt("c")
    assert world.statuses == {"a": "failed", "c": "closed"}
    assert verdict(world) == ("error", "failures")
    assert "b: blocked" in (world.loop.error or "")


def test_work_on_a_target_that_has_moved_is_verified_again_before_it_lands() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.standing["a"] = [rp.Looked("a", "behind", "h1"), rp.Looked("a", "ready", "h1")]
    world.begin()
    world.attempt("a")
    order = [type(e).__name__ for e in world.all]
    assert order.index("Update") < order.index("VerifyMerge") < order.index("Land")
    assert world.statuses == {"a": "closed"}


def test_red_after_the_merge_goes_back_to_the_agent_in_a_fresh_session() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.standing["a"] = [rp.Looked("a", "behind", "h1"), rp.Looked("a", "ready", "h1")]
    world.merge_verifies["a"] = [2]
    world.begin()
    world.attempt("a")
    assert "exit code 2" in world.prompts("a")[-1]
    assert not world.merged
    world.attempt("a")
    assert world.merged == ["a"]
    kinds = [e.effect.kind for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.BeginIteration)]
    assert kinds == ["work", "conflict"]


def test_a_conflict_that_the_agent_cannot_resolve_leaves_the_branch_and_needs_a_merge() -> None:
    world = World(ticket("a", "x"), attempts=2)
    world.standing["a"] = [rp.Looked("a", "conflict", "h", "both changed f.py")] * 9
    world.begin()
    world.attempt("a")
    assert "both changed f.py" in world.prompts("a")[-1]
    world.attempt("a")
    world.attempt("a")
    assert world.statuses == {"a": "needs-merge"}
    assert verdict(world)[0] == "error"
    assert not world.merged
    notes = [e.note for e in world.all if isinstance(e, tx.MarkTicket) and e.note]
    assert len(notes) == 1 and "ralph/x/a" in notes[0]


def test_merges_are_one_at_a_time_and_in_order() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.hold = {tx.LookAtTarget}
    world.begin()
    world.attempt("b")
    world.attempt("a")
    looks = [e.ticket for e in world.all if isinstance(e, tx.LookAtTarget)]
    assert looks == ["b"]
    world.hold = set()
    world.say(rp.Looked("b", "ready", "h"))
    assert world.merged == ["b", "a"]


def test_a_merge_that_would_touch_a_persons_files_waits_and_says_why() -> None:
    world = World(ticket("a", "x"))
    world.lands["a"] = [rp.Landed("a", waits="README.md is changed in /home/me/p")]
    world.begin()
    world.attempt("a")
    assert world.loop.status == "waiting"
    assert "README.md" in (world.loop.error or "")
    assert world.statuses == {"a": "merging"}
    world.later(6_000)
    assert world.statuses == {"a": "closed"}
    assert verdict(world) == ("completed", "tickets-done")


def test_a_target_that_moved_while_landing_is_looked_at_again() -> None:
    world = World(ticket("a", "x"))
    world.lands["a"] = [rp.Landed("a")]
    world.begin()
    world.attempt("a")
    assert [type(e).__name__ for e in world.all].count("LookAtTarget") == 2
    assert world.merged == ["a"]


def test_a_stop_lets_iterations_end_and_finished_work_be_merged() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), ticket("c", "z", deps=("a",)))
    world.begin()
    world.command("stop")
    assert world.loop.status == "stopping"
    world.attempt("a")
    world.attempt("b", "not yet")
    assert verdict(world) == ("stopped", "stop")
    assert world.statuses == {"a": "closed", "b": "orphaned"}
    assert "c" not in world.sent
    steps = [(e["id"], e["state"]) for e in world.events("ralph_command")]
    assert steps == [("c1", "accepted"), ("c1", "delivered")]


def test_a_stop_now_aborts_all_and_keeps_what_there_is() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.attempt("a", "not yet")
    world.command("stop", when="now")
    for key in ("a", "b"):
        assert any(send.command == "abort" for send in world.sent[key])
        world.say(rp.From(key, PiExited(0, "sigterm", "")))
    assert verdict(world) == ("stopped", "stop")
    assert set(world.statuses.values()) == {"orphaned"}


def test_a_pause_holds_every_worker_and_a_resume_goes_on() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), ticket("c", "z"), parallel=2)
    world.begin()
    world.command("pause", "p")
    world.attempt("a")
    assert verdict(world)[0] == "running"
    world.attempt("b", "not yet")
    assert verdict(world)[0] == "paused"
    assert [e["state"] for e in world.events("ralph_command")] == ["accepted", "delivered"]
    assert isinstance(world.loop.workers["b"].phase, Paused)
    assert "c" not in world.sent
    world.command("resume", "r")
    assert world.loop.status == "running"
    assert "c" in world.sent
    assert len(world.prompts("b")) == 2


def test_an_abort_ends_the_runs_and_each_ticket_is_tried_again() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.command("abort", "ab")
    world.attempt("a", "x", stop="aborted")
    assert len(world.prompts("a")) == 2
    assert [e["state"] for e in world.events("ralph_command")] == ["accepted", "delivered"]


def test_a_steer_goes_to_the_ticket_that_it_names_and_to_the_only_one_that_works() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)), ticket("c", "z", deps=("b",)))
    world.begin()
    world.command("steer", "s1", message="be quick")
    world.command("steer", "s2", message="for c", ticket="c")
    assert world.loop.workers["a"].mail[0].id == "s1"
    assert [m.id for m in world.loop.mail] == ["s2"]
    world.attempt("a", "not yet")
    assert "be quick" in world.prompts("a")[-1]
    world.attempt("a")
    assert "for c" not in "".join(world.prompts("b"))
    world.attempt("b")
    assert "for c" in world.prompts("c")[0]


def test_a_steer_without_a_ticket_is_refused_where_several_work_and_lists_them() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    reason = refusal(world.loop, "steer", {"message": "hm"})
    assert reason is not None and "a, b" in reason
    assert refusal(world.loop, "steer", {"message": "hm", "ticket": "a"}) is None
    assert "no ticket" in (refusal(world.loop, "steer", {"message": "hm", "ticket": "zz"}) or "")


def test_a_message_to_a_ticket_that_was_closed_meanwhile_expires() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.hold = {tx.Commit}
    world.attempt("a")
    world.command("steer", "s", message="too late", ticket="a")
    world.hold = set()
    world.say(rp.Committed("a"))
    told = [(e["id"], e["state"]) for e in world.events("ralph_command")]
    assert told[-1] == ("s", "expired")


def test_the_budget_is_that_of_all_workers_together() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), maxCost=1.0)
    world.begin()
    world.attempt("a", "not yet", cost=0.6)
    world.attempt("b", "not yet", cost=0.6)
    assert world.loop.ending is not None and world.loop.ending.stop_reason == "max-cost"
    world.attempt("a", "not yet", cost=0.0)
    assert verdict(world) == ("stopped", "max-cost")


def test_a_limit_of_iterations_counts_all_workers() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), ticket("c", "z"), parallel=2, maxIterations=2)
    world.begin()
    world.attempt("a")
    world.attempt("b")
    assert verdict(world) == ("stopped", "max-iterations")
    assert "c" not in world.sent


def test_iterations_of_all_workers_are_numbered_in_one_row() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.attempt("a", "not yet")
    world.attempt("b", "not yet")
    numbers = [e.effect.iteration for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.BeginIteration)]
    assert numbers == [1, 2, 3, 4]
    records = [e.effect.record for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.EndIteration)]
    assert [(r["iteration"], r.get("ticket"), r.get("attempt")) for r in records] == [(1, "a", 1), (2, "b", 1)]


def test_a_pi_without_a_key_ends_the_loop_and_not_only_the_ticket() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    answer = "401 invalid api key"
    prompt = world.sent["a"][-1]
    from ralph_runner.core.inputs import (
        AgentEnd,
        AgentStart,
        AssistantEnd,
        AssistantStart,
        Reply,
        Settled,
        Usage,
    )

    for event in (
        Reply("prompt", prompt.id, True), AgentStart(), AssistantStart("error"),
        AssistantEnd("", "error", answer, "m1", "fake", Usage(), 0), AgentEnd(False), Settled(False),
    ):  # fmt: skip
        world.say(rp.From("a", event))
    world.say(rp.From("b", PiExited(0, "eof", "")))
    assert verdict(world) == ("error", "auth")
    assert set(world.statuses.values()) == {"orphaned"}


def test_a_ticket_that_makes_pi_crash_again_and_again_is_set_aside() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)), ticket("c", "z"))
    world.begin()
    for _ in range(6):
        world.say(rp.From("a", PiExited(-11, "natural", "segfault")))
        world.later(120_000) if "a" in world.loop.workers and world.loop.workers["a"].status == "waiting" else None
    assert world.statuses["a"] == "failed"
    world.attempt("c")
    assert verdict(world)[0] == "error"


def test_new_tickets_are_taken_up_while_the_loop_runs() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.tickets["n"] = ticket("n", "y")
    world.later(10_000)
    assert sorted(world.loop.workers) == ["a", "n"]


def test_finished_work_of_an_earlier_run_is_only_merged() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.hold = {tx.LookAtTarget}
    world.attempt("a")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    assert records["a"]["status"] == "merging"
    again = World(ticket("a", "x"), records=records)
    again.begin()
    assert again.merged == ["a"]
    assert verdict(again) == ("completed", "tickets-done")
    assert not any(isinstance(e, tx.Hire) for e in again.all)


def test_what_was_merged_when_the_runner_died_is_only_closed() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.CloseTicket}
    world.begin()
    world.attempt("a")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    assert records["a"]["status"] == "merged"
    again = World(ticket("a", "x"), records=records)
    again.begin()
    assert not again.merged
    assert again.statuses == {"a": "closed"}


def test_a_ticket_left_by_a_dead_runner_is_tried_again_in_its_worktree() -> None:
    world = World(ticket("a", "x"), attempts=3)
    world.begin()
    world.attempt("a", "not yet")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    again = World(ticket("a", "x"), records=records, attempts=3)
    again.begin()
    assert "attempt 3 of 3" in again.prompts("a")[0] or "attempt 2 of 3" in again.prompts("a")[0]
    again.attempt("a")
    assert again.statuses == {"a": "closed"}


def test_without_merge_branches_are_kept_and_that_is_a_good_end() -> None:
    world = World(ticket("a", "x"), merge=False)
    world.begin()
    world.attempt("a")
    assert world.statuses == {"a": "needs-merge"}
    assert verdict(world) == ("completed", "tickets-done")
    assert not world.merged


def test_a_set_up_that_fails_fails_the_ticket_with_its_output() -> None:
    world = World(ticket("a", "x"), worktreeSetup="npm ci")
    world.hold = {tx.SetUp}
    world.begin()
    world.say(rp.WasSetUp("a", {"command": "npm ci", "exitCode": 1, "durationMs": 5, "tail": "no network"}))
    assert world.statuses == {"a": "failed"}
    assert "no network" in (world.loop.settled["a"]["error"] or "")


def test_a_failed_ticket_that_left_work_in_the_project_itself_ends_a_loop_without_worktrees() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, attempts=1, into="")
    world.hold = {tx.LookAtRest}
    world.begin()
    world.attempt(SHARED, "no")
    assert len(world.prompts(SHARED)) == 1, "nothing starts before it is known what was left"
    world.say(rp.RestSeen("a", "2 uncommitted files"))
    assert verdict(world) == ("error", "failures")
    assert "2 uncommitted files" in (world.loop.error or "")


@pytest.mark.parametrize("event", [Terminate(), Broken("the disk is gone")], ids=["sigterm", "broken"])
def test_a_runner_that_must_end_ends_all_workers(event: Any) -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.say(event)
    for key in list(world.loop.workers):
        world.say(rp.From(key, PiExited(0, "sigterm", "")))
    assert world.loop.ended
    assert verdict(world) == (("stopped", "kill") if isinstance(event, Terminate) else ("error", "blocked"))


def test_a_stop_does_not_wait_for_a_merge_that_waits_for_a_person() -> None:
    world = World(ticket("a", "x"))
    world.lands["a"] = [rp.Landed("a", waits="in the way")] * 9
    world.begin()
    world.attempt("a")
    assert isinstance(world.loop.jobs["a"].stage, Queued)
    world.command("stop")
    assert verdict(world) == ("stopped", "stop")
    assert world.statuses == {"a": "merging"}


def test_a_ticket_the_agent_closed_itself_counts_as_claimed() -> None:
    world = World(ticket("a", "x"))
    world.closed_in_file.add("a")
    world.begin()
    world.attempt("a", "closed it")
    assert world.merged == ["a"]


def test_a_marker_in_prose_is_no_claim() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.attempt("a", f"I will write {MARKER} when done.")
    assert world.statuses == {"a": "running"}
    assert not world.merged


def test_every_change_of_a_ticket_is_told_once() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.verifies["a"] = [1]
    world.begin()
    world.attempt("a")
    world.attempt("a")
    told = [(e["from"], e["to"]) for e in world.events("ralph_ticket")]
    assert told == [
        ("ready", "claimed"), ("claimed", "running"), ("running", "verifying"), ("verifying", "running"),
        ("running", "verifying"), ("verifying", "merging"), ("merging", "merged"), ("merged", "closed"),
    ]  # fmt: skip


def test_tickets_of_a_dead_runner_are_orphaned_at_once_also_those_that_cannot_start_yet() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    records = {id: job.record for id, job in world.loop.jobs.items()}
    again = World(ticket("a", "x"), ticket("b", "y"), records=records, parallel=1)
    again.begin()
    assert again.statuses == {"a": "running", "b": "orphaned"}
    assert [e["to"] for e in again.events("ralph_ticket") if e["ticket"] == "b"] == ["orphaned"]


def test_the_time_limit_also_ends_a_loop_that_only_waits_for_a_merge() -> None:
    world = World(ticket("a", "x"), maxTimeMs=60_000)
    world.lands["a"] = [rp.Landed("a", waits="in the way")] * 99
    world.begin()
    world.attempt("a")
    for _ in range(20):
        world.later(6_000)
    assert verdict(world) == ("stopped", "max-time")
    assert world.statuses == {"a": "merging"}


def test_a_merged_tree_is_verified_again_by_a_runner_that_has_not_seen_it() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.standing["a"] = [rp.Looked("a", "behind", "h")]
    world.hold = {tx.VerifyMerge}
    world.begin()
    world.attempt("a")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    again = World(ticket("a", "x"), records=records, verify="make check")
    again.begin()
    order = [type(e).__name__ for e in again.all]
    assert order.index("VerifyMerge") < order.index("Land")
    assert again.merged == ["a"]


def test_a_ticket_that_comes_back_from_its_merge_waits_for_a_place() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), parallel=1)
    world.lands["a"] = [rp.Landed("a", waits="in the way")]
    world.begin()
    world.attempt("a")
    assert list(world.loop.jobs) == ["a", "b"], "what waits for a person gives its place away"
    world.standing["a"] = [rp.Looked("a", "conflict", "h", "both changed f")]
    world.later(6_000)
    assert len(world.prompts("a")) == 1 and "a" not in world.loop.workers
    world.attempt("b")
    assert len(world.prompts("a")) == 1 and "both changed f" in world.prompts("a")[-1]


def test_a_start_does_not_wait_for_worktrees_that_take_long() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.OpenWorktree}
    world.begin()
    assert world.loop.status == "starting"
    world.later(5_000)
    assert verdict(world)[0] == "running"
