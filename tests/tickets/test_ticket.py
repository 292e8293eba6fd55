"""Ids: what may be one, and in which order people expect them."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.tickets.ticket import natural, safe_id

GOOD = ("a", "7", "ab-5c46", "A.b_c-d", "x" * 64, "a.locks", "HEAD")
BAD = (
    "",
    ".",
    "-a",
    ".a",
    "_a",
    "a/b",
    "a b",
    "a\n",
    "ä",
    "a..b",
    "a.",
    "a.lock",
    "x" * 65,
    "a~1",
    "a^",
    "a:b",
    "@{-1}",
)


@pytest.mark.parametrize("id", GOOD)
def test_a_safe_id_makes_a_branch(id: str) -> None:
    assert safe_id(id)
    subprocess.run(["git", "check-ref-format", f"refs/heads/ralph/loop/{id}"], check=True)


@pytest.mark.parametrize("id", BAD)
def test_what_could_be_an_option_a_path_or_no_branch_is_no_id(id: str) -> None:
    assert not safe_id(id)


def test_numbers_in_ids_count_as_numbers() -> None:
    ids = ["ab-12", "b-1", "ab-9", "ab-9b", "ab-010", "ab-10", "ab"]
    assert sorted(ids, key=natural) == ["ab", "ab-9", "ab-9b", "ab-010", "ab-10", "ab-12", "b-1"]


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True), st.text("a0.", min_size=1, max_size=5)
)
def test_only_the_same_id_has_the_same_place(one: str, other: str) -> None:
    assert (natural(one) == natural(other)) == (one == other)
    assert (natural(one) < natural(other)) != (natural(other) < natural(one)) or one == other
