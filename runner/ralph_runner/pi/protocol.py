"""pi's RPC protocol as values: lines in, inputs out; requests in, lines out. Pure, no I/O.

`stamp.py` asks it what a line means, `client.py` builds requests with it; pi's names are in ralph_rpc/model/pi.py.
Parsing is tolerant: a member that a generation of pi lacks or spells otherwise gives None or an empty value, never an
error. Only objects are ever encoded, because a bare `null` on its stdin ends pi.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import orjson

from ralph_rpc.model import pi
from ralph_runner.core.inputs import (
    TOOL_ARGS,
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    Charged,
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

HEAD = 4096
"""Bytes of a line's head that `glimpse` needs: tool call ids of some providers are hundreds of bytes long."""
TAIL = 64

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOOL = rb'(?:%s|%s),"toolCallId":%%s,"toolName":%%s[,}]' % tuple(
    re.escape(pi.head(kind)) for kind in (pi.TOOL_START, pi.TOOL_END)
)
_TOOL_HEAD = re.compile(_TOOL % (rb"(%s)" % _STRING, rb"(%s)" % _STRING))
_PLAIN_TOOL_HEAD = re.compile(_TOOL % (rb'"([^"\\]*)"', rb'"([^"\\]*)"'))
# Nothing but flat members may follow up to the final brace: only then is the member found the line's own, and
# not a key of the same name in a tool's arguments.
_FLAT = rb'(?:,"[^"{}\[\]]*":[^"{}\[\]]*)*\}\Z'
_TELLING_ARG = re.compile(rb'"(?:%s)":\s?"([^"\\]*(?:\\.[^"\\]*)*)' % "|".join(pi.TELLING_ARGS).encode())
_CUT_ESCAPE = re.compile(rb"\\u[0-9a-fA-F]{0,3}\Z")
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
    """The input of a line of which only the first HEAD and the last TAIL bytes are given.

    Answers for agent_start, agent_end, turn_start, turn_end and tool_execution_start/end, None for others.
    The middle of these lines (tool results, all messages of a run) is never needed, and may have any size.
    """
    reader = ENDS.get(head[: head.find(b'"', 9, 48) + 1])
    return reader(head, tail) if reader is not None else None


def _always(one: PiInput) -> Callable[[bytes, bytes], PiInput]:
    return lambda _head, _tail: one


def _agent_end(_: bytes, tail: bytes) -> PiInput:
    return AgentEnd(_flag(_WILL_RETRY, tail))


def _tool_start(head: bytes, _: bytes) -> PiInput | None:
    tool = _tool(head)
    if tool is None:
        return None
    at = head.find(b'"args":')
    return ToolStart(*tool, _args(head[at + 7 :]) if at >= 0 else "")


def _args(args: bytes) -> str:
    """What a tool is called with, in a few words: its command, path or the like, else all of it, both cut short.

    Takes the beginning of the JSON, which may end anywhere.
    """
    told = _TELLING_ARG.search(args)
    if told is None:
        whole = args.removesuffix(b"}") if args.endswith(b"}}") else args
        return _clean(whole[: 4 * TOOL_ARGS].decode("utf-8", "replace"))[:TOOL_ARGS]
    text = _CUT_ESCAPE.sub(b"", told[1]).decode("utf-8", "ignore")
    return _unquoted(f'"{text}"'.encode())[:TOOL_ARGS]


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
    return (_unquoted(tool[1]), _unquoted(tool[2])) if tool else None


ENDS: dict[bytes, Callable[[bytes, bytes], PiInput | None]] = {
    pi.head(pi.AGENT_START): _always(AgentStart()),
    pi.head(pi.AGENT_END): _agent_end,
    pi.head(pi.TURN_START): _always(TurnStart()),
    pi.head(pi.TURN_END): _always(TurnEnd()),
    pi.head(pi.TOOL_START): _tool_start,
    pi.head(pi.TOOL_END): _tool_end,
}
"""Of each kind of line whose head and tail say all that is needed, by its beginning, what `glimpse` does with them."""


def _flag(pattern: re.Pattern[bytes], tail: bytes) -> bool | None:
    found = pattern.search(tail)
    return found[1] == b"true" if found else None


def _unquoted(quoted: bytes) -> str:
    try:
        return _clean(str(decode(quoted)))
    except ValueError:
        return quoted.decode("utf-8", "replace")


