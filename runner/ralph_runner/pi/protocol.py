"""pi's RPC protocol as values: lines in, inputs out; requests in, lines out. Pure, no I/O.

`stamp.py` asks it what a line means, `client.py` builds requests with it. Parsing is tolerant: a member that
a generation of pi lacks or spells otherwise gives None or an empty value, never an error. Only objects are
ever encoded, because a bare `null` on its stdin ends pi.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import orjson

from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    CompactionEnd,
    CompactionStart,
    Dialog,
    PiInput,
    QueueUpdate,
    Reply,
    RetryEnd,
    RetryStart,
    Settled,
    ToolEnd,
    ToolStart,
    TurnEnd,
    TurnStart,
    Usage,
    UserMessage,
)

BLOCKING_DIALOGS = frozenset({"confirm", "select", "input", "editor"})
HEAD = 4096
"""Bytes of a line's head that `glimpse` needs: tool call ids of some providers are hundreds of bytes long."""
TAIL = 64
_LARGEST = 1 << 53
"""Beyond it JSON's readers do not agree on an integer."""

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOOL = rb'\{"type":"tool_execution_(?:start|end)","toolCallId":%s,"toolName":%s[,}]'
_TOOL_HEAD = re.compile(_TOOL % (rb"(%s)" % _STRING, rb"(%s)" % _STRING))
_PLAIN_TOOL_HEAD = re.compile(_TOOL % (rb'"([^"\\]*)"', rb'"([^"\\]*)"'))
# Nothing but flat members may follow up to the final brace: only then is the member found the line's own, and
# not a key of the same name in a tool's arguments.
_FLAT = rb'(?:,"[^"{}\[\]]*":[^"{}\[\]]*)*\}\Z'
_WILL_RETRY = re.compile(rb',"willRetry":(true|false)' + _FLAT)
_NO_ERROR = b',"isError":false}'
_IS_ERROR = re.compile(rb',"isError":(true|false)' + _FLAT)


def encode(command: str, request_id: str, members: Mapping[str, Any]) -> bytes:
    """One request as an LF-terminated line."""
    return _line({"id": request_id, "type": command, **members})


def encode_dialog_answer(dialog_id: str, members: Mapping[str, Any]) -> bytes:
    """The answer to an `extension_ui_request` as an LF-terminated line; no members means cancelled."""
    return _line({"type": "extension_ui_response", "id": dialog_id, **(members or {"cancelled": True})})


