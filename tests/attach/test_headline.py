"""The line above the stream, at any width, from whatever the files hold; and what is said at the end."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ralph_rpc.attach.headline import QUIET_MS, HeadlineFacts, ended_lines, goodbye, headline
from ralph_rpc.clock import iso
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.shapes import misfit
from ralph_rpc.loops.figures import Figures, of_state
from ralph_rpc.model.state import State
from ralph_rpc.terminal.inert import inert
from tests.cli import forged

NOW = 1_770_000_000_000
STATE: State = forged.state(  # type: ignore[assignment]
    LoopPaths.of(Path("/project"), "api"),
    iteration=3,
    elapsedMs=61_000,
    updatedAt=iso(NOW - 2_000),
    nextWakeAt=iso(NOW + 90_000),
    stats={
        "iterations": 2,
        "turns": 7,
        "toolCalls": 9,
        "durationMs": 0,
        "tokensIn": 1_000,
        "tokensOut": 500,
        "cacheRead": 0,
        "cacheWrite": 0,
        "cost": 0.5,
    },
)


def line(columns: int = 160, **more: object) -> str:
    figures = Figures(3, 2, 0.5, 63_000, 1_500, 50)
    seen = HeadlineFacts("api", **{"shown": "running", "state": STATE, "figures": figures, **more})  # type: ignore[arg-type]
    return headline(seen, NOW, columns).plain.rstrip()


def test_all_of_it_on_a_wide_screen() -> None:
    told = line(doing="bash make", ticket="t-1", context=50, window=200, commit="0123456789", last_at=NOW)
    assert told == (
        " api · running · 2/50 iterations · ⚒ t-1 · bash make · 1m03s · $0.50 · 1.5k tokens · context 25%"
        " · commit 0123456"
    )


@pytest.mark.parametrize(
    ("tickets", "told"), [(["t-1"], "merging t-1"), (["t-1", "t-2"], "merging 2 tickets"), ([], "verifying the target")]
)
def test_what_the_merge_queue_is_at_is_there(tickets: list[str], told: str) -> None:
    batch = {"tickets": tickets, "trying": 1, "doing": "verifying", "since": iso(NOW), "reds": 0}
    counts = {"total": 1, "closed": 0, "failed": 0, "needsMerge": 0, "running": []}
    state = {**STATE, "tickets": {**counts, "batch": batch}}
    assert f" · {told} · " in line(state=state)
    assert "merging" not in line(state={**STATE, "tickets": {**counts, "batch": None}})


def test_what_matters_least_goes_first_on_a_narrow_one() -> None:
    assert (
        line(62, doing="bash make", commit="0123456", last_at=NOW)
        == " api · running · 2/50 iterations · bash make · 1m03s · $0.50"
    )
    assert line(30) == " api · running"


def test_silence_counts_only_while_something_should_come() -> None:
    silent = NOW - QUIET_MS - 27_000
    assert "nothing for 42s" in line(last_at=silent)
    assert "nothing for" not in line(last_at=NOW - 1_000)
    for shown in ("paused", "waiting", "completed", "stopped"):
        assert "nothing for" not in line(last_at=silent, shown=shown)


def test_waiting_says_for_how_long_yet_and_reading_back_is_marked() -> None:
    assert "waiting until 20" in line(shown="waiting") and "(1m30s)" in line(shown="waiting")
    assert "running ↑" in line(behind=True)


def is_inert(text: str) -> bool:
    return inert(text, keep_newlines=False) == text


@given(st.text(max_size=30), st.integers(), st.integers(1, 200))
def test_whatever_a_state_says_makes_one_inert_line(text: str, number: int, columns: int) -> None:
    texts = dict.fromkeys(("error", "updatedAt", "nextWakeAt", "currentTicket"), text)
    numbers = dict.fromkeys(("iteration", "maxIterations", "elapsedMs"), number)
    state: State = {**STATE, **texts, **numbers, "stats": dict.fromkeys(STATE["stats"], number)}  # type: ignore[typeddict-item]
    assert misfit(state, State) is None
    for shown in ("waiting", "running"):
        figures = of_state(state, "alive")
        told = headline(HeadlineFacts(text, shown, state, figures, text, text, 5, 7, text, NOW - 60_000), NOW, columns)
        assert is_inert(told.plain) and cell_len(told.plain) <= columns
    for part in ended_lines("api", "stopped", state, text, columns):
        assert is_inert(part.plain) and cell_len(part.plain) <= columns
    assert is_inert(goodbye("api", "error", state))


def test_a_loop_whose_state_cannot_be_read_has_a_line_too() -> None:
    assert headline(HeadlineFacts("api", "starting"), NOW, 80).plain.rstrip() == " api · starting"
    assert [part.plain for part in ended_lines("api", "crashed", None, None, 80)] == [
        " loop crashed",
        " continue with: ralph-rpc resume api · q leaves",
    ]
    assert goodbye("api", "crashed", None) == "api: crashed. Continue with: ralph-rpc resume api"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("running", "Detached from api (still running). Back with: ralph-rpc attach api"),
        ("paused", "Detached from api (still paused). Back with: ralph-rpc attach api"),
        ("completed", "api: completed (marker), 2/50 iterations, $0.50. See all of it: ralph-rpc report api"),
        ("error", "api: error (marker), 2/50 iterations, $0.50. Continue with: ralph-rpc resume api"),
    ],
)
def test_what_is_said_on_leaving(shown: str, expected: str) -> None:
    assert goodbye("api", shown, {**STATE, "stopReason": "marker"}) == expected
