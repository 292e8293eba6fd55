"""Conversations: what the core does with what happens."""

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    CompactionEnd,
    CompactionStart,
    Dialog,
    PiExited,
    QueueUpdate,
    Reply,
    RetryEnd,
    RetryStart,
    Settled,
    StreamActivity,
    ToolStart,
    Usage,
    UserMessage,
)  # fmt: skip
from ralph_runner.core.reports import Begin, Broken, CommandCame, PiSpawned, SpawnFailed, Terminate, Verified
from tests.core.talk import MARKER, Talk


def done(talk: Talk) -> tuple[str, str | None]:
    """Lets pi go where it is being ended; how the loop ended."""
    if talk.status == "stopping":
        talk.say(PiExited(0, "eof", ""))
    return talk.status, talk.loop.stop_reason


def test_three_iterations_and_the_limit_stops_the_loop() -> None:
    talk = Talk(maxIterations=3)
    talk.boot()
    for _ in range(3):
        talk.iterate()
    assert done(talk) == ("stopped", "max-iterations")
    assert [r["outcome"] for r in talk.records] == ["ok"] * 3
    assert [r["iteration"] for r in talk.records] == [1, 2, 3]
    assert talk.loop.stats["cost"] == pytest.approx(0.03)
    assert talk.did(fx.Finish) == [fx.Finish("stopped")]


def test_every_iteration_asks_for_a_new_session_and_waits_for_it() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.settle()
    assert [e.command for e in talk.did(fx.Send)] == ["new_session"]
    talk.reply("new_session", {"cancelled": False})
    assert len(talk.sent("prompt")) == 1


def test_a_marker_alone_on_the_last_line_completes() -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(f"all done\n\n{MARKER}\n")
    assert done(talk) == ("completed", "marker")


@pytest.mark.parametrize(
    "text", [f"I will write {MARKER} when done", f"{MARKER}\nbut one thing is left", f"say `{MARKER}`"]
)
def test_a_marker_in_prose_does_not_complete(text: str) -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(text)
    assert talk.status == "running"


def test_a_marker_in_a_truncated_answer_does_not_complete() -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(MARKER, stop="length")
    assert talk.status == "running"


def test_a_fully_ticked_checklist_completes() -> None:
    talk = Talk()
    talk.boot()
    talk.task = "- [x] one\n- [X] two\n```\n- [ ] example\n```\n"
    talk.iterate()
    assert done(talk) == ("completed", "checklist")


def test_verify_has_the_last_word() -> None:
    talk = Talk(verify="make test")
    talk.boot()
    talk.accept()
    talk.turn(MARKER)
    talk.settle()
    assert talk.did(fx.RunVerify) == [fx.RunVerify("make test", 3_600_000)]
    talk.say(Verified({"command": "make test", "exitCode": 2, "durationMs": 5, "tail": "1 failed"}))
    talk.reply("new_session")
    assert talk.status == "running"
    assert talk.prompt.startswith("The last iteration said that the task is complete, but it is not")
    assert "exit code 2" in talk.prompt and "1 failed" in talk.prompt
    talk.accept()
    talk.turn(MARKER)
    talk.settle()
    talk.say(Verified({"command": "make test", "exitCode": 0, "durationMs": 5, "tail": "ok"}))
    assert done(talk) == ("completed", "verified")
    assert talk.records[-1].get("verify", {}).get("exitCode") == 0


def test_a_steer_is_sent_to_a_running_pi_and_delivered_when_the_model_answers() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn(stop="toolUse", tools=1)
    talk.command("steer", message="be quick")
    assert [s.members["message"] for s in talk.sent("steer")] == ["be quick"]
    talk.reply("steer")
    assert talk.steps("c1") == ["accepted", "queued"]
    talk.say(QueueUpdate(("be quick",), ()), QueueUpdate((), ()), UserMessage("be quick"))
    assert talk.steps("c1") == ["accepted", "queued"]
    talk.say(AssistantStart("stop"))
    assert talk.steps("c1") == ["accepted", "queued", "delivered"]


