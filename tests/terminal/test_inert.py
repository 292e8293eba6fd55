"""Text made inert: nothing in it can act on a terminal."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.terminal.inert import inert, inert_json

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


def test_every_active_character_becomes_a_visible_one() -> None:
    active = [char for char in map(chr, range(0x10000)) if not is_harmless(char)]
    assert [hex(ord(char)) for char in active if not inert(char).isprintable()] == []
    assert {"\x1b", "\x9b", "\u202e", "\u2066", "\ud800"} <= set(active)
