"""From pi's lines to those of events.jsonl: the `ralph` member added, repeated messages dropped.

Pure; `framing.py` calls it with whole lines. Speed is the point: a line that begins as pi's known
lines do and ends in a brace is trusted and spliced without being parsed; only what the core needs, or nobody
knows, is parsed. A line comes out equal to pi's, less the two members of older pi that repeat the message.
"""

import json
import re
from enum import Enum, auto

import orjson

from ralph_runner.core.inputs import PiInput
from ralph_runner.pi.protocol import TAIL, decode, glimpse, interpret


class Care(Enum):
    """How much of a line has to be read."""

    NONE = auto()
    """Trusted, and of no meaning to the core."""
    ENDS = auto()
    """Trusted; its head and tail tell all."""
    UPDATE = auto()
    """Trusted, but it may repeat the whole message."""
    ROLE = auto()
    """Trusted; whether it is needed depends on whose message it is."""
    ALL = auto()
    """To be parsed: needed or unknown."""
    GARBAGE = auto()
    """Cannot be a JSON object, whatever follows."""


_CARE = {
    b'{"type":"' + kind + end: care
    for care, kinds in {
        Care.NONE: (b"tool_execution_update", b"entry_appended"),
        Care.ENDS: (
            b"agent_start", b"agent_end", b"turn_start", b"turn_end",
            b"tool_execution_start", b"tool_execution_end",
        ),
        Care.UPDATE: (b"message_update",),
        Care.ROLE: (b"message_start", b"message_end"),
    }.items()
    for kind in kinds
    for end in (b'",', b'"}')
}  # fmt: skip

_DELTA_ONLY = b'{"type":"message_update","usage":'
"""How pi >= 0.84.0 begins an update; it no longer repeats the message."""
_START = b'{"type":"message_start","message":{"role":"'
_END = b'{"type":"message_end","message":{"role":"'
_NEEDED = (_START + b'user",', _START + b'assistant",', _END + b'assistant",')
_REPEATING_DELTA = re.compile(
    rb'\{"type":"message_update","assistantMessageEvent":\{"type":"(?:text|thinking|toolcall)_delta",'
)
_PARTIAL = b',"partial":'
_MESSAGE = b'},"message":'


def stamp_tail(at_ms: int, iteration: int, ticket: str | None = None) -> bytes:
    """What replaces the last brace and the LF of a line. A ticket's id is ASCII without quotes."""
    if ticket is not None:
        return b',"ralph":{"at":%d,"iteration":%d,"ticket":"%s"}}\n' % (at_ms, iteration, ticket.encode())
    return b',"ralph":{"at":%d,"iteration":%d}}\n' % (at_ms, iteration)


def care_of(head: bytes) -> Care:
    """What a line that begins so needs; its first 256 bytes are enough. Never ROLE."""
    care = _CARE.get(head[: head.find(b'"', 9, 48) + 2])
    match care:
        case None:
            return Care.ALL if head.lstrip(b" \t\r")[:1] in (b"{", b"") else Care.GARBAGE
        case Care.UPDATE if head.startswith(_DELTA_ONLY):
            return Care.NONE
        case Care.ROLE:
            unneeded = head.startswith((_START, _END)) and not head.startswith(_NEEDED)
            return Care.NONE if unneeded else Care.ALL
        case _:
            return care


def stamp_lines(lines: list[bytes], tail: bytes) -> tuple[bytes, list[PiInput]]:
    """Stamps whole lines, given without LF, with `stamp_tail`'s bytes; gives what to log, and the inputs in it.

    The inputs must not be handed on before the bytes are in the log.
    """
    heads: list[bytes] = []
    inputs: list[PiInput] = []
    for line in lines:
        if line.startswith(_DELTA_ONLY) and line.endswith(b"}"):  # nine lines of ten
            heads.append(line[:-1])
        elif line := line.removesuffix(b"\r"):
            heads.append(_head(line, inputs))
    heads.append(b"")
    data = tail.join(heads)
    if b"{" in heads:  # an empty object takes no comma
        data = data.replace(b"{" + tail, b"{" + tail[1:])
    return data, inputs


def _head(line: bytes, inputs: list[PiInput]) -> bytes:
    """The line as it is to be logged, up to its stamp."""
    care = care_of(line) if line.endswith(b"}") else Care.ALL
    if care is Care.NONE:
        return line[:-1]
    seen = glimpse(line, line[-TAIL:]) if care is Care.ENDS else None
    try:
        if care is Care.UPDATE:
            line = _without_repetition(line)
        elif seen is None:
            event = decode(line)
            if not isinstance(event, dict):
                raise ValueError("not an object")
            seen = interpret(event)
            line = line.strip(b" \t\r") if event else b"{}"
    except ValueError:
        return unparsed_head(line.decode("utf-8", "replace"))
    if seen is not None:
        inputs.append(seen)
    return line[:-1]


def unparsed_head(raw: str) -> bytes:
    """A `ralph_unparsed` line up to its stamp."""
    return b'{"type":"ralph_unparsed","raw":' + orjson.dumps(raw)


def _without_repetition(line: bytes) -> bytes:
    """A message_update without `message` and `assistantMessageEvent.partial`; ValueError where it is no JSON.

    In a delta both stand last and, nearly always, are the same bytes twice. If they are, the line is proved
    to be `…,"partial":X},"message":X}` without being parsed: a bare quote never stands inside a JSON string,
    so the first `,"partial":` of a delta, which holds no keys of a user's, is that member. Every other case
    is cut member by member, because a finished tool call may hold a key `partial` of its own.
    """
    if _REPEATING_DELTA.match(line):
        start = line.find(_PARTIAL)
        value = start + len(_PARTIAL)
        half, odd = divmod(len(line) - value - len(_MESSAGE) - 1, 2)
        second = value + half + len(_MESSAGE)
        if (
            start > 0
            and half > 1
            and not odd
            and line.startswith(_MESSAGE, value + half)
            and line.startswith(line[value : value + half], second)
        ):
            return line[:start] + b"}}"
    try:
        text = line.decode()
        members, end = _members(text, 0)
        if text[end:].strip(" \t\r"):
            raise ValueError("text after the object")
        kept = []
        for name, key, value_text in members:
            if name == "assistantMessageEvent" and value_text.startswith('{"'):
                inner = [k + v for n, k, v in _members(value_text, 0)[0] if n != "partial"]
                value_text = "{" + ",".join(inner) + "}"
            if name != "message":
                kept.append(key + value_text)
        return ("{" + ",".join(kept) + "}").encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


_KEY = re.compile(r'[ \t\r]*"((?:[^"\\]|\\.)*)"[ \t\r]*:[ \t\r]*')
_NEXT = re.compile(r"[ \t\r]*([,}])")
_decoder = json.JSONDecoder()


def _members(text: str, at: int) -> tuple[list[tuple[str, str, str]], int]:
    """Name, key with colon, and value of each member of the object at `at`, as written; and where it ends."""
    members: list[tuple[str, str, str]] = []
    while True:
        key = _KEY.match(text, at + 1)
        if key is None:
            raise ValueError("no member")
        end = _decoder.raw_decode(text, key.end())[1]
        members.append((key[1], key[0], text[key.end() : end]))
        following = _NEXT.match(text, end)
        if following is None:
            raise ValueError("object is not closed")
        at = following.end() - 1
        if following[1] == "}":
            return members, at + 1
