"""Columns of a text: emoji, CJK and combining characters included, cut and padded to fit."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.width import clip, clip_start, is_narrow, line_of, pad, width

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)
FAMILY = "👨\u200d👩\u200d👧\u200d👦"
THUMB = "👍\U0001f3fd"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("plain", 5),
        ("größer · … ─ ▸ →", 16),
        ("日本", 4),
        ("한국", 4),
        ("e\u0301", 1),
        ("\u0e01\u0e47", 1),
        ("👍", 2),
        (THUMB, 2),
        (FAMILY, 2),
        ("\U0001f1e9\U0001f1ea", 2),
        ("⚠", 1),
        ("⚠\ufe0f", 2),
        ("1\ufe0f\u20e3", 2),
        ("a\u200bb", 2),
    ],
    ids=ascii,
)
def test_a_text_is_as_wide_as_a_terminal_draws_it(text: str, columns: int) -> None:
    assert width(text) == columns


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
    assert clip_start("/日本/api", 6) == "…/api"
    assert [clip("abc", 0), clip("日本", 0), clip_start("abc", 0), clip_start("日本", 0)] == [""] * 4
    assert [clip("abc", 1), clip("日本", 1), clip_start("abc", 1), clip_start("日本", 1)] == ["…"] * 4


def test_no_emoji_is_cut_in_two() -> None:
    assert clip(f"{FAMILY}{THUMB}x", 4) == f"{FAMILY}…"
    assert clip_start(f"x{THUMB}{FAMILY}", 4) == f"…{FAMILY}"
    assert clip(f"{FAMILY}{THUMB}", 4) == f"{FAMILY}{THUMB}"


def test_a_line_of_a_text_is_its_first_that_is_not_blank() -> None:
    assert line_of("\n\n  one\n", 20) == "one"
    assert line_of("one\ntwo", 20) == "one …"
    assert line_of(" \n ", 20) == ""


def test_padding_counts_columns_not_characters() -> None:
    assert pad("日", 4) == "日  "
    assert pad(THUMB, 4) == f"{THUMB}  "
    assert pad("7", 3, right=True) == "  7"


def test_what_is_called_narrow_is_so() -> None:
    narrow = "".join(char for char in map(chr, range(0x20, 0x11_0000)) if not char.isascii() and is_narrow(char))
    assert len(narrow) > 1_000
    assert wcswidth(narrow) == len(narrow)
    assert [char for char in narrow if wcswidth(char) != 1] == []


def test_our_own_marks_and_european_letters_do_not_load_the_tables() -> None:
    code = (
        "import sys; from ralph_rpc.terminal.width import *\n"
        "clip('▸ · ── → ✓ … ␛ größer, naïve', 8), clip_start('größer', 3), width('── ✓'), pad('é', 4)\n"
        "assert 'wcwidth' not in sys.modules\n"
        "assert width('日') == 2 and 'wcwidth' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
