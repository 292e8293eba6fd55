"""Reset times, one part of their grammar after the other; whole messages of providers are in test_resets.py."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ralph_runner.core.resets import named_reset

NOW = "2026-11-29T21:42:30.500Z"  # a Sunday


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def read(text: str, now: str = NOW) -> str | None:
    found = named_reset(text, ms(now))
    return None if found is None else datetime.fromtimestamp(found / 1000, UTC).isoformat().replace("+00:00", "Z")


def after(text: str) -> int | None:
    """Milliseconds until the reset."""
    found = named_reset(text, ms(NOW))
    return None if found is None else found - ms(NOW)


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("resets on 2026-12-03", "2026-12-03T00:00:00Z"),
        ("resets on 2026-12-03 at 5pm", "2026-12-03T17:00:00Z"),
        ("resets on 12/03/2027", "2027-12-03T00:00:00Z"),
        ("resets on 2/3/2027 at 7:08:09 AM", "2027-02-03T07:08:09Z"),
        ("resets Dec 3", "2026-12-03T00:00:00Z"),
        ("resets December 3rd, 2028", "2028-12-03T00:00:00Z"),
        ("resets 3 Dec", "2026-12-03T00:00:00Z"),
        ("resets 3rd of December 2028 at noon", "2028-12-03T12:00:00Z"),
        ("resets Jan 1", "2027-01-01T00:00:00Z"),
        ("resets Sept. 5 at 1pm", None),
        ("resets tomorrow", "2026-11-30T00:00:00Z"),
        ("resets tomorrow at 9:05", "2026-11-30T09:05:00Z"),
        ("resets Sunday at 9:41 pm", "2026-12-06T21:41:00Z"),
        ("resets Sunday at 9:42 pm", "2026-12-06T21:42:00Z"),
        ("resets Sunday at 9:43 pm", "2026-11-29T21:43:00Z"),
        ("resets Sunday at 10:01 pm", "2026-11-29T22:01:00Z"),
        ("resets Sat at 9:41 pm", "2026-12-05T21:41:00Z"),
        ("resets Monday", "2026-11-30T00:00:00Z"),
        ("resets at 21:42", "2026-11-30T21:42:00Z"),
        ("resets at 21:43", "2026-11-29T21:43:00Z"),
        ("resets at 21:42:31", "2026-11-29T21:42:31Z"),
        ("resets at 12am", "2026-11-30T00:00:00Z"),
        ("resets at 12pm", "2026-11-30T12:00:00Z"),
        ("resets at 12:30 a.m.", "2026-11-30T00:30:00Z"),
        ("resets at 1am", "2026-11-30T01:00:00Z"),
        ("resets at 11:59:58 pm", "2026-11-29T23:59:58Z"),
        ("resets at midnight", "2026-11-30T00:00:00Z"),
        ("resets at NOON", "2026-11-30T12:00:00Z"),
        ("resets at 0am", None),
        ("resets at 13am", None),
        ("resets at 24:00", None),
    ],
)
def test_days_and_times_of_day(text: str, moment: str | None) -> None:
    assert read(text) == moment


@pytest.mark.parametrize(
    ("text", "now", "moment"),
    [
        ("resets Dec 31", "2027-01-01T00:00:00Z", None),
        ("resets Jan 2", "2026-12-31T00:00:00Z", "2027-01-02T00:00:00Z"),
        ("resets Jul 1", "2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z"),
        ("resets Feb 29", "2028-02-01T00:00:00Z", None),
    ],
)
def test_a_day_without_a_year_is_the_one_nearest_to_now(text: str, now: str, moment: str | None) -> None:
    assert read(text, now) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("resets at 23:00 UTC", "2026-11-29T23:00:00Z"),
        ("resets at 23:00 UTC+2", "2026-11-30T21:00:00Z"),
        ("resets at 23:30 UTC+05:30", "2026-11-30T18:00:00Z"),
        ("resets at 16:30 GMT-5:30", "2026-11-29T22:00:00Z"),
        ("resets at 23:30 +0100", "2026-11-29T22:30:00Z"),
        ("resets at 16:30 -05:30", "2026-11-29T22:00:00Z"),
        ("resets at 4pm PT", "2026-11-30T00:00:00Z"),
        ("resets at 5 PM EASTERN", "2026-11-29T22:00:00Z"),
        ("resets at 5 PM central", "2026-11-29T23:00:00Z"),
        ("resets at 11pm (Europe/Berlin)", "2026-11-29T22:00:00Z"),
        ("resets at 11pm (Mars/Olympus)", "2026-11-29T23:00:00Z"),
        ("resets 2026-11-29T23:00:00+05:30", None),
        ("resets 2026-11-30T03:30:00+05:30", "2026-11-29T22:00:00Z"),
        ("resets 2026-11-29T17:00:00 -0530", "2026-11-29T22:30:00Z"),
        ("resets 2026-11-29 22:15 utc", "2026-11-29T22:15:00Z"),
        ("resets 2026-11-29T22:15:07.123Z", "2026-11-29T22:15:07Z"),
    ],
)
def test_zones(text: str, moment: str | None) -> None:
    assert read(text) == moment


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("retry in 5 milliseconds", 5),
        ("retry in 5 msecs", 5),
        ("retry in 5 sec", 5_000),
        ("retry in 2 mins", 120_000),
        ("retry in 1.5 hrs", 5_400_000),
        ("retry in 1 day and 2 hours", 93_600_000),
        ("retry in 2 weeks", 1_209_600_000),
        ("retry in an hour", 3_600_000),
        ("retry in a minute", 60_000),
        ("retry in another 3 min", 180_000),
        ("retry in about 90 s", 90_000),
        ("retry in 1h 2m 3s", 3_723_000),
        ("retry after 7", 7_000),
        ("retry_after_ms: 7", 7),
        ("retry-after-milliseconds=7", 7),
        ('"retry_delay_seconds": "7.5"', 7_500),
        ("resets_in_seconds: [7]", 7_000),
        ("Retry-After-Ms: 700", 700),
        ("RETRY-AFTER: 7", 7_000),
        ("resets in: 1:02:03", 3_723_000),
        ("resets in 02:03", 123_000),
        ("retry after 1796083200", ms("2026-12-01T00:00:00Z") - ms(NOW)),
        ("reset: 1796083200.5", ms("2026-12-01T00:00:00Z") - ms(NOW)),
        ("reset: 1796083200123", ms("2026-12-01T00:00:00.123Z") - ms(NOW)),
        ("reset: 179608320", None),
        ("retry after 5 apples", None),
        ("used 60 s, retry later", None),
        ("retry in 2 h, resets in 3 h, again in 1 h", 10_800_000),
        ("available in 3 h", 10_800_000),
        ("wait 3 h", 10_800_000),
        ("renews in 3 h", 10_800_000),
        ("expires in 3 h", 10_800_000),
        ("blocked until 1796083200", ms("2026-12-01T00:00:00Z") - ms(NOW)),
    ],
)
def test_spans_and_counts(text: str, ms: int | None) -> None:
    assert after(text) == ms


def test_a_reset_is_looked_for_near_the_word_that_announces_it() -> None:
    assert after("retry" + " " * 140 + "in 3 hours") == 10_800_000
    assert after("retry" + " " * 160 + "in 3 hours") is None
    assert after("x" * 16_370 + " retry in 3 hours") is None
    assert after("retry a " * 39 + "retry in 3 hours") == 10_800_000
    assert after("retry a " * 70 + "retry in 3 hours") is None


def test_the_most_exact_of_several_ways_in_one_sentence_wins() -> None:
    assert read("resets in 3 hours, at 2026-11-30T00:00:00Z") == "2026-11-30T00:00:00Z"
    assert read("resets in 3 hours, at 23:00") == "2026-11-29T23:00:00Z"
    assert after("retry after 7, that is 3 hours") == 7_000
    assert after("retry after 2 s, limit 7") == 2_000