def interpret(event: pi.Event) -> PiInput | None:
    """The input that a parsed line gives, None for the many kinds that give none."""
    kind = event.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    return reader(event) if reader is not None else None


def _message_start(event: pi.Event) -> PiInput | None:
    message = pi.message(event)
    match pi.role(message):
        case "user":
            return UserMessage(_clean(pi.content_text(message)))
        case "assistant":
            return AssistantStart(_clean_or_none(pi.stop_reason(message)))
        case _:
            return None


def _message_end(event: pi.Event) -> PiInput | None:
    message = pi.message(event)
    if pi.role(message) != "assistant":
        return _charged(message)
    return AssistantEnd(
        text=_clean(pi.content_text(message)),
        stop_reason=_clean_or_none(pi.stop_reason(message)),
        error=_clean_or_none(pi.error_message(message)),
        model=_clean_or_none(pi.model(message)),
        provider=_clean_or_none(pi.provider(message)),
        usage=Usage(*pi.usage(message)),
        tool_calls=pi.tool_calls(message),
    )


def _charged(holder: pi.Event) -> PiInput | None:
    return Charged(Usage(*pi.usage(holder))) if pi.has_usage(holder) else None


def _compaction_end(event: pi.Event) -> PiInput:
    summary = pi.result(event)
    used = Usage(*pi.usage(summary)) if pi.has_usage(summary) else None
    return CompactionEnd(pi.will_retry(event) is True, _clean(pi.compaction_error(event)), used)


def _response(event: pi.Event) -> PiInput:
    return Reply(
        request=_clean(pi.command(event)),
        id=_clean(pi.request_id(event)),
        success=pi.succeeded(event) is True,
        data=pi.data(event),
        error=_clean(pi.refusal(event)),
    )


def _queue_update(event: pi.Event) -> PiInput:
    steering, follow_up = pi.queues(event)
    return QueueUpdate(tuple(map(_clean, steering)), tuple(map(_clean, follow_up)))


def _retry_start(event: pi.Event) -> PiInput:
    return RetryStart(pi.attempt(event), pi.delay_ms(event), _clean(pi.error_message(event) or ""))


def _dialog(event: pi.Event) -> PiInput | None:
    if pi.method(event) not in pi.DIALOGS:
        return None
    return Dialog(
        id=_clean(pi.request_id(event)),
        method=pi.method(event),
        title=_clean(pi.title(event)),
        options=tuple(map(_clean, pi.options(event))),
        has_timeout=pi.has_timeout(event),
    )


def _call(event: pi.Event) -> tuple[str, str]:
    return _clean(pi.call_id(event)), _clean(pi.tool_name(event))


_READERS: dict[str, Callable[[pi.Event], PiInput | None]] = {
    pi.MESSAGE_START: _message_start,
    pi.MESSAGE_END: _message_end,
    pi.RESPONSE: _response,
    pi.QUEUE_UPDATE: _queue_update,
    pi.RETRY_START: _retry_start,
    pi.RETRY_END: lambda event: RetryEnd(pi.succeeded(event) is True, _clean(pi.final_error(event))),
    pi.COMPACTION_START: lambda event: CompactionStart(_clean(pi.compaction_reason(event))),
    pi.COMPACTION_END: _compaction_end,
    pi.ENTRY_APPENDED: lambda event: _charged(pi.charged_entry(event)),
    pi.UI_REQUEST: _dialog,
    pi.AGENT_START: lambda _: AgentStart(),
    pi.AGENT_END: lambda event: AgentEnd(pi.will_retry(event)),
    pi.AGENT_SETTLED: lambda event: Settled(pi.aborted(event)),
    pi.TURN_START: lambda _: TurnStart(),
    pi.TURN_END: lambda _: TurnEnd(),
    pi.TOOL_START: lambda event: ToolStart(*_call(event), _args(json.dumps(pi.arguments(event)).encode())),
    pi.TOOL_END: lambda event: ToolEnd(*_call(event), pi.is_error(event)),
}
"""Of each kind of line that gives an input, its reader. What begins a line is read by `glimpse` without parsing it."""


def _clean(text: str) -> str:
    """A text that can be written to any file: lone surrogates become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _clean_or_none(text: str | None) -> str | None:
    return None if text is None else _clean(text)
