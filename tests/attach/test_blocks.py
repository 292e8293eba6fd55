"""Items as blocks: on the recordings of three generations, and on what a person has to see."""

from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.attach.blocks import Block, Blocks, CommandBlock, LineBlock, SaidBlock, TextBlock, ToolBlock
from ralph_rpc.story.fold import View
from ralph_rpc.story.lines import ticket_of
from tests.attach.said import (
    RECORDINGS,
    began,
    begun,
    deltas,
    ended,
    finished,
    message,
    output,
    recorded,
    stamped,
    step,
    told,
    tool,
)
from tests.story.test_fold import recorded_text

Json = dict[str, Any]


def blocks_of(events: list[Json]) -> Blocks:
    view, blocks = View(), Blocks()
    for number, event in enumerate(events):
        clean = view.resting
        for item in view.feed(event):
            blocks.add(item, number, clean, ticket_of(event))
    return blocks


def of(blocks: Blocks, kind: type[Block]) -> list[Any]:
    return [block for block in blocks.all if type(block) is kind]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recording_of_real_pi_becomes_blocks_that_hold_all_its_text(path: Path) -> None:
    events = recorded(path)
    blocks = blocks_of(events)
    texts = [block for block in blocks.all if isinstance(block, TextBlock)]
    assert "".join("".join(block.parts) for block in texts) == recorded_text(events)
    assert all(block.ended for block in texts) and blocks.open_blocks() == []
    runs = [event for event in events if event["type"] == "tool_execution_end"]
    assert [block.ok for block in of(blocks, ToolBlock)] == [not event["isError"] for event in runs]


def test_all_generations_tell_the_same_story() -> None:
    def story(version: str) -> list[tuple[str, str]]:
        path = next(p for p in RECORDINGS if p.parent.name == version and p.stem == "tool_call_steer_followup")
        return [(type(block).__name__, block.plain) for block in blocks_of(recorded(path)).all]

    assert story("0.73.1") == story("0.87.1") == story("1.5.2")
    assert ("ToolBlock", "sleep 0.5; ls | wc -l\n2") in story("1.5.2")
    assert ("SaidBlock", "hidden ones too") in story("1.5.2")


def test_a_running_tool_shows_its_whole_output_so_far_once() -> None:
    start, first = tool("start", args={"command": "make"}), tool("update", partialResult=output("a\n"))
    blocks = blocks_of([start, first, tool("update", partialResult=output("a\nb\n"))])
    (block,) = of(blocks, ToolBlock)
    assert (block.output, block.ok) == ("a\nb\n", None)


def test_a_tool_that_is_cut_off_says_so() -> None:
    (block,) = of(blocks_of([tool("start"), finished(1)]), ToolBlock)
    assert block.lost and block.ok is None


def test_a_command_is_one_block_with_all_its_steps() -> None:
    blocks = blocks_of(
        [
            step("i", "accepted", message="be quick"),
            *message("text"),
            step("i", "queued"),
            told("be quick"),
            step("i", "delivered", redelivered=True),
            step("j", "rejected", "stop", reason="no"),
        ]
    )
    steer, stop = of(blocks, CommandBlock)
    assert (steer.message, steer.steps, steer.redelivered) == ("be quick", ["accepted", "queued", "delivered"], True)
    assert (stop.command, stop.steps, stop.reason) == ("stop", ["rejected"], "no")
    assert [block.operator for block in of(blocks, SaidBlock)] == [True]


def test_a_command_of_ones_own_is_there_before_the_runner_has_seen_it() -> None:
    view, blocks = View(), Blocks()
    blocks.sent("i", "steer", "hello", 0, None)
    for event in (step("i", "accepted", message="hello"), step("i", "delivered")):
        for item in view.feed(event):
            blocks.add(item, 1, True, None)
    blocks.sent("i", "steer", "hello", 2, None)
    (block,) = of(blocks, CommandBlock)
    assert block.steps == ["sent", "accepted", "delivered"]


def test_tickets_that_write_at_the_same_time_do_not_mix() -> None:
    one, two = (
        [begun(), *deltas("first ticket"), ended("first ticket")],
        [begun(), *deltas("second, longer one"), ended("second, longer one")],
    )
    events = [event for pair in zip(one, two, strict=False) for event in (stamped(pair[0], "a"), stamped(pair[1], "b"))]
    blocks = blocks_of([began(1, "a"), began(2, "b"), *events, *[stamped(event, "b") for event in two[len(one) :]]])
    assert [(block.ticket, block.plain) for block in of(blocks, TextBlock)] == [
        ("a", "first ticket"),
        ("b", "second, longer one"),
    ]


def test_a_very_long_text_is_several_blocks_so_that_the_old_ones_can_go() -> None:
    text = "many words " * 20_000
    events = [
        begun(),
        *(
            {"type": "message_update", "assistantMessageEvent": c["assistantMessageEvent"]}
            for c in deltas(text, piece=1000)
        ),
    ]
    blocks = blocks_of(events)
    texts = of(blocks, TextBlock)
    assert len(texts) > 2 and all(block.joined for block in texts[1:])
    assert "".join("".join(block.parts) for block in texts) == text


def test_the_end_of_a_tool_shows_even_if_its_beginning_was_let_go() -> None:
    view, blocks = View(), Blocks()
    for number, event in enumerate([tool("start"), *message("meanwhile"), tool("end", result=output("done"))]):
        if number == 3:
            blocks.drop_first(1)
        for item in view.feed(event):
            blocks.add(item, number, True, None)
    assert [block.output for block in of(blocks, ToolBlock)] == ["done"]


def test_borders_and_lines_are_worded_as_in_the_log() -> None:
    record = finished(3, outcome="failed", error="529 Overloaded", errorKind="overloaded")
    changed = {"type": "ralph_ticket", "at": 1, "ticket": "t-1", "from": "running", "to": "merged"}
    lines = of(blocks_of([began(3), record, changed]), LineBlock)
    assert [line.words.border for line in lines] == [True, True, False]
    assert lines[0].iteration == 3
    assert lines[1].words.text.startswith("iteration 3 failed: 1m00s, 2 turns, 1 tool calls, 990 tokens, $0.25")
    assert lines[1].words.tail == (("· overloaded: 529 Overloaded", "red"),)
    assert lines[2].words.text == "ticket t-1: running → merged"
