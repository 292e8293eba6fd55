"""Conversations about time during a run: what is due when, to the millisecond, and what is done and told then."""

from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantStart,
    CompactionEnd,
    CompactionStart,
    LogBlocked,
    LogUnblocked,
    PiExited,
    QueueUpdate,
    Reply,
    RetryEnd,
    RetryStart,
    StreamActivity,
    ToolEnd,
    ToolStart,
    UserMessage,
)
from ralph_runner.core.step import next_deadline
from tests.core.talk import Talk

QUIET: dict[str, Any] = {"idleTimeoutMs": 0, "toolTimeoutMs": 0, "iterationTimeoutMs": 0}
"""No watchdog but those that cannot be switched off."""
FULL = LogBlocked("No space left on device", is_full=True)


def prompted(new_pi: bool = True, **config: Any) -> Talk:
    """The prompt is out, nothing has come back."""
    talk = Talk(new_pi, **config)
    talk.boot()
    return talk


def answering(new_pi: bool = True, **config: Any) -> Talk:
    """The model answers; the loop is shown as running."""
    talk = prompted(new_pi, **config)
    talk.accept()
    talk.say(AssistantStart(None))
    assert talk.status == "running"
    return talk


def ends(talk: Talk) -> list[fx.EndPi]:
    return talk.did(fx.EndPi)


def due_in(talk: Talk) -> int | None:
    deadline = next_deadline(talk.loop)
    return None if deadline is None else deadline - talk.mono


def test_a_loop_is_shown_as_running_after_four_seconds_without_bad_news() -> None:
    talk = prompted()
    talk.accept()
    assert talk.status == "starting" and due_in(talk) == 4_000
    talk.later(3_999)
    assert talk.status == "starting"
    talk.later(1)
    assert talk.status == "running"
    assert talk.events("ralph_status") == [{"from": "starting", "to": "running"}]


def test_without_limits_a_run_that_answers_has_no_deadline() -> None:
    assert due_in(answering(**QUIET)) is None


def test_pi_has_a_minute_to_begin_whatever_the_idle_timeout_is() -> None:
    talk = prompted(**QUIET)
    talk.later(59_999)
    assert not talk.sent("get_state")
    assert due_in(talk) == 1
    talk.later(1)
    assert talk.sent("get_state")
    assert talk.notices() == ["no sign of life from pi for 60 s; asking it"]
    assert due_in(talk) == 5_000


def test_the_time_of_an_iteration_is_up_to_the_millisecond() -> None:
    talk = answering(**{**QUIET, "iterationTimeoutMs": 60_000})
    assert due_in(talk) == 60_000
    talk.later(59_999)
    assert not talk.sent("abort")
    talk.later(1)
    assert talk.sent("abort") and due_in(talk) == 5_000
    talk.later(4_999)
    assert not ends(talk)
    talk.later(1)
    assert ends(talk) == [fx.EndPi(graceful=False)]
    assert talk.notices()[-1] == "pi did not end in time after an abort; killing it"
    assert due_in(talk) is None
    talk.later(60_000)
    assert not talk.effects, "it is killed once"
    talk.say(PiExited(-15, "sigterm", ""))
    record = talk.records[-1]
    assert (record["outcome"], record.get("errorKind")) == ("timeout", "hang")
    assert record.get("error") == "longer than --iteration-timeout; ended by a kill"


def test_an_iteration_that_an_abort_could_end_says_so() -> None:
    talk = answering(**{**QUIET, "iterationTimeoutMs": 60_000})
    talk.later(60_000)
    talk.turn("", stop="aborted")
    talk.settle()
    assert talk.records[-1].get("error") == "longer than --iteration-timeout; ended by an abort"


def test_max_time_is_due_when_what_is_left_of_it_has_passed() -> None:
    talk = answering(**{**QUIET, "maxTimeMs": 100_000})
    assert due_in(talk) == 100_000
    talk.later(30_000)
    assert due_in(talk) == 70_000
    talk.later(69_999)
    assert not talk.sent("abort")
    talk.later(1)
    assert talk.sent("abort")


