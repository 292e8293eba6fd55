"""Conversations about the limits of a loop: up to which value they allow another iteration, and what is told."""

from dataclasses import replace
from typing import Any

import pytest

from ralph_rpc.model.usage import Spent
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AssistantEnd, AssistantStart, Usage
from tests.core.talk import Talk, done


def after_one(usage: Usage, elsewhere: Spent = Spent(), tools: int = 0, **config: Any) -> Talk:  # noqa: B008
    """One turn has used this much; with tools, the run goes on."""
    talk = Talk(**config)
    talk.loop = replace(talk.loop, elsewhere=elsewhere)
    talk.boot()
    talk.accept()
    talk.say(AssistantStart(None), AssistantEnd("x", "toolUse" if tools else "stop", None, "m", "p", usage, tools))
    if not tools:
        talk.settle()
    return talk


CASES = [
    ({"maxCost": 1.0}, Usage(1, 0, 0, 0, 1.0), Usage(1, 0, 0, 0, 0.99), Spent()),
    ({"maxCost": 1.0}, Usage(1, 0, 0, 0, 0.4), Usage(1, 0, 0, 0, 0.39), Spent(cost=0.6)),
    ({"maxTokens": 10}, Usage(1, 2, 3, 4, 0.1), Usage(1, 2, 3, 3, 0.1), Spent()),
    ({"maxTokens": 10}, Usage(1, 0, 0, 2, 0.1), Usage(0, 1, 1, 0, 0.1), Spent(tokens=7)),
]
"""Options, what reaches the limit, what just does not, what other workers have used."""


@pytest.mark.parametrize(("options", "over", "under", "elsewhere"), CASES)
def test_no_iteration_begins_once_a_budget_is_reached(
    options: dict[str, Any], over: Usage, under: Usage, elsewhere: Spent
) -> None:
    assert done(after_one(over, elsewhere, **options)) == (
        "stopped",
        "max-cost" if "maxCost" in options else "max-tokens",
    )
    assert after_one(under, elsewhere, **options).sent("new_session")


@pytest.mark.parametrize(("options", "over", "under", "elsewhere"), CASES)
def test_a_run_that_goes_on_is_aborted_once_a_budget_is_reached(
    options: dict[str, Any], over: Usage, under: Usage, elsewhere: Spent
) -> None:
    assert after_one(over, elsewhere, tools=1, **options).sent("abort")
    assert not after_one(under, elsewhere, tools=1, **options).sent("abort")


def test_budgets_count_the_iterations_before() -> None:
    talk = Talk(maxCost=1.0, maxTokens=100)
    talk.boot()
    talk.accept()
    for usage in (Usage(10, 10, 10, 10, 0.5), Usage(10, 10, 10, 9, 0.25)):
        talk.say(AssistantStart(None), AssistantEnd("x", "stop", None, "m", "p", usage, 0))
        talk.settle()
        talk.reply("new_session", {"cancelled": False})
        talk.accept()
    assert talk.status == "running"
    talk.say(AssistantStart(None), AssistantEnd("x", "toolUse", None, "m", "p", Usage(5, 5, 5, 5, 0.125), 1))
    assert not talk.sent("abort")
    talk.say(AssistantStart(None), AssistantEnd("x", "toolUse", None, "m", "p", Usage(0, 0, 0, 1, 0.0), 1))
    assert talk.sent("abort")


def test_a_last_answer_over_the_budget_is_aborted_if_messages_wait_in_pi_which_would_go_on() -> None:
    talk = Talk(maxCost=0.01)
    talk.boot()
    talk.accept()
    talk.command("followup", message="and then this")
    talk.say(AssistantStart(None), AssistantEnd("x", "stop", None, "m", "p", Usage(1, 0, 0, 0, 0.5), 0))
    assert talk.sent("abort")


def test_the_end_by_a_limit_says_what_was_used_and_what_the_limit_is() -> None:
    cases: list[tuple[dict[str, Any], Usage, str]] = [
        ({"maxCost": 0.5}, Usage(1, 0, 0, 0, 0.756), "$0.76 spent, the limit is $0.50"),
        ({"maxTokens": 10}, Usage(5, 6, 0, 0, 0.1), "11 tokens used, the limit is 10"),
        ({"maxIterations": 1}, Usage(5, 6, 0, 0, 0.1), "1 iteration done, the limit is reached"),
    ]
    for options, usage, told in cases:
        talk = after_one(usage, **options)
        assert done(talk)[0] == "stopped" and talk.loop.error == told


def test_max_time_tells_the_seconds_that_the_loop_ran() -> None:
    talk = Talk(maxTimeMs=60_000)
    talk.boot()
    talk.accept()
    talk.say(AssistantStart(None))
    talk.later(61_500)
    talk.turn("", stop="aborted")
    talk.settle()
    assert done(talk) == ("stopped", "max-time")
    assert talk.loop.error == "ran for 61 s, the limit is reached"


def test_max_time_is_checked_before_the_next_iteration_too() -> None:
    talk = Talk(maxTimeMs=60_000)
    talk.boot()
    talk.accept()
    talk.turn()
    talk.mono += 60_000
    talk.wall += 60_000
    talk.settle()
    assert talk.records[-1]["outcome"] == "ok"
    assert done(talk) == ("stopped", "max-time")


def test_iterations_of_other_workers_count() -> None:
    talk = after_one(Usage(1, 0, 0, 0, 0.1), Spent(iterations=2), maxIterations=3)
    assert done(talk) == ("stopped", "max-iterations")


def test_without_limits_nothing_ends_the_loop() -> None:
    talk = after_one(Usage(10**9, 0, 0, 0, 10.0**6), maxIterations=0)
    assert talk.sent("new_session")


def test_crashes_and_outages_are_no_iterations() -> None:
    talk = Talk(maxIterations=1)
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error="503 no")
    talk.settle()
    talk.wait_over()
    talk.accept()
    talk.exit(1)
    talk.wait_over()
    assert talk.loop.stats["iterations"] == 0
    talk.iterate()
    assert done(talk) == ("stopped", "max-iterations")


@pytest.mark.parametrize("cost", [0.0, 0.1])
def test_a_model_without_prices_is_named_if_it_used_tokens(cost: float) -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.say(AssistantStart(None), AssistantEnd("x", "toolUse", None, "m", "p", Usage(0, 0, 0, 0, 0.0), 1))
    assert not talk.notices()
    talk.say(AssistantStart(None), AssistantEnd("x", "toolUse", None, "m", "p", Usage(0, 0, 1, 0, cost), 1))
    assert talk.events("ralph_notice") == (
        []
        if cost
        else [
            {
                "level": "warning",
                "message": "pi knows no prices for p/m: what it costs is not counted, only its tokens are",
            }
        ]
    )
    talk.say(AssistantStart(None), AssistantEnd("x", "toolUse", None, "m", "p", Usage(0, 0, 1, 0, cost), 1))
    assert len(talk.notices()) == (not cost)


def test_state_is_saved_after_every_answer_but_not_in_a_hurry() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn(tools=1)
    talk.say(AssistantEnd("x", "toolUse", None, "m", "p", Usage(1, 0, 0, 0, 0.1), 1))
    assert talk.did(fx.Save) == [fx.Save(lazy=True)]
