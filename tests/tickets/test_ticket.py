"""Ids: what may be one, what is named after it, and in which order people expect them."""

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.model.ticket import file_name
from ralph_rpc.tickets.ticket import branch_of, named, natural, usable_id

PLAIN = ("a", "7", "ab-5c46", "A.b_c-d", "x" * 64, "a.locks", "HEAD")
ODD = (
    *("-a", ".a", "_a", "a b", "ä", "a..b", "a.", "a.lock", "x" * 65, "a~1", "a^", "a:b", "@{-1}", "a\\b", "a*?["),
    *("été-st3i", "日本-1", "مهم-1", "e\u0301te", "été-ST3I", "(ba-12", "a+b", "'a'", "🎉", "~"),
)
BAD = ("", ".", "..", "a/b", "/a", "a\n", "\x1b[31m", "a\u202eb", " a", "a ", "\ud800", "x" * 129, "ä" * 65)


@pytest.mark.parametrize("id", PLAIN)
def test_a_plain_id_is_its_own_name_everywhere(id: str) -> None:
    assert usable_id(id) and file_name(id) == id and branch_of("loop", id) == f"ralph/loop/{id}"
    subprocess.run(["git", "check-ref-format", f"refs/heads/{branch_of('loop', id)}"], check=True)


@pytest.mark.parametrize("id", ODD)
def test_any_other_id_gets_a_name_for_its_branch_and_files_that_every_system_takes(id: str) -> None:
    assert usable_id(id)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}\+[0-9a-f]{8}", file_name(id))
    subprocess.run(["git", "check-ref-format", f"refs/heads/{branch_of('loop', id)}"], check=True)


def test_no_two_ids_have_one_name() -> None:
    ids = (*PLAIN, *ODD, *(file_name(id) for id in ODD))
    assert len({file_name(id) for id in ids}) == len(ids)


@pytest.mark.parametrize("id", BAD)
def test_what_could_be_a_path_or_act_on_a_terminal_is_no_id(id: str) -> None:
    assert not usable_id(id)


def test_a_part_of_an_id_is_enough_if_it_is_in_one_only_and_a_whole_one_comes_first() -> None:
    ids = ["ab-emzy", "ab-1", "ab-12", "été-st3i"]
    assert named("emzy", ids) == ["ab-emzy"] and named(" EMZ ", ids) == ["ab-emzy"]
    assert named("ab-1", ids) == ["ab-1"] and named("b-1", ids) == ["ab-1", "ab-12"]
    assert named("e\u0301te\u0301", ids) == ["été-st3i"]
    assert named("", ids) == named("zz", ids) == []


def test_numbers_in_ids_count_as_numbers() -> None:
    ids = ["ab-12", "b-1", "ab-9", "ab-9b", "ab-010", "ab-10", "ab"]
    assert sorted(ids, key=natural) == ["ab", "ab-9", "ab-9b", "ab-010", "ab-10", "ab-12", "b-1"]


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True), st.text("a0.", min_size=1, max_size=5))
def test_only_the_same_id_has_the_same_place(one: str, other: str) -> None:
    assert (natural(one) == natural(other)) == (one == other)
    assert (natural(one) < natural(other)) != (natural(other) < natural(one)) or one == other