def test_silence_is_measured_from_the_last_sign_of_life_of_any_kind() -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000})
    talk.later(50_000)
    talk.say(StreamActivity())
    assert due_in(talk) == 60_000
    talk.later(50_000)
    talk.say(Reply("get_state", "late", True))
    talk.later(59_999)
    assert not talk.sent("get_state")
    talk.later(1)
    assert talk.sent("get_state") and talk.notices()[-1] == "no sign of life from pi for 60 s; asking it"


def test_a_tool_has_the_time_for_tools_until_the_last_one_ends() -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000, "toolTimeoutMs": 600_000})
    talk.say(ToolStart("a", "bash"), ToolStart("b", "read"))
    assert due_in(talk) == 600_000
    talk.say(ToolEnd("a", "bash", False))
    assert due_in(talk) == 600_000
    talk.say(ToolEnd("b", "read", False))
    assert due_in(talk) == 60_000


def test_a_new_agent_run_has_no_tools_of_the_one_before() -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000, "toolTimeoutMs": 600_000})
    talk.say(ToolStart("a", "bash"), AgentStart())
    assert due_in(talk) == 60_000


def test_without_a_time_for_tools_a_tool_may_run_for_ever() -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000})
    talk.say(ToolStart("a", "bash"))
    assert due_in(talk) is None


def test_a_pi_that_does_not_answer_the_question_is_killed_after_five_seconds() -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000})
    talk.later(60_000)
    assert due_in(talk) == 5_000
    talk.later(4_999)
    assert not ends(talk)
    talk.later(1)
    assert ends(talk) and talk.notices()[-1] == "pi does not answer; killing it"
    talk.say(PiExited(-9, "sigkill", ""))
    record = talk.records[-1]
    assert (record["outcome"], record.get("error")) == ("timeout", "no sign of life; ended by a kill")


def test_while_a_question_is_open_no_second_one_is_asked() -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 1_000})
    talk.later(1_000)
    talk.later(4_000)
    assert not talk.effects


@pytest.mark.parametrize(
    ("data", "success"), [({"isStreaming": True}, True), ({"isCompacting": True}, True), ({}, False)]
)
def test_a_silent_pi_that_says_it_is_busy_is_aborted(data: dict[str, Any], success: bool) -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000})
    talk.later(60_000)
    talk.reply("get_state", data, success=success, error="" if success else "no")
    assert talk.sent("abort") and due_in(talk) == 5_000
    talk.turn("", stop="aborted")
    talk.settle()
    assert talk.records[-1].get("error") == "no sign of life; ended by an abort"


@pytest.mark.parametrize("begun", [False, True])
def test_a_silent_pi_that_says_it_is_idle_has_settled(begun: bool) -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000}) if begun else prompted()
    talk.later(60_000)
    talk.reply("get_state", {"isStreaming": False, "isCompacting": False})
    assert not talk.sent("abort") and talk.sent("get_session_stats")
    assert talk.events("ralph_notice")[-1] == {
        "level": "warning",
        "message": "pi is idle although it never said that the run is over; taken as its end",
    }


def test_a_pi_that_retries_and_falls_silent_is_aborted_even_if_it_says_it_is_idle() -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000})
    talk.say(RetryStart(1, 2_000, "500"))
    talk.later(60_000)
    talk.reply("get_state", {"isStreaming": False})
    assert talk.sent("abort")


def test_an_abort_drops_what_waits_in_pi_first() -> None:
    talk = answering()
    talk.command("abort")
    assert [send.command for send in talk.did(fx.Send)] == ["clear_queue", "abort"]


def test_a_run_that_is_being_ended_is_not_ended_again() -> None:
    talk = answering(**{**QUIET, "iterationTimeoutMs": 60_000, "maxTimeMs": 70_000, "idleTimeoutMs": 61_000})
    talk.command("abort")
    deadline = next_deadline(talk.loop)
    talk.command("abort", id="c2")
    talk.later(4_000)
    assert not talk.sent("abort") and next_deadline(talk.loop) == deadline


def test_a_full_disk_leaves_an_abort_one_second() -> None:
    talk = answering(**QUIET)
    talk.say(FULL)
    talk.command("abort", then="stop")
    assert talk.sent("abort") and due_in(talk) == 1_000
    talk.later(999)
    assert not ends(talk)
    talk.later(1)
    assert ends(talk)


