"""What state.json keeps of a task loop, and what a new runner makes of it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ralph_rpc.model.state import State
from ralph_runner.core.results import Now
from ralph_runner.core.snapshot import resumed_loop, snapshot
from tests.core.talk import Talk, config, done
from tests.core.ticket_talk import facts


def state_of(talk: Talk) -> State:
    """As a reader of the file has it."""
    read: State = json.loads(json.dumps(snapshot(talk.loop, facts(), Now(talk.mono, talk.wall))))
    return read


def resumed(talk: Talk, **changes: Any) -> Talk:
    """The loop under a new runner, with nothing but state.json."""
    fresh = Talk()
    fresh.mono, fresh.wall = 50, talk.wall + 60_000
    now = Now(fresh.mono, fresh.wall)
    fresh.loop = resumed_loop(config(**changes), talk.loop.task_path, state_of(talk), talk.loop.iteration, now)
    return fresh


def failing(talk: Talk, times: int) -> None:
    for _ in range(times):
        talk.iterate("", stop="error", error="something odd")
        if talk.status == "waiting":
            talk.wait_over()


def test_a_resume_after_an_end_gives_new_chances_but_forgets_no_totals() -> None:
    talk = Talk(maxFailures=3, stallAfter=9)
    talk.boot()
    talk.iterate(cost=0.5)
    failing(talk, 3)
    assert done(talk) == ("error", "failures")
    again = resumed(talk, maxFailures=3)
    assert (again.loop.consecutive_failures, again.loop.unchanged, again.loop.restarts) == (0, 0, ())
    again.boot()
    failing(again, 2)
    assert again.loop.stop_reason is None, "two more than the three that ended it"
    assert again.loop.stats["cost"] == 0.5 and [r["iteration"] for r in again.records] == [5, 6]


def test_a_restart_after_a_crash_keeps_counting() -> None:
    talk = Talk(maxFailures=3)
    talk.boot()
    failing(talk, 2)
    again = resumed(talk, maxFailures=3)
    assert again.loop.consecutive_failures == 2
    again.boot()
    failing(again, 1)
    assert done(again) == ("error", "failures")


def test_the_totals_include_the_run_that_is_under_way() -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(cost=0.25)
    talk.accept()
    talk.turn(stop="toolUse", tools=2, cost=0.5)
    stats = state_of(talk)["stats"]
    assert (stats["iterations"], stats["turns"], stats["cost"]) == (1, 2, 0.75)
    assert (stats["tokensIn"], stats["tokensOut"], stats["toolCalls"]) == (200, 20, 2)


def test_messages_without_a_receipt_are_in_the_file_and_the_pids_go_with_the_end() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("followup", id="f", message="afterwards", when="next")
    state = state_of(talk)
    assert state["held"] == [{"id": "f", "command": "followup", "message": "afterwards"}]
    assert (state["pid"], state["endedAt"]) == (5, None)
    talk.command("stop", id="s", when="now")
    talk.exit()
    assert done(talk) == ("stopped", "stop")
    state = state_of(talk)
    assert state["pid"] is None and state["endedAt"] is not None


@pytest.mark.parametrize("highest", [2, 7])
def test_iterations_are_numbered_on_from_the_highest_that_any_file_has(highest: int) -> None:
    talk = Talk()
    talk.loop = replace(talk.loop, iteration=4)
    loop = resumed_loop(config(), "task.md", state_of(talk), highest, Now(1, 1))
    assert loop.iteration == max(4, highest)
