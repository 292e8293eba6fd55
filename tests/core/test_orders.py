"""Conversations about orders: stop, abort, pause, SIGTERM, and a runner that cannot go on."""

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AssistantStart, PiExited
from ralph_runner.core.results import Begin, Broken, CommandCame, PiSpawned, Terminate, Verified
from tests.core.talk import MARKER, Talk, done


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


def test_pause_holds_before_the_next_iteration_and_resume_continues() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("pause")
    talk.turn()
    talk.settle()
    assert talk.status == "paused" and not talk.sent("prompt")
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


def test_a_pause_that_comes_while_pi_starts_holds_the_loop_before_the_first_prompt() -> None:
    talk = Talk()
    talk.say(Begin())
    talk.command("pause")
    talk.say(PiSpawned(77, "1.5.2", ("pi",)))
    talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    talk.reply("clear_queue")
    assert talk.status == "paused" and not talk.did(fx.Send)
    talk.command("resume", id="c2")
    talk.reply("new_session", {"cancelled": False})
    assert len(talk.sent("prompt")) == 1
