"""Times in files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.clock import iso, now_ms, parse_iso


def test_a_time_is_written_as_utc_with_milliseconds() -> None:
    assert iso(1770400200123) == "2026-02-06T17:50:00.123Z"
    assert iso(0) == "1970-01-01T00:00:00.000Z"


@given(st.integers(min_value=0, max_value=253402300799999))
def test_every_time_is_read_back_exactly(ms: int) -> None:
    assert parse_iso(iso(ms)) == ms


def test_a_time_of_another_zone_is_understood() -> None:
    assert parse_iso("2026-02-06T18:50:00.123+01:00") == 1770400200123


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-02-30T00:00:00Z", "2026-02-06T17:50:00", None, 17, [], {"a": 1}]
)
def test_anything_else_is_no_time(text: object) -> None:
    assert parse_iso(text) is None


def test_now_is_after_this_test_was_written() -> None:
    assert now_ms() > 1770000000000
