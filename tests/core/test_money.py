"""What pi charges beside its answers, when it comes, and requests that nobody prices."""

from typing import Any

import pytest

from ralph_rpc.model import usage
from ralph_runner.core import charges
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    Charged,
    CompactionEnd,
    CompactionStart,
    PiInput,
    Settled,
    TurnStart,
    Usage,
)
from ralph_runner.core.results import Begin, PiSpawned, Verified
from ralph_runner.core.run import NOTHING, Run
from tests.core.talk import MARKER, Talk, done

WARM = Usage(0, 1, 1_000, 0, 0.02)
PRICED = {"input": 3, "output": 15}
FREE = {"input": 0, "output": 0, "cacheRead": 0}


def working(**changes: Any) -> Talk:
    talk = Talk(**changes)
    talk.boot()
    talk.accept()
    return talk


def cost(talk: Talk) -> float:
    return talk.loop.stats["cost"]


def amended(talk: Talk) -> list[fx.AmendRecord]:
    return [e for e in talk.all if isinstance(e, fx.AmendRecord)]


def ended(stop: str, used: Usage = NOTHING, error: str | None = None) -> AssistantEnd:
    return AssistantEnd("", stop, error, "m1", "fake", used, 0)


def test_what_is_charged_during_a_run_is_in_its_record_and_counts_against_the_limit() -> None:
    talk = working(maxCost=0.05)
    talk.say(Charged(WARM), CompactionStart("threshold"), CompactionEnd(False, "", WARM))
    assert not talk.ever_sent("abort")
    talk.say(Charged(WARM))
    assert talk.ever_sent("abort")
    talk.turn("", stop="aborted")
    talk.settle()
    assert talk.records[-1]["cost"] == pytest.approx(0.06) and done(talk) == ("stopped", "max-cost")


def test_what_is_charged_before_pis_statistics_is_in_both_sums_and_what_comes_later_only_in_ours() -> None:
    talk = working()
    talk.slow_measure = True
    talk.turn(cost=0.01)
    talk.say(Charged(WARM), AgentEnd(False), Settled(False))
    tokens = {"input": 100, "output": 11, "cacheRead": 1_000, "cacheWrite": 0}
    talk.reply("get_session_stats", {"tokens": tokens, "cost": 0.03})
    talk.say(Charged(WARM))
    talk.measured()
    assert talk.records[-1]["cost"] == pytest.approx(0.05)
    assert cost(talk) == pytest.approx(0.05) and not amended(talk)


def test_what_is_charged_during_a_verification_is_in_the_record() -> None:
    talk = working(verify="make test")
    talk.turn(MARKER)
    talk.settle()
    talk.say(Charged(WARM))
    assert not talk.records
    talk.say(Verified({"command": "make test", "exitCode": 0, "durationMs": 1, "tail": ""}))
    assert talk.records[-1]["cost"] == pytest.approx(0.03)


def test_what_is_charged_after_the_record_amends_it_and_can_end_a_pause() -> None:
    talk = working(maxCost=0.05)
    talk.command("pause")
    talk.turn(cost=0.01)
    talk.settle()
    talk.say(Charged(WARM))
    assert talk.status == "paused" and cost(talk) == pytest.approx(0.03)
    assert amended(talk)[-1].record["iteration"] == 1
    talk.say(Charged(WARM))
    assert done(talk) == ("stopped", "max-cost")
    assert amended(talk)[-1].record["cost"] == cost(talk) == pytest.approx(0.05)


def test_what_is_charged_while_a_loop_waits_can_end_it() -> None:
    talk = working(maxTokens=1_000)
    talk.turn("", stop="error", error="429 rate limit, try again in 3h")
    talk.settle()
    assert talk.status == "waiting"
    talk.say(Charged(WARM))
    assert done(talk) == ("stopped", "max-tokens")


@pytest.mark.parametrize("then", ["pause", "wait", "verify"])
def test_a_session_that_is_not_followed_by_another_at_once_is_left(then: str) -> None:
    talk = working(verify="true")
    if then == "pause":
        talk.command("pause")
    talk.turn(MARKER if then == "verify" else "x", stop="error" if then == "wait" else "stop", error="503 no")
    talk.settle()
    assert len(talk.ever_sent("new_session")) == 2, "its own and the fresh one"


def test_a_pi_that_has_had_no_prompt_is_not_asked_for_a_session_in_a_pause() -> None:
    talk = Talk()
    talk.say(Begin())
    talk.command("pause")
    talk.say(PiSpawned(77, "1.5.2", ("pi",)))
    talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    talk.reply("clear_queue")
    assert talk.status == "paused" and not talk.ever_sent("new_session")


def run_of(*events: PiInput) -> Run:
    run = Run(1, "work", 0, 0, 0)
    for event in events:
        run = charges.counted(run, event)
    return charges.cut(run)


