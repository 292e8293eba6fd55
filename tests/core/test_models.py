"""Which model may be asked, from when, and what is told where that is too long a wait."""

from typing import Any

import pytest

from ralph_rpc.clock import local_time
from ralph_rpc.model.config import Config
from ralph_runner.core import models
from ralph_runner.core.failures import Failure
from ralph_runner.core.models import Outage, Use, Wait
from ralph_runner.core.results import Now
from tests.core.talk import config

WALL = 1_700_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR
TWO: Config = config(fallbackModels=["other/small"])


def at(wall: int, rand: float = 1.0) -> Now:
    """Both clocks as they run on; what each says alone is tried in tests of its own."""
    return Now(wall - WALL + 5, wall, rand)


def out(until: int, since: int = WALL, **changes: Any) -> Outage:
    """An outage that is long enough for another model, unless it ends within five minutes."""
    times = {"since": since, "since_mono": since - WALL + 5, "until": until, "until_mono": until - WALL + 5}
    long = until - WALL > models.WORTH_A_SWITCH_MS
    return Outage(**{"kind": "quota", **times, "failures": 1, "words": "no", "long": long, **changes})


def test_a_loop_has_its_own_model_and_the_fallbacks_in_their_order() -> None:
    assert models.names(config()) == (None,)
    assert models.names(config(fallbackModels=["a/b", "c/d"])) == (None, "a/b", "c/d")


def test_the_first_model_that_is_not_out_is_used() -> None:
    far = out(WALL + HOUR)
    assert models.choose(config(), (), at(WALL)) == Use(0)
    assert models.choose(TWO, (far,), at(WALL)) == Use(1)
    assert models.choose(TWO, (far, None), at(WALL)) == Use(1)
    assert models.choose(TWO, (None, far), at(WALL)) == Use(0)


def test_a_model_may_be_asked_again_from_the_very_moment_on() -> None:
    assert models.choose(config(), (out(WALL),), at(WALL)) == Use(0)
    soon = out(WALL + 1)
    assert models.choose(config(), (soon,), at(WALL)) == Wait(0, soon)


def test_five_minutes_are_no_reason_to_continue_with_another_model_but_a_moment_more_is() -> None:
    short, long = out(WALL + 300_000), out(WALL + 300_001)
    assert models.choose(TWO, (short,), at(WALL)) == Wait(0, short)
    assert models.choose(TWO, (long,), at(WALL)) == Use(1)


def test_the_wait_is_for_the_model_that_is_back_first_and_of_two_for_the_loops_own() -> None:
    hour, two = out(WALL + HOUR), out(WALL + 2 * HOUR)
    assert models.choose(TWO, (two, hour), at(WALL)) == Wait(1, hour)
    assert models.choose(TWO, (hour, two), at(WALL)) == Wait(0, hour)
    assert models.choose(TWO, (hour, out(WALL + HOUR)), at(WALL)) == Wait(0, hour)


def test_one_worker_asks_and_the_others_wait_for_what_it_hears_up_to_a_quarter_of_an_hour() -> None:
    asked = models.asking(config(), (out(WALL),), 0, at(WALL), "a")
    assert asked == (out(WALL + 900_000, probe="a", long=False),)
    assert models.choose(config(), asked, at(WALL), "a") == Use(0)
    assert isinstance(models.choose(config(), asked, at(WALL), "b"), Wait)
    assert models.choose(config(), asked, at(WALL + 900_000), "b") == Use(0)
    assert models.asking(config(), (), 0, at(WALL), "a") == ()


def test_an_answer_ends_the_outage_of_that_model_alone() -> None:
    both = (out(WALL), out(WALL + 1))
    assert models.answered(TWO, both, 1) == (both[0], None)
    assert models.answered(TWO, both, 0) == (None, both[1])
    assert models.answered(TWO, (), 1) == ()


