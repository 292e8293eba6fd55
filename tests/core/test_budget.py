"""Money, tokens, time and iterations: how they add up, and what a limit that is reached ends."""

from typing import Any

import pytest

from ralph_rpc.model import usage
from ralph_rpc.model.state import RunFigures, Stats
from ralph_runner.core import budget
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AgentEnd, AssistantEnd, AssistantStart, Settled, Usage
from ralph_runner.core.phases import Running
from ralph_runner.core.results import Begin
from ralph_runner.core.step import next_deadline
from tests.core.talk import MARKER, Talk, config, done


def test_max_cost_is_checked_after_every_turn() -> None:
    talk = Talk(maxCost=0.05)
    talk.boot()
    talk.accept()
    talk.turn(stop="toolUse", tools=1, cost=0.04)
    assert not [e for e in talk.all if isinstance(e, fx.Send) and e.command == "abort"]
    talk.say(AssistantStart("toolUse"), AssistantEnd("", "toolUse", None, "m", "p", Usage(1, 1, 0, 0, 0.02), 1))
    assert talk.sent("abort")
    talk.turn("", stop="aborted")
    talk.settle()
    assert done(talk) == ("stopped", "max-cost")
    assert talk.records[-1]["outcome"] == "aborted"


def test_a_budget_used_up_by_the_last_turn_does_not_throw_the_work_away() -> None:
    talk = Talk(maxTokens=50)
    talk.boot()
    talk.iterate(MARKER)
    assert done(talk) == ("completed", "marker")


def test_max_time_ends_a_run() -> None:
    talk = Talk(maxTimeMs=60_000)
    talk.boot()
    talk.accept()
    talk.due()
    talk.due()
    assert talk.sent("abort")
    talk.turn("", stop="aborted")
    talk.settle()
    assert done(talk) == ("stopped", "max-time")


def test_a_model_without_prices_is_reported_once() -> None:
    talk = Talk()
    talk.boot()
    for _ in range(3):
        talk.iterate(cost=0.0)
    assert len([n for n in talk.notices() if "prices" in n]) == 1


def test_a_limit_is_reached_by_meeting_it_exactly_in_a_run_and_after_it() -> None:
    talk = Talk(maxCost=0.05)
    talk.boot()
    talk.accept()
    talk.turn(stop="toolUse", tools=1, cost=0.05)
    assert talk.ever_sent("abort")
    talk = Talk(maxCost=0.05)
    talk.boot()
    talk.iterate(cost=0.05)
    assert done(talk) == ("stopped", "max-cost")
    assert talk.loop.error == "$0.05 spent, the limit is $0.05"


def test_a_budget_that_is_used_up_aborts_when_pi_would_go_on_with_a_message() -> None:
    talk = Talk(maxCost=0.05)
    talk.boot()
    talk.accept()
    talk.command("steer", message="and now the other half")
    talk.reply("steer")
    talk.turn(cost=0.06)
    assert talk.ever_sent("abort"), "without tool calls; but the steer would be another turn"


def test_max_time_ends_a_run_at_the_moment_that_it_says() -> None:
    talk = Talk(maxTimeMs=60_000)
    talk.say(Begin())
    began = talk.mono
    talk.greet()
    talk.accept()
    talk.later(5_000)
    assert next_deadline(talk.loop) == began + 60_000
    talk.due()
    assert talk.sent("abort")


def test_max_time_ends_a_wait() -> None:
    talk = Talk(maxTimeMs=60_000)
    talk.boot()
    talk.iterate("", stop="error", error="429 rate limit, try again in 3h")
    assert talk.status == "waiting"
    talk.due()
    assert done(talk) == ("stopped", "max-time")


def test_iterations_that_are_used_up_do_not_end_the_run_that_uses_them_up() -> None:
    talk = Talk(maxIterations=1)
    talk.boot()
    talk.accept()
    talk.turn(stop="toolUse", tools=1)
    assert not talk.ever_sent("abort")
    assert isinstance(talk.loop.phase, Running)
    assert budget.forbids_iteration(talk.loop) is None
    after = budget.forbids_iteration(talk.loop, talk.loop.phase.run)
    assert after is not None and after.stop_reason == "max-iterations"


