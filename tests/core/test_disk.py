"""Conversations about a log that cannot be written: pi is held, the loop waits, and a stop does not."""

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
)
from ralph_runner.core.results import Begin, PiSpawned, Terminate
from ralph_runner.core.step import next_deadline
from tests.core.talk import Talk, done

FULL = LogBlocked("No space left on device", is_full=True)
DAY = 24 * 3_600_000


def working() -> Talk:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.say(AssistantStart(None))
    assert talk.status == "running"
    return talk


def test_a_full_disk_is_waited_for_however_long_and_no_silence_is_counted() -> None:
    talk = working()
    talk.say(FULL)
    assert talk.status == "waiting" and "disk is full" in str(talk.loop.error)
    assert next_deadline(talk.loop) is None
    talk.later(DAY)
    assert talk.say(LogUnblocked())
    assert talk.status == "running" and talk.loop.error is None
    talk.later(1_000)
    assert not talk.did(fx.Send) and not talk.did(fx.EndPi)
    talk.turn("done")
    talk.settle()
    assert talk.records[-1]["outcome"] == "ok"


@pytest.mark.parametrize("answered", ["", "get_state", "clear_queue"])
def test_a_pi_that_is_held_while_it_starts_is_not_taken_for_dead(answered: str) -> None:
    talk = Talk()
    talk.say(Begin(), PiSpawned(77, "1.5.2", ("pi",)))
    if answered:
        talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    if answered == "clear_queue":
        talk.reply("clear_queue")
    before = next_deadline(talk.loop)
    assert before is not None
    talk.say(FULL)
    talk.later(DAY)
    talk.say(LogUnblocked())
    assert next_deadline(talk.loop) == before + DAY
    assert not talk.did(fx.EndPi)


@pytest.mark.parametrize("first", ["the stop", "the full disk"])
def test_a_stop_does_not_wait_for_the_end_of_a_held_iteration(first: str) -> None:
    talk = working()
    if first == "the stop":
        talk.command("stop")
        assert not talk.sent("abort")
        talk.say(FULL)
    else:
        talk.say(FULL)
        talk.command("stop")
    assert talk.sent("abort")
    talk.due()
    assert talk.did(fx.EndPi), "what pi answers can't be read"
    talk.say(PiExited(0, "sigterm", ""))
    assert done(talk) == ("stopped", "stop")
    assert talk.records[-1]["outcome"] == "aborted"


def test_a_stop_that_comes_again_with_its_receipt_is_the_same_stop() -> None:
    talk = working()
    talk.command("stop", id="s")
    talk.command("stop", id="s")
    talk.turn("done")
    talk.settle()
    talk.exit()
    assert done(talk) == ("stopped", "stop")
    assert talk.steps("s").count("delivered") == 1


def test_sigterm_ends_a_held_loop() -> None:
    talk = working()
    talk.say(FULL)
    talk.say(Terminate())
    talk.due()
    assert talk.did(fx.EndPi)
    talk.say(PiExited(0, "sigterm", ""))
    assert done(talk) == ("stopped", "kill")


def test_any_other_failure_of_the_log_ends_the_loop() -> None:
    talk = working()
    talk.say(LogBlocked("Input/output error", is_full=False))
    talk.due()
    talk.say(PiExited(0, "sigterm", ""))
    assert done(talk) == ("error", "blocked")
    assert "Input/output error" in str(talk.loop.error)


def test_a_held_pi_has_less_time_to_obey_an_abort_for_it_cannot_say_that_it_did() -> None:
    talk = working()
    talk.say(FULL)
    talk.command("stop", when="now")
    assert talk.sent("abort") and not talk.did(fx.EndPi)
    assert next_deadline(talk.loop) == talk.mono + 1_000
    talk.later(1_000)
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]


def test_a_run_that_an_old_pi_has_announced_may_still_begin_after_a_full_disk() -> None:
    talk = Talk(new_pi=False)
    talk.boot()
    talk.accept()
    talk.turn()
    talk.say(AgentEnd(None), CompactionStart("threshold"), CompactionEnd(True, ""))
    talk.later(1_000)
    talk.say(FULL)
    talk.later(DAY)
    talk.say(LogUnblocked())
    talk.later(3_999)
    assert not talk.ever_sent("get_session_stats")
    talk.say(AgentStart())
    talk.later(1)
    assert not talk.ever_sent("get_session_stats"), "it has begun"
