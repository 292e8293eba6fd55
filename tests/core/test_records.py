"""Conversations about what is written when a run is over: its record, the totals, and how it is judged."""

from dataclasses import replace
from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    PiExited,
    Settled,
    ToolStart,
    Usage,
    UserMessage,
)
from ralph_runner.core.results import Measure, Verified, WorkMeasured
from ralph_runner.core.step import next_deadline
from tests.core.talk import MARKER, Talk, done

SESSION = {"sessionId": "s", "sessionFile": "/s.jsonl"}


def working(**config: Any) -> Talk:
    talk = Talk(**config)
    talk.boot()
    talk.accept()
    return talk


def answer(talk: Talk, usage: Usage, text: str = "words", stop: str = "stop", tools: int = 0) -> None:
    talk.say(AssistantStart(None), AssistantEnd(text, stop, None, "m1", "fake", usage, tools))


def settle(talk: Talk, **stats: Any) -> None:
    """The run settles, and pi tells these figures of it."""
    talk.say(AgentEnd(False), Settled(False))
    talk.reply("get_session_stats", stats)


def figures(talk: Talk) -> tuple[int, int, int, int, float]:
    record = talk.records[-1]
    return record["tokensIn"], record["tokensOut"], record["cacheRead"], record["cacheWrite"], record["cost"]


def test_a_record_tells_all_of_an_iteration() -> None:
    talk = working()
    began = talk.wall
    talk.later(1_000)
    talk.command("steer", id="m", message="go")
    talk.reply("steer")
    talk.say(UserMessage("go"))
    answer(talk, Usage(10, 20, 30, 40, 0.5), "first", "toolUse", 1)
    talk.say(ToolStart("t", "bash"))
    answer(talk, Usage(1, 2, 3, 4, 0.25), "last")
    talk.slow_measure = True
    talk.later(2_000)
    settle(talk, **SESSION)
    talk.later(500)
    talk.say(WorkMeasured(Measure("h", "t"), ("c1", "c2"), 3))
    assert began == 1_700_000_000_000
    assert talk.records == [
        {
            "iteration": 1,
            "kind": "work",
            "outcome": "ok",
            "startedAt": "2023-11-14T22:13:20.000Z",
            "endedAt": "2023-11-14T22:13:23.000Z",
            "durationMs": 3_000,
            "turns": 2,
            "toolCalls": 1,
            "tokensIn": 11,
            "tokensOut": 22,
            "cacheRead": 33,
            "cacheWrite": 44,
            "cost": 0.75,
            "unpricedRequests": 0,
            "model": "m1",
            "provider": "fake",
            "sessionId": "s",
            "sessionFile": "/s.jsonl",
            "summary": "last",
            "commits": ["c1", "c2"],
            "filesChanged": 3,
            "steering": ["m"],
            "eventsFrom": 0,
            "eventsTo": 0,
        }
    ]


def test_totals_are_the_sums_of_all_records() -> None:
    talk = working()
    for cost in (0.5, 0.25):
        answer(talk, Usage(1, 2, 3, 4, cost), stop="toolUse", tools=1)
        talk.say(ToolStart("t", "bash"))
        answer(talk, Usage(10, 20, 30, 40, 0.0))
        talk.later(1_000)
        talk.settle()
        talk.reply("new_session", {"cancelled": False})
        talk.accept()
    assert talk.loop.stats == {
        "iterations": 2,
        "turns": 4,
        "toolCalls": 2,
        "durationMs": 2_000,
        "tokensIn": 22,
        "tokensOut": 44,
        "cacheRead": 66,
        "cacheWrite": 88,
        "cost": 0.75,
        "unpricedRequests": 0,
    }


def test_a_long_answer_is_kept_by_its_end_in_the_record_and_by_its_beginning_in_the_state() -> None:
    talk = working()
    answer(talk, Usage(1, 1, 0, 0, 0.1), "a" * 1_500 + "b" * 1_500)
    settle(talk)
    assert talk.records[-1]["summary"] == "a" * 500 + "b" * 1_500
    assert talk.loop.last_text == "a" * 500
    assert talk.loop.last_outcome == "ok"