def test_a_steer_whose_text_pi_expanded_is_recognised_by_the_queue() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="/review")
    talk.reply("steer")
    talk.say(QueueUpdate(("/review",), ()), QueueUpdate((), ()), UserMessage("Review all of it"), AssistantStart("stop"))
    assert talk.steps("c1")[-1] == "delivered"


def test_a_steer_that_pi_had_not_read_heads_the_next_prompt() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="late words")
    talk.reply("steer")
    talk.turn()
    talk.tree += 1
    talk.settle()
    talk.reply("new_session")
    assert "Message from the operator, to be followed first:\n\nlate words" in talk.prompt
    assert talk.prompt.index("late words") < talk.prompt.index("make it work")
    talk.accept()
    talk.say(AssistantStart("stop"))
    assert talk.steps("c1") == ["accepted", "queued", "delivered"]


def test_a_steer_between_iterations_is_held_and_never_sent_to_an_idle_pi() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.say(AgentEnd(False), Settled(False))
    talk.command("steer", message="in the gap")
    assert not talk.sent("steer")
    talk.reply("get_session_stats")
    talk.reply("new_session")
    assert "in the gap" in talk.prompt


def test_a_followup_for_next_waits_for_the_next_prompt() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("followup", message="afterwards", when="next")
    assert not talk.sent("follow_up")
    talk.turn()
    talk.settle()
    talk.reply("new_session")
    assert "afterwards" in talk.prompt


def test_a_followup_now_continues_the_session() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("followup", message="and then this")
    assert [s.members["message"] for s in talk.sent("follow_up")] == ["and then this"]


def test_a_steer_that_pi_refuses_goes_into_the_next_prompt() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="/command")
    talk.reply("steer", success=False, error="extension commands cannot be queued")
    talk.turn()
    talk.settle()
    talk.reply("new_session")
    assert "/command" in talk.prompt


def test_a_prompt_that_the_model_never_answered_gives_its_messages_back() -> None:
    talk = Talk()
    talk.command("steer", message="important")
    talk.boot()
    assert "important" in talk.prompt
    talk.accept()
    talk.turn("", stop="error", error="529 Overloaded")
    talk.settle()
    assert talk.status == "waiting"
    talk.wait_over()
    assert "important" in talk.prompt
    talk.accept()
    talk.say(AssistantStart("stop"))
    assert talk.steps("c1")[-1] == "delivered"


def test_messages_that_are_left_at_the_end_expire_and_are_kept() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("followup", message="too late", when="next")
    talk.turn(MARKER)
    talk.settle()
    assert done(talk) == ("completed", "marker")
    assert talk.steps("c1")[-1] == "expired"
    assert [m.text for m in talk.loop.mail] == ["too late"]


def test_abort_ends_the_run_and_the_next_iteration_is_fresh() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("abort")
    assert [e.command for e in talk.did(fx.Send)] == ["clear_queue", "abort"]
    talk.turn("", stop="error", error="This operation was aborted")
    talk.settle()
    assert talk.records[-1]["outcome"] == "aborted"
    assert talk.steps("c1")[-1] == "delivered"
    assert talk.sent("new_session")


def test_an_abort_that_is_never_answered_is_followed_by_a_kill() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("abort")
    talk.later(5_001)
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]
    talk.say(PiExited(-15, "sigterm", ""))
    assert talk.records[-1]["outcome"] == "aborted"
    assert talk.did(fx.StartPi), "a fresh pi for the next iteration, without a penalty"


def test_abort_then_pause_and_abort_then_stop() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("abort", then="pause")
    talk.turn("", stop="aborted")
    talk.settle()
    assert talk.status == "paused" and talk.steps("c1")[-1] == "delivered"
    talk.command("abort", id="c2", then="stop")
    assert done(talk) == ("stopped", "stop")