def test_time_on_a_full_disk_counts_for_no_watchdog() -> None:
    talk = answering(**{**QUIET, "iterationTimeoutMs": 60_000, "idleTimeoutMs": 50_000})
    talk.later(10_000)
    talk.say(FULL)
    talk.later(1_000_000)
    talk.say(LogUnblocked())
    assert due_in(talk) == 50_000
    talk.say(StreamActivity())
    talk.later(49_999)
    assert not talk.effects
    talk.later(1)
    assert talk.sent("abort"), "50 s of the iteration's 60 are left, and no more"


def test_a_question_that_is_open_on_a_full_disk_may_be_answered_later() -> None:
    talk = answering(**{**QUIET, "idleTimeoutMs": 60_000})
    talk.later(60_000)
    talk.later(2_000)
    talk.say(FULL)
    talk.later(1_000_000)
    talk.say(LogUnblocked())
    assert due_in(talk) == 3_000
    talk.later(3_000)
    assert ends(talk)


def expecting(**config: Any) -> Talk:
    """An old pi has compacted and said that it would go on; it has not yet."""
    talk = answering(new_pi=False, **{**QUIET, **config})
    talk.turn()
    talk.say(AgentEnd(None), CompactionStart("threshold"), CompactionEnd(True, ""))
    return talk


def test_an_announced_run_has_five_seconds_to_begin() -> None:
    talk = expecting()
    assert due_in(talk) == 5_000
    talk.later(4_999)
    assert not talk.sent("get_session_stats")
    talk.later(1)
    assert talk.sent("get_session_stats")


def test_an_announced_run_may_begin_later_if_the_disk_was_full() -> None:
    talk = expecting()
    talk.later(1_000)
    talk.say(FULL)
    talk.later(1_000_000)
    talk.say(LogUnblocked())
    assert due_in(talk) == 4_000
    talk.later(3_999)
    assert not talk.sent("get_session_stats")
    talk.later(1)
    assert talk.sent("get_session_stats")


def test_an_announced_run_that_begins_is_waited_for_no_longer() -> None:
    talk = expecting()
    talk.say(AgentStart())
    talk.later(5_000)
    assert not talk.sent("get_session_stats")


def test_a_compaction_that_announces_nothing_ends_the_run() -> None:
    talk = answering(new_pi=False)
    talk.turn()
    talk.say(AgentEnd(None), CompactionStart("threshold"), CompactionEnd(False, ""))
    assert talk.sent("get_session_stats")


def test_a_compaction_in_the_middle_of_a_run_ends_nothing() -> None:
    talk = answering(new_pi=False)
    talk.say(CompactionStart("threshold"), CompactionEnd(False, ""))
    assert not talk.sent("get_session_stats")


def test_the_end_of_a_retry_that_failed_ends_only_a_run_that_was_retried() -> None:
    talk = answering(new_pi=False)
    talk.say(RetryEnd(False, "529"))
    assert not talk.sent("get_session_stats")
    talk.say(RetryStart(1, 1_000, "529"), RetryEnd(True, ""))
    assert not talk.sent("get_session_stats")
    talk.say(RetryStart(2, 1_000, "529"), RetryEnd(False, "529"))
    assert talk.sent("get_session_stats")


def test_a_new_pi_settles_by_its_own_word_only() -> None:
    talk = answering()
    talk.say(RetryStart(1, 1_000, "529"), RetryEnd(False, "529"), AgentEnd(False))
    assert not talk.sent("get_session_stats") and not talk.sent("get_state")


def test_a_barrier_that_finds_messages_in_pi_waits_for_the_run_that_reads_them() -> None:
    talk = answering(new_pi=False)
    talk.say(QueueUpdate(("x",), ()), AgentEnd(None))
    talk.reply("get_state", {"isStreaming": False})
    assert not talk.sent("get_session_stats") and due_in(talk) == 5_000
    talk.say(AgentStart(), UserMessage("x"), QueueUpdate((), ()), AgentEnd(None))
    talk.reply("get_state", {"isStreaming": False})
    assert talk.sent("get_session_stats")


def test_a_barrier_after_an_abort_does_not_wait_for_messages_that_were_dropped() -> None:
    talk = answering(new_pi=False)
    talk.say(QueueUpdate((), ("x",)))
    talk.command("abort")
    talk.turn("", stop="aborted")
    talk.say(AgentEnd(None))
    talk.reply("get_state", {"isStreaming": False})
    assert talk.sent("get_session_stats")