@pytest.mark.parametrize(
    ("told", "told_cost", "tokens", "cost"),
    [
        pytest.param({"input": 5_000, "output": 500, "cacheRead": 9, "cacheWrite": 1}, 0.5, 5_510, 0.5, id="pi's"),
        pytest.param({"input": 10, "output": 1, "cacheRead": 0, "cacheWrite": 0}, 0.001, 110, 0.01, id="ours"),
        pytest.param({"input": 100, "output": 10, "cacheRead": 0, "cacheWrite": 0}, 0.5, 110, 0.5, id="pi's, dearer"),
    ],
)
def test_of_two_figures_for_a_run_the_larger_counts(
    told: dict[str, int], told_cost: float, tokens: int, cost: float
) -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn(cost=0.01)
    talk.say(AgentEnd(False), Settled(False))
    talk.reply("get_session_stats", {"tokens": told, "cost": told_cost})
    assert (usage.tokens(talk.loop.stats), talk.loop.stats["cost"]) == (tokens, cost)


def test_tokens_are_those_read_written_and_cached_alike() -> None:
    one: Stats = {**usage.NO_STATS, "tokensIn": 1, "tokensOut": 20, "cacheRead": 300, "cacheWrite": 4_000}
    assert usage.tokens(one) == 4_321


def test_what_is_spent_adds_up_and_can_be_taken_apart_again() -> None:
    one, other = usage.Spent(0.5, 30, 2), usage.Spent(0.25, 7, 1)
    assert one.plus(other) == usage.Spent(0.75, 37, 3)
    assert one.plus(other).minus(other) == one


def test_the_part_of_an_iteration_is_the_difference_of_two_totals_and_never_below_zero() -> None:
    known: Stats = {
        "iterations": 1,
        "turns": 2,
        "toolCalls": 3,
        "durationMs": 4,
        "tokensIn": 5,
        "tokensOut": 6,
        "cacheRead": 7,
        "cacheWrite": 8,
        "cost": 0.5,
    }
    run: RunFigures = {
        "turns": 10,
        "toolCalls": 20,
        "tokensIn": 30,
        "tokensOut": 40,
        "cacheRead": 50,
        "cacheWrite": 60,
        "cost": 0.25,
        "unpricedRequests": 2,
    }
    whole = usage.add(known, run, iterations=1, duration_ms=100)
    assert (whole["iterations"], whole["durationMs"]) == (2, 104)
    assert usage.subtract(whole, known) == run
    assert set(usage.subtract(known, whole).values()) == {0}


def test_the_records_of_all_iterations_add_up_to_the_totals_of_the_loop() -> None:
    talk = Talk(maxFailures=0)
    talk.boot()
    talk.iterate(cost=0.3)
    talk.iterate("", stop="error", error="503 no")
    talk.wait_over()
    talk.iterate(cost=0.2)
    talk.accept()
    talk.turn(stop="toolUse", tools=1, cost=0.4)
    talk.exit(1)
    assert budget.total(talk.records) == talk.loop.stats
    assert talk.loop.stats["cost"] == pytest.approx(0.9), "the money of a crash is spent all the same"
    assert talk.loop.stats["iterations"] == 2, "neither an outage nor a crash counts"


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, ()),
        ({"maxCost": 1.01, "maxTokens": 101, "maxTimeMs": 1_001, "maxIterations": 11}, ()),
        ({"maxCost": 1.0}, ("max-cost",)),
        ({"maxTokens": 100}, ("max-tokens",)),
        ({"maxTimeMs": 1_000}, ("max-time",)),
        ({"maxIterations": 10}, ("max-iterations",)),
        ({"maxIterations": 0}, ()),
        (
            {"maxCost": 0.0, "maxTokens": 0, "maxTimeMs": 0, "maxIterations": 1},
            ("max-cost", "max-tokens", "max-time", "max-iterations"),
        ),
    ],
)
def test_all_limits_that_are_reached_are_told_and_the_first_is_the_one_to_name(
    changes: dict[str, Any], reached: tuple[str, ...]
) -> None:
    assert usage.limits_reached(config(**changes), usage.Spent(1.0, 100, 10), 1_000) == reached