def test_old_pi_without_clear_queue_gets_the_abort_alone() -> None:
    talk = Talk(new_pi=False)
    talk.boot()
    talk.accept()
    talk.command("abort")
    assert [e.command for e in talk.did(fx.Send)] == ["abort"]


def test_stop_lets_the_iteration_end() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("stop")
    assert not talk.sent("abort") and talk.status == "starting"
    talk.turn()
    talk.settle()
    assert done(talk) == ("stopped", "stop")
    assert talk.records[-1]["outcome"] == "ok"
    assert talk.steps("c1") == ["accepted", "delivered"]


def test_stop_now_aborts() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("stop", when="now")
    assert talk.sent("abort")
    talk.turn("", stop="aborted")
    talk.settle()
    assert done(talk) == ("stopped", "stop")


def test_stop_while_paused_or_waiting_ends_at_once() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("pause")
    talk.turn()
    talk.settle()
    assert talk.status == "paused"
    talk.command("stop", id="c2")
    assert done(talk) == ("stopped", "stop")


def test_pause_holds_before_the_next_iteration_and_resume_goes_on() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("pause")
    talk.turn()
    talk.settle()
    assert talk.status == "paused" and not talk.sent("new_session")
    talk.command("resume", id="c2")
    talk.reply("new_session")
    assert talk.status == "running" and talk.sent("prompt")
    assert talk.steps("c1")[-1] == talk.steps("c2")[-1] == "delivered"


def test_a_pause_does_not_count_towards_max_time() -> None:
    talk = Talk(maxTimeMs=60_000)
    talk.boot()
    talk.accept()
    talk.command("pause")
    talk.turn()
    talk.settle()
    talk.later(10_000_000)
    talk.command("resume", id="c2")
    talk.reply("new_session")
    assert talk.status == "running"


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


def test_silence_is_followed_by_a_question_an_abort_and_a_kill() -> None:
    talk = Talk(idleTimeoutMs=60_000)
    talk.boot()
    talk.accept()
    talk.say(AssistantStart("stop"))
    talk.later(60_000)
    assert talk.sent("get_state")
    talk.reply("get_state", {"isStreaming": True})
    assert talk.sent("abort")
    talk.later(5_001)
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]
    talk.say(PiExited(-15, "sigterm", ""))
    assert (talk.records[-1]["outcome"], talk.records[-1].get("errorKind")) == ("timeout", "hang")


def test_a_pi_that_does_not_even_answer_is_killed_without_an_abort() -> None:
    talk = Talk(idleTimeoutMs=60_000)
    talk.boot()
    talk.accept()
    talk.say(AssistantStart("stop"))
    talk.later(60_000)
    talk.later(5_000)
    assert talk.did(fx.EndPi) and not talk.sent("abort")


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


def test_the_iteration_timeout_aborts() -> None:
    talk = Talk(iterationTimeoutMs=60_000)
    talk.boot()
    talk.accept()
    talk.say(AssistantStart("stop"))
    talk.later(60_000)
    assert talk.sent("abort")
    talk.turn("", stop="aborted")
    talk.settle()
    assert talk.records[-1]["outcome"] == "timeout"


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


def test_old_pi_that_compacts_after_an_overflow_goes_on() -> None:
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


def test_an_auth_error_ends_the_loop_at_once() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error='401: {"message":"Incorrect API key provided"}')
    talk.settle()
    assert done(talk) == ("error", "auth")
    assert "Incorrect API key" in (talk.loop.error or "")


def test_a_prompt_without_a_key_ends_the_loop_at_once() -> None:
    talk = Talk()
    talk.boot()
    talk.reply("prompt", success=False, error="No API key found for anthropic")
    talk.reply("get_session_stats")
    assert done(talk) == ("error", "auth")


def test_an_unknown_model_ends_the_loop_at_once() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error='404: {"message":"The model gpt-9 does not exist"}')
    talk.settle()
    assert done(talk) == ("error", "failures")


