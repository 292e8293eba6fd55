"""pi's stdout into the event log: cuts the byte stream at LF, has the lines stamped, and appends them.

Called only by the reader's thread (reader.py), chunk by chunk; one append for all whole lines of a chunk. A line
longer than STREAM_AT that need not be read goes to the log in pieces, so memory stays flat. If the machine
dies here, the log ends in whole lines, or in one torn line that the next `EventLog.open` repairs.
"""

import codecs
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

import orjson

from ralph_runner.core.inputs import PiInput
from ralph_runner.pi.protocol import HEAD, TAIL, glimpse
from ralph_runner.pi.stamp import Care, care_of, event_within, stamp_lines, unparsed_head

STREAM_AT = 128 << 10
"""Bytes of an unfinished line from which it is streamed, if its middle need not be read."""
BUFFER_AT_MOST = 128 << 20
"""Bytes of an unfinished line from which it is streamed in any case."""


class Log(Protocol):
    """The part of `ralph_rpc.files.eventlog.EventLog` that a recorder uses.

    A call that raises OSError has written nothing and may be repeated.
    """

    def append(self, data: bytes) -> int: ...
    def begin_line(self) -> None: ...
    def extend(self, chunk: bytes) -> None: ...
    def end_line(self, tail: bytes) -> int: ...
    def abandon_line(self) -> None: ...


class _Mode(Enum):
    GATHER = auto()
    """The unfinished line is kept in `_parts`."""
    STREAM = auto()
    """Its beginning is in the log, its last TAIL bytes and maybe more in `_held`."""
    STREAM_RAW = auto()
    """Like STREAM, but escaped into the `raw` of a ralph_unparsed line."""


class Recorder:
    """Records one pi's stdout. `note` gets a sentence about each line that could not be kept as it arrived."""

    def __init__(self, log: Log, note: Callable[[str], None]) -> None:
        self._log = log
        self._note = note
        self._mode = _Mode.GATHER
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = STREAM_AT
        self._head = b""
        self._held = b""
        self._unread = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, chunk: bytes, stamp: bytes) -> list[PiInput]:
        """Record what pi wrote; gives the inputs of the lines that are now in the log."""
        inputs: list[PiInput] = []
        if self._mode is not _Mode.GATHER:
            end = chunk.find(b"\n")
            if end < 0:
                self._stream(chunk)
                return inputs
            self._end_streamed(chunk[:end], stamp, inputs)
            chunk = chunk[end + 1 :]
        *lines, chunk = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._parts, lines[0]))
            data, found = stamp_lines(lines, stamp)
            if data:
                self._log.append(data)
            inputs += found
            self._parts.clear()
            self._size = 0
            self._limit = STREAM_AT
        if chunk:
            self._parts.append(chunk)
            self._size += len(chunk)
            if self._size > self._limit:
                self._outgrown(stamp)
        return inputs

    def end(self, stamp: bytes) -> None:
        """pi's stdout has ended; a line without its LF is kept as ralph_unparsed."""
        if self._mode is _Mode.STREAM_RAW:
            self._end_streamed(b"", stamp, [])
        elif self._mode is _Mode.STREAM:
            self._log.extend(self._held)
            self._log.abandon_line()
            self._mode = _Mode.GATHER
            self._note(f"pi ended inside a line of {self._size} bytes")
        elif rest := b"".join(self._parts):
            self._log.append(unparsed_head(rest.decode("utf-8", "replace")) + stamp)
        self._parts.clear()

    def _outgrown(self, stamp: bytes) -> None:
        head = b"".join(self._parts[:1])
        if len(head) < HEAD:
            head = b"".join(self._parts)
        head = head[:HEAD]
        care = care_of(head)
        if care is Care.GARBAGE and (begin := event_within(head)) > 0:
            # Other bytes before an event, which may be one that the core needs.
            data = b"".join(self._parts)
            self._log.append(unparsed_head(data[:begin].decode("utf-8", "replace")) + stamp)
            self._parts, self._size = [data[begin:]], len(data) - begin
            care = care_of(data[begin : begin + HEAD])
            head = data[begin : begin + HEAD]
        if care in (Care.ALL, Care.UPDATE) and self._limit == STREAM_AT:
            self._limit = BUFFER_AT_MOST
            return
        data = b"".join(self._parts)
        self._parts.clear()
        self._head = head
        self._unread = care in (Care.ALL, Care.UPDATE)
        self._log.begin_line()
        if care is Care.GARBAGE:
            self._mode = _Mode.STREAM_RAW
            self._log.extend(unparsed_head("")[:-1])
            self._decoder.reset()
        else:
            self._mode = _Mode.STREAM
        self._held = b""
        self._size = 0
        self._stream(data)

    def _stream(self, data: bytes) -> None:
        self._size += len(data)
        if len(data) < TAIL:
            data = self._held + data
            known, self._held = data[:-TAIL], data[-TAIL:]
        else:  # chunk after chunk, none of them copied
            known, self._held = self._held, data
        if self._mode is _Mode.STREAM_RAW:
            known = _escaped(self._decoder.decode(known))
        if known:
            self._log.extend(known)

    def _end_streamed(self, rest: bytes, stamp: bytes, inputs: list[PiInput]) -> None:
        """`rest` is the line up to its LF."""
        self._size += len(rest)
        rest = (self._held + rest).removesuffix(b"\r")
        if self._mode is _Mode.STREAM_RAW:
            self._log.end_line(_escaped(self._decoder.decode(rest, final=True)) + b'"' + stamp)
        elif rest.endswith(b"}"):
            self._log.end_line(rest[:-1] + stamp)
            seen = glimpse(self._head, rest[-TAIL:])
            if seen is not None:
                inputs.append(seen)
            elif self._unread:
                self._note(f"a line of {self._size} bytes went to the log unread")
        else:
            self._log.extend(rest)
            self._log.abandon_line()
            self._note(f"a line of {self._size} bytes is no JSON object")
        self._mode = _Mode.GATHER
        self._held = b""
        self._size = 0


def _escaped(text: str) -> bytes:
    """The inside of a JSON string."""
    return orjson.dumps(text)[1:-1]