def test_a_failure_begins_an_outage_and_the_next_ones_lengthen_it() -> None:
    failure = Failure("overloaded", "503  no\nroom" + "x" * 400)
    first = models.failed(TWO, (), 1, failure, at(WALL))
    words = ("503 no room" + "x" * 400)[:300]
    assert first == (None, out(WALL + 2_000, kind="overloaded", words=words))
    later = models.failed(TWO, first, 1, failure, at(WALL + 5_000))
    assert later == (None, out(WALL + 9_000, kind="overloaded", words=words, failures=2))


def test_a_reset_that_is_named_is_the_end_of_the_outage() -> None:
    failure = Failure("quota", "usage limit, try again in 2 hours")
    (outage,) = models.failed(config(), (), 0, failure, at(WALL))
    assert outage == out(WALL + 2 * HOUR, words=failure.message, named=True)


def test_a_reset_that_comes_again_and_again_is_believed_less_each_time() -> None:
    failure = Failure("rate-limit", "429 Please try again in 6ms")
    outages = models.failed(config(), (), 0, failure, at(WALL))
    assert outages[0] is not None and outages[0].until == WALL + 6
    for wait in (2_000, 4_000, 8_000):
        outages = models.failed(config(), outages, 0, failure, at(WALL))
        assert outages[0] is not None and outages[0].until == WALL + wait and outages[0].named


def test_a_model_that_cannot_be_used_is_never_asked_again() -> None:
    failure = Failure("auth", "401\n" + "x" * 400, fatal=True)
    found = models.unusable(TWO, (), 1, failure, at(WALL))
    assert found == (None, out(1 << 53, kind="auth", until_mono=1 << 53, words="401 " + "x" * 296))


SAID = local_time(WALL)


@pytest.mark.parametrize(
    ("most", "outage", "wall", "told"),
    [
        (HOUR, out(WALL + HOUR, named=True), WALL, None),
        (
            HOUR,
            out(WALL + HOUR + 1, named=True),
            WALL,
            f"quota: no; that is until {local_time(WALL + HOUR + 1)}, longer than --max-wait (1 h) allows",
        ),
        (HOUR, out(WALL + 2 * HOUR), WALL, None),
        (HOUR, out(WALL + 1), WALL + HOUR - 1, None),
        (HOUR, out(WALL + 1), WALL + HOUR, f"quota: no; no answer since {SAID}, longer than --max-wait (1 h) allows"),
        (
            HOUR - 1,
            out(WALL),
            WALL + HOUR,
            f"quota: no; no answer since {SAID}, longer than --max-wait (3599 s) allows",
        ),
        (
            2 * HOUR - 1,
            out(WALL),
            WALL + DAY,
            f"quota: no; no answer since {SAID}, longer than --max-wait (1 h) allows",
        ),
        (0, out(WALL + 99 * DAY, named=True), WALL + 50 * DAY, None),
        (None, out(WALL + 8 * DAY, named=True), WALL, None),
        (None, out(WALL), WALL + 8 * DAY - 1, None),
        (None, out(WALL), WALL + 8 * DAY, f"quota: no; no answer since {SAID}, longer than --max-wait (192 h) allows"),
    ],
)
def test_a_wait_is_too_long_when_it_reaches_max_wait(
    most: int | None, outage: Outage, wall: int, told: str | None
) -> None:
    options = config() if most is None else config(maxWaitMs=most)
    assert models.waits_too_long(options, Wait(0, outage), at(wall)) == told


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_clock_that_is_set_lengthens_no_wait_and_ends_no_patience(jump: int) -> None:
    outage = out(WALL + HOUR)
    assert models.choose(config(), (outage,), Now(5 + HOUR, WALL + jump)) == Use(0)
    assert models.waits_too_long(config(maxWaitMs=DAY - 1), Wait(0, outage), Now(5 + HOUR, WALL + jump)) is None


def test_a_machine_that_slept_finds_the_wait_over() -> None:
    assert models.choose(config(), (out(WALL + HOUR),), Now(6, WALL + HOUR)) == Use(0)
