"""Conversations about a pi that is being started: what it says of itself, what it says when it fails, how long it may
take."""

from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AssistantStart, PiExited
from ralph_runner.core.phases import Running
from ralph_runner.core.results import Begin, PiSpawned, SpawnFailed, Terminate
from ralph_runner.core.step import next_deadline
from tests.core.talk import Talk, done


def starting() -> Talk:
    talk = Talk()
    talk.say(Begin(), PiSpawned(77, "1.5.2", ("node", "pi.js")))
    return talk


def test_a_pi_that_has_answered_is_told_of_with_its_model() -> None:
    talk = starting()
    assert not talk.events("ralph_pi_start")
    talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    assert talk.events("ralph_pi_start") == [{"pid": 77, "version": "1.5.2", "argv": ["node", "pi.js"]}]
    assert (talk.loop.model, talk.loop.provider) == ("m1", "fake")
    talk.reply("clear_queue")
    assert talk.loop.pi is not None
    assert (talk.loop.pi.pid, talk.loop.pi.version, talk.loop.pi.argv) == (77, "1.5.2", ("node", "pi.js"))


@pytest.mark.parametrize(
    ("state", "success", "why"),
    [
        ({}, True, "it has no model"),
        ({"model": None}, True, "it has no model"),
        ({"model": {"id": None, "provider": "fake"}}, True, "it has no model"),
        ({"model": {"id": "unknown", "provider": "fake"}}, True, "it has no model"),
        ({"model": {"id": "m1", "provider": "unknown"}}, True, "it has no model"),
        ({"model": {"id": "m1", "provider": "fake"}}, False, "not logged in"),
    ],
)
def test_a_pi_that_cannot_work_ends_the_loop_with_what_to_do_about_it(
    state: dict[str, Any], success: bool, why: str
) -> None:
    talk = starting()
    talk.reply("get_state", state, success=success, error="" if success else "not logged in")
    assert done(talk) == ("error", "auth")
    assert talk.loop.error == (
        f"pi cannot work: {why}. Log in with `ralph-rpc pi`, set a provider's API key, or choose one with --provider and --model"
    )
    assert not talk.events("ralph_pi_start")


@pytest.mark.parametrize("provider", [None, 7])
def test_a_pi_that_names_no_provider_works(provider: object) -> None:
    talk = starting()
    talk.reply("get_state", {"model": {"id": "m1", "provider": provider}})
    assert talk.sent("clear_queue") and (talk.loop.model, talk.loop.provider) == ("m1", None)


def test_a_pi_has_a_minute_for_its_first_answer_and_less_for_the_second() -> None:
    talk = starting()
    assert next_deadline(talk.loop) == talk.mono + 60_000
    talk.later(59_999)
    assert not talk.did(fx.EndPi)
    talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    assert next_deadline(talk.loop) == talk.mono + 15_000
    talk.later(14_999)
    assert not talk.did(fx.EndPi)
    talk.later(1)
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]
    assert talk.events("ralph_notice")[-1] == {
        "level": "warning",
        "message": "pi has not answered clear_queue; ending it",
    }
    talk.later(60_000)
    assert not talk.did(fx.EndPi), "it is being ended already"


def test_a_late_answer_to_another_question_is_not_the_one_that_is_waited_for() -> None:
    talk = starting()
    talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    talk.reply("get_state", {"model": {"id": "m2", "provider": "fake"}})
    assert talk.loop.model == "m1" and not talk.effects


@pytest.mark.parametrize(
    ("exit", "told"),
    [
        (PiExited(1, "natural", ""), "exit code 1"),
        (PiExited(0, "natural", "bye\n\n"), "exit code 0: bye"),
        (PiExited(1, "natural", "Error: no such model\nat line 3\n"), "exit code 1: Error: no such model"),
        (PiExited(1, "natural", "first ERROR\nError: last\n  at x\n"), "exit code 1: Error: last"),
        (PiExited(2, "natural", "usage:\n  pi [options]  \n"), "exit code 2: pi [options]"),
        (PiExited(3, "natural", "x" * 400), "exit code 3: " + "x" * 300),
    ],
)
def test_how_a_pi_ended_is_told_with_the_most_telling_line_that_it_wrote(exit: PiExited, told: str) -> None:
    talk = starting()
    talk.say(exit)
    assert done(talk) == ("error", "crash")
    assert talk.loop.error == f"pi ended before its first answer ({told})"