def test_an_iteration_without_text_leaves_the_last_text_as_it_was() -> None:
    talk = working()
    talk.turn("first words")
    talk.settle()
    talk.reply("new_session")
    talk.accept()
    talk.turn("", tools=1)
    talk.settle()
    assert talk.loop.last_text == "first words" and talk.records[-1]["summary"] == ""


def test_a_model_that_answers_under_no_name_is_the_one_that_pi_started_with() -> None:
    talk = working()
    talk.say(AssistantStart(None), AssistantEnd("x", "stop", None, None, None, Usage(1, 1, 0, 0, 0.1), 0))
    settle(talk)
    assert (talk.records[-1]["model"], talk.records[-1]["provider"]) == ("m1", "fake")


@pytest.mark.parametrize(
    ("tokens", "cost", "expected"),
    [
        ({"input": 20, "output": 2, "cacheRead": 3, "cacheWrite": 4}, 0.5, (20, 2, 3, 4, 0.5)),
        ({"input": 20}, 0.5, (20, 0, 0, 0, 0.5)),
        ({"input": 5, "output": None}, 9.0, (10, 0, 0, 0, 9.0)),
        ({"input": 10}, 0.3, (10, 0, 0, 0, 0.3)),
        ({"input": 10}, 0.2, (10, 0, 0, 0, 0.25)),
        ({"cacheRead": 11}, 1, (10, 0, 11, 0, 1.0)),
        ({"cacheWrite": 11}, 0, (10, 0, 0, 11, 0.25)),
        ({"output": 11}, 0, (10, 11, 0, 0, 0.25)),
        (None, 0.5, (10, 0, 0, 0, 0.25)),
        ({"input": 20}, None, (10, 0, 0, 0, 0.25)),
        ({"input": 20}, "0.5", (10, 0, 0, 0, 0.25)),
    ],
)
def test_of_each_figure_the_larger_of_pis_and_of_our_sum_counts(
    tokens: Any, cost: Any, expected: tuple[int, int, int, int, float]
) -> None:
    talk = working()
    answer(talk, Usage(10, 0, 0, 0, 0.25))
    settle(talk, tokens=tokens, cost=cost, **SESSION)
    assert figures(talk) == expected
    assert talk.loop.stats["cost"] == expected[-1] and talk.loop.stats["tokensIn"] == expected[0]


@pytest.mark.parametrize("stats", [{}, {"sessionId": 7, "sessionFile": None}])
def test_a_session_that_pi_does_not_name_is_none(stats: dict[str, Any]) -> None:
    talk = working()
    talk.turn()
    settle(talk, **stats)
    assert talk.records[-1]["sessionId"] is None and talk.records[-1]["sessionFile"] is None


def test_a_pi_that_does_not_tell_its_figures_is_not_waited_for_longer_than_fifteen_seconds() -> None:
    talk = working()
    talk.turn(cost=0.25)
    talk.say(AgentEnd(False), Settled(False))
    assert next_deadline(talk.loop) == talk.mono + 15_000
    talk.later(14_999)
    assert not talk.records
    talk.later(1)
    assert talk.records[-1]["cost"] == 0.25
    assert talk.sent("new_session")


def test_figures_that_are_there_are_not_waited_for_again() -> None:
    talk = working()
    talk.turn()
    talk.slow_measure = True
    settle(talk)
    assert next_deadline(talk.loop) is None
    talk.later(1_000_000)
    assert not talk.effects
    talk.measured()
    assert len(talk.records) == 1


def test_a_pi_that_is_gone_is_asked_for_no_figures() -> None:
    talk = working()
    talk.turn()
    talk.exit(1, "boom")
    assert not talk.sent("get_session_stats")
    record = talk.records[-1]
    assert (record["outcome"], record.get("error")) == (
        "crashed",
        "pi ended in the middle of an iteration (exit code 1: boom)",
    )


