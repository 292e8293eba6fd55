"""From pi's lines to those of events.jsonl: the `ralph` member added, repeated messages dropped.

Pure; `framing.py` calls it with whole lines. Speed is the point: a line that begins like one of pi's known lines and
ends in a brace is trusted and spliced without being parsed; only lines that the core needs, or of an unknown kind, are
parsed. A line comes out equal to pi's, without the two members of older pi that repeat the message.
"""

import json
import re
from collections.abc import Callable
from enum import Enum, auto
from functools import cache

import orjson

from ralph_rpc.model import pi
from ralph_runner.core.inputs import PiInput
from ralph_runner.pi.protocol import ENDS, TAIL, decode, interpret


class Care(Enum):
    """How much of a line has to be read."""

    NONE = auto()
    """Trusted, and the core does not need it."""
    ENDS = auto()
    """Trusted; its head and tail say all that is needed."""
    UPDATE = auto()
    """Trusted, but it may repeat the whole message."""
    KIND = auto()
    """Trusted; whether it is needed depends on whose message, or what kind of entry, it tells."""
    ALL = auto()
    """To be parsed: needed or unknown."""
    GARBAGE = auto()
    """Cannot be a JSON object, whatever follows."""


_KINDS = {
    pi.head(pi.TOOL_UPDATE): Care.NONE,
    **dict.fromkeys(ENDS, Care.ENDS),
    pi.head(pi.MESSAGE_UPDATE): Care.UPDATE,
    pi.head(pi.MESSAGE_START): Care.KIND,
    pi.head(pi.MESSAGE_END): Care.KIND,
    pi.head(pi.ENTRY_APPENDED): Care.KIND,
}
"""By the beginning of a line."""
_CARE = {beginning + end: care for beginning, care in _KINDS.items() for end in (b",", b"}")}

_DELTA_ONLY = pi.head(pi.MESSAGE_UPDATE) + b',"usage":'
"""How pi >= 0.84.0 begins an update; it no longer repeats the message."""
_EVENT = (b'{"type":', b'{"id":')
"""How every line of pi's begins."""
_TRIES = 8
"""Places in a line at which an event is looked for: a hostile line must not cost more than its length, a few times."""
_START = pi.head(pi.MESSAGE_START) + b',"message":{"role":"'
_END = pi.head(pi.MESSAGE_END) + b',"message":{"role":"'
_ENTRY = pi.head(pi.ENTRY_APPENDED) + b',"entry":{"type":"'
_NEEDED = (
    *(_START + b'user",', _START + b'assistant",', _END + b'assistant",'),
    *(_ENTRY + kind.encode() + b'",' for kind in sorted(pi.CHARGED_ENTRIES)),
)
_USAGE = b',"usage":{'
"""In a message_end: what a tool used. No text holds it, since a quote inside a text is escaped."""
_REPEATING_DELTA = re.compile(
    re.escape(pi.head(pi.MESSAGE_UPDATE)) + rb',"assistantMessageEvent":\{"type":"(?:text|thinking|toolcall)_delta",'
)
_PARTIAL = b',"partial":'
_MESSAGE = b'},"message":'


@cache
def _text(ticket: str) -> bytes:
    """As JSON has it; a loop has few tickets at a time, and very many lines."""
    return orjson.dumps(ticket)


def stamp_tail(at_ms: int, iteration: int, ticket: str | None = None) -> bytes:
    """What replaces the last brace and the LF of a line."""
    if ticket is not None:
        return b',"ralph":{"at":%d,"iteration":%d,"ticket":%s}}\n' % (at_ms, iteration, _text(ticket))
    return b',"ralph":{"at":%d,"iteration":%d}}\n' % (at_ms, iteration)


def care_of(head: bytes) -> Care:
    """How much of a line with this beginning has to be read; its first 256 bytes are enough. Never KIND."""
    care = _CARE.get(head[: head.find(b'"', 9, 48) + 2])
    match care:
        case None:
            return Care.ALL if head.lstrip(b" \t\r")[:1] in (b"{", b"") else Care.GARBAGE
        case Care.UPDATE if head.startswith(_DELTA_ONLY):
            return Care.NONE
        case Care.KIND:
            return Care.NONE if _is_unneeded(head) else Care.ALL
        case _:
            return care


