"""The fake speaks as pi does: the kinds of its lines, in their order, are those of the recordings."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.fake_pi import fake_command
from tests.real_pi.bare_client import BareClient

RECORDED = Path(__file__).parents[1] / "data/transcripts"
GENERATIONS = {"0.73.1": "old", "1.5.2": "new"}


def kinds(lines: list[bytes]) -> list[str]:
    """The sequence of kinds, repeated ones once; polling of the state and progress of tools left out."""
    found = []
    for line in lines:
        event = json.loads(line)
        kind = event["type"]
        match kind:
            case "message_update":
                kind = event["assistantMessageEvent"]["type"]
            case "message_start" | "message_end":
                kind += " " + event["message"]["role"]
            case "response":
                kind += " " + event["command"]
            case _:
                pass
        if kind not in ("response get_state", "tool_execution_update", "entry_appended"):
            found.append(kind)
    return [kind for kind, _ in groupby(found)]


def run(tmp_path: Path, generation: str, script: object) -> BareClient:
    env = {"FAKE_PI_SCRIPT": str(tmp_path / "script.json"), "FAKE_PI_GENERATION": generation}
    (tmp_path / "script.json").write_text(json.dumps(script))
    return BareClient(fake_command(), cwd=tmp_path, env=env, args=())


@pytest.mark.parametrize("version", GENERATIONS)
def test_a_simple_run_has_the_kinds_of_lines_of_a_recorded_one(version: str, tmp_path: Path) -> None:
    recorded = (RECORDED / version / "simple_reply.jsonl").read_bytes().splitlines()
    with run(tmp_path, GENERATIONS[version], {"prompts": ["Hello. How are you?"]}) as client:
        client.ask("get_state")
        client.ask("prompt", message="hello")
        client.settled()
        client.ask("get_session_stats")
        client.ask("new_session")
    assert kinds(client.lines) == kinds(recorded)


@pytest.mark.parametrize("version", GENERATIONS)
def test_messages_have_the_members_of_recorded_ones(version: str, tmp_path: Path) -> None:
    ours: dict[str, Any] = {}
    with run(tmp_path, GENERATIONS[version], {"prompts": ["Hello"]}) as client:
        client.ask("prompt", message="hello")
        client.settled()
    for line in client.lines:
        event = json.loads(line)
        ours.setdefault(event["type"] + str(event.get("message", {}).get("role")), event)
    recorded = (RECORDED / version / "simple_reply.jsonl").read_bytes().splitlines()
    theirs: dict[str, Any] = {}
    for line in recorded:
        event = json.loads(line)
        theirs.setdefault(event["type"] + str(event.get("message", {}).get("role")), event)
    del ours["responseNone"], theirs["responseNone"]
    assert ours.keys() == theirs.keys()
    for kind, event in ours.items():
        assert event.keys() == theirs[kind].keys(), kind


@pytest.mark.parametrize("version", GENERATIONS)
def test_steer_and_follow_up_wait_for_the_tool_as_recorded(version: str, tmp_path: Path) -> None:
    recorded = kinds((RECORDED / version / "tool_call_steer_followup.jsonl").read_bytes().splitlines())
    script = {"prompts": [[{"tool": "bash", "seconds": 0.5}]]}
    with run(tmp_path, GENERATIONS[version], script) as client:
        client.ask("prompt", message="count the files")
        client.until(lambda event: event["type"] == "tool_execution_start")
        client.ask("steer", message="hidden ones too")
        client.ask("follow_up", message="and now in words")
        client.settled()
    ours = kinds(client.lines)
    # From the queueing to the first delivery the recording and the fake do the same things.
    for sequence in (ours, recorded):
        del sequence[: sequence.index("tool_execution_start")]
        del sequence[sequence.index("message_end user") :]
    assert ours == recorded
    users = [
        event["message"]["content"][0]["text"]
        for event in map(json.loads, client.lines)
        if event["type"] == "message_end" and event["message"]["role"] == "user"
    ]
    assert users == ["count the files", "hidden ones too", "and now in words"]


def test_an_abort_is_answered_when_the_run_has_settled(tmp_path: Path) -> None:
    recorded = kinds((RECORDED / "1.5.2/abort_stream_and_tool.jsonl").read_bytes().splitlines())
    script = {"prompts": [{"reply": "a b c d e f g h i j k l m n o p", "pace": 5}]}
    with run(tmp_path, "new", script) as client:
        client.ask("prompt", message="go")
        client.until(lambda event: event["type"] == "message_update")
        client.ask("abort")
    ours = kinds(client.lines)
    first = recorded[: recorded.index("response abort") + 1]
    assert ours == first
