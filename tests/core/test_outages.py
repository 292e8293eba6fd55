"""While a provider does not answer: nothing is booked to the task, one worker asks, fallback models step in."""

from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    PiExited,
    Reply,
    Settled,
    Usage,
    UserMessage,
)
from ralph_runner.core.models import told
from ralph_runner.core.phases import Waiting
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from tests.core.talk import MARKER, Talk
from tests.core.ticket_talk import World, ticket, verdict

BILL = "402 Insufficient Balance"
DAY = 86_400_000


def fail(talk: Talk, error: str) -> None:
    """One iteration that the provider does not answer."""
    talk.accept()
    talk.turn("", stop="error", error=error)
    talk.settle()


def refuse(world: World, key: str, error: str) -> None:
    prompt = next(send for send in reversed(world.sent[key]) if send.command == "prompt")
    failed = AssistantEnd("", "error", error, "m1", "fake", Usage(), 0)
    for event in (
        Reply("prompt", prompt.id, True),
        AgentStart(),
        UserMessage(str(prompt.members["message"])),
        AssistantStart("error"),
        failed,
        AgentEnd(False),
        Settled(False),
    ):
        world.say(results.From(key, event))


def test_an_unpaid_bill_waits_with_the_providers_words_and_is_no_work() -> None:
    talk = Talk(stallAfter=2, maxFailures=2, maxIterations=2)
    talk.boot()
    gaps: list[int] = []
    for _ in range(8):
        fail(talk, BILL)
        assert talk.status == "waiting"
        assert talk.loop.waiting_for == "billing"
        assert talk.loop.error == f"billing: {BILL}"
        assert talk.loop.next_wake is not None
        gaps.append(talk.loop.next_wake - talk.wall)
        talk.wait_over()
    assert gaps[0] <= 60_000 and gaps == sorted(gaps) and gaps[-1] <= 1_800_000
    assert (talk.loop.stats["iterations"], talk.loop.unchanged, talk.loop.consecutive_failures) == (0, 0, 0)
    talk.iterate()
    assert talk.status == "running" and talk.loop.stats["iterations"] == 1


@pytest.mark.parametrize("text", ["", "   \n"])
def test_an_answer_without_text_and_tool_call_is_empty_and_no_work(text: str) -> None:
    talk = Talk(stallAfter=2, maxFailures=3)
    talk.boot()
    for number in range(1, 4):
        record = talk.iterate(text, change=False)
        assert (record["outcome"], record.get("errorKind")) == ("failed", "empty")
        if number < 3:
            talk.wait_over()
    assert talk.loop.unchanged == 0 and talk.loop.stats["iterations"] == 0
    talk.exit()
    assert (talk.loop.status, talk.loop.stop_reason) == ("error", "failures")
    assert "neither text nor a tool call" in str(talk.loop.error)


def test_a_refused_request_is_tried_three_times_then_the_loop_ends_with_the_providers_words() -> None:
    talk = Talk()
    talk.boot()
    for _ in range(2):
        fail(talk, "422 no such parameter: top_k")
        assert (talk.status, talk.loop.waiting_for) == ("waiting", "refused")
        talk.wait_over()
    fail(talk, "422 no such parameter: top_k")
    talk.exit()
    assert (talk.loop.status, talk.loop.stop_reason) == ("error", "failures")
    assert "no such parameter: top_k" in str(talk.loop.error)
    assert talk.loop.stats["iterations"] == 0


def test_a_good_answer_forgives_refusals() -> None:
    talk = Talk()
    talk.boot()
    for _ in range(3):
        fail(talk, "422 no")
        talk.wait_over()
        fail(talk, "422 no")
        talk.wait_over()
        talk.iterate()
    assert talk.status == "running"


def test_a_reset_further_off_than_max_wait_is_for_a_person_at_once() -> None:
    talk = Talk(maxWaitMs=2 * DAY)
    talk.boot()
    fail(talk, "You've hit your weekly limit · try again in 3 days")
    talk.exit()
    assert (talk.loop.status, talk.loop.stop_reason) == ("error", "failures")
    assert "try again in 3 days" in str(talk.loop.error) and "--max-wait" in str(talk.loop.error)


def test_waits_count_towards_max_wait_alone_from_the_first_failure_on() -> None:
    talk = Talk(maxFailures=1, maxWaitMs=3_600_000)
    talk.boot()
    began = talk.wall
    while talk.status != "stopping":
        fail(talk, "503 service unavailable")
        if talk.status == "waiting":
            talk.wait_over()
    assert 3_600_000 <= talk.wall - began <= 3_600_000 + 600_000
    assert "no answer since" in str(talk.loop.error)


def test_an_answer_in_between_begins_the_wait_anew() -> None:
    talk = Talk(maxWaitMs=600_000)
    talk.boot()
    for _ in range(20):
        fail(talk, "503 service unavailable")
        talk.wait_over()
        talk.iterate()
        talk.later(100_000)
    assert talk.status == "running"


