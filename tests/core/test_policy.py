"""Conversations about what forbids or delays the next iteration."""

import pytest

from tests.core.talk import Talk, done


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


def test_transient_failures_back_off_until_max_wait_and_use_up_no_iterations() -> None:
    talk = Talk(maxFailures=2, maxWaitMs=12_000)
    talk.boot()
    waits: list[int] = []
    for _ in range(5):
        talk.accept()
        talk.turn("", stop="error", error="503 service unavailable")
        talk.settle()
        if talk.status == "waiting":
            assert talk.loop.next_wake is not None
            waits.append(talk.loop.next_wake - talk.wall)
            talk.wait_over()
    assert waits == [1500, 3000, 6000, 12000]
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


@pytest.mark.parametrize("held", ["waiting", "paused"])
def test_what_a_person_changes_while_the_loop_is_held_is_not_the_work_of_the_next_iteration(held: str) -> None:
    talk = Talk(stallAfter=1, maxFailures=0)
    talk.boot()
    if held == "waiting":
        talk.iterate("", stop="error", error="503 no")
    else:
        talk.command("pause")
        talk.iterate()
    assert talk.status == held
    talk.tree += 1
    if held == "waiting":
        talk.wait_over()
    else:
        talk.command("resume", id="c2")
        talk.reply("new_session", {"cancelled": False})
    talk.iterate(change=False)
    assert done(talk) == ("error", "stalled")


def test_a_stop_comes_before_a_limit_and_a_limit_before_a_pause() -> None:
    talk = Talk(maxIterations=1)
    talk.boot()
    talk.command("pause", id="p")
    talk.command("stop", id="s")
    talk.iterate()
    assert done(talk) == ("stopped", "stop")
    talk = Talk(maxIterations=1)
    talk.boot()
    talk.command("pause", id="p")
    talk.iterate()
    assert done(talk) == ("stopped", "max-iterations")
