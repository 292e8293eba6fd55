"""The line above the stream, at any width, from whatever the files hold; and what is said at the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ralph_rpc.attach.headline import QUIET_MS, Seen, ended_lines, goodbye, headline
from ralph_rpc.clock import iso
from ralph_rpc.text import inert

NOW = 1_770_000_000_000
STATE = {
    "iteration": 3, "maxIterations": 50, "elapsedMs": 61_000, "updatedAt": iso(NOW - 2_000),
    "nextWakeAt": iso(NOW + 90_000),
    "stats": {"iterations": 2, "turns": 7, "toolCalls": 9, "tokensIn": 1_000, "tokensOut": 500, "cost": 0.5},
}  # fmt: skip


def line(columns: int = 160, **more: object) -> str:
    seen = Seen("api", **{"shown": "running", "state": STATE, **more})  # type: ignore[arg-type]
    return headline(seen, NOW, columns).plain.rstrip()


def test_all_of_it_on_a_wide_screen() -> None:
    told = line(doing="bash make", ticket="t-1", context=50, window=200, commit="0123456789", last_at=NOW)
    assert told == (
        " api · running · iteration 3/50 · ⚒ t-1 · bash make · 1m03s · $0.50 · 1.5k tokens · context 25%"
        " · commit 0123456"
    )


def test_what_matters_least_goes_first_on_a_narrow_one() -> None:
    assert (
        line(60, doing="bash make", commit="0123456", last_at=NOW)
        == " api · running · iteration 3/50 · bash make · 1m03s · $0.50"
    )
    assert line(30) == " api · running"


def test_silence_counts_only_while_something_should_come() -> None:
    silent = NOW - QUIET_MS - 27_000
    assert "nothing for 42s" in line(last_at=silent)
    assert "nothing for" not in line(last_at=NOW - 1_000)
    for shown in ("paused", "waiting", "completed", "stopped"):
        assert "nothing for" not in line(last_at=silent, shown=shown)


def test_waiting_says_for_how_long_yet_and_reading_back_is_marked() -> None:
    assert "waiting 1m30s" in line(shown="waiting")
    assert "running ↑" in line(behind=True)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*STATE, "tokens", "cost"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def is_inert(text: str) -> bool:
    return inert(text, keep_newlines=False) == text


@given(
    st.dictionaries(st.sampled_from([*STATE, "error", "stopReason"]), ANY),
    st.text(max_size=30),
    st.integers(1, 200),
)
def test_a_state_of_any_shape_is_one_inert_line(state: dict[str, object], text: str, columns: int) -> None:
    told = headline(Seen(text, text, state, text, text, 5, 7, text, NOW - 60_000), NOW, columns)
    assert is_inert(told.plain) and cell_len(told.plain) <= columns
    for part in ended_lines("api", "stopped", state, text, columns):
        assert is_inert(part.plain) and cell_len(part.plain) <= columns
    assert is_inert(goodbye("api", "error", state))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("running", "Detached from api, which goes on (running). Back with: ralph-rpc attach api"),
        ("paused", "Detached from api, which goes on (paused). Back with: ralph-rpc attach api"),
        ("completed", "api: completed (marker), 2 iterations, $0.50. See all of it: ralph-rpc report api"),
        ("error", "api: error (marker), 2 iterations, $0.50. Go on with: ralph-rpc resume api"),
    ],
)
def test_what_is_said_on_leaving(shown: str, expected: str) -> None:
    assert goodbye("api", shown, {**STATE, "stopReason": "marker"}) == expected
