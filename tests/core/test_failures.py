"""Failure classes, named resets, delays: the texts are those that pi and its providers write."""

import pytest

from ralph_runner.core.failures import backoff, classify, named_reset

WALL = 1_700_000_000_000  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("text", "kind", "fatal"),
    [
        ("401 Incorrect API key provided", "auth", True),
        ('401: {"message":"Incorrect API key provided","code":"invalid_api_key"}', "auth", True),
        ('401 {"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}', "auth", True),
        ("No API key found for anthropic.", "auth", True),
        ("429 You exceeded your current quota, insufficient_quota", "quota", False),
        ('400 {"error":{"message":"Your credit balance is too low"}}', "quota", False),
        ("429 Rate limit reached", "rate-limit", False),
        ('529: {"message":"Overloaded"}', "overloaded", False),
        ("500 scripted 500", "overloaded", False),
        ("503 <html>no</html>", "overloaded", False),
        ("terminated", "network", False),
        ("terminated: Body Timeout Error", "network", False),
        ("Connection error.: read ECONNRESET", "network", False),
        ("Request timed out.", "network", False),
        ("Stream ended without finish_reason", "network", False),
        ("Anthropic stream ended before message_stop", "network", False),
        ("Expected property name or '}' in JSON at position 1", "network", False),
        ("400 prompt is too long: 210000 tokens", "context", False),
        ("404 model not found", "other", True),
        ("Provider finish_reason: content_filter", "other", False),
        ("something else", "other", False),
    ],
)
def test_a_text_has_its_class(text: str, kind: str, fatal: bool) -> None:
    failure = classify(text)
    assert (failure.kind, failure.fatal) == (kind, fatal)


@pytest.mark.parametrize(
    ("text", "after_ms"),
    [
        ("429 try again in 20s", 20_000),
        ("429 Please try again in 1h20m.", 4_800_000),
        ("retry-after: 120", 120_000),
        ('{"retry-after-ms": 1500}', 1_500),
        ("Please retry after 60 seconds", 60_000),
        ("resets in 2 hours and 5 minutes", 7_500_000),
        ('{"resets_at": 1700000900}', 900_000),
        ('{"resets_at": 1700000900000}', 900_000),
        ("usage limit reached, resets at 2023-11-15T00:13:20Z", 7_200_000),
    ],
)
def test_a_named_reset_is_found(text: str, after_ms: int) -> None:
    assert named_reset(text, WALL) == WALL + after_ms


@pytest.mark.parametrize("text", ["429 slow down", "resets at 2001-01-01T00:00:00Z", "try again later", ""])
def test_no_reset_or_one_in_the_past_is_none(text: str) -> None:
    assert named_reset(text, WALL) is None


def test_backoff_doubles_up_to_its_limit_with_jitter_down_to_half() -> None:
    assert [backoff(n, "network", 1.0) for n in (1, 2, 3, 20)] == [2_000, 4_000, 8_000, 600_000]
    assert backoff(1, "network", 0.0) == 1_000
    assert backoff(1, "quota", 1.0) == 900_000 and backoff(9, "quota", 1.0) == 3_600_000