def test_a_rate_limit_waits_for_the_reset_that_is_named() -> None:
    talk = Talk(maxFailures=1)
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error="429 rate limit reached, try again in 2h 30m")
    talk.settle()
    assert talk.status == "waiting"
    assert talk.loop.next_wake == talk.wall + 9_000_000
    assert talk.loop.stats["iterations"] == 0
    talk.wait_over()
    talk.iterate()
    assert talk.loop.stats["iterations"] == 1 and talk.status == "running"


def test_transient_failures_back_off_and_do_not_use_up_iterations() -> None:
    talk = Talk(maxFailures=4)
    talk.boot()
    waits: list[int] = []
    for _ in range(4):
        talk.accept()
        talk.turn("", stop="error", error="503 service unavailable")
        talk.settle()
        if talk.status == "waiting":
            assert talk.loop.next_wake is not None
            waits.append(talk.loop.next_wake - talk.wall)
            talk.wait_over()
    assert waits == [1500, 3000, 6000]
    assert talk.loop.stats["iterations"] == 0
    assert done(talk) == ("error", "failures")


def test_a_crash_is_recorded_and_the_iteration_repeated_with_a_new_pi() -> None:
    talk = Talk(maxIterations=1)
    talk.boot()
    talk.accept()
    talk.exit(-9, "boom")
    assert (talk.records[-1]["outcome"], talk.records[-1].get("errorKind")) == ("crashed", "crash")
    assert talk.status == "waiting"
    talk.wait_over()
    talk.iterate()
    assert done(talk) == ("stopped", "max-iterations")
    assert [r["iteration"] for r in talk.records] == [1, 2]


def test_a_crash_loop_ends_in_error() -> None:
    talk = Talk(maxFailures=50)
    talk.boot()
    for _ in range(6):
        talk.accept()
        talk.exit(1)
        if talk.status == "waiting":
            talk.wait_over()
    assert done(talk) == ("error", "crash")
    assert len(talk.records) == 6


def test_crashes_that_are_far_apart_are_forgiven() -> None:
    talk = Talk(maxFailures=0)
    talk.boot()
    for _ in range(10):
        talk.accept()
        talk.exit(1)
        talk.wait_over()
        talk.later(200_000)
    assert talk.status in ("running", "waiting")


def test_a_pi_that_ends_before_its_first_answer_is_a_wrong_setup() -> None:
    talk = Talk()
    talk.say(Begin(), PiSpawned(7, None, ("pi",)))
    talk.exit(1, "noise\nError: Unknown provider: nope\n")
    assert done(talk) == ("error", "crash")
    assert "Error: Unknown provider: nope" in (talk.loop.error or "")
    assert not talk.did(fx.StartPi)


def test_a_pi_that_cannot_be_executed_is_an_error() -> None:
    talk = Talk()
    talk.say(Begin(), SpawnFailed("pi cannot be started: [Errno 2] No such file or directory: '/nope'"))
    assert done(talk) == ("error", "crash")


def test_a_pi_without_a_model_is_an_error() -> None:
    talk = Talk()
    talk.say(Begin(), PiSpawned(7, None, ("pi",)))
    talk.reply("get_state", {"model": {"id": "unknown", "provider": "unknown"}})
    assert done(talk) == ("error", "auth")


def test_a_pi_that_never_answers_is_ended() -> None:
    talk = Talk()
    talk.say(Begin(), PiSpawned(7, None, ("pi",)))
    talk.due()
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]
    talk.say(PiExited(-9, "sigkill", ""))
    assert done(talk) == ("error", "crash")


def test_an_extension_that_vetoes_new_session_gets_a_new_process_instead() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.tree += 1
    talk.settle()
    talk.reply("new_session", {"cancelled": True})
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=True)] and not talk.sent("prompt")
    talk.say(PiExited(0, "eof", ""))
    talk.wait_over()
    assert talk.sent("prompt")


