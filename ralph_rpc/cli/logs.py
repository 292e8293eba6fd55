"""`ralph-rpc logs`: what a loop did and does, readable or raw; and `follow`, which others use to watch a loop.

It reads events.jsonl by offset and follows it over rotations, woken when it grows; it holds no lock and writes no file,
so any number of them may run, and none of them matters to the loop.
"""

import os
import re
import sys
import threading
import time
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TextIO, TypeAlias

import click
import orjson

from ralph_rpc.cli.readable import Readable
from ralph_rpc.errors import INTERRUPTED, RalphError, UsageError
from ralph_rpc.files.atomic import Unreadable, read_json_object
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.records import read_iterations, read_tickets
from ralph_rpc.items import Event
from ralph_rpc.loops import complete_names, loop_status, resolve_loop
from ralph_rpc.text import count, inert, inert_json, number, wants_colour
from ralph_rpc.view import View, parse_line

if TYPE_CHECKING:
    from ralph_rpc.watch import Watch

_POLL_S = 0.1
_LIVENESS_S = 1.0
_LINES = 200
_DEFAULT_BYTES = 4 << 20
"""Without -n the last iteration is shown, unless it is longer than this."""
_PLAIN_COLUMNS = 160


@click.command()
@click.argument("name", shell_complete=complete_names)
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the loop ends.")
@click.option("-n", "lines", type=click.IntRange(min=0), help="Only the last N events.")
@click.option("--iteration", type=click.IntRange(min=1), help="Only this iteration.")
@click.option("--ticket", metavar="ID", help="Only what concerns this ticket.")
@click.option("--raw", is_flag=True, help="The lines of events.jsonl as they are.")
@click.option("--json", "as_json", is_flag=True, help="The same as --raw, and nothing but JSON.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def logs(
    name: str,
    following: bool,
    lines: int | None,
    iteration: int | None,
    ticket: str | None,
    raw: bool,
    as_json: bool,
    project: Path | None,
) -> None:
    """Show what a loop did: text, tool calls, iterations and their cost.

    Without -n it begins with the last iteration that has ended.
    """
    if sum(one is not None for one in (iteration, lines, ticket)) > 1:
        raise UsageError("-n, --iteration and --ticket exclude each other", "leave all but one of them out")
    paths = resolve_loop(name, project)
    sink = _Raw(sys.stdout, as_json) if raw or as_json else _readable(paths, sys.stdout, ticket)
    only: _Only | None = _ticket_only(paths, ticket) if ticket is not None else None
    if iteration is not None:
        only = _iteration_only(paths, iteration)
    reader = EventReader.at(paths.events, only.start) if only else _recent(paths, lines)
    try:
        ended = _pump(paths, reader, sink, following, only)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        sink.finish()
        reader.close()
    if only and not only.any:
        what = f"iteration {iteration}" if iteration is not None else f"ticket {ticket}"
        raise RalphError(f"the log of {what} is gone", "only the newest files are kept (--log-keep)")
    if following and not only and not ended and _is_crashed(paths):
        click.echo(f"ralph-rpc: the runner is gone. Try: ralph-rpc resume {paths.name}", err=True)


def follow(paths: LoopPaths, out: TextIO, from_offset: int | None = None, until_end: bool = True) -> bool:
    """Writes the log readably, from an offset (default: its beginning), until the loop or its runner ends.

    Tells whether the last that it saw was the loop's regular end. Without `until_end` it returns at the
    present end of the log. Ctrl-C (KeyboardInterrupt) and a closed `out` (BrokenPipeError) pass through.
    """
    reader = EventReader.at(paths.events, from_offset or 0)
    sink = _readable(paths, out)
    try:
        return _pump(paths, reader, sink, until_end, None)
    finally:
        sink.finish()
        reader.close()


class Steps:
    """What the runner itself tells of in the log: the steps of tickets, verifications, notices; no agent's words."""

    def __init__(self, paths: LoopPaths, out: TextIO, offset: int) -> None:
        self._reader = EventReader.at(paths.events, offset)
        self._text = _Text(out)
        self._lines: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.waiting()
        self.write()
        self._text.finish()
        self._reader.close()

    def waiting(self) -> bool:
        """Tell whether there is something new to write."""
        while batch := self._reader.read():
            self._lines += [line for _, line in batch if line.startswith(_STEPS)]
        return bool(self._lines)

    def write(self) -> None:
        """Writes it."""
        for line in self._lines:
            self._text.line(line)
        self._lines = []
        self._text.flush(at_end=True)


_STEPS = tuple(
    b'{"type":"ralph_%s"' % kind for kind in (b"ticket", b"verify", b"notice", b"status", b"loop_end", b"lesson")
)