BEGINS = (AgentStart(), TurnStart(), AssistantStart("stop"))


@pytest.mark.parametrize(
    ("events", "unpriced"),
    [
        ((*BEGINS, ended("stop", WARM)), 0),
        ((*BEGINS, ended("stop")), 1),
        ((*BEGINS, ended("aborted", error="Request was aborted")), 1),
        (BEGINS, 1),
        ((AgentStart(), TurnStart()), 1),
        ((*BEGINS, ended("error", error="terminated: read ECONNRESET")), 1),
        ((AgentStart(), TurnStart(), AssistantStart("error"), ended("error", error="Connection error.")), 0),
        ((AgentStart(), TurnStart(), AssistantStart("error"), ended("error", error="Request timed out.")), 1),
        ((*BEGINS, ended("error", error="429: rate limit"), AgentEnd(True)), 0),
        ((*BEGINS, ended("error", error="402 Insufficient Balance")), 0),
        ((*BEGINS, ended("stop", WARM), AgentEnd(False), CompactionStart("threshold"), CompactionEnd(False, "")), 1),
        ((CompactionStart("threshold"), CompactionEnd(False, "", WARM)), 0),
        ((CompactionStart("threshold"), CompactionEnd(False, "500 Internal server error")), 0),
        ((CompactionStart("threshold"),), 1),
    ],
)
def test_a_request_whose_usage_nobody_tells_is_unpriced_and_a_refused_one_is_not(
    events: tuple[PiInput, ...], unpriced: int
) -> None:
    assert run_of(*events).unpriced == unpriced


def test_the_turn_that_pi_begins_after_our_abort_asks_nobody() -> None:
    talk = working()
    talk.turn(stop="toolUse", tools=1)
    talk.command("abort")
    talk.say(TurnStart(), AssistantStart("aborted"), ended("aborted"))
    talk.settle()
    assert talk.records[-1].get("unpricedRequests") == 0


def test_pi_killed_while_the_model_answers_leaves_an_unpriced_request_in_record_and_totals() -> None:
    talk = working()
    talk.say(TurnStart(), AssistantStart("stop"))
    talk.exit(-9)
    assert talk.records[-1].get("unpricedRequests") == talk.loop.stats.get("unpricedRequests") == 1


def greeted(prices: dict[str, int] | None, **changes: Any) -> Talk:
    talk = Talk(**changes)
    talk.say(Begin(), PiSpawned(77, "1.5.2", ("pi",)))
    model = {"id": "m1", "provider": "fake", **({} if prices is None else {"cost": prices})}
    talk.reply("get_state", {"model": model})
    return talk


def test_a_cap_in_dollars_on_a_model_without_prices_ends_the_loop_before_any_prompt() -> None:
    talk = greeted(FREE, maxCost=1.0)
    assert done(talk) == ("error", "max-cost") and not talk.ever_sent("prompt")
    assert talk.loop.error is not None and "--max-tokens" in talk.loop.error and "fake/m1" in talk.loop.error


@pytest.mark.parametrize(
    ("prices", "limits"),
    [(PRICED, {"maxCost": 1.0}), (None, {"maxCost": 1.0}), (FREE, {}), (FREE, {"maxCost": 1.0, "maxTokens": 1_000})],
)
def test_any_other_pi_is_used(prices: dict[str, int] | None, limits: dict[str, Any]) -> None:
    assert greeted(prices, **limits).ever_sent("clear_queue")


def test_a_fallback_model_without_prices_is_left_out() -> None:
    talk = Talk(maxCost=1.0, fallbackModels=["other/free"])
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error="429 usage limit, try again in 3h")
    talk.settle()
    talk.exit()
    talk.say(PiSpawned(78, "1.5.2", ("pi",)))
    talk.reply("get_state", {"model": {"id": "free", "provider": "other", "cost": FREE}})
    assert any("fallback model other/free is left out" in told for told in talk.notices())
    talk.exit()
    assert talk.status == "waiting" and len(talk.ever_sent("prompt")) == 1


def test_an_answer_without_a_price_ends_a_loop_that_only_a_cap_in_dollars_could_end() -> None:
    talk = working(maxCost=1.0)
    talk.turn(stop="toolUse", tools=1, cost=0.0)
    talk.turn("", stop="aborted")
    talk.settle()
    assert done(talk) == ("error", "max-cost")


def test_totals_of_two_counts_of_the_same_take_the_larger_of_each_figure() -> None:
    one = {**usage.NO_STATS, "tokensIn": 5, "cost": 0.5, "iterations": 1}
    other = {**usage.NO_STATS, "tokensIn": 3, "turns": 2, "durationMs": 9}
    found = usage.at_least_totals(one, other)  # type: ignore[arg-type]
    assert (found["tokensIn"], found["cost"], found["turns"], found["iterations"], found["durationMs"]) == (
        5,
        0.5,
        2,
        1,
        9,
    )
