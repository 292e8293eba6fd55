"""Events as pi and the runner write them, for the tests of this folder."""

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]
RECORDINGS = sorted((Path(__file__).parents[1] / "data" / "transcripts").glob("*/*.jsonl"))


def recorded(path: Path) -> list[Json]:
    """All events of a recording."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def stamped(event: Json, ticket: str | None = None) -> Json:
    """As the runner writes an event of pi's."""
    stamp: Json = {"at": 1_770_000_000_000, "iteration": 1}
    return {**event, "ralph": stamp | ({"ticket": ticket} if ticket else {})}


def deltas(text: str, block: int = 0, kind: str = "text", piece: int = 10) -> list[Json]:
    """The text as it streams."""
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
    changes = [{"type": f"{kind}_delta", "contentIndex": block, "delta": part} for part in pieces]
    return [{"type": "message_update", "assistantMessageEvent": change} for change in changes]


def begun() -> Json:
    return {"type": "message_start", "message": {"role": "assistant", "content": []}}


def ended(text: str, stop: str = "stop") -> Json:
    content = [{"type": "text", "text": text}]
    return {"type": "message_end", "message": {"role": "assistant", "content": content, "stopReason": stop}}


def message(text: str) -> list[Json]:
    """A whole message with its deltas."""
    return [begun(), *deltas(text), ended(text)]


def told(text: str) -> Json:
    return {"type": "message_end", "message": {"role": "user", "content": text}}


def tool(kind: str, call: str = "c1", name: str = "bash", **more: Any) -> Json:
    return {"type": f"tool_execution_{kind}", "toolCallId": call, "toolName": name, **more}


def output(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}]}


def tool_call(call: str, command: str, out: str, ok: bool = True) -> list[Json]:
    """A command that was run."""
    start = tool("start", call, args={"command": command})
    return [start, tool("end", call, result=output(out), isError=not ok, durationMs=1500)]


def notice(text: str, level: str = "info") -> Json:
    return {"type": "ralph_notice", "at": 1, "level": level, "message": text}


def step(id: str, state: str, command: str = "steer", **more: Any) -> Json:
    return {"type": "ralph_command", "at": 1, "id": id, "command": command, "state": state, **more}


def began(iteration: int, ticket: str | None = None) -> Json:
    event: Json = {"type": "ralph_iteration_start", "at": 1_770_000_000_000, "iteration": iteration, "kind": "work"}
    return event | ({"ticket": ticket} if ticket else {})


def finished(iteration: int, **more: Any) -> Json:
    record = {"type": "ralph_iteration_end", "at": 1, "iteration": iteration, "outcome": "ok", "durationMs": 60_000}
    return {**record, "turns": 2, "toolCalls": 1, "tokensIn": 900, "tokensOut": 90, "cost": 0.25, **more}


def iteration(number: int, text: str = "", *extra: Json) -> list[Json]:
    """A whole iteration as the runner logs it."""
    words = text or f"This is what I did in iteration {number}."
    run: list[Json] = [
        {"type": "agent_start"},
        {"type": "turn_start"},
        told(f"the task, {number}"),
        *message(words),
        *extra,
    ]
    close: list[Json] = [{"type": "turn_end"}, {"type": "agent_end", "messages": []}]
    return [began(number), *(stamped(event) for event in [*run, *close]), finished(number)]


def began_loop(resumed: bool = False) -> Json:
    return {"type": "ralph_loop_start", "at": 1, "name": "api", "pid": 7, "resumed": resumed}


def ended_loop(status: str = "completed", reason: str = "marker") -> Json:
    return {"type": "ralph_loop_end", "at": 1, "status": status, "stopReason": reason, "error": None}
