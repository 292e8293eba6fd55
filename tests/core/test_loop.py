"""Conversations: what the core does with what happens, from the first pi to the last record."""

from dataclasses import replace

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.failures import RESTART_BUDGET
from ralph_runner.core.inputs import (
    AssistantEnd,
    AssistantStart,
    Dialog,
    PiExited,
    Usage,
)  # fmt: skip
from ralph_runner.core.reports import Begin, PiSpawned, SpawnFailed, Verified
from tests.core.talk import MARKER, Talk, done


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


@pytest.mark.parametrize(("code", "method"), [(-9, "natural"), (None, "sigkill")])
@pytest.mark.parametrize("spawned", [True, False])
def test_a_pi_that_was_killed_before_its_first_answer_is_started_again(
    code: int | None, method: str, spawned: bool
) -> None:
    talk = Talk()
    talk.say(Begin(), *([PiSpawned(7, None, ("pi",))] if spawned else []))
    talk.say(PiExited(code, method, ""))
    assert talk.status == "waiting"
    talk.due()
    assert talk.did(fx.StartPi)


def test_a_stop_that_came_before_pi_was_killed_at_its_start_ends_the_loop() -> None:
    talk = Talk()
    talk.say(Begin())
    talk.command("stop")
    talk.say(PiExited(None, "sigkill", ""))
    assert done(talk) == ("stopped", "stop")


def test_a_pi_that_ends_at_start_after_a_resume_is_a_wrong_setup_too() -> None:
    talk = Talk()
    talk.loop = replace(talk.loop, stats={**talk.loop.stats, "iterations": 3})
    talk.say(Begin(), PiSpawned(7, None, ("pi",)))
    talk.exit(1, "Error: no API key")
    assert done(talk) == ("error", "crash")


def test_a_pi_that_cannot_be_executed_is_an_error() -> None:
    talk = Talk()
    talk.say(Begin(), SpawnFailed("pi cannot be started: [Errno 2] No such file or directory: '/nope'"))
    assert done(talk) == ("error", "crash")


NO_FORK = SpawnFailed("pi cannot be started: [Errno 11] Resource temporarily unavailable", passing=True)


def test_a_machine_that_has_no_process_to_spare_is_waited_for_but_not_for_ever() -> None:
    talk = Talk()
    talk.say(Begin())
    for _ in range(RESTART_BUDGET):
        talk.say(NO_FORK)
        assert talk.status == "waiting"
        talk.due()
        assert talk.did(fx.StartPi)
    talk.say(NO_FORK)
    assert done(talk) == ("error", "crash")
    assert "Resource temporarily unavailable" in (talk.loop.error or "")


def test_a_pi_that_is_gone_after_it_has_worked_is_waited_for() -> None:
    talk = Talk()
    talk.boot()
    talk.say(AssistantStart("stop"))
    talk.exit(1)
    talk.due()
    talk.say(SpawnFailed("pi cannot be started: it is being updated"))
    assert talk.status == "waiting"
    talk.wait_over()
    assert talk.status == "running"


def test_a_stop_that_came_before_pi_could_not_be_started_ends_the_loop() -> None:
    talk = Talk()
    talk.say(Begin())
    talk.command("stop")
    talk.say(NO_FORK)
    assert done(talk) == ("stopped", "stop")


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
