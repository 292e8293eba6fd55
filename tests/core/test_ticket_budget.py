"""Conversations about the limits of a ticket loop, which are those of all its workers together."""

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.state import SHARED
from tests.core.ticket_talk import World, ticket, verdict


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


def test_the_time_limit_also_ends_a_loop_that_only_waits_for_a_merge() -> None:
    world = World(ticket("a", "x"), maxTimeMs=60_000)
    world.waits["a"] = ["in the way"] * 99
    world.begin()
    world.attempt("a")
    for _ in range(20):
        world.later(6_000)
    assert verdict(world) == ("stopped", "max-time")
    assert world.statuses == {"a": "merging"}


def test_the_tokens_of_other_workers_count_and_end_a_run_that_is_under_way() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), maxTokens=200)
    world.begin()
    world.attempt("a", "not yet")  # 110 tokens
    assert world.loop.ending is None
    world.turn("b", cost=0.01)
    assert any(send.command == "abort" for send in world.sent["b"])


def test_the_tokens_of_other_workers_forbid_another_iteration() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), maxTokens=220)
    world.begin()
    world.attempt("a", "not yet")
    world.attempt("b", "not yet")
    assert world.loop.ending is not None and world.loop.ending.stop_reason == "max-tokens"


def test_what_a_worker_has_spent_itself_counts_once() -> None:
    world = World(ticket("a", "x"), maxCost=1.0, attempts=9)
    world.begin()
    for _ in range(3):
        world.attempt("a", "not yet", cost=0.3)
    assert world.loop.ending is None
    world.attempt("a", "not yet", cost=0.3)
    assert verdict(world) == ("stopped", "max-cost")
    assert world.loop.stats["cost"] == pytest.approx(1.2)


def test_the_cost_of_a_run_under_way_counts_for_the_other_workers() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), maxCost=1.0)
    world.begin()
    world.turn("b", cost=0.7)
    world.attempt("a", "not yet", cost=0.4)
    assert world.loop.ending is not None and world.loop.ending.stop_reason == "max-cost"


def test_a_ticket_whose_worktree_is_still_being_made_uses_up_an_iteration() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), maxIterations=1)
    world.hold = {tx.OpenWorktree}
    world.begin()
    assert [e.ticket for e in world.all if isinstance(e, tx.OpenWorktree)] == ["a"]


def test_a_pause_does_not_count_towards_max_time() -> None:
    world = World(ticket("a", "x"), maxTimeMs=60_000)
    world.begin()
    world.command("pause", "p")
    world.attempt("a", "not yet")
    assert verdict(world)[0] == "paused"
    world.later(10_000_000)
    world.command("resume", "r")
    assert verdict(world)[0] == "running" and world.works("a")
    assert world.loop.elapsed_ms < 60_000


def test_a_worker_that_is_refused_its_next_iteration_ends_no_run_of_another() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), maxIterations=2)
    world.conflicts["a"] = ["both changed f"]
    world.begin()
    world.hold = {fx.EndPi}
    world.attempt("a")
    assert world.loop.ending is None and world.loop.workers["a"].status == "stopping", "its pi still has to end"
    world.turn("b", cost=0.1)
    assert not any(send.command == "abort" for send in world.sent["b"])


def test_a_limit_that_meets_a_worker_without_a_pi_ends_the_loop_at_once() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, into="", maxCost=0.01)
    world.hold = {tx.CloseTicket}
    world.begin()
    world.attempt(SHARED, cost=0.02)
    world.say(results.From(SHARED, PiExited(1, "natural", "")))
    world.say(results.TicketClosed("a"))
    assert verdict(world) == ("stopped", "max-cost")
    assert world.statuses == {"a": "closed", "b": "orphaned"}
    starts = [e for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.StartPi)]
    assert len(starts) == 1


def test_what_a_worker_spent_on_its_last_ticket_counts_before_it_begins_the_next() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, into="", maxCost=0.05)
    world.begin()
    world.attempt(SHARED, cost=0.05)
    assert len(world.prompts(SHARED)) == 1
    assert verdict(world) == ("stopped", "max-cost")


def test_workers_that_are_both_at_work_warn_once_of_a_model_without_prices() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.attempt("a", "not yet", cost=0.0)
    world.attempt("b", "not yet", cost=0.0)
    assert len([e for e in world.events("ralph_notice") if "no prices" in e["message"]]) == 1