@pytest.mark.parametrize(
    ("turn", "outcome", "kind", "error"),
    [
        ({"stop": "error", "error": "500 no"}, "failed", "overloaded", "500 no"),
        ({"stop": "error", "error": None}, "failed", "other", "unknown error"),
        ({"stop": "aborted"}, "aborted", None, None),
        ({"text": "cut off", "stop": "length"}, "ok", None, None),
        ({"text": "", "tools": 1, "stop": "toolUse"}, "ok", None, None),
    ],
)
def test_a_run_is_judged_by_its_last_answer(
    turn: dict[str, Any], outcome: str, kind: str | None, error: str | None
) -> None:
    talk = working()
    talk.turn(**turn)
    talk.settle()
    record = talk.records[-1]
    assert (record["outcome"], record.get("errorKind"), record.get("error")) == (outcome, kind, error)


def test_a_run_that_settles_without_an_answer_has_failed() -> None:
    talk = working()
    settle(talk)
    record = talk.records[-1]
    assert (record["outcome"], record.get("errorKind")) == ("failed", "other")
    assert record.get("error") == "pi settled without an answer of the model"


@pytest.mark.parametrize(
    ("new_pi", "text", "usage", "kind"),
    [
        (False, "", Usage(), "network"),
        (False, "x", Usage(), None),
        (False, "", Usage(1, 0, 0, 0, 0.0), "empty"),
        (False, "", Usage(0, 0, 0, 1, 0.0), "empty"),
        (True, "", Usage(), "empty"),
    ],
)
def test_an_answer_of_nothing_at_all_is_of_old_pi_a_connection_that_closed_early(
    new_pi: bool, text: str, usage: Usage, kind: str | None
) -> None:
    talk = Talk(new_pi=new_pi)
    talk.boot()
    talk.accept()
    answer(talk, usage, text)
    talk.say(AgentEnd(False))
    if new_pi:
        talk.say(Settled(False))
    else:
        talk.reply("get_state", {"isStreaming": False})
    talk.reply("get_session_stats", {"sessionId": "s", "sessionFile": "/s.jsonl"})
    record = talk.records[-1]
    assert record["outcome"] == ("ok" if kind is None else "failed")
    assert record.get("errorKind") == kind
    assert (talk.status == "waiting") == (kind is not None)


def test_a_run_that_had_come_to_its_end_is_ok_although_it_was_being_ended() -> None:
    talk = working(iterationTimeoutMs=60_000)
    talk.later(60_000)
    talk.turn("finished in time")
    talk.settle()
    assert talk.records[-1]["outcome"] == "ok"


def test_a_pi_that_dies_after_its_last_answer_has_crashed_all_the_same() -> None:
    talk = working()
    talk.turn("finished")
    talk.exit(1)
    assert talk.records[-1]["outcome"] == "crashed"


def test_an_error_is_kept_up_to_two_thousand_characters() -> None:
    talk = working()
    talk.turn("", stop="error", error="500 " + "x" * 3_000)
    talk.settle()
    assert talk.records[-1].get("error") == "500 " + "x" * 1_996
    assert talk.loop.error == "overloaded: 500 " + "x" * 296


def test_a_failure_is_told_in_one_line() -> None:
    talk = working()
    talk.turn("", stop="error", error="503 one\n  two\tthree")
    talk.settle()
    assert talk.loop.error == "overloaded: 503 one two three"


def test_failures_in_a_row_end_the_loop_and_say_how_many_and_the_last() -> None:
    talk = Talk(maxFailures=2)
    talk.boot()
    for text in ("strange", "stranger"):
        talk.accept()
        talk.turn("", stop="error", error=text)
        talk.settle()
        if talk.status == "waiting":
            talk.wait_over()
    assert done(talk) == ("error", "failures")
    assert talk.loop.error == "2 iterations failed in a row; the last: stranger"