def test_a_backlog_waits_as_a_whole_and_one_worker_asks() -> None:
    world = World(*(ticket(name, name) for name in "abcdef"), parallel=2)
    world.begin()
    refuse(world, "a", BILL)
    assert sorted(world.loop.workers) == ["a", "b"]
    refuse(world, "b", BILL)
    assert (world.loop.status, world.loop.waiting_for) == ("waiting", "billing")
    asked: list[int] = []
    for _ in range(6):
        before = sum(len(world.prompts(key)) for key in world.loop.workers)
        world.due()
        while world.loop.status == "waiting":
            world.due()
        probes = [key for key in world.loop.workers if world.works(key)]
        asked.append(sum(len(world.prompts(key)) for key in world.loop.workers) - before)
        assert len(probes) == 1
        refuse(world, probes[0], BILL)
    assert asked == [1] * 6
    assert all(job.tried == 0 for job in world.loop.jobs.values())
    assert sorted(world.loop.workers) == ["a", "b"], "no further ticket starts while the model is out"
    while world.loop.status == "waiting":
        world.due()
    finish(world)
    assert verdict(world) == ("completed", "tickets-done")
    assert sorted(world.merged) == list("abcdef")


def finish(world: World) -> None:
    for _ in range(30):
        for key in [key for key in world.loop.workers if world.works(key)]:
            world.attempt(key)
        if world.loop.ended:
            return
        if not any(world.works(key) for key in world.loop.workers):
            world.due()


def test_all_others_continue_as_soon_as_one_has_an_answer() -> None:
    world = World(*(ticket(name, name) for name in "abc"), parallel=3)
    world.begin()
    for key in "abc":
        refuse(world, key, BILL)
    while world.loop.status == "waiting":
        world.due()
    probe = next(key for key in world.loop.workers if world.works(key))
    others = sorted(set("abc") - {probe})
    assert all(isinstance(world.loop.workers[key].phase, Waiting) for key in others)
    prompt = next(send for send in reversed(world.sent[probe]) if send.command == "prompt")
    for event in (
        Reply("prompt", prompt.id, True),
        AgentStart(),
        UserMessage(str(prompt.members["message"])),
        AssistantStart("toolUse"),
        AssistantEnd("", "toolUse", None, "m1", "fake", Usage(1, 1, 0, 0, 0.1), 1),
    ):
        world.say(results.From(probe, event))
    assert all(world.works(key) for key in others), "at once, not at the end of their own waits"


def test_what_nobody_answers_fails_no_ticket_and_ends_the_loop() -> None:
    world = World(ticket("a", "a"), ticket("b", "b"), maxFailures=2)
    world.begin()
    for _ in range(2):
        if not world.works("a"):
            world.due()
        prompt = next(send for send in reversed(world.sent["a"]) if send.command == "prompt")
        for event in (
            Reply("prompt", prompt.id, True),
            AgentStart(),
            UserMessage(str(prompt.members["message"])),
            AssistantStart("stop"),
            AssistantEnd("", "stop", None, "m1", "fake", Usage(5, 0, 0, 0, 0.1), 0),
            AgentEnd(False),
            Settled(False),
        ):
            world.say(results.From("a", event))
    for key in list(world.loop.workers):
        world.say(results.From(key, PiExited(0, "eof", "")))
    assert world.loop.stop_reason == "failures"
    assert set(world.statuses.values()) == {"orphaned"}


FALLBACK: dict[str, Any] = {"fallbackModels": ["other/small", "third/tiny"]}
HOURS = "429 You've hit your limit, try again in 2 hours"


def models_started(talk: Talk) -> list[str | None]:
    return [effect.model for effect in talk.all if isinstance(effect, fx.StartPi)]


def switch(talk: Talk) -> None:
    assert talk.effects[-1] == fx.EndPi(graceful=True)
    talk.exit()
    talk.greet()


def test_at_a_limit_the_next_iteration_runs_on_the_next_model_and_returns_after_the_reset() -> None:
    talk = Talk(**FALLBACK)
    talk.boot()
    fail(talk, HOURS)
    switch(talk)
    assert models_started(talk) == [None, "other/small"]
    talk.iterate()
    assert talk.loop.stats["iterations"] == 1
    talk.later(3 * 3_600_000)
    talk.accept()
    talk.turn()
    talk.settle()
    switch(talk)
    assert models_started(talk) == [None, "other/small", None]
    talk.iterate()
    assert talk.status == "running"


def test_models_are_tried_in_their_order_and_the_wait_is_for_the_first_that_is_back() -> None:
    talk = Talk(**FALLBACK)
    talk.boot()
    fail(talk, HOURS)
    switch(talk)
    fail(talk, "429 usage limit reached, try again in 1 hour")
    switch(talk)
    began = talk.wall
    fail(talk, "429 usage limit reached, try again in 3 hours")
    assert models_started(talk) == [None, "other/small", "third/tiny"]
    assert talk.status == "waiting" and talk.loop.next_wake == began + 3_600_000


