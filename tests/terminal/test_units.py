"""Figures as a person reads them."""

import pytest

from ralph_rpc.terminal.units import ago, count, duration, money, number, whole_seconds


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (-5, "0ms"),
        (0, "0ms"),
        (21, "21ms"),
        (4_200, "4.2s"),
        (59_949, "59.9s"),
        (59_950, "1m00s"),
        (192_000, "3m12s"),
        (3_599_600, "1h00m"),
        (3_720_000, "1h02m"),
        (86_400_000 * 2 + 3 * 3_600_000, "2d03h"),
    ],
)
def test_durations_are_short(ms: int, shown: str) -> None:
    assert duration(ms) == shown


def test_money_counts_and_ages_are_short() -> None:
    assert [money(0), money(0.00123), money(1.239), money(1234.5)] == ["$0.00", "<$0.01", "$1.24", "$1,234.50"]
    assert [count(950), count(12_345), count(999_990), count(4.5e6)] == ["950", "12.3k", "1.0M", "4.5M"]
    assert [ago(100), ago(12_000), ago(200_000), ago(5 * 3_600_000), ago(9 * 86_400_000)] == [
        "now",
        "12s ago",
        "3m ago",
        "5h ago",
        "9d ago",
    ]


def test_a_number_from_a_file_is_finite_whatever_the_file_says() -> None:
    assert [number(x) for x in (3, 1.5, True, "7", None, float("nan"), float("inf"), 10**30)] == [
        3,
        1.5,
        0,
        0,
        0,
        0,
        0,
        0,
    ]


def test_a_duration_that_is_counted_on_a_screen_has_no_fractions() -> None:
    assert [whole_seconds(ms) for ms in (900, 42_900, 192_000)] == ["0s", "42s", "3m12s"]