def test_a_good_iteration_makes_failures_start_anew_and_an_aborted_one_changes_nothing() -> None:
    talk = Talk(maxFailures=3)
    talk.boot()
    for stop, expected in (("error", 1), ("aborted", 1), ("error", 2), ("stop", 0), ("error", 1)):
        talk.accept()
        talk.turn("x" if stop == "stop" else "", stop=stop, error="strange" if stop == "error" else None)
        talk.settle()
        assert talk.loop.consecutive_failures == expected, stop
        talk.wait_over() if talk.status == "waiting" else talk.reply("new_session", {"cancelled": False})


def test_without_a_limit_the_loop_continues_after_any_number_of_failures() -> None:
    talk = Talk(maxFailures=0)
    talk.boot()
    for _ in range(12):
        talk.accept()
        talk.turn("", stop="error", error="strange")
        talk.settle()
        talk.wait_over()
    assert talk.loop.consecutive_failures == 12 and talk.status in ("starting", "running")


def test_waiting_for_a_provider_is_no_failure_whether_or_not_it_names_its_reset() -> None:
    for text, wait in (("429 rate limit, try again in 60s", 60_000), ("429 rate limit", None), ("503 in 60s", None)):
        talk = working()
        talk.turn("", stop="error", error=text)
        talk.settle()
        assert talk.status == "waiting" and talk.loop.consecutive_failures == 0, text
        assert wait is None or talk.loop.next_wake == talk.wall + wait


def test_a_quota_waits_for_its_reset_and_tells_when_it_goes_on() -> None:
    talk = working()
    talk.turn("", stop="error", error="429 usage limit reached, try again in 2h")
    talk.settle()
    assert talk.loop.next_wake == talk.wall + 7_200_000
    assert next_deadline(talk.loop) == talk.mono + 7_200_000
    talk.later(7_199_999)
    assert talk.status == "waiting"
    talk.later(1)
    assert talk.status == "running" and talk.loop.next_wake is None and talk.loop.error is None


def test_a_wait_ends_when_the_clock_says_so_although_the_machine_slept() -> None:
    talk = working()
    talk.turn("", stop="error", error="429 rate limit, try again in 60s")
    talk.settle()
    talk.wall += 60_000
    talk.later(0)
    assert talk.status == "running"


def test_a_wait_counts_towards_max_time_and_ends_with_it() -> None:
    talk = working(maxTimeMs=100_000)
    talk.turn("", stop="error", error="429 rate limit, try again in 1h")
    talk.settle()
    assert next_deadline(talk.loop) == talk.mono + 100_000
    talk.later(99_999)
    assert talk.status == "waiting"
    talk.later(1)
    assert done(talk) == ("stopped", "max-time")


def test_a_pause_during_a_failure_comes_before_the_wait() -> None:
    talk = working()
    talk.command("pause")
    talk.turn("", stop="error", error="503 no")
    talk.settle()
    assert talk.status == "paused" and talk.loop.next_wake is None


def test_a_stall_is_told_with_its_length() -> None:
    talk = Talk(stallAfter=2)
    talk.boot()
    talk.iterate()
    for _ in range(2):
        talk.iterate(change=False)
    assert done(talk) == ("error", "stalled")
    assert talk.loop.error == (
        "2 iterations in a row changed nothing in the project, task.md and ignored files included, and wrote no file elsewhere"
    )


def test_an_outage_is_no_iteration_that_changed_nothing() -> None:
    talk = Talk(stallAfter=2)
    talk.boot()
    talk.iterate()
    talk.iterate(change=False)
    talk.accept()
    talk.turn("", stop="error", error="503 no")
    talk.settle()
    assert talk.loop.unchanged == 1 and talk.status == "waiting"