@pytest.mark.parametrize(
    ("exit", "told"),
    [
        (PiExited(-9, "natural", ""), "signal 9"),
        (PiExited(-11, "natural", "Segmentation fault"), "signal 11: Segmentation fault"),
        (PiExited(None, "natural", ""), "killed"),
    ],
)
def test_a_pi_that_somebody_killed_at_its_start_is_started_again(exit: PiExited, told: str) -> None:
    talk = starting()
    talk.say(exit)
    assert talk.status == "waiting"
    assert talk.loop.error == f"pi ended before its first answer ({told}); starting pi again"


def test_a_pi_that_we_ended_at_its_start_is_not_started_again() -> None:
    talk = starting()
    talk.say(PiExited(-15, "sigterm", ""))
    assert done(talk) == ("error", "crash")


def test_a_pi_that_fails_to_start_after_one_has_worked_is_tried_again() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.say(AssistantStart("stop"))
    talk.exit(-9)
    talk.due()
    talk.say(PiSpawned(78, "1.5.2", ("pi",)))
    talk.exit(1, "Error: half an update")
    assert talk.status == "waiting" and "half an update" in str(talk.loop.error)
    talk.due()
    talk.say(SpawnFailed("pi cannot be started: no such file"))
    assert talk.status == "waiting"
    assert talk.loop.error == "pi cannot be started: no such file; starting pi again"


def test_what_could_not_be_started_is_named() -> None:
    talk = Talk()
    talk.say(Begin(), SpawnFailed("pi cannot be started: no such file"))
    assert talk.events("ralph_loop_end") == [
        {"status": "error", "stopReason": "crash", "error": "pi cannot be started: no such file"}
    ]


def test_sigterm_before_pi_could_be_started_ends_the_loop() -> None:
    talk = Talk()
    talk.say(Begin(), Terminate(), SpawnFailed("pi cannot be started: no such file"))
    assert done(talk) == ("stopped", "kill")


def test_restarts_wait_longer_each_time_and_the_sixth_within_ten_minutes_is_the_last() -> None:
    talk = Talk(maxFailures=0)
    talk.boot()
    waits: list[int] = []
    for _ in range(5):
        talk.accept()
        talk.exit(1, "boom")
        assert talk.loop.next_wake is not None
        waits.append(talk.loop.next_wake - talk.wall)
        talk.wait_over()
    assert waits == [750, 1_500, 3_000, 6_000, 12_000]
    talk.accept()
    talk.exit(1, "boom")
    assert done(talk) == ("error", "crash")
    assert talk.loop.error == (
        "pi ended 6 times within 10 minutes; last: pi ended in the middle of an iteration (exit code 1: boom)"
    )


def test_a_pi_that_ends_between_two_iterations_is_replaced_and_told_of() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.settle()
    talk.exit(1, "gone")
    assert talk.status == "waiting"
    assert talk.loop.error == "pi ended between two iterations (exit code 1: gone); starting pi again"
    assert [r["outcome"] for r in talk.records] == ["ok"]


def test_a_pi_that_opens_no_session_within_a_minute_is_ended() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.settle()
    assert talk.sent("new_session") and next_deadline(talk.loop) == talk.mono + 60_000
    talk.later(59_999)
    assert not talk.did(fx.EndPi)
    talk.later(1)
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]
    assert talk.events("ralph_notice")[-1] == {"level": "warning", "message": "pi did not open a session; ending it"}
    talk.later(60_000)
    assert not talk.did(fx.EndPi), "it is being ended already"
    talk.exit(-15)
    talk.wait_over()
    assert talk.sent("prompt")


def test_a_pi_that_refuses_a_session_is_replaced_and_its_reason_told() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.settle()
    talk.reply("new_session", success=False, error="no")
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=True)]
    assert talk.notices()[-1] == "pi gave no new session (no); starting it anew"


def test_a_veto_of_the_first_session_is_harmless_for_the_context_is_empty_still() -> None:
    talk = Talk()
    talk.say(Begin(), PiSpawned(77, None, ("pi",)))
    talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    talk.reply("clear_queue")
    talk.reply("new_session", {"cancelled": True})
    assert talk.sent("prompt") and isinstance(talk.loop.phase, Running)
