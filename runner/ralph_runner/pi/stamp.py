"""From pi's lines to those of events.jsonl: the `ralph` member added, repeated messages dropped.

Pure; `framing.py` calls it with whole lines. Speed is the point: a line that begins as pi's known
lines do and ends in a brace is trusted and spliced without being parsed; only what the core needs, or nobody
knows, is parsed. A line comes out equal to pi's, less the two members of older pi that repeat the message.
"""

import json
import re
from collections.abc import Callable
from enum import Enum, auto

import orjson

from ralph_runner.core.inputs import PiInput
from ralph_runner.pi.protocol import ENDS, TAIL, decode, interpret


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


_KINDS = {
    **dict.fromkeys((b"tool_execution_update", b"entry_appended"), Care.NONE),
    **dict.fromkeys(ENDS, Care.ENDS),
    b"message_update": Care.UPDATE,
    b"message_start": Care.ROLE,
    b"message_end": Care.ROLE,
}
_CARE = {b'{"type":"' + kind + end: care for kind, care in _KINDS.items() for end in (b'",', b'"}')}

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
            return Care.NONE if _is_unneeded(head) else Care.ALL
        case _:
            return care


def _is_unneeded(head: bytes) -> bool:
    """Tell whether a message_start or message_end is of no meaning to the core, by its role."""
    return head.startswith((_START, _END)) and not head.startswith(_NEEDED)


def stamp_lines(lines: list[bytes], tail: bytes) -> tuple[bytes, list[PiInput]]:
    """Stamps whole lines, given without LF, with `stamp_tail`'s bytes; gives what to log, and the inputs in it.

    The inputs must not be handed on before the bytes are in the log.
    """
    inputs: list[PiInput] = []
    heads = [
        line[:-1] if line.startswith(_DELTA_ONLY) and line.endswith(b"}") else _head(line, inputs)  # nine of ten
        for line in lines
        if line and line != b"\r"
    ]
    heads.append(b"")
    data = tail.join(heads)
    if b"{" in heads:  # an empty object takes no comma
        data = data.replace(b"{" + tail, b"{" + tail[1:])
    return data, inputs


# What follows gives the line as it is to be logged, up to its stamp, and adds the input in it.


def _head(line: bytes, inputs: list[PiInput]) -> bytes:
    line = line.removesuffix(b"\r")
    reader = _READERS.get(line[: line.find(b'"', 9, 48) + 2], _parsed) if line.endswith(b"}") else _parsed
    return reader(line, inputs)


def _untouched(line: bytes, _: list[PiInput]) -> bytes:
    return line[:-1]


def _parsed(line: bytes, inputs: list[PiInput]) -> bytes:
    try:
        event = decode(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        return unparsed_head(line.decode("utf-8", "replace"))
    seen = interpret(event)
    if seen is not None:
        inputs.append(seen)
    return line.strip(b" \t\r")[:-1] if event else b"{"


def _by_role(line: bytes, inputs: list[PiInput]) -> bytes:
    return line[:-1] if _is_unneeded(line) else _parsed(line, inputs)


def _shortened(line: bytes, _: list[PiInput]) -> bytes:
    try:
        return _without_repetition(line)[:-1]
    except ValueError:
        return unparsed_head(line.decode("utf-8", "replace"))


def _glimpsed(kind: bytes) -> Callable[[bytes, list[PiInput]], bytes]:
    reader = ENDS[kind]

    def head(line: bytes, inputs: list[PiInput]) -> bytes:
        seen = reader(line, line[-TAIL:])
        if seen is None:
            return _parsed(line, inputs)
        inputs.append(seen)
        return line[:-1]

    return head


_READER_OF = {Care.NONE: _untouched, Care.UPDATE: _shortened, Care.ROLE: _by_role}
_READERS = {
    b'{"type":"' + kind + end: _READER_OF.get(care) or _glimpsed(kind)
    for kind, care in _KINDS.items()
    for end in (b'",', b'"}')
}


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