def test_a_short_wait_is_no_reason_to_switch() -> None:
    talk = Talk(**FALLBACK)
    talk.boot()
    fail(talk, "429 rate limit, try again in 4 minutes")
    assert talk.status == "waiting"
    assert models_started(talk) == [None]


def test_a_fallback_that_cannot_be_used_is_left_out_and_ends_nothing() -> None:
    talk = Talk(**FALLBACK)
    talk.boot()
    fail(talk, HOURS)
    switch(talk)
    fail(talk, "401 Incorrect API key provided")
    switch(talk)
    assert models_started(talk) == [None, "other/small", "third/tiny"]
    told = [e.event for e in talk.all if isinstance(e, fx.Emit) and e.event["type"] == "ralph_notice"]
    assert any("other/small cannot be used" in str(event) for event in told)
    talk.iterate(f"done\n{MARKER}")
    talk.exit()
    assert (talk.loop.status, talk.loop.stop_reason) == ("completed", "marker")


def test_a_stop_while_pi_is_exchanged_ends_the_loop() -> None:
    talk = Talk(**FALLBACK)
    talk.boot()
    fail(talk, HOURS)
    talk.command("stop")
    talk.exit()
    assert (talk.loop.status, talk.loop.stop_reason) == ("stopped", "stop")


def test_only_the_last_message_claims() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn(f"done\n{MARKER}", stop="toolUse", tools=1)
    talk.turn("")
    talk.settle()
    talk.reply("new_session", {"cancelled": False})
    assert talk.status == "running"
    assert talk.records[-1]["outcome"] == "ok"


def test_an_account_that_is_empty_for_nobody_knows_how_long_is_reason_to_switch_at_once() -> None:
    for text in (BILL, "usage limit reached, come back later"):
        talk = Talk(**FALLBACK)
        talk.boot()
        fail(talk, text)
        switch(talk)
        assert models_started(talk) == [None, "other/small"]


def test_on_a_fallback_nobody_sits_through_the_last_minutes_before_the_reset() -> None:
    talk = Talk(**FALLBACK)
    talk.boot()
    fail(talk, HOURS)
    switch(talk)
    talk.later(2 * 3_600_000 - 120_000)
    talk.iterate()
    assert talk.status == "running" and models_started(talk) == [None, "other/small"]


def test_a_short_outage_that_another_worker_asks_about_is_no_reason_to_switch() -> None:
    world = World(ticket("a", "a"), ticket("b", "b"), parallel=2, fallbackModels=["other/small"])
    world.begin()
    refuse(world, "a", "503 overloaded")
    refuse(world, "b", "503 overloaded")
    while world.loop.status == "waiting":
        world.due()
    assert [key for key in "ab" if world.works(key)] in (["a"], ["b"])
    assert [e.effect.model for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.StartPi)] == [
        None
    ] * 2


def test_what_a_worker_that_is_gone_was_to_ask_is_asked_by_the_next_ticket() -> None:
    world = World(ticket("a", "a"), ticket("b", "b"), parallel=1, maxFailures=1)
    world.begin()
    refuse(world, "a", BILL)
    while world.loop.status == "waiting":
        world.due()
    world.say(results.From("a", PiExited(-9, "natural", "")))
    assert world.statuses["a"] == "failed"
    assert (world.loop.status, world.loop.waiting_for) == ("waiting", "billing")
    for _ in range(1_000):
        if "b" in world.loop.workers:
            break
        world.due()
    assert world.works("b")


def test_a_resume_while_the_provider_is_out_asks_at_once_and_with_one_worker() -> None:
    talk = Talk()
    talk.boot()
    fail(talk, BILL)
    talk.command("resume", id="r")
    talk.reply("new_session", {"cancelled": False})
    talk.iterate()
    assert talk.loop.stats["iterations"] == 1

    world = World(*(ticket(name, name) for name in "abc"), parallel=3)
    world.begin()
    for key in "abc":
        refuse(world, key, BILL)
    world.command("resume")
    assert sum(world.works(key) for key in "abc") == 1


def test_a_resume_begins_the_longest_wait_anew() -> None:
    talk = Talk(maxWaitMs=3_600_000)
    talk.boot()
    fail(talk, BILL)
    talk.command("pause", id="p")
    talk.later(2 * 3_600_000)
    talk.command("resume", id="r")
    talk.reply("new_session", {"cancelled": False})
    fail(talk, BILL)
    assert talk.status == "waiting"


def test_an_outage_without_a_named_end_is_told_in_the_state_with_the_models_that_are_out() -> None:
    talk = Talk(**FALLBACK)
    talk.boot()
    fail(talk, HOURS)
    switch(talk)
    fail(talk, "401 Incorrect API key provided")
    outages = told(talk.loop.config, talk.loop.outages)
    assert [(one["model"], one["kind"], one["until"] is None) for one in outages] == [
        (None, "quota", False),
        ("other/small", "auth", True),
    ]
