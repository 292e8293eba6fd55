"""Conversations about pi's start: wrong set-ups, pis that are killed, a machine that has run out of something."""

from dataclasses import replace

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.failures import RESTART_BUDGET
from ralph_runner.core.inputs import AssistantStart, PiExited
from ralph_runner.core.results import Begin, PiSpawned, SpawnFailed
from tests.core.talk import Talk, done


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
