"""state.json of a task loop: what it says at every moment, and what becomes of it after a resume."""

from dataclasses import replace
from typing import Any

import pytest

from ralph_rpc.model.state import State
from ralph_runner.core.inputs import AgentEnd, AssistantEnd, AssistantStart, Settled, ToolStart, Usage
from ralph_runner.core.results import Begin, Now
from ralph_runner.core.snapshot import Facts, resumed_loop, running_run, snapshot
from tests.core.talk import MARKER, Talk, config, done
from tests.core.typed import check

FACTS = Facts(
    name="night",
    cwd="/p",
    ralph_dir="/p/.ralph/night",
    pid=10,
    pid_start=11.0,
    boot_id="boot",
    started_at="2023-11-01T00:00:00.000Z",
    worktree={"branch": "b", "path": "/w"},
    tmp_dir="/tmp/x",
    guard_pid=20,
    guard_start=21.0,
    pi_pid=30,
    pi_start=31.0,
)
HOUR = 3_600_000


def state(talk: Talk) -> State:
    found = snapshot(talk.loop, FACTS, Now(talk.mono, talk.wall))
    check(found, State)
    return found


def changed(talk: Talk, before: State) -> dict[str, Any]:
    return {key: value for key, value in state(talk).items() if before.get(key) != value}


def test_the_state_of_a_new_loop_has_all_that_is_known_of_it() -> None:
    talk = Talk(maxIterations=7)
    assert state(talk) == {
        "schemaVersion": 1,
        "name": "night",
        "cwd": "/p",
        "ralphDir": "/p/.ralph/night",
        "kind": "task",
        "status": "starting",
        "stopReason": None,
        "error": None,
        "wasPaused": False,
        "waitingFor": None,
        "outages": [],
        "pid": 10,
        "pidStartTime": 11.0,
        "bootId": "boot",
        "guardPid": 20,
        "guardStartTime": 21.0,
        "piPid": 30,
        "piStartTime": 31.0,
        "piVersion": "1.5.2",
        "model": None,
        "provider": None,
        "iteration": 0,
        "maxIterations": 7,
        "currentTicket": None,
        "startedAt": "2023-11-01T00:00:00.000Z",
        "updatedAt": "2023-11-14T22:13:20.000Z",
        "monotonicMs": 1_000,
        "endedAt": None,
        "nextWakeAt": None,
        "elapsedMs": 0,
        "stats": {
            "iterations": 0,
            "turns": 0,
            "toolCalls": 0,
            "durationMs": 0,
            "tokensIn": 0,
            "tokensOut": 0,
            "cacheRead": 0,
            "cacheWrite": 0,
            "cost": 0.0,
            "unpricedRequests": 0,
        },
        "consecutiveFailures": 0,
        "unchangedIterations": 0,
        "unchangedSince": None,
        "restarts": [],
        "lastReflection": None,
        "lastOutcome": None,
        "lastText": None,
        "refusal": None,
        "news": None,
        "held": [],
        "worktree": {"branch": "b", "path": "/w"},
        "tmpDir": "/tmp/x",
        "config": config(maxIterations=7),
    }


def test_the_model_is_the_one_that_was_asked_for_until_pi_names_its_own() -> None:
    talk = Talk(model="asked", provider="for")
    assert (state(talk)["model"], state(talk)["provider"]) == ("asked", "for")
    talk.boot()
    assert (state(talk)["model"], state(talk)["provider"]) == ("m1", "fake")


def test_a_running_iteration_is_in_the_totals_at_every_stage_and_once() -> None:
    talk = Talk(verify="make")
    talk.boot()
    talk.iterate()
    before = state(talk)["stats"]
    talk.accept()
    usage = Usage(1, 2, 3, 4, 0.5)
    talk.say(ToolStart("t", "bash"), AssistantStart(None), AssistantEnd(MARKER, "stop", None, "m", "p", usage, 0))
    expected = {
        **before,
        "turns": before["turns"] + 1,
        "toolCalls": before["toolCalls"] + 1,
        "tokensIn": before["tokensIn"] + 1,
        "tokensOut": before["tokensOut"] + 2,
        "cacheRead": before["cacheRead"] + 3,
        "cacheWrite": before["cacheWrite"] + 4,
        "cost": before["cost"] + 0.5,
    }
    assert state(talk)["stats"] == expected
    talk.slow_measure = True
    talk.say(AgentEnd(False), Settled(False))
    talk.reply("get_session_stats", {})
    assert state(talk)["stats"] == expected and running_run(talk.loop) is not None
    talk.measured()
    assert state(talk)["stats"] == expected and running_run(talk.loop) is not None, "verify runs"
    talk.exit(1)
    assert running_run(talk.loop) is not None
    assert state(talk)["iteration"] == 2


