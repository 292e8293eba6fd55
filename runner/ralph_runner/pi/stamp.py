"""From pi's lines to those of events.jsonl: the `ralph` member added, repeated messages dropped.

Pure; `framing.py` calls it with blocks of whole lines. Speed is the point: a line that begins as pi's known
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
    ALL = auto()
    """To be parsed: needed or unknown."""
    GARBAGE = auto()
    """Cannot be a JSON object, whatever follows."""


_CARE = {
    kind + end: care
    for care, kinds in {
        Care.NONE: (b"tool_execution_update", b"entry_appended"),
        Care.ENDS: (
            b"agent_start", b"agent_end", b"turn_start", b"turn_end",
            b"tool_execution_start", b"tool_execution_end",
        ),
        Care.UPDATE: (b"message_update",),
    }.items()
    for kind in kinds
    for end in (b'",', b'"}')
}  # fmt: skip

_DELTA_ONLY = b'{"type":"message_update","usage":'
"""How pi >= 0.84.0 begins an update; it no longer repeats the message."""
_ROLE = re.compile(rb'\{"type":"message_(start|end)","message":\{"role":"(\w+)",')
_REPEATING_DELTA = re.compile(
    rb'\{"type":"message_update","assistantMessageEvent":\{"type":"(?:text|thinking|toolcall)_delta",'
)
_PARTIAL = b',"partial":'
_MESSAGE = b'},"message":'


def stamp_tail(at_ms: int, iteration: int) -> bytes:
    """What replaces the last brace and the LF of a line."""
    return b',"ralph":{"at":%d,"iteration":%d}}\n' % (at_ms, iteration)


def care_of(head: bytes) -> Care:
    """What a line that begins so needs; its first 256 bytes are enough."""
    if head.startswith(b'{"type":"'):
        care = _CARE.get(head[9 : head.find(b'"', 9, 48) + 2], Care.ALL)
        if care is Care.ALL and (role := _ROLE.match(head)):
            needed = (b"user", b"assistant") if role[1] == b"start" else (b"assistant",)
            return Care.ALL if role[2] in needed else Care.NONE
        return Care.NONE if head.startswith(_DELTA_ONLY) else care
    return Care.ALL if head.lstrip(b" \t\r")[:1] in (b"{", b"") else Care.GARBAGE


def stamp_block(block: bytes, tail: bytes) -> tuple[bytes, list[PiInput]]:
    """Stamps whole LF-terminated lines with `stamp_tail`'s bytes; gives what to log, and the inputs in it.

    The inputs must not be handed on before the bytes are in the log.
    """
    out: list[bytes] = []
    inputs: list[PiInput] = []
    lines = block.split(b"\n")
    lines.pop()
    for line in lines:
        if line.startswith(_DELTA_ONLY) and line.endswith(b"}"):  # nine lines of ten
            out.append(line[:-1])
            out.append(tail)
        else:
            line = line.removesuffix(b"\r")
            if line:
                _stamp_line(line, tail, out, inputs)
    return b"".join(out), inputs


def _stamp_line(line: bytes, tail: bytes, out: list[bytes], inputs: list[PiInput]) -> None:
    care = care_of(line) if line.endswith(b"}") else Care.ALL
    seen = glimpse(line, line[-TAIL:]) if care is Care.ENDS else None
    try:
        if care is Care.UPDATE:
            line = _without_repetition(line)
        elif care is not Care.NONE and seen is None:
            event = decode(line)
            if not isinstance(event, dict):
                raise ValueError("not an object")
            seen = interpret(event)
            line = line.strip(b" \t\r")
            if not event:
                tail = tail[1:]  # no comma after the brace of {}
    except ValueError:
        line = unparsed_head(line.decode("utf-8", "replace"))
    else:
        line = line[:-1]
    out.append(line)
    out.append(tail)
    if seen is not None:
        inputs.append(seen)


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
