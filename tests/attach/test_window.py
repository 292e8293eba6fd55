"""A part of the log as blocks: wherever it begins, it says the same as the whole."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from ralph_rpc.attach import window as windows
from ralph_rpc.attach.blocks import Block, SaidBlock, ToolBlock
from ralph_rpc.attach.window import Window
from ralph_rpc.files.eventlog import EventLog
from tests.attach.said import RECORDINGS, began, begun, deltas, ended, iteration, notice, recorded, stamped, tool

Json = dict[str, Any]


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small log needs many of them."""
    monkeypatch.setattr(windows, "STEP", 4 << 10)


def write(path: Path, events: list[Json]) -> None:
    path.write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in events))


def told(blocks: list[Block]) -> list[tuple[object, ...]]:
    return [
        (type(block).__name__, block.ticket, block.plain, isinstance(block, SaidBlock) and block.operator)
        for block in blocks
    ]


def whole(path: Path, only: str | None = None) -> list[tuple[object, ...]]:
    window = Window(path, only)
    window.open_at(0)
    while not window.at_end:
        window.forward()
    window.close()
    return told(window.blocks.all)


def back_to_start(window: Window) -> None:
    for _ in range(10_000):
        if window.at_start:
            return
        window.backward()
    raise AssertionError("never reached the start")


def test_reaching_back_gives_the_whole_log_once(tmp_path: Path, small_steps: None) -> None:
    path = tmp_path / "events.jsonl"
    write(path, [event for n in range(1, 200) for event in iteration(n)])
    window = Window(path)
    window.open_at_end()
    assert window.start > path.stat().st_size - (8 << 10)
    window.forward()
    back_to_start(window)
    assert told(window.blocks.all) == whole(path)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recording_read_backwards_says_what_it_says_forwards(path: Path, tmp_path: Path, small_steps: None) -> None:
    log = tmp_path / "events.jsonl"
    write(log, [*map(stamped, recorded(path)), *iteration(2)])
    window = Window(log)
    window.open_at_end()
    window.forward()
    back_to_start(window)
    assert told(window.blocks.all) == whole(log)


def test_a_run_without_a_seam_is_joined_in_its_middle_and_nothing_is_shown_twice(
    tmp_path: Path, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "FARTHEST", 8 << 10)
    path = tmp_path / "events.jsonl"
    text = " ".join(f"word{n}" for n in range(4_000))
    write(path, [began(1), begun(), *map(stamped, deltas(text)), ended(text), notice("after")])
    window = Window(path)
    window.open_last(3)
    window.forward()
    assert [block.plain for block in window.blocks.all] == [text, "after"]
    back_to_start(window)
    assert "".join(block.plain for block in window.blocks.all).count("word77 ") == 1


def test_text_that_streams_now_is_shown_from_where_it_was_joined(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, [begun(), *deltas("the beginning and "), *deltas("the end")])
    window = Window(path)
    window.open_last(1)
    window.forward()
    assert [block.plain for block in window.blocks.all] == ["…the end"]
    with path.open("ab") as file:
        file.write(orjson.dumps(deltas(" of it")[0]) + b"\n")
    window.forward()
    assert [block.plain for block in window.blocks.all] == ["…the end of it"]


def test_following_goes_over_rotations(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog.open(path, limit=20_000, keep=100)
    window = Window(path)
    log.append_event(notice("first"))
    window.open_at_end()
    for number in range(1_000):
        log.append_event(notice(f"line {number}"))
        if number % 50 == 0:
            window.forward()
    window.forward()
    log.close()
    assert len(list(tmp_path.glob("events.jsonl.*"))) > 2
    assert [block.plain for block in window.blocks.all] == ["first", *(f"line {n}" for n in range(1_000))]


def test_what_was_rotated_away_unread_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog.open(path, limit=5_000, keep=1)
    log.append_event(notice("first"))
    window = Window(path)
    window.open_at_end()
    window.forward()
    for number in range(1_000):
        log.append_event(notice(f"line {number}"))
    window.forward()
    log.close()
    assert window.missed > 10_000
    assert window.blocks.all[-1].plain == "line 999"


def test_memory_is_bounded_at_both_ends_and_what_was_let_go_comes_back(
    tmp_path: Path, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MOST", 100)
    path = tmp_path / "events.jsonl"
    write(path, [event for n in range(1, 200) for event in iteration(n)])
    expected = whole(path)
    window = Window(path)
    window.open_at(0)
    while not window.at_end:
        window.forward(4 << 10)
        window.let_go_first()
        assert len(window.blocks.all) <= 140
    assert told(window.blocks.all) == expected[-len(window.blocks.all) :]
    while not window.at_start:
        window.backward()
        window.let_go_last()
        assert len(window.blocks.all) <= 140
    assert told(window.blocks.all) == expected[: len(window.blocks.all)]
    assert not window.at_end
    while not window.at_end:
        window.forward(4 << 10)
    assert told(window.blocks.all) == expected


def test_a_ticket_can_be_seen_alone(tmp_path: Path, small_steps: None) -> None:
    path = tmp_path / "events.jsonl"
    events: list[Json] = [notice("to all")]
    for n in range(1, 60):
        for ticket in ("a", "b"):
            run = [begun(), *deltas(f"{ticket} {n}"), ended(f"{ticket} {n}")]
            events += [began(n, ticket), *(stamped(event, ticket) for event in [{"type": "agent_start"}, *run])]
    write(path, events)
    window = Window(path, only="a")
    window.open_at_end()
    window.forward()
    back_to_start(window)
    assert {block.ticket for block in window.blocks.all} == {None, "a"}
    assert told(window.blocks.all) == whole(path, "a")


def test_a_tool_that_ran_at_the_seam_is_there_once(
    tmp_path: Path, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "FARTHEST", 2 << 10)
    path = tmp_path / "events.jsonl"
    filler = [stamped({"type": "queue_update", "steering": ["x" * 400]}) for _ in range(40)]
    end = tool("end", result={"content": "done"})
    write(path, [*iteration(1), tool("start", args={"command": "make"}), *filler, end, *filler])
    window = Window(path)
    window.open_at_end()
    window.forward()
    back_to_start(window)
    assert [block.plain for block in window.blocks.all if isinstance(block, ToolBlock)] == ["make\ndone"]


def test_an_empty_or_missing_log_is_an_empty_window_that_fills(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    window = Window(path)
    window.open_at_end()
    assert window.forward() is False and window.backward() == 0
    write(path, [notice("now")])
    window.forward()
    assert [block.plain for block in window.blocks.all] == ["now"]