def test_the_state_tells_why_a_loop_waits_and_until_when() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    before = state(talk)
    talk.turn("", stop="error", error="429 rate limit, try again in 60s")
    talk.settle()
    assert changed(talk, before) == {
        "status": "waiting",
        "error": "rate-limit: 429 rate limit, try again in 60s",
        "waitingFor": "rate-limit",
        "nextWakeAt": "2023-11-14T22:14:20.000Z",
        "outages": [
            {
                "model": None,
                "kind": "rate-limit",
                "since": "2023-11-14T22:13:20.000Z",
                "until": "2023-11-14T22:14:20.000Z",
                "words": "429 rate limit, try again in 60s",
            }
        ],
        "lastOutcome": "failed",
        "stats": {**before["stats"], "turns": 1},
    }


def test_messages_that_no_model_has_are_in_the_state() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", id="a", message="now")
    talk.command("followup", id="b", message="then", when="next")
    assert state(talk)["held"] == [
        {"id": "a", "command": "steer", "message": "now"},
        {"id": "b", "command": "followup", "message": "then"},
    ]


@pytest.mark.parametrize("how", ["completed", "stopped", "error"])
def test_a_loop_that_has_ended_has_no_process_and_an_end(how: str) -> None:
    talk = Talk()
    talk.boot()
    if how == "completed":
        talk.iterate(MARKER)
    elif how == "stopped":
        talk.command("stop", when="now")
        talk.iterate("", stop="aborted")
    else:
        talk.iterate("", stop="error", error="401 no")
    assert state(talk)["status"] == "stopping" and state(talk)["pid"] == 10 and state(talk)["endedAt"] is None
    assert done(talk)[0] == how
    found = state(talk)
    assert (found["pid"], found["pidStartTime"], found["endedAt"]) == (None, None, "2023-11-14T22:13:20.000Z")
    assert found["stopReason"] == talk.loop.stop_reason


def lived() -> Talk:
    """A loop that has seen all that a resume has to keep."""
    talk = Talk(reflectEvery=2, stallAfter=9, verify="make")
    talk.boot()
    talk.iterate()
    talk.iterate(change=False)
    talk.accept()
    talk.exit(1)
    talk.loop = replace(talk.loop, refusal="not yet", consecutive_failures=2)
    return talk


def resumed(talk: Talk, last: int = 0, after_ms: int = 0, **changes: Any) -> Talk:
    """The loop that the next runner, of another boot, makes from the state."""
    found: Any = {**state(talk), **changes}
    next = Talk(reflectEvery=2)
    next.mono, next.wall = 500, talk.wall + after_ms
    next.loop = resumed_loop(config(reflectEvery=2), "task.md", found, last, Now(next.mono, next.wall))
    check(next.loop, type(next.loop))
    return next


def test_a_runner_that_follows_a_dead_one_goes_on_with_all_counts() -> None:
    talk = lived()
    next = resumed(talk, after_ms=1_000)
    assert (next.loop.status, next.loop.stop_reason, next.loop.error) == ("starting", None, None)
    assert next.loop.task_path == "task.md" and next.loop.config == config(reflectEvery=2)
    for name in (
        "iteration",
        "stats",
        "consecutive_failures",
        "unchanged",
        "last_reflection",
        "last_outcome",
        "last_text",
        "refusal",
        "elapsed_ms",
    ):
        assert getattr(next.loop, name) == getattr(talk.loop, name), name
    assert next.loop.unchanged == 1 and next.loop.last_reflection == 2 and next.loop.last_text
    assert next.loop.restarts == (500 - 1_000,)


@pytest.mark.parametrize("status", ["stopped", "error"])
def test_a_person_who_resumes_a_loop_that_ended_gives_it_a_new_chance(status: str) -> None:
    next = resumed(lived(), status=status)
    assert (next.loop.consecutive_failures, next.loop.unchanged, next.loop.restarts) == (0, 0, ())
    assert next.loop.stats["iterations"] == 2 and next.loop.refusal == "not yet"


def test_restarts_that_are_ten_minutes_old_are_forgotten_by_the_next_runner() -> None:
    assert resumed(lived(), after_ms=600_001).loop.restarts == ()


def test_the_next_number_is_above_that_of_every_record_and_of_the_state() -> None:
    for last, expected in ((0, 4), (3, 4), (8, 9)):
        next = resumed(lived(), last=last, status="stopped")
        next.boot()
        assert next.loop.iteration == expected


def test_totals_that_an_older_runner_did_not_count_begin_at_nothing() -> None:
    next = resumed(lived(), stats={"iterations": 3, "cost": 0.5})
    assert next.loop.stats["iterations"] == 3 and next.loop.stats["cacheWrite"] == 0


def test_a_state_written_later_than_the_last_input_counts_the_time_until_then() -> None:
    """Views add what has passed since it was written: a gap here would make their figure jump back."""
    talk = Talk()
    talk.boot()
    talk.later(2_000)
    talk.mono += 700
    assert state(talk)["elapsedMs"] == talk.loop.elapsed_ms + 700


def test_time_under_a_runner_is_counted_on() -> None:
    talk = Talk(maxTimeMs=10 * HOUR)
    talk.boot()
    talk.later(HOUR)
    next = resumed(talk, after_ms=5 * HOUR)
    next.say(Begin())
    next.later(1_000)
    assert next.loop.elapsed_ms == HOUR + 1_000