def _is_unneeded(head: bytes) -> bool:
    """True if the core does not need this message or entry, by its beginning."""
    return head.startswith((_START, _END, _ENTRY)) and not head.startswith(_NEEDED)


def stamp_lines(lines: list[bytes], tail: bytes) -> tuple[bytes, list[PiInput]]:
    """Stamps whole lines, given without LF, with `stamp_tail`'s bytes; gives what to log, and the inputs in it.

    The inputs must not be handed on before the bytes are in the log. Where other bytes stand before or after an intact
    event, as of a program that writes to pi's terminal, they become lines of their own.
    """
    inputs: list[PiInput] = []
    try:
        heads = [
            line[:-1] if line.startswith(_DELTA_ONLY) and line.endswith(b"}") else _head(line, inputs)  # nine of ten
            for line in lines
            if line and line != b"\r"
        ]
    except _Wrapped:
        inputs = []
        parts = [part for line in lines if line and line != b"\r" for part in _unwrapped(line)]
        heads = [
            _head(part, inputs) if fits else unparsed_head(part.decode("utf-8", "replace")) for part, fits in parts
        ]
    heads.append(b"")
    data = tail.join(heads)
    if b"{" in heads:  # an empty object takes no comma
        data = data.replace(b"{" + tail, b"{" + tail[1:])
    return data, inputs


def event_within(line: bytes, start: int = 0) -> int:
    """Where an event seems to begin in a line, from `start` on; -1: nowhere."""
    return min((at for beginning in _EVENT if (at := line.find(beginning, start)) >= 0), default=-1)


class _Wrapped(Exception):
    """A line holds an intact event, and other bytes around it."""


def _unwrapped(line: bytes) -> list[tuple[bytes, bool]]:
    """The line in parts; False marks what stands around the intact events in it."""
    if _is_object(line):
        return [(line, True)]
    # Each byte as one character: what delimits JSON is ASCII.
    text = line.decode("latin-1")
    parts: list[tuple[bytes, bool]] = []
    kept = tries = 0
    at = event_within(line)
    while at >= 0 and tries < _TRIES:
        try:
            end = _decoder.raw_decode(text, at)[1]
        except (ValueError, RecursionError):
            end = at
        if _is_object(line[at:end]):
            parts += [(line[kept:at], False), (line[at:end], True)]
            kept = end
            at = event_within(line, end)
        else:
            tries += 1
            at = event_within(line, at + 1)
    if not parts:
        return [(line, True)]
    parts.append((line[kept:], False))
    return [part for part in parts if part[0].strip(b" \t\r")]


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(decode(line), dict)
    except ValueError:
        return False


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
        if len(_unwrapped(line)) > 1:
            raise _Wrapped
        return unparsed_head(line.decode("utf-8", "replace"))
    seen = interpret(event)
    if seen is not None:
        inputs.append(seen)
    return line.strip(b" \t\r")[:-1] if event else b"{"


def _by_kind(line: bytes, inputs: list[PiInput]) -> bytes:
    if not _is_unneeded(line) or (line.startswith(_END) and _USAGE in line):
        return _parsed(line, inputs)
    return line[:-1]


def _shortened(line: bytes, _: list[PiInput]) -> bytes:
    try:
        return _without_repetition(line)[:-1]
    except ValueError:
        return unparsed_head(line.decode("utf-8", "replace"))


def _glimpsed(beginning: bytes) -> Callable[[bytes, list[PiInput]], bytes]:
    reader = ENDS[beginning]

    def head(line: bytes, inputs: list[PiInput]) -> bytes:
        seen = reader(line, line[-TAIL:])
        if seen is None:
            return _parsed(line, inputs)
        inputs.append(seen)
        return line[:-1]

    return head


_READER_OF = {Care.NONE: _untouched, Care.UPDATE: _shortened, Care.KIND: _by_kind}
_READERS = {
    beginning + end: _READER_OF.get(care) or _glimpsed(beginning)
    for beginning, care in _KINDS.items()
    for end in (b",", b"}")
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
