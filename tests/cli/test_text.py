"""Text made inert, measured and shortened."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.text import (
    ago,
    clip,
    clip_start,
    count,
    duration,
    inert,
    inert_json,
    line_of,
    money,
    number,
    pad,
    paint,
    width,
)  # fmt: skip

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)


def is_harmless(char: str) -> bool:
    return char in "\n\t" or not (
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(char) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
        or char in "\u200e\u200f\u061c"
    )


@given(ANY_TEXT)
def test_nothing_active_survives_and_the_result_can_be_encoded(text: str) -> None:
    shown = inert(text)
    assert all(map(is_harmless, shown))
    shown.encode()
    assert inert(shown) == shown


@given(ANY_TEXT)
def test_a_one_line_field_has_no_line_break_and_no_tab(text: str) -> None:
    assert not set(inert(text, keep_newlines=False)) & {"\n", "\t", "\r", "\u2028"}


@given(ANY_TEXT, ANY_TEXT)
def test_text_in_two_pieces_is_as_inert_as_in_one(first: str, second: str) -> None:
    assert inert(first) + inert(second) == inert(first + second)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_inert_json_is_the_same_value(text: str) -> None:
    shown = inert_json(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(shown) == {"text": text}
    assert all(map(is_harmless, shown))


def test_an_escape_sequence_is_visible_and_plain_text_is_left_alone() -> None:
    assert inert("\x1b]0;title\x07 \x9b31m \x7f \u202e") == "␛]0;title␇ \\x9b31m ␡ \\u202e"
    assert inert("größer 日本 👍🏽\n\tx") == "größer 日本 👍🏽\n\tx"


@given(ANY_TEXT, st.integers(1, 40))
def test_clipped_text_fits_its_columns(text: str, limit: int) -> None:
    assert width(clip(inert(text, keep_newlines=False), limit)) <= limit
    assert width(clip_start(inert(text, keep_newlines=False), limit)) <= limit
    assert width(line_of(text, limit)) <= limit


def test_clip_keeps_what_fits_and_marks_what_it_cut() -> None:
    assert clip("abcd", 4) == "abcd"
    assert clip("abcde", 4) == "abc…"
    assert clip("日本", 4) == "日本"
    assert clip("日本語", 4) == "日…"
    assert clip_start("/home/a/api", 5) == "…/api"


def test_a_line_of_a_text_is_its_first_that_is_not_blank() -> None:
    assert line_of("\n\n  one\n", 20) == "one"
    assert line_of("one\ntwo", 20) == "one …"
    assert line_of(" \n ", 20) == ""


def test_padding_counts_columns_not_characters() -> None:
    assert pad("日", 4) == "日  "
    assert pad("7", 3, right=True) == "  7"


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (-5, "0ms"), (0, "0ms"), (21, "21ms"), (4_200, "4.2s"), (59_949, "59.9s"), (59_950, "1m00s"),
        (192_000, "3m12s"), (3_599_600, "1h00m"), (3_720_000, "1h02m"), (86_400_000 * 2 + 3 * 3_600_000, "2d03h"),
    ],
)  # fmt: skip
def test_durations_are_short(ms: int, shown: str) -> None:
    assert duration(ms) == shown


def test_money_counts_and_ages_are_short() -> None:
    assert [money(0), money(0.00123), money(1.239), money(1234.5)] == ["$0.00", "$0.0012", "$1.24", "$1,234.50"]
    assert [count(950), count(12_345), count(999_990), count(4.5e6)] == ["950", "12.3k", "1.0M", "4.5M"]
    assert [ago(100), ago(12_000), ago(200_000), ago(5 * 3_600_000), ago(9 * 86_400_000)] == [
        "now", "12s ago", "3m ago", "5h ago", "9d ago",
    ]  # fmt: skip


def test_a_number_from_a_file_is_finite_whatever_the_file_says() -> None:
    assert [number(x) for x in (3, 1.5, True, "7", None, float("nan"), float("inf"), 10**30)] == [
        3, 1.5, 0, 0, 0, 0, 0, 0,
    ]  # fmt: skip


def test_paint_adds_colour_only_when_asked() -> None:
    assert paint("x", "red", False) == "x"
    assert paint("x", "red", True) == "\x1b[31mx\x1b[0m"