class _Text:
    """Lines of the log, made readable."""

    def __init__(self, out: TextIO, terminal: TextIO | None = None) -> None:
        """`terminal` is where `out` ends up, if that is elsewhere."""
        self._out = out
        self._view = View()
        self._readable = Readable(wants_colour(terminal or out), _columns(terminal or out))
        self._pieces: list[str] = []

    def line(self, line: bytes) -> None:
        event = parse_line(line)
        for item in self._view.feed(event) if event else ():
            self._pieces.append(self._readable.text(item))

    def flush(self, at_end: bool) -> None:
        if at_end:
            self._pieces += [self._readable.text(item) for item in self._view.caught_up()]
        self._write()

    def finish(self) -> None:
        self._pieces.append(self._readable.finish())
        self._write()

    def _write(self) -> None:
        text = "".join(self._pieces)
        self._pieces = []
        if text:
            # A terminal that is not UTF-8 gets question marks instead of an exception.
            encoding = self._out.encoding or "utf-8"
            self._out.write(text.encode(encoding, "replace").decode(encoding))
            self._out.flush()


class _ByTicket:
    """Lines of several agents that work at once: made readable for each by itself, and told line by line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._texts: dict[str, tuple[_Text, StringIO]] = {}

    def line(self, line: bytes) -> None:
        ticket = _ticket_of(line)
        text, buffer = self._of(ticket)
        text.line(line)
        text.flush(at_end=False)
        self._write(ticket, buffer, whole=False)  # at once: lines stay in the order of the log

    def flush(self, at_end: bool) -> None:
        for ticket, (text, buffer) in self._texts.items():
            text.flush(at_end)
            self._write(ticket, buffer, whole=False)

    def finish(self) -> None:
        for ticket, (text, buffer) in self._texts.items():
            text.finish()
            self._write(ticket, buffer, whole=True)

    def _of(self, ticket: str) -> tuple["_Text", StringIO]:
        if ticket not in self._texts:
            buffer = StringIO()
            self._texts[ticket] = _Text(buffer, self._out), buffer
        return self._texts[ticket]

    def _write(self, ticket: str, buffer: StringIO, whole: bool) -> None:
        """What is there in whole lines, or all of it; a line that is still being written waits for its end."""
        told = buffer.getvalue()
        ready, _, rest = (told, "", "") if whole else told.rpartition("\n")
        buffer.seek(0)
        buffer.truncate()
        buffer.write(rest)
        lines = ready.split("\n") if ready else []
        while lines and not lines[-1]:
            lines.pop()
        prefix = f"{inert(ticket, keep_newlines=False)} | " if ticket else ""
        encoding = self._out.encoding or "utf-8"
        for line in lines:
            self._out.write(f"{prefix}{line}\n".encode(encoding, "replace").decode(encoding))
        if lines:
            self._out.flush()


class _Raw:
    """Lines of the log as they are; on a terminal active characters become JSON escapes.

    With `only_json`, what a hand has put between them that is no event comes as one, for programs that read this.
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


class _IterationOnly:
    """Picks the lines of one iteration out of a log that is read from `start`."""

    def __init__(self, number: int, start: int, end: int | None, began: bool) -> None:
        self.start = start
        self.any = False
        self.done = False
        self._number = number
        self._end = end
        self._began = began
        self._ticket = ""

    def takes(self, offset: int, line: bytes) -> bool:
        """Tell whether a line belongs to the iteration; `offset` is where it ends."""
        border = _runner_event(line, "ralph_iteration_")
        if border:
            mine = border.get("iteration") == self._number
            begins = border.get("type") == "ralph_iteration_start"
            if mine or "ticket" not in border:  # tickets are worked on side by side
                self.done = self._began and (mine != begins)
            if mine:
                self._began, self._ticket = True, str(border.get("ticket") or "")
            taken = mine
        else:
            self.done = self._end is not None and offset > self._end
            taken = self._began and not self.done and self._is_mine(line)
        self.any = self.any or taken
        return taken

    def _is_mine(self, line: bytes) -> bool:
        number = _iteration_of(line)
        return number == self._number if number is not None else _ticket_of(line) in ("", self._ticket)


class _TicketOnly:
    """Picks the lines of one ticket out of a log that is read from `start`."""

    def __init__(self, ticket: str, start: int) -> None:
        self.start = start
        self.any = False
        self.done = False
        self._ticket = ticket

    def takes(self, offset: int, line: bytes) -> bool:
        """Tell whether a line concerns the ticket."""
        taken = _ticket_of(line) == self._ticket
        self.any = self.any or taken
        return taken


_Only: TypeAlias = _IterationOnly | _TicketOnly
_Sink: TypeAlias = "_Text | _ByTicket | _Raw"


class _Growth:
    """Waits until the log may have grown, at most _POLL_S."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._grown = threading.Event()
        self._watch: Watch | None = None

    def wait(self) -> None:
        if self._watch is None:
            # Here, because it takes longer to load than the rest of the command, and only who follows needs it.
            from ralph_rpc.watch import GROWTH, Watch

            self._watch = Watch(self._folder, GROWTH, lambda _: self._grown.set())
            self._watch.start()
        self._grown.wait(_POLL_S)
        self._grown.clear()

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()


def _pump(
    paths: LoopPaths, reader: EventReader, sink: _Sink, wait: bool, only: _Only | None
) -> bool:
    """Moves lines from the log to the sink; tells whether the last it saw was the loop's regular end."""
    growth = _Growth(paths.dir)
    try:
        return _move(paths, reader, sink, growth if wait else None, only)
    finally:
        growth.stop()