def _line(message: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # a lone surrogate, from a text that was cut inside an emoji
        return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> object:
    """The JSON value of a line; raises ValueError where it is none.

    pi cuts texts anywhere, so lone surrogates come as escapes: orjson refuses them, json does not.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            return json.loads(line.decode(), parse_constant=_refuse)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def parse(line: bytes) -> PiInput | None:
    """The input that a whole line gives, None where it gives none or is no JSON object."""
    seen = glimpse(line, line[-TAIL:])
    if seen is not None:
        return seen
    try:
        event = decode(line)
    except ValueError:
        return None
    return interpret(event) if isinstance(event, dict) else None


def glimpse(head: bytes, tail: bytes) -> PiInput | None:
    """The input of a line of which only the first HEAD and the last TAIL bytes are at hand.

    Answers for agent_start, agent_end, turn_start, turn_end and tool_execution_start/end, None for others.
    The middle of these lines (tool results, all messages of a run) is never needed, and may have any size.
    """
    reader = ENDS.get(head[9 : head.find(b'"', 9, 48)]) if head.startswith(b'{"type":"') else None
    return reader(head, tail) if reader is not None else None


def _always(one: PiInput) -> Callable[[bytes, bytes], PiInput]:
    return lambda _head, _tail: one


def _agent_end(_: bytes, tail: bytes) -> PiInput:
    return AgentEnd(_flag(_WILL_RETRY, tail))


def _tool_start(head: bytes, _: bytes) -> PiInput | None:
    tool = _tool(head)
    return ToolStart(*tool) if tool else None


def _tool_end(head: bytes, tail: bytes) -> PiInput | None:
    tool = _tool(head)
    return ToolEnd(*tool, not tail.endswith(_NO_ERROR) and bool(_flag(_IS_ERROR, tail))) if tool else None


def _tool(head: bytes) -> tuple[str, str] | None:
    """A call's id and the tool's name."""
    if plain := _PLAIN_TOOL_HEAD.match(head):
        try:
            return plain[1].decode(), plain[2].decode()
        except UnicodeDecodeError:
            pass
    tool = _TOOL_HEAD.match(head)
    return (_text(tool[1]), _text(tool[2])) if tool else None


ENDS: dict[bytes, Callable[[bytes, bytes], PiInput | None]] = {
    b"agent_start": _always(AgentStart()),
    b"agent_end": _agent_end,
    b"turn_start": _always(TurnStart()),
    b"turn_end": _always(TurnEnd()),
    b"tool_execution_start": _tool_start,
    b"tool_execution_end": _tool_end,
}
"""Of each kind of line whose head and tail tell all, what `glimpse` does with them."""


def _flag(pattern: re.Pattern[bytes], tail: bytes) -> bool | None:
    found = pattern.search(tail)
    return found[1] == b"true" if found else None


def _text(quoted: bytes) -> str:
    try:
        return _str(decode(quoted))
    except ValueError:
        return quoted.decode("utf-8", "replace")


def interpret(event: Mapping[str, Any]) -> PiInput | None:
    """The input that a parsed line gives, None for the many kinds that give none."""
    match event.get("type"):
        case "message_start":
            message = _dict(event.get("message"))
            match message.get("role"):
                case "user":
                    return UserMessage(_joined(message.get("content")))
                case "assistant":
                    return AssistantStart(_str_or_none(message.get("stopReason")))
                case _:
                    return None
        case "message_end":
            message = _dict(event.get("message"))
            return _assistant_end(message) if message.get("role") == "assistant" else None
        case "response":
            return Reply(
                request=_str(event.get("command")),
                id=_str(event.get("id")),
                success=event.get("success") is True,
                data=_dict(event.get("data")),
                error=_str(event.get("error")),
            )
        case "agent_settled":
            aborted = event.get("aborted")
            return Settled(aborted if isinstance(aborted, bool) else None)
        case "queue_update":
            return QueueUpdate(_texts(event.get("steering")), _texts(event.get("followUp")))
        case "auto_retry_start":
            return RetryStart(
                _int(event.get("attempt")), _int(event.get("delayMs")), _str(event.get("errorMessage"))
            )
        case "auto_retry_end":
            return RetryEnd(event.get("success") is True, _str(event.get("finalError")))
        case "compaction_start":
            return CompactionStart(_str(event.get("reason")))
        case "compaction_end":
            return CompactionEnd(event.get("willRetry") is True, _compaction_error(event))
        case "extension_ui_request" if event.get("method") in BLOCKING_DIALOGS:
            return Dialog(
                id=_str(event.get("id")),
                method=_str(event.get("method")),
                title=_str(event.get("title")),
                options=_texts(event.get("options")),
                has_timeout=event.get("timeout") is not None,
            )
        case "agent_start":
            return AgentStart()
        case "agent_end":
            will_retry = event.get("willRetry")
            return AgentEnd(will_retry if isinstance(will_retry, bool) else None)
        case "turn_start":
            return TurnStart()
        case "turn_end":
            return TurnEnd()
        case "tool_execution_start":
            return ToolStart(_str(event.get("toolCallId")), _str(event.get("toolName")))
        case "tool_execution_end":
            return ToolEnd(
                _str(event.get("toolCallId")), _str(event.get("toolName")), event.get("isError") is True
            )
        case _:
            return None


def _assistant_end(message: Mapping[str, Any]) -> AssistantEnd:
    usage = _dict(message.get("usage"))
    content = message.get("content")
    kinds = [_dict(part).get("type") for part in content] if isinstance(content, list) else []
    return AssistantEnd(
        text=_joined(content),
        stop_reason=_str_or_none(message.get("stopReason")),
        error=_str_or_none(message.get("errorMessage")),
        model=_str_or_none(message.get("model")),
        provider=_str_or_none(message.get("provider")),
        usage=Usage(
            input=_int(usage.get("input")),
            output=_int(usage.get("output")),
            cache_read=_int(usage.get("cacheRead")),
            cache_write=_int(usage.get("cacheWrite")),
            cost=_number(_dict(usage.get("cost")).get("total")),
        ),
        tool_calls=kinds.count("toolCall"),
    )


def _compaction_error(event: Mapping[str, Any]) -> str:
    error = _str(event.get("errorMessage"))
    return "aborted" if not error and event.get("aborted") is True else error


def _joined(content: object) -> str:
    """The text parts of a message; old user messages hold a plain string."""
    if isinstance(content, list):
        return "".join([_str(part.get("text")) for part in map(_dict, content) if part.get("type") == "text"])
    return _str(content)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_str(item) for item in value) if isinstance(value, list) else ()


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _str(value: object) -> str:
    """A text that can be written to any file: lone surrogates become U+FFFD."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _str_or_none(value: object) -> str | None:
    return _str(value) if isinstance(value, str) else None


def _number(value: object) -> float:
    """0 for what is no number, or none that a float or our own files could hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return 0.0
    try:
        number = float(value)
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _int(value: object) -> int:
    if type(value) is int and -_LARGEST <= value <= _LARGEST:
        return value
    number = _number(value)
    return int(number) if abs(number) <= _LARGEST else 0
