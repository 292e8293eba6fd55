"""Writes lines of the log to a terminal or a file: readable, one ticket beside another, or raw.

Made for `logs` and `start --foreground`. A writer takes lines, and is flushed whenever there are no more for now; it
knows nothing of files or of following.
"""

from collections.abc import Iterable
from io import StringIO
from typing import BinaryIO, TextIO, TypeAlias

import orjson

from ralph_rpc.cli.readable import Readable
from ralph_rpc.story.fold import View
from ralph_rpc.story.items import Item
from ralph_rpc.story.lines import parse_line, stamped_ticket
from ralph_rpc.terminal.colour import wants_colour
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.screen import columns_of, write_text

_PLAIN_COLUMNS = 160
"""The width of what is no terminal, so that files are the same everywhere."""


class ReadableLog:
    """Lines made readable, as one text."""

    def __init__(self, out: TextIO, terminal: TextIO | None = None) -> None:
        """`terminal` is where `out` ends up, if that is elsewhere."""
        screen = terminal or out
        self._out = out
        self._view = View()
        self._readable = Readable(wants_colour(screen), columns_of(screen) or _PLAIN_COLUMNS)
        self._pieces: list[str] = []

    def line(self, line: bytes) -> None:
        event = parse_line(line)
        self._add(self._view.feed(event) if event else ())

    def flush(self, at_end: bool) -> None:
        if at_end:
            self._add(self._view.caught_up())
        self._write()

    def finish(self) -> None:
        self._pieces.append(self._readable.finish())
        self._write()

    def _add(self, items: Iterable[Item]) -> None:
        self._pieces += map(self._readable.text, items)

    def _write(self) -> None:
        text = "".join(self._pieces)
        self._pieces = []
        if text:
            write_text(self._out, text)


class ReadableLogByTicket:
    """Lines of several agents that work at once: each made readable by itself, and written line by line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._logs: dict[str, tuple[ReadableLog, StringIO]] = {}

    def line(self, line: bytes) -> None:
        ticket = stamped_ticket(line)
        log, buffer = self._of(ticket)
        log.line(line)
        log.flush(at_end=False)
        self._write(ticket, buffer, whole=False)  # at once: lines stay in the order of the log

    def flush(self, at_end: bool) -> None:
        for ticket, (log, buffer) in self._logs.items():
            log.flush(at_end)
            self._write(ticket, buffer, whole=False)

    def finish(self) -> None:
        for ticket, (log, buffer) in self._logs.items():
            log.finish()
            self._write(ticket, buffer, whole=True)

    def _of(self, ticket: str) -> tuple[ReadableLog, StringIO]:
        if ticket not in self._logs:
            buffer = StringIO()
            self._logs[ticket] = ReadableLog(buffer, self._out), buffer
        return self._logs[ticket]

    def _write(self, ticket: str, buffer: StringIO, whole: bool) -> None:
        """What is there in whole lines, or all of it; a line that is still being written waits for its end."""
        text = buffer.getvalue()
        ready, _, rest = (text, "", "") if whole else text.rpartition("\n")
        buffer.seek(0)
        buffer.truncate()
        buffer.write(rest)
        lines = ready.split("\n") if ready else []
        while lines and not lines[-1]:
            lines.pop()
        prefix = f"{inert(ticket, keep_newlines=False)} | " if ticket else ""
        if lines:
            write_text(self._out, "".join(f"{prefix}{line}\n" for line in lines))


class RawLog:
    """Lines as they are; on a terminal active characters become JSON escapes.

    With `only_json`, a line that is not an event (it was written into the log by hand) becomes one, for programs that
    read this.
    """

    def __init__(self, out: TextIO, only_json: bool) -> None:
        self._out: BinaryIO = out.buffer
        self._escape = out.isatty()
        self._only_json = only_json

    def line(self, line: bytes) -> None:
        if self._only_json and parse_line(line) is None:
            line = orjson.dumps({"type": "ralph_unparsed", "raw": line.decode("utf-8", "replace")})
        if self._escape:
            line = inert_json(line.decode("utf-8", "replace")).encode()
        self._out.write(line + b"\n")

    def flush(self, at_end: bool) -> None:
        self._out.flush()

    def finish(self) -> None:
        self._out.flush()


LogWriter: TypeAlias = ReadableLog | ReadableLogByTicket | RawLog