def _move(
    paths: LoopPaths, reader: EventReader, sink: _Sink, growth: _Growth | None, only: _Only | None
) -> bool:
    ended = False
    checked = 0.0
    last_look = growth is None
    missed = 0
    while True:
        batch = reader.read()
        if reader.missed > missed:
            gone = count(reader.missed - missed)
            click.echo(f"ralph-rpc: {gone} bytes of the log are gone, rotated away before they were read", err=True)
            missed = reader.missed
        for offset, line in batch:
            border = _runner_event(line, "ralph_loop_")
            if border:
                ended = border.get("type") == "ralph_loop_end"
            if only is None or only.takes(offset, line):
                sink.line(line)
            if only and only.done:
                return ended
        sink.flush(at_end=not batch)
        if batch:
            continue
        if last_look or ended or growth is None:
            return ended
        now = time.monotonic()
        if now - checked >= _LIVENESS_S:
            checked = now
            if loop_status(paths).runner == "dead":
                # It may have written its last lines after our last read.
                last_look = True
                continue
        growth.wait()


def _runner_event(line: bytes, prefix: str) -> Event | None:
    """The parsed line if it is an event of the runner whose type begins with `prefix`."""
    if prefix.encode() not in line[:80]:
        return None
    event = parse_line(line)
    return event if event and str(event.get("type")).startswith(prefix) else None


_STAMP = re.compile(rb',"ralph":\{"at":\d+,"iteration":(\d+)(?:,"ticket":"([^"]+)")?\}\}\s*$')
_STAMP_BYTES = 160


def _iteration_of(line: bytes) -> int | None:
    """The iteration that a line of pi's belongs to; None: it is an event of the runner's."""
    stamp = _STAMP.search(line[-_STAMP_BYTES:])
    return int(stamp[1]) if stamp else None


def _ticket_of(line: bytes) -> str:
    """The ticket that a line concerns; empty where it concerns none, or the loop has no tickets."""
    stamp = _STAMP.search(line[-_STAMP_BYTES:])
    if stamp:
        return stamp[2].decode() if stamp[2] else ""
    event = parse_line(line) if b'"ticket":' in line else None
    return str(event.get("ticket") or "") if event else ""


def _readable(paths: LoopPaths, out: TextIO, ticket: str | None = None) -> "_Text | _ByTicket":
    """One text, or where several agents may write at once, one for each."""
    state = loop_status(paths).state
    side_by_side = state is not None and state["kind"] == "tickets" and state["config"].get("parallel", 1) > 1
    return _ByTicket(out) if side_by_side and ticket is None else _Text(out)


def _ticket_only(paths: LoopPaths, ticket: str) -> _TicketOnly:
    """From the first iteration of the ticket that has a record, else from the log's beginning."""
    record = read_tickets(paths).get(ticket)
    if record is None:
        raise RalphError(f"'{paths.name}' has not worked on a ticket {ticket!r}", f"see: ralph-rpc tickets {paths.name}")
    starts = [one["eventsFrom"] for one in read_iterations(paths) if one.get("ticket") == ticket]
    return _TicketOnly(ticket, min(starts, default=0))


def _iteration_only(paths: LoopPaths, iteration: int) -> _IterationOnly:
    record = _record(paths, iteration)
    if record:
        start, end = int(number(record.get("eventsFrom"))), int(number(record.get("eventsTo")))
        return _IterationOnly(iteration, start, end, began=True)
    state = loop_status(paths).state
    newest = state["iteration"] if state else 0
    if iteration > newest:
        raise RalphError(f"'{paths.name}' has no iteration {iteration}", f"its newest is {newest}")
    # It runs, or its record could not be written: it begins somewhere after the one before.
    before = next((found for n in range(iteration - 1, 0, -1) if (found := _record(paths, n))), {})
    return _IterationOnly(iteration, int(number(before.get("eventsTo"))), None, began=False)


def _recent(paths: LoopPaths, lines: int | None) -> EventReader:
    """A reader at the last `lines` events, by default at the last iteration that has ended."""
    if lines is not None:
        return EventReader.at_end(paths.events, lines=lines)
    state = loop_status(paths).state
    newest = state["iteration"] if state else 0
    record = _record(paths, newest) or _record(paths, newest - 1)
    reader = EventReader.at_end(paths.events, lines=_LINES)
    start = int(number(record.get("eventsFrom"))) if record else 0
    if record is None or reader.offset - start > _DEFAULT_BYTES:
        return reader
    reader.close()
    return EventReader.at(paths.events, start)


def _record(paths: LoopPaths, iteration: int) -> Event | None:
    try:
        return read_json_object(paths.iterations / f"{iteration:03}.json")
    except (Unreadable, OSError):
        return None


def _is_crashed(paths: LoopPaths) -> bool:
    return loop_status(paths).shown == "crashed"


def _columns(out: TextIO) -> int:
    """The width of the terminal that `out` is, or a fixed one, so that files are the same everywhere."""
    try:
        return os.get_terminal_size(out.fileno()).columns if out.isatty() else _PLAIN_COLUMNS
    except (OSError, ValueError):
        return _PLAIN_COLUMNS
