"""Items of the fold as text for a terminal: harmless, whatever the log holds."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.cli.readable import Readable
from ralph_rpc.story.fold import View
from tests.effort import examples
from tests.story.test_fold import fold

Json = dict[str, Any]

KINDS = [
    "message_start",
    "message_update",
    "message_end",
    "agent_start",
    "turn_end",
    "tool_execution_start",
    "tool_execution_update",
    "tool_execution_end",
    "auto_retry_start",
    "auto_retry_end",
    "compaction_start",
    "compaction_end",
    "extension_ui_request",
    "response",
    "ralph_iteration_start",
    "ralph_iteration_end",
    "ralph_pi_start",
    "ralph_pi_exit",
    "ralph_status",
    "ralph_command",
    "ralph_verify",
    "ralph_notice",
    "ralph_unparsed",
    "ralph_loop_start",
    "ralph_loop_end",
    "ralph_ticket",
    "unheard_of",
]
MEMBERS = [
    "message",
    "assistantMessageEvent",
    "content",
    "role",
    "type",
    "text",
    "delta",
    "contentIndex",
    "stopReason",
    "toolCallId",
    "args",
    "result",
    "at",
    "ralph",
    "iteration",
    "method",
    "title",
    "delayMs",
    "durationMs",
    "exitCode",
    "success",
    "id",
    "tail",
    "error",
    "status",
    "cost",
    "outcome",
]
WORDS = ["assistant", "user", "text", "thinking", "text_delta", "confirm", "notify", "\x1b[2J", "a"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=4),
    max_leaves=12,
)
EVENTS = st.builds(
    lambda kind, members: {**members, "type": kind},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=6),
)


@pytest.mark.slow
@settings(max_examples=examples(50))
@given(st.lists(EVENTS, max_size=8))
def test_events_of_any_shape_neither_raise_nor_send_control_characters(events: list[Json]) -> None:
    view, readable = View(), Readable(colour=False, columns=80)
    items = fold(events, view) + view.caught_up()
    shown = "".join(map(readable.text, items)) + readable.finish()
    assert not {char for char in shown if ord(char) < 0x20} - {"\n", "\t"}
