"""Reset times as providers and pi write them, zones and daylight saving included."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_runner.core.resets import named_reset, names_reset
from tests.cpu import seconds_of

NOW = "2026-11-29T21:42:00Z"  # a Sunday


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def later(seconds: float) -> str:
    return datetime.fromtimestamp(ms(NOW) / 1000 + seconds, UTC).isoformat()


MINUTE, HOUR, DAY = 60, 3_600, 86_400
TEXTS = [
    # pi's own words for a ChatGPT plan
    ("You have hit your ChatGPT usage limit (plus plan). Try again in ~287 min.", later(287 * MINUTE)),
    ("You have hit your ChatGPT usage limit (pro plan). Try again in ~1 min.", later(MINUTE)),
    # Claude plans
    ("You've hit your limit · resets 2:30am (America/New_York)", "2026-11-30T07:30:00Z"),
    ("Claude usage limit reached. Your limit will reset at 3pm (America/Santiago).", "2026-11-30T18:00:00Z"),
    ("5-hour limit reached ∙ resets 10pm (UTC)", "2026-11-29T22:00:00Z"),
    ("Weekly limit reached · resets Dec 3 at 10:30am (Europe/Berlin)", "2026-12-03T09:30:00Z"),
    ("You've hit your weekly limit · resets Dec 2, 1pm (Europe/London)", "2026-12-02T13:00:00Z"),
    ("Claude AI usage limit reached|1796083200", "2026-12-01T00:00:00Z"),
    ("Limit reached · resets Mon 12:00 AM (UTC)", "2026-11-30T00:00:00Z"),
    ("resets Sunday 9am UTC", "2026-12-06T09:00:00Z"),
    # Codex
    ("You've hit your usage limit. Upgrade to Pro or try again at Dec 17th, 2026 12:27 AM.", "2026-12-17T00:27:00Z"),
    ("You've hit your usage limit. Try again at 11:05 PM.", "2026-11-29T23:05:00Z"),
    ("usage limit. Try again in 3 days 4 hours 12 minutes.", later(3 * DAY + 4 * HOUR + 12 * MINUTE)),
    ('{"type":"usage_limit_reached","plan_type":"plus","resets_at":1796083200}', "2026-12-01T00:00:00Z"),
    ('{"type":"usage_limit_reached","resets_in_seconds":11940}', later(11_940)),
    # OpenAI and those that speak like it
    (
        "429 Rate limit reached for gpt-5 on tokens per min (TPM): Limit 30000, Used 29000. Please try again in 7m12s.",
        later(432),
    ),
    ("429 Limit 3, Used 3, Requested 1. Please try again in 20s. Visit https://x/account", later(20)),
    ("429 Please try again in 6ms.", later(0.006)),
    ("Please try again in 1h2m3.5s", later(3_723.5)),
    ("429 Please try again in 2m59.56s. Need more tokens?", later(179.56)),
    # headers that come along in messages
    ("retry-after: 120", later(120)),
    ('{"retry-after-ms": 1500}', later(1.5)),
    ('"retry_after": 30', later(30)),
    ('{"retry_after_seconds": 45.5}', later(45.5)),
    ("Retry-After: Wed, 02 Dec 2026 07:28:00 GMT", "2026-12-02T07:28:00Z"),
    ("anthropic-ratelimit-tokens-reset: 2026-11-29T22:00:00Z", "2026-11-29T22:00:00Z"),
    ("x-ratelimit-reset-tokens: 6m0s", later(360)),
    ('"X-RateLimit-Reset":"1796083200000"', "2026-12-01T00:00:00Z"),
    # Google
    ('"retryDelay": "34.074824224s"', later(34.074)),
    ("You exceeded your current quota. Please retry in 34.07s.", later(34.07)),
    ("Your quota will reset after 18h13m7s.", later(18 * HOUR + 13 * MINUTE + 7)),
    ("daily quota, resets at midnight Pacific time", "2026-11-30T08:00:00Z"),
    # others
    ("Sorry, you've exceeded your rate limit. Please try again in 41 minutes.", later(41 * MINUTE)),
    ("Please wait 30 seconds before trying again", later(30)),
    ("Please retry after 60 seconds", later(60)),
    ("resets in 2 hours and 5 minutes", later(125 * MINUTE)),
    ("available again in about an hour", later(HOUR)),
    ("Your limit will reset at 2026-11-30 08:00:00", "2026-11-30T08:00:00Z"),
    ("reset at 2026-11-30T02:00:00+02:00", "2026-11-30T00:00:00Z"),
    ("usage limit reached, resets at 14:30 UTC", "2026-11-30T14:30:00Z"),
    ("resets at 8:00 (UTC+8)", "2026-11-30T00:00:00Z"),
    ("try again tomorrow at 9am UTC", "2026-11-30T09:00:00Z"),
    ("try again on 1 December 2026 at 06:00 UTC", "2026-12-01T06:00:00Z"),
    ("limit resets at 4pm PST", "2026-11-30T00:00:00Z"),
    ("limit resets Jan 2 at noon (UTC)", "2027-01-02T12:00:00Z"),
    ("usage limit, resets in 04:59:59", later(4 * HOUR + 59 * MINUTE + 59)),
    ("limit resets on Tuesday, December 1 at 12:00 AM PT", "2026-12-01T08:00:00Z"),
    ("Resets in: 3h 20m", later(200 * MINUTE)),
    ("try again in 1 week", later(7 * DAY)),
    ("try again in one hour", later(HOUR)),
    ("limit reached; come back at 6pm", "2026-11-30T18:00:00Z"),
    ("the limit will be lifted at 8pm", "2026-11-30T20:00:00Z"),
    ("limit reached, resets 12/01/2026 at 9:00 AM PST", "2026-12-01T17:00:00Z"),
    ("Limit erreicht, reset: 1.12.2026 08:00", "2026-12-01T08:00:00Z"),
    ("resets at 5:30 AM GMT+05:30", "2026-11-30T00:00:00Z"),
    ("Rate limit resets at Tue Dec 01 2026 10:00:00 GMT+0100 (CET)", "2026-12-01T09:00:00Z"),
    ("5-hour limit reached - resets at 3:00 PM IST", "2026-11-30T09:30:00Z"),
    # Chinese providers: the time of Beijing
    ("已达到 5 小时的使用上限。您的限额将在 2026-11-30 06:00:00 重置。", "2026-11-29T22:00:00Z"),
    ("请求过多,请在5分钟后重试", later(5 * MINUTE)),
    ("请等待 2 小时 后再试", later(2 * HOUR)),
    # pi's own words for a wait that it does not do itself
    ("Server requested 600s retry delay (max: 60s). 429 status code (no body)", later(600)),
    ("You will regain access on 2026-12-01 at 00:00 UTC.", "2026-12-01T00:00:00Z"),
    ("Quota will be replenished in 2.12:35:06.", later(2 * DAY + 12 * HOUR + 35 * MINUTE + 6)),
    ("Your quota will be refreshed at 2026-12-01 00:00:00 UTC", "2026-12-01T00:00:00Z"),
    ("cooldown: 120s remaining", later(120)),
    ("请 2 分钟后重试", later(120)),
    # of two the later: the nearer one belongs to another limit
    ("Please retry in 20s. Your weekly limit resets 2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"),
]


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("text", "moment"), TEXTS, ids=[text[:60] for text, _ in TEXTS])
def test_a_reset_is_read_as_its_provider_means_it(text: str, moment: str) -> None:
    found = named_reset(text, ms(NOW))
    assert found is not None
    assert abs(found - ms(moment)) <= 1, datetime.fromtimestamp(found / 1000, UTC).isoformat()


@pytest.mark.parametrize(
    "text",
    [
        "429 slow down",
        "try again later",
        "",
        "resets at 2001-01-01T00:00:00Z",
        "resets Oct 9 at 10:30am (UTC)",
        "Limit 10000 tokens per minute, used 9000 in 60 s",
        "try again in ~0 min",
        "retry after " + "1" * 400,
        "resets 25:99",
        "resets Feb 31 at 5pm",
        "resets 13pm",
        "resets 3pm (Mars/Olympus)" + "x" * 10,
        "retry " * 5_000,
        "retry-after: 0",
        "resets_at: 99999999999999999999",
        "try again in 3 apples",
    ],
)
def test_what_names_no_reset_ahead_is_none(text: str) -> None:
    assert named_reset(text, ms(NOW)) is None or "Mars" in text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("resets Dec 1, 12am (UTC)", True),
        ("resets Jan 2 at noon (UTC)", True),
        ("try again in 5 minutes", True),
        ("resets 2:30am (America/New_York)", True),
        ("try again in ~0 min", False),
        ("try again later", False),
        ("limit 50, used 50", False),
    ],
)
def test_whether_a_reset_is_named_does_not_depend_on_the_day(text: str, named: bool) -> None:
    assert names_reset(text) is named


def test_a_time_of_day_that_the_end_of_summer_time_repeats_is_the_next_one() -> None:
    # 1:30 comes twice on 1 November 2026 in New York: at 05:30Z and at 06:30Z.
    text = "resets 1:30am (America/New_York)"
    assert named_reset(text, ms("2026-11-01T05:00:00Z")) == ms("2026-11-01T05:30:00Z")
    assert named_reset(text, ms("2026-11-01T06:00:00Z")) == ms("2026-11-01T06:30:00Z")
    assert named_reset(text, ms("2026-11-01T06:45:00Z")) == ms("2026-11-02T06:30:00Z")


def test_a_time_of_day_that_the_start_of_summer_time_skips_is_an_hour_later() -> None:
    # There is no 2:30 on 8 March 2026 in New York.
    found = named_reset("resets 2:30am (America/New_York)", ms("2026-03-08T05:00:00Z"))
    assert found == ms("2026-03-08T07:30:00Z")


def test_a_time_without_a_zone_is_the_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    found = named_reset("try again at Dec 17th, 2026 12:27 AM", ms(NOW))
    assert found == ms("2026-12-17T00:27:00+09:00")


WORDS = [
    "retry after ",
    "try again in ",
    "resets ",
    "reset at ",
    "available ",
    "|",
    "12",
    "2:30am",
    " (America/New_York)",
    "Dec 17th",
    ", 2026",
    " 9" * 50,
    "1" * 60,
    " min",
    "T",
    "-",
    ":",
    "Z",
    "+99:99",
    " UTC+99",
    "Mon ",
    "\n",
    "é",
    "a d",
]


@given(
    st.lists(st.sampled_from(WORDS) | st.text(max_size=12), max_size=400).map("".join),
    st.integers(0, 4_000_000_000_000),
)
def test_no_text_raises_or_names_a_time_in_the_past_or_takes_long(text: str, wall: int) -> None:
    found = named_reset(text, wall)
    assert found is None or found > wall
    assert seconds_of(lambda: named_reset(text, wall)) < 0.02 + 0.001 * len(text) / 1000


@pytest.mark.parametrize(
    "text", [w * 20_000 for w in ("retry ", "in 1 h ", "a ", "1,", "resets Dec ", "1:1", "try again in 1 ")]
)
def test_a_long_text_takes_no_more_than_a_millisecond_a_kilobyte(text: str) -> None:
    assert seconds_of(lambda: named_reset(text, ms(NOW))) < 0.001 * len(text) / 1000
