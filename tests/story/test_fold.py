"""The fold of events into items, on small sequences and on every recording of real pi."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.story.fold import View
from ralph_rpc.story.items import (
    CommandReceipt,
    Compaction,
    DialogAsked,
    Item,
    IterationBegan,
    IterationEnded,
    LogNotice,
    LoopBegan,
    LoopEnded,
    MessageDone,
    PiEnded,
    PiStarted,
    RetryBegan,
    StatusChanged,
    TextDelta,
    TicketChanged,
    ToolBegan,
    ToolEnded,
    ToolOutput,
    UserText,
    VerifyEnded,
)
from ralph_rpc.story.lines import ticket_of

RECORDINGS = sorted((Path(__file__).parents[1] / "data" / "transcripts").glob("*/*.jsonl"))

Json = dict[str, Any]


def fold(events: Iterable[Json], view: View | None = None) -> list[Item]:
    view = view or View()
    return [item for event in events for item in view.feed(event)]


def assistant(*blocks: Json, stop: str = "stop", **more: Any) -> Json:
    return {"role": "assistant", "content": list(blocks), "stopReason": stop, **more}


def text_block(text: str) -> Json:
    return {"type": "text", "text": text}


def start() -> Json:
    return {"type": "message_start", "message": assistant(stop="pending")}


def delta(text: str, block: int = 0, kind: str = "text") -> Json:
    change = {"type": f"{kind}_delta", "contentIndex": block, "delta": text}
    return {"type": "message_update", "assistantMessageEvent": change}


def end(*blocks: Json, **more: Any) -> Json:
    return {"type": "message_end", "message": assistant(*blocks, **more)}


def user(text: str) -> Json:
    return {"type": "message_end", "message": {"role": "user", "content": [text_block(text)]}}


def tool(kind: str, call: str, **more: Any) -> Json:
    return {"type": f"tool_execution_{kind}", "toolCallId": call, "toolName": "bash", **more}


def text_of(items: Iterable[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def test_streamed_text_is_given_as_it_comes_and_not_again_at_the_end() -> None:
    items = fold([start(), delta("Hel"), delta("lo"), end(text_block("Hello"))])
    assert items == [TextDelta("Hel", False, 0), TextDelta("lo", False, 0), MessageDone("stop", None)]


def test_a_message_without_deltas_gives_its_text_at_its_end() -> None:
    thinking = {"type": "thinking", "thinking": "hm"}
    for before in ([], [start()]):
        items = fold([*before, end(thinking, text_block("Hello"))])
        assert items == [TextDelta("hm", True, 0), TextDelta("Hello", False, 1), MessageDone("stop", None)]


def test_a_log_joined_in_the_middle_of_a_message_gives_the_whole_of_it_once() -> None:
    events = [delta("lo", 1), end(text_block("First"), text_block("Hello"))]
    assert text_of(fold(events)) == "FirstHello"


def test_a_message_joined_midway_streams_from_the_end_of_the_log_on() -> None:
    view = View()
    assert fold([delta("lo ")], view) == []
    assert view.caught_up() == [TextDelta("…lo ", False, 0)]
    assert view.caught_up() == []
    later = fold(
        [delta("wor"), delta("ld"), delta("Next", 1), end(text_block("Hello world"), text_block("Next one"))], view
    )
    assert text_of(later) == "world" + "Next" + " one"


def test_text_that_the_deltas_left_out_is_completed() -> None:
    assert text_of(fold([start(), delta("Hel"), end(text_block("Hello"))])) == "Hello"


def test_a_pi_that_dies_within_a_message_leaves_nothing_for_the_next_one() -> None:
    died = {"type": "ralph_pi_exit", "pid": 5, "exitCode": -9, "terminationMethod": "sigkill"}
    items = fold([start(), delta("Hel"), tool("start", "a"), died, start(), delta("New"), end(text_block("New"))])
    assert text_of(items) == "HelNew"
    assert PiEnded(-9, "sigkill") in items


def test_failed_and_aborted_messages_say_why() -> None:
    assert fold([end(stop="error", errorMessage="529 Overloaded")]) == [MessageDone("error", "529 Overloaded")]
    assert fold([end(stop="aborted")]) == [MessageDone("aborted", "aborted")]


def test_a_tool_call_has_its_duration_from_the_stamps_or_from_pi() -> None:
    began = tool("start", "a", args={"command": "make"}, ralph={"at": 1_000})
    ended = tool("end", "a", result={"content": [text_block("\nbuilt\nall\n")]}, isError=False, ralph={"at": 3_500})
    assert fold([began, ended]) == [
        ToolBegan("a", "bash", "make", 1_000, {"command": "make"}),
        ToolEnded("a", "bash", "make", True, 2_500, "built", "\nbuilt\nall\n", {}),
    ]
    last = fold([began, {**ended, "durationMs": 7}])[-1]
    assert isinstance(last, ToolEnded) and last.duration_ms == 7


def test_a_failed_tool_shows_its_last_line() -> None:
    ended = tool("end", "a", result={"content": [text_block("go\n\nCommand exited with code 2\n")]}, isError=True)
    last, whole = "Command exited with code 2", "go\n\nCommand exited with code 2\n"
    assert fold([ended]) == [ToolEnded("a", "bash", "", False, None, last, whole, {})]


def test_parallel_tools_are_told_apart_and_those_running_are_known() -> None:
    view = View()
    fold([tool("start", "a", args={"path": "x"}), tool("start", "b", args={"pattern": "y"})], view)
    assert [item.args for item in view.tools.values()] == ["x", "y"]
    fold([tool("end", "a", result={}), tool("update", "a")], view)
    assert list(view.tools) == ["b"]


def test_a_tool_whose_start_was_missed_begins_with_its_update() -> None:
    update = tool("update", "a", args={"command": "sleep 9"}, partialResult={"content": []})
    assert fold([update, update]) == [ToolBegan("a", "bash", "sleep 9", None, {"command": "sleep 9"})]


def test_a_running_tool_tells_its_output_so_far() -> None:
    update = tool("update", "a", partialResult={"content": [text_block("one\ntwo\n")]})
    assert fold([tool("start", "a"), update])[1:] == [ToolOutput("a", "one\ntwo\n")]
    assert fold([tool("start", "a"), tool("end", "a", result={}), update])[2:] == []


def test_tickets_that_run_at_once_have_a_message_and_tools_each() -> None:
    def of(ticket: str, *events: Json) -> list[Json]:
        return [{**event, "ralph": {"at": 1, "iteration": 1, "ticket": ticket}} for event in events]

    one = of("a", start(), delta("one"), delta(" more"), end(text_block("one more")))
    two = of("b", start(), delta("two"), tool("start", "a"), end(text_block("two")))
    events = [event for pair in zip(one, two, strict=True) for event in pair]
    view = View()
    told: dict[str | None, list[Item]] = {}
    for event in events:
        told.setdefault(ticket_of(event), []).extend(view.feed(event))
    assert (text_of(told["a"]), text_of(told["b"])) == ("one more", "two")
    assert not view.resting and list(view.lanes["b"].tools) == ["a"] and view.lanes["a"].resting
    ended = {"type": "ralph_iteration_end", "iteration": 1, "ticket": "b", "outcome": "ok"}
    fold([ended], view)
    assert view.resting


def test_a_change_of_a_ticket_is_an_item() -> None:
    event = {"type": "ralph_ticket", "at": 1, "ticket": "t-1", "from": "verifying", "to": "merged", "reason": "ok"}
    assert fold([event]) == [TicketChanged("t-1", "verifying", "merged", "ok")]
    began = {"type": "ralph_iteration_start", "at": 4, "iteration": 2, "kind": "work", "ticket": "t-1"}
    assert fold([began]) == [IterationBegan(2, "work", 4, "t-1")]


def test_how_full_the_context_is_is_known_where_pi_told_it() -> None:
    view = View()
    usage = {"totalTokens": 1_234}
    fold([{"type": "message_end", "message": assistant(text_block("x"), usage=usage)}], view)
    assert (view.lanes[None].context, view.lanes[None].window) == (1_234, None)
    model = {"model": {"contextWindow": 200_000}}
    fold([{"type": "response", "command": "get_state", "success": True, "data": model}], view)
    assert (view.lanes[None].context, view.lanes[None].window) == (1_234, 200_000)


def test_a_tool_call_that_is_being_written_is_known_until_its_message_ends() -> None:
    view = View()
    change = {"type": "toolcall_start", "contentIndex": 1, "toolName": "write"}
    fold([start(), {"type": "message_update", "assistantMessageEvent": change}], view)
    assert view.lanes[None].composing == "write"
    fold([end(text_block(""))], view)
    assert view.lanes[None].composing is None


def test_the_prompt_is_told_apart_from_what_an_operator_says() -> None:
    accepted = {"type": "ralph_command", "id": "i1", "command": "followup", "state": "accepted", "message": "also this"}
    items = fold(
        [
            {"type": "agent_start"},
            {"type": "turn_start"},
            user("the task"),
            end(text_block("ok")),
            {"type": "turn_end"},
            user("be quick"),
            {"type": "turn_end"},
            accepted,
            {"type": "agent_start"},
            user("also this"),
        ]
    )
    said = [item for item in items if isinstance(item, UserText)]
    assert said == [UserText("the task", False), UserText("be quick", True), UserText("also this", True)]


def test_retries_compactions_dialogs_and_refusals_are_items() -> None:
    result = {"summary": "s", "tokensBefore": 9_000, "estimatedTokensAfter": 2_000}
    assert fold(
        [
            {"type": "auto_retry_start", "attempt": 1, "maxAttempts": 3, "delayMs": 300, "errorMessage": "529"},
            {"type": "auto_retry_end", "success": True, "attempt": 1},
            {"type": "auto_retry_end", "success": False, "attempt": 3, "finalError": "529"},
            {"type": "compaction_start", "reason": "threshold"},
            {"type": "compaction_end", "reason": "threshold", "result": result, "aborted": False},
            {"type": "compaction_end", "reason": "overflow", "aborted": False, "errorMessage": "500"},
            {"type": "extension_ui_request", "id": "1", "method": "confirm", "title": "Sure?"},
            {"type": "extension_ui_request", "id": "2", "method": "notify", "message": "hi", "notifyType": "warning"},
            {"type": "extension_ui_request", "id": "3", "method": "setStatus", "statusText": "x"},
            {"type": "response", "command": "prompt", "success": False, "error": "No API key found"},
            {"type": "response", "command": "prompt", "success": True},
        ]
    ) == [
        RetryBegan(1, 300, "529"),
        LogNotice("error", "gave up after 3 retries: 529"),
        Compaction("threshold", None, True),
        Compaction("threshold", "9000 tokens to 2000", True),
        Compaction("overflow", "500", False),
        DialogAsked("confirm", "Sure?"),
        LogNotice("warning", "hi"),
        LogNotice("error", "pi refused prompt: No API key found"),
    ]


def test_the_runners_own_events_are_items() -> None:
    record = {"type": "ralph_iteration_end", "at": 9, "iteration": 2, "outcome": "ok", "cost": 0.5}
    assert fold(
        [
            {"type": "ralph_loop_start", "at": 1, "name": "api", "pid": 7, "resumed": True},
            {"type": "ralph_pi_start", "at": 2, "pid": 8, "version": "1.5.2", "argv": ["pi"]},
            {"type": "ralph_status", "at": 3, "from": "starting", "to": "running"},
            {"type": "ralph_iteration_start", "at": 4, "iteration": 2, "kind": "work"},
            {
                "type": "ralph_command",
                "at": 5,
                "id": "i",
                "command": "steer",
                "state": "delivered",
                "redelivered": True,
            },
            {"type": "ralph_verify", "at": 6, "command": "make", "exitCode": 2, "durationMs": 50, "tail": "no"},
            record,
            {"type": "ralph_notice", "at": 7, "level": "warning", "message": "disk"},
            {"type": "ralph_unparsed", "raw": "Warning: x"},
            {"type": "ralph_log_open", "at": 7, "base": 100},
            {"type": "ralph_loop_end", "at": 8, "status": "stopped", "stopReason": "max-cost", "error": None},
        ]
    ) == [
        LoopBegan("api", 7, True, 1),
        PiStarted(8, "1.5.2"),
        StatusChanged("starting", "running", None, 3),
        IterationBegan(2, "work", 4),
        CommandReceipt("i", "steer", "delivered", None, None, True),
        VerifyEnded("make", 2, 50, "no"),
        IterationEnded(record),
        LogNotice("warning", "disk"),
        LogNotice("warning", "pi wrote a line that is not an event: Warning: x"),
        LoopEnded("stopped", "max-cost", None),
    ]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recording_of_real_pi_gives_its_text_exactly_once(path: Path) -> None:
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert text_of(fold(events)) == recorded_text(events)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recording_joined_at_any_line_gives_each_later_message_whole(path: Path) -> None:
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    for first in range(0, len(events), max(1, len(events) // 50)):
        assert text_of(fold(events[first:])) == recorded_text(events[first:])


def recorded_text(events: Iterable[Json]) -> str:
    """The text of all ended messages: what a reader must have been given in the end."""
    ended = [event["message"] for event in events if event.get("type") == "message_end"]
    blocks = [block for message in ended if message["role"] == "assistant" for block in message["content"]]
    return "".join(block.get("text", block.get("thinking", "")) for block in blocks)
