"""What is said of the merge queue: in the log's lines, in `tickets` and `status`, and in attach."""

from typing import Any

import pytest

from ralph_rpc.attach.ticketlist import _line
from ralph_rpc.clock import iso
from ralph_rpc.model.state import BatchState, RunningTicket
from ralph_rpc.story.fold import View
from ralph_rpc.story.items import BatchChanged, Item
from ralph_rpc.story.words import batch_told, worded

NOW = 1_770_000_000_000
IDS = [f"t-{number}" for number in range(1, 8)]


def fold(event: dict[str, Any]) -> list[Item]:
    return list(View().feed(event))


def said(**members: Any) -> str:
    found = worded(fold({"type": "ralph_batch", "at": NOW, **members})[0])
    assert found is not None
    return found.text


def test_a_step_of_a_batch_is_an_item_whatever_is_in_it() -> None:
    event = {"type": "ralph_batch", "at": 1, "tickets": ["t-1"], "state": "red", "durationMs": 5, "fluke": True}
    assert fold(event) == [BatchChanged(("t-1",), "red", 5, True)]
    assert fold({"type": "ralph_batch", "at": 1, "tickets": "t-1", "state": 7}) == [BatchChanged((), "", 0, False)]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"tickets": ["t-1"], "state": "verifying"}, "merge of t-1: verifying"),
        (
            {"tickets": ["t-1"], "state": "restarted", "durationMs": 2_000},
            "merge of t-1: verify is started over, together with what has just come",
        ),
        (
            {"tickets": ["t-1", "t-2"], "state": "red", "durationMs": 61_000},
            "merge of t-1, t-2: verify is red after 1m01s",
        ),
        ({"tickets": IDS, "state": "landed"}, "merge of t-1, t-2, t-3, t-4, t-5 and 2 more: landed"),
        (
            {"tickets": ["t-1"], "state": "landed", "fluke": True},
            "merge of t-1: landed, though verify was red at first: it is not reliable",
        ),
        ({"tickets": [], "state": "target-red"}, "the target branch itself does not pass verify; merges wait"),
        ({"tickets": ["t-1"], "state": "of a later version"}, "merge of t-1: of a later version"),
    ],
)
def test_each_step_is_told_in_a_line(members: dict[str, Any], text: str) -> None:
    assert said(**members) == text


def batch(**changes: Any) -> BatchState:
    usual = {"tickets": IDS[:3], "trying": 3, "doing": "verifying", "since": iso(NOW - 12_000), "reds": 0}
    return {**usual, **changes}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "verifying t-1, t-2, t-3 for 12s"),
        ({"doing": "waiting"}, "waiting to verify t-1, t-2, t-3 for 12s"),
        ({"trying": 1, "reds": 1}, "verifying t-1 (1 of 3, as all together were red) for 12s"),
        ({"trying": 0}, "verifying the target branch itself for 12s, as t-1, t-2, t-3 could not be merged into it"),
        ({"trying": 0, "tickets": []}, "verifying the target branch itself for 12s"),
        ({"doing": "landing", "since": "not a time"}, "landing t-1, t-2, t-3"),
    ],
)
def test_what_the_queue_is_at_is_told_in_a_line(changes: dict[str, Any], text: str) -> None:
    assert batch_told(batch(**changes), NOW) == text


def test_attach_says_how_long_a_ticket_has_been_in_the_queue() -> None:
    ticket: RunningTicket = {
        "ticket": "t-1",
        "title": "T",
        "status": "merging",
        "doing": "waiting to be merged",
        "attempt": 1,
        "iteration": 1,
        "since": iso(NOW - 600_000),
        "cost": 0.0,
        "worktree": None,
    }
    assert _line(ticket, NOW).plain == "t-1\n  merging 10m00s"
    assert _line({**ticket, "queuedAt": iso(NOW - 5_000)}, NOW).plain == "t-1\n  in the queue 5s"