def test_a_dialog_is_answered_at_once() -> None:
    talk = Talk(uiAnswers={"Deploy?": True, "Which?": "b"})
    talk.boot()
    talk.accept()
    talk.say(Dialog("d1", "confirm", "Deploy?", (), False), Dialog("d2", "select", "Which?", ("a", "b"), False))
    talk.say(Dialog("d3", "input", "Name?", (), False))
    assert talk.did(fx.AnswerDialog) == [fx.AnswerDialog("d3", {"cancelled": True})]
    answers = [e.members for e in talk.all if isinstance(e, fx.AnswerDialog)]
    assert answers == [{"confirmed": True}, {"value": "b"}, {"cancelled": True}]


def test_iterations_that_change_nothing_stall() -> None:
    talk = Talk(stallAfter=3)
    talk.boot()
    talk.iterate()
    for _ in range(3):
        talk.iterate(change=False)
    assert done(talk) == ("error", "stalled")


def test_an_edit_of_the_task_file_is_a_change() -> None:
    talk = Talk(stallAfter=2)
    talk.boot()
    talk.iterate()
    for i in range(5):
        talk.task += f"\nnote {i}"
        talk.iterate(change=False)
    assert talk.status == "running"


def test_reflection_comes_every_n_iterations() -> None:
    talk = Talk(reflectEvery=2)
    talk.boot()
    for _ in range(4):
        talk.iterate()
    assert [r["kind"] for r in talk.records] == ["work", "reflect", "work", "reflect"]
    assert talk.loop.last_reflection == 4


def test_sigterm_aborts_and_ends() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.say(Terminate())
    assert talk.sent("abort")
    talk.turn("", stop="aborted")
    talk.settle()
    assert done(talk) == ("stopped", "kill")


def test_sigterm_does_not_wait_for_a_deaf_pi() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.say(Terminate())
    talk.later(2_501)
    assert talk.did(fx.EndPi)
    talk.say(PiExited(-9, "sigkill", ""))
    assert done(talk) == ("stopped", "kill")


def test_sigterm_while_pi_is_being_started_ends_that_pi() -> None:
    talk = Talk()
    talk.say(Begin(), Terminate())
    talk.say(PiSpawned(7, None, ("pi",)))
    assert talk.did(fx.EndPi)
    talk.say(PiExited(-15, "sigterm", ""))
    assert done(talk) == ("stopped", "kill")


def test_sigterm_during_verify_cancels_it() -> None:
    talk = Talk(verify="make")
    talk.boot()
    talk.accept()
    talk.turn(MARKER)
    talk.settle()
    talk.say(Terminate())
    assert talk.did(fx.CancelVerify)
    talk.say(Verified(None))
    assert done(talk) == ("stopped", "kill")
    assert len(talk.records) == 1


def test_a_broken_runner_ends_in_error_with_the_reason() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.say(Broken("the folder was deleted"))
    talk.turn("", stop="aborted")
    talk.settle()
    assert done(talk) == ("error", "blocked")
    assert talk.loop.error == "the folder was deleted"


def test_a_stop_that_a_dead_runner_left_is_honoured_before_pi_is_started() -> None:
    talk = Talk()
    talk.say(CommandCame("old", "stop", {"when": "iteration"}, known=True), Begin())
    assert not [e for e in talk.all if isinstance(e, fx.StartPi)]
    assert talk.status == "stopped"


def test_a_message_that_may_have_been_read_is_delivered_again_and_flagged() -> None:
    talk = Talk()
    talk.say(CommandCame("old", "steer", {"message": "again"}, known=True, maybe=True))
    talk.boot()
    talk.accept()
    talk.say(AssistantStart("stop"))
    receipts = [e for e in talk.all if isinstance(e, fx.Journal) and e.state == "delivered"]
    assert [(r.id, r.redelivered) for r in receipts] == [("old", True)]


def test_late_and_unknown_replies_change_nothing() -> None:
    talk = Talk()
    talk.boot()
    before = talk.loop
    talk.say(Reply("get_state", "get_state-99", True), Reply("new_session", "new_session-1", True))
    assert talk.loop.phase.run.agent == before.phase.run.agent  # type: ignore[union-attr]
    assert not talk.did(fx.Send)
