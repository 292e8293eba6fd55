"""Conversations about the merge of a ticket's branch: one at a time, and never of a tree that was not verified."""

from ralph_runner.core import effects as fx
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.state import Queued, Removing
from tests.core.ticket_talk import World, ticket, verdict


def test_work_on_a_target_that_has_moved_is_verified_again_before_it_lands() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.begin()
    world.target = ("other",)
    world.attempt("a")
    order = [type(e).__name__ for e in world.all]
    assert order.index("BuildBatch") < order.index("VerifyBatch") < order.index("LandBatch")
    assert world.statuses == {"a": "closed"}


def test_red_after_the_merge_goes_back_to_the_agent_in_a_fresh_session() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.merge_verifies = [2]
    world.begin()
    world.target = ("other",)
    world.attempt("a")
    assert "exit code 2" in world.prompts("a")[-1]
    assert not world.merged
    world.attempt("a")
    assert world.merged == ["a"]
    kinds = [e.effect.kind for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.BeginIteration)]
    assert kinds == ["work", "conflict"]


def test_a_conflict_that_the_agent_cannot_resolve_leaves_the_branch_and_needs_a_merge() -> None:
    world = World(ticket("a", "x"), attempts=2)
    world.conflicts["a"] = ["both changed f.py"] * 9
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
    world.hold = {tx.BuildBatch}
    world.begin()
    world.attempt("b")
    world.attempt("a")
    assert [[id for id, _ in e.merges] for e in world.all if isinstance(e, tx.BuildBatch)] == [["b"]]
    world.let_go()
    assert world.merged == ["b", "a"]


def test_a_merge_that_would_touch_a_persons_files_waits_and_says_why() -> None:
    world = World(ticket("a", "x"))
    world.waits["a"] = ["README.md is changed in /home/me/p"]
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
    world.lands = [results.BatchLanded()]
    world.begin()
    world.attempt("a")
    assert [type(e).__name__ for e in world.all].count("BuildBatch") == 2
    assert world.merged == ["a"]


def test_without_merge_branches_are_kept_and_that_is_a_good_end() -> None:
    world = World(ticket("a", "x"), merge=False)
    world.begin()
    world.attempt("a")
    assert world.statuses == {"a": "needs-merge"}
    assert verdict(world) == ("completed", "tickets-done")
    assert not world.merged


def test_a_stop_does_not_wait_for_a_merge_that_waits_for_a_person() -> None:
    world = World(ticket("a", "x"))
    world.waits["a"] = ["in the way"] * 9
    world.begin()
    world.attempt("a")
    assert isinstance(world.loop.jobs["a"].stage, Queued)
    world.command("stop")
    assert verdict(world) == ("stopped", "stop")
    assert world.statuses == {"a": "merging"}


def test_a_merged_tree_is_verified_again_by_a_runner_that_has_not_seen_it() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.hold = {tx.VerifyBatch}
    world.begin()
    world.target = ("other",)
    world.attempt("a")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    again = World(ticket("a", "x"), records=records, verify="make check")
    again.begin()
    order = [type(e).__name__ for e in again.all]
    assert order.index("VerifyBatch") < order.index("LandBatch")
    assert again.merged == ["a"]


def test_a_ticket_that_comes_back_from_its_merge_waits_for_a_place() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), parallel=1)
    world.waits["a"] = ["in the way"]
    world.begin()
    world.attempt("a")
    assert list(world.loop.jobs) == ["a", "b"], "what waits for a person gives its place away"
    world.conflicts["a"] = ["both changed f"]
    world.later(6_000)
    assert len(world.prompts("a")) == 1 and "a" not in world.loop.workers
    world.attempt("b")
    assert len(world.prompts("a")) == 2 and "both changed f" in world.prompts("a")[-1]


def test_a_conflict_gets_as_many_attempts_as_the_work_had_even_if_that_used_up_all_of_its_own() -> None:
    world = World(ticket("a", "x"), attempts=2)
    world.conflicts["a"] = ["both changed f.py"]
    world.begin()
    world.attempt("a", "not yet")
    world.attempt("a")
    assert world.works("a") and "both changed f.py" in world.prompts("a")[-1]
    world.attempt("a", "not yet")
    assert world.works("a"), "one of two"
    world.attempt("a")
    assert world.merged == ["a"]


def test_a_merged_tree_whose_verification_was_cancelled_is_verified_before_it_lands() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.hold = {tx.VerifyBatch}
    world.begin()
    world.target = ("other",)
    world.attempt("a")
    world.say(results.BatchVerified(None))
    asked = [type(e).__name__ for e in world.all if isinstance(e, tx.VerifyBatch | tx.LandBatch)]
    assert asked == ["VerifyBatch", "VerifyBatch"]


def test_a_branch_that_nobody_verified_in_this_run_is_verified_before_it_lands() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.hold = {tx.BuildBatch}
    world.begin()
    world.attempt("a")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    again = World(ticket("a", "x"), records=records, verify="make check")
    again.begin()
    asked = [type(e).__name__ for e in again.all if isinstance(e, tx.VerifyBatch | tx.LandBatch)]
    assert asked == ["VerifyBatch", "LandBatch"]


def test_a_ticket_whose_worktree_is_being_removed_takes_no_place_from_one_that_comes_back() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), parallel=1)
    world.waits["a"] = ["in the way"]
    world.begin()
    world.attempt("a")
    world.conflicts["a"] = ["both changed f"]
    world.later(6_000)
    world.hold = {tx.RemoveWorktree}
    world.attempt("b")
    assert isinstance(world.loop.jobs["b"].stage, Removing)
    assert "both changed f" in world.prompts("a")[-1]


def test_a_ticket_that_is_merged_gives_its_place_to_the_next_one_and_only_so_many_pile_up() -> None:
    world = World(*(ticket(id, id) for id in "abcd"), parallel=1)
    world.hold = {tx.BuildBatch}
    world.begin()
    world.attempt("a")
    assert list(world.loop.jobs) == ["a", "b"] and world.works("b")
    assert "a" not in world.loop.workers, "its pi need not wait"
    world.attempt("b")
    world.later(10_000)
    assert list(world.loop.jobs) == ["a", "b"], "two are not merged, and one may work beside one that is not"
    world.let_go()
    assert world.merged == ["a", "b"] and list(world.loop.jobs) == ["c"]


def test_a_ticket_keeps_its_components_until_it_is_merged() -> None:
    world = World(ticket("a", "x"), ticket("b", "x"), parallel=2)
    world.hold = {tx.BuildBatch}
    world.begin()
    world.attempt("a")
    world.later(10_000)
    assert list(world.loop.jobs) == ["a"]
    world.let_go()
    assert list(world.loop.jobs) == ["b"]