@pytest.mark.parametrize("rest", ["wait", "pause"])
def test_what_changes_while_no_agent_works_is_no_agents_work(rest: str) -> None:
    talk = Talk(stallAfter=2)
    talk.boot()
    talk.iterate()
    talk.iterate(change=False)
    talk.accept()
    if rest == "pause":
        talk.command("pause")
    talk.turn("", stop="error", error="503 no")
    talk.settle()
    talk.tree += 1
    if rest == "pause":
        talk.command("resume", id="c2")
        talk.reply("new_session")
    else:
        talk.wait_over()
    talk.iterate(change=False)
    assert done(talk) == ("error", "stalled")


def test_a_refused_claim_is_told_until_the_model_has_answered_to_it() -> None:
    talk = working(verify="make test")
    talk.turn(MARKER)
    talk.settle()
    talk.say(Verified({"command": "make test", "exitCode": 2, "durationMs": 5, "tail": "  \n"}))
    talk.reply("new_session")
    refusal = "`make test` ended with exit code 2. The end of its output:\n\n(no output)"
    assert talk.loop.refusal == refusal and refusal in talk.prompt
    talk.accept()
    talk.turn("", stop="error", error="503 no")
    talk.settle()
    talk.wait_over()
    assert refusal in talk.prompt, "the model has not seen it"
    talk.accept()
    talk.turn()
    talk.settle()
    talk.reply("new_session")
    assert talk.loop.refusal is None and "exit code 2" not in talk.prompt


def test_a_verify_that_was_run_is_in_the_record_and_the_project_is_measured_anew_after_it() -> None:
    talk = working(verify="make test")
    talk.turn(MARKER)
    talk.settle()
    verify: Any = {"command": "make test", "exitCode": 2, "durationMs": 5, "tail": "no"}
    talk.say(Verified(verify))
    assert talk.records[-1].get("verify") == verify
    assert talk.did(fx.MeasureWork) == [fx.MeasureWork(None)]


def test_a_claim_is_not_verified_once_a_stop_has_come() -> None:
    talk = working(verify="make test")
    talk.command("stop")
    talk.turn(MARKER)
    talk.settle()
    assert not talk.did(fx.RunVerify)
    assert done(talk) == ("stopped", "stop")


def test_a_checklist_counts_without_a_marker_and_a_task_that_is_gone_is_no_checklist() -> None:
    talk = working()
    talk.task = None  # type: ignore[assignment]
    talk.turn()
    talk.settle()
    assert len(talk.records) == 1 and done(talk) == ("error", "blocked")


def test_a_claim_of_a_run_that_was_cut_does_not_count() -> None:
    talk = working()
    talk.turn(MARKER, stop="aborted")
    talk.settle()
    assert talk.records[-1]["outcome"] == "aborted" and talk.status != "stopping"


def test_a_reflection_is_remembered_once_the_model_has_answered() -> None:
    talk = working(reflectEvery=1)
    assert "look back" in talk.prompt
    talk.turn("", stop="error", error="503 no")
    talk.settle()
    assert talk.loop.last_reflection is None
    talk.wait_over()
    talk.iterate()
    assert talk.loop.last_reflection == 2


def test_the_prompts_number_is_above_all_that_were_ever_used() -> None:
    talk = Talk()
    talk.loop = replace(talk.loop, iteration=7, highest=9)
    talk.boot()
    assert talk.loop.iteration == 10
    assert [e for e in talk.all if isinstance(e, fx.BeginIteration)] == [fx.BeginIteration(10, "work", None)]


def test_a_pi_that_exits_while_its_figures_are_awaited_costs_nothing_of_the_record() -> None:
    talk = working()
    talk.turn(cost=0.25)
    talk.say(AgentEnd(False), Settled(False))
    talk.say(PiExited(1, "natural", ""))
    assert (talk.records[-1]["outcome"], talk.records[-1]["cost"]) == ("ok", 0.25)
    assert talk.did(fx.StartPi)


def test_an_agent_that_starts_again_is_not_over() -> None:
    talk = working()
    talk.turn()
    talk.say(AgentEnd(True), AgentStart())
    talk.turn("second")
    talk.settle()
    assert talk.records[-1]["turns"] == 2 and talk.records[-1]["summary"] == "second"
