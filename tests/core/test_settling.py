"""Conversations about the end of a run: when it has settled, and the watchdogs that wait for that."""

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantStart,
    CompactionEnd,
    CompactionStart,
    Reply,
    RetryEnd,
    RetryStart,
    StreamActivity,
    ToolStart,
)
from tests.core.talk import Talk


def test_a_sign_of_life_takes_the_question_back() -> None:
    talk = Talk(idleTimeoutMs=60_000)
    talk.boot()
    talk.accept()
    talk.say(AssistantStart("stop"))
    talk.later(60_000)
    talk.say(StreamActivity())
    talk.later(10_001)
    assert not talk.did(fx.EndPi)


def test_a_running_tool_may_be_silent_for_longer() -> None:
    talk = Talk(idleTimeoutMs=60_000, toolTimeoutMs=600_000)
    talk.boot()
    talk.accept()
    talk.say(AssistantStart("toolUse"), ToolStart("t", "bash"))
    talk.later(61_000)
    assert not talk.sent("get_state")
    talk.later(540_000)
    assert talk.sent("get_state")


def test_a_settled_that_never_came_is_found_by_asking() -> None:
    talk = Talk(idleTimeoutMs=60_000)
    talk.boot()
    talk.accept()
    talk.turn()
    talk.later(60_000)
    talk.reply("get_state", {"isStreaming": False})
    talk.reply("get_session_stats")
    assert talk.records[-1]["outcome"] == "ok"


def test_old_pi_is_settled_when_the_barrier_is_answered() -> None:
    talk = Talk(new_pi=False)
    talk.boot()
    talk.accept()
    talk.turn()
    talk.say(AgentEnd(None))
    assert talk.sent("get_state") and not talk.records
    talk.reply("get_state", {"isStreaming": False})
    talk.reply("get_session_stats")
    assert talk.records[-1]["outcome"] == "ok"


def test_old_pi_that_retries_is_not_settled() -> None:
    talk = Talk(new_pi=False)
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error="500 no")
    talk.say(AgentEnd(None), RetryStart(1, 2000, "500 no"))
    talk.reply("get_state", {"isStreaming": False})
    assert not talk.sent("get_session_stats")
    talk.say(AgentStart())
    talk.turn()
    talk.say(RetryEnd(True, ""), AgentEnd(None))
    talk.reply("get_state")
    talk.reply("get_session_stats")
    assert talk.records[-1]["outcome"] == "ok"


def test_old_pi_whose_retries_are_used_up_is_settled() -> None:
    talk = Talk(new_pi=False)
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error="529 Overloaded")
    talk.say(AgentEnd(None), RetryStart(3, 8000, "529"))
    talk.say(RetryEnd(False, "529 Overloaded"))
    talk.reply("get_session_stats")
    assert (talk.records[-1]["outcome"], talk.records[-1].get("errorKind")) == ("failed", "overloaded")
    assert talk.status == "waiting"


def test_old_pi_that_compacts_after_an_overflow_continues() -> None:
    talk = Talk(new_pi=False)
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error="prompt is too long")
    talk.say(AgentEnd(None), CompactionStart("overflow"))
    talk.reply("get_state")
    talk.say(CompactionEnd(True, ""))
    assert not talk.sent("get_session_stats")
    talk.say(AgentStart())
    talk.turn()
    talk.say(AgentEnd(None))
    talk.reply("get_state")
    talk.reply("get_session_stats")
    assert talk.records[-1]["outcome"] == "ok"


def test_old_pi_whose_announced_run_never_comes_is_settled_after_a_while() -> None:
    talk = Talk(new_pi=False)
    talk.boot()
    talk.accept()
    talk.turn()
    talk.say(AgentEnd(None), CompactionStart("threshold"), CompactionEnd(True, ""))
    talk.later(5_001)
    talk.reply("get_session_stats")
    assert len(talk.records) == 1


def test_agent_end_of_new_pi_is_not_the_end() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.say(AgentEnd(True))
    assert not talk.sent("get_session_stats")


def test_late_and_unknown_replies_change_nothing() -> None:
    talk = Talk()
    talk.boot()
    before = talk.loop
    talk.say(Reply("get_state", "get_state-99", True), Reply("new_session", "new_session-1", True))
    assert talk.loop.phase.run.agent == before.phase.run.agent  # type: ignore[union-attr]
    assert not talk.did(fx.Send)
