"""Conversations about a pi that a launcher starts elsewhere: queued, running, lost, ended from outside, never there."""

from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.far import SHOWN_MS
from ralph_runner.core.inputs import FarEnd, FarRuns, FarSaid, PiExited
from ralph_runner.core.results import Begin, PiSpawned, SpawnFailed
from ralph_runner.core.step import next_deadline
from tests.core.talk import Talk, done

THERE = FarRuns("n1", 7, "boot")


def queued(**options: Any) -> Talk:
    talk = Talk(launcher="srun:-p gpu", **options)
    talk.say(Begin(), PiSpawned(77, None, ("pi",)))
    return talk


def greeted(talk: Talk) -> Talk:
    talk.say(THERE)
    talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    talk.reply("clear_queue")
    talk.reply("new_session", {"cancelled": False})
    return talk


def again(talk: Talk) -> Talk:
    """Once the wait is over."""
    talk.due()
    talk.say(PiSpawned(78, None, ("pi",)))
    return greeted(talk)


def lost(talk: Talk, far: FarEnd = "lost", stderr: str = "Timeout, server n1 not responding.") -> None:
    talk.say(PiExited(255, "natural", stderr, far))


def test_nothing_is_asked_of_pi_before_it_runs_there() -> None:
    talk = queued()
    assert talk.status == "starting" and not talk.ever_sent("get_state")
    talk.say(THERE)
    assert talk.sent("get_state") and talk.status == "starting"


def test_a_wait_is_shown_with_the_launchers_last_word_and_has_no_end() -> None:
    talk = queued()
    assert next_deadline(talk.loop) == talk.mono + SHOWN_MS
    talk.due()
    assert (talk.status, talk.loop.waiting_for, talk.loop.error) == ("waiting", "queued", "queued, by srun:-p")
    assert next_deadline(talk.loop) is None
    talk.say(FarSaid("srun: job 5 queued and waiting for resources"))
    assert talk.loop.error == "queued: srun: job 5 queued and waiting for resources"
    talk.later(10**9)
    assert talk.status == "waiting"
    greeted(talk)
    assert talk.status == "starting" and talk.loop.waiting_for is None and talk.ever_sent("prompt")
    assert talk.events("ralph_pi_start") == [
        {"pid": 77, "version": None, "argv": ["pi"], "launcher": "srun:-p gpu", "host": "n1"}
    ]


def test_queue_timeout_ends_it_with_the_last_word() -> None:
    talk = queued(queueTimeoutMs=60_000)
    talk.say(FarSaid("job 5 queued"))
    talk.later(59_000)
    assert talk.status == "waiting" and next_deadline(talk.loop) == talk.mono + 1_000
    talk.due()
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]
    assert done(talk) == ("error", "blocked")
    assert talk.loop.error == ("srun:-p has started nothing within --queue-timeout (60 s); its last word: job 5 queued")


def test_a_stop_in_the_queue_is_carried_out_at_once() -> None:
    talk = queued()
    talk.due()
    talk.command("stop")
    assert talk.did(fx.EndPi)
    assert done(talk) == ("stopped", "stop")


def test_a_far_side_that_is_lost_costs_neither_iteration_nor_failure_and_gaps_grow() -> None:
    talk = greeted(queued(maxFailures=1))
    gaps = []
    for _ in range(3):
        talk.accept()
        lost(talk)
        assert (talk.status, talk.loop.waiting_for) == ("waiting", "lost")
        assert talk.loop.error is not None and "n1 (srun:-p) was lost" in talk.loop.error
        due = next_deadline(talk.loop)
        assert due is not None
        gaps.append(due - talk.mono)
        again(talk)
    assert gaps[0] < gaps[1] < gaps[2]
    assert [(one["outcome"], one.get("errorKind")) for one in talk.records] == [("crashed", "lost")] * 3
    assert talk.loop.stats["iterations"] == 0 and talk.loop.consecutive_failures == 0
    talk.iterate()
    talk.accept()
    lost(talk)
    due = next_deadline(talk.loop)
    assert due is not None and due - talk.mono == gaps[0], "an answer begins the count anew"


def test_a_far_side_that_stays_away_ends_the_loop_after_max_wait() -> None:
    talk = greeted(queued(maxWaitMs=10_000))
    for _ in range(20):
        talk.accept()
        lost(talk)
        if talk.status != "waiting":
            break
        again(talk)
    assert talk.status == "error" and talk.loop.error is not None and "--max-wait" in talk.loop.error


def test_what_its_scheduler_has_ended_is_queued_again() -> None:
    talk = greeted(queued())
    talk.accept()
    lost(talk, "outside", "slurmstepd: error: *** STEP 5.0 ON n1 CANCELLED DUE TO TIME LIMIT ***")
    assert talk.loop.waiting_for == "lost" and "DUE TO TIME LIMIT" in str(talk.loop.error)
    assert talk.records[-1].get("errorKind") == "lost"


@pytest.mark.parametrize("far", ["never", "unusable"])
def test_what_cannot_be_started_is_said_at_once(far: FarEnd) -> None:
    talk = queued()
    if far == "unusable":
        talk.say(THERE)
    talk.say(PiExited(127, "natural", "pi: No such file or directory", far))
    assert (talk.status, talk.loop.stop_reason) == ("error", "crash")
    assert "No such file" in str(talk.loop.error) and ("n1 (srun:-p)" in str(talk.loop.error)) == (far == "unusable")


def test_after_it_has_worked_a_network_that_is_down_is_waited_for_and_anything_else_tried_five_times() -> None:
    talk = greeted(queued())
    talk.iterate()
    talk.accept()
    lost(talk)
    for _ in range(12):
        talk.due()
        talk.say(PiSpawned(78, None, ("pi",)))
        talk.say(PiExited(255, "natural", "ssh: connect to host n1 port 22: No route to host", "never"))
        assert talk.loop.waiting_for == "lost"
    talk.due()
    talk.say(PiSpawned(78, None, ("pi",)))
    for _ in range(10):
        talk.say(PiExited(1, "natural", "Invalid account", "never"))
        if talk.status == "error":
            break
        talk.due()
        talk.say(PiSpawned(78, None, ("pi",)))
    assert (talk.status, talk.loop.stop_reason) == ("error", "crash")


def test_a_fence_is_waited_for_exactly() -> None:
    talk = Talk(launcher="ssh:n1")
    talk.say(Begin(), SpawnFailed("an earlier pi may still run", fence_ms=7_000))
    assert (talk.status, talk.loop.waiting_for) == ("waiting", "lost")
    assert next_deadline(talk.loop) == talk.mono + 7_000
    talk.due()
    assert talk.did(fx.StartPi)


def test_a_far_side_that_is_lost_between_two_iterations_is_started_anew() -> None:
    talk = greeted(queued())
    talk.iterate()
    lost(talk)
    assert talk.status == "waiting" or talk.did(fx.StartPi)
