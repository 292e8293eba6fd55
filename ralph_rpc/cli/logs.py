"""`ralph-rpc logs`: what a loop did and is doing, readable or raw; and what `start --foreground` shows of it.

It only reads: `ralph_rpc.story.follow` gives the lines, `ralph_rpc.cli.logtext` writes them. Any number of them may run
or die, and none of them matters to the loop.
"""

import sys
from collections import deque
from pathlib import Path
from typing import Self, TextIO, cast

import click

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.completing import complete_tickets
from ralph_rpc.cli.logtext import LogWriter, RawLog, ReadableLog, ReadableLogByTicket
from ralph_rpc.cli.meant import meant_loop
from ralph_rpc.cli.names import complete_names
from ralph_rpc.clock import now_ms
from ralph_rpc.errors import INTERRUPTED, RalphError, UsageError
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.inside import refuse_inside
from ralph_rpc.loops.status import loop_status
from ralph_rpc.options.kinds import DURATION, Wrong
from ralph_rpc.story.excerpt import Excerpt, excerpt_of_iteration, excerpt_of_ticket, excerpt_since, last_iteration
from ralph_rpc.story.follow import LogFollower
from ralph_rpc.terminal.units import count


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A time in epoch milliseconds: so long ago, or a date or time of day as this machine's clock shows it."""
    if value is None:
        return None
    if (ago := _ago(value)) is not None:
        return now_ms() - ago
    from datetime import datetime, time

    try:
        if "-" not in value:
            return int(datetime.combine(datetime.now(), time.fromisoformat(value)).timestamp() * 1000)
        return int(datetime.fromisoformat(value).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        message = f"expected a time such as 10m, 2h, 18:30 or 2026-02-06T17:50, not {value!r}"
        raise click.BadParameter(message, ctx, param) from None


def _ago(value: str) -> int | None:
    try:
        return cast(int, DURATION.parse(value, Path()))
    except Wrong:
        return None


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("-f", "--follow", "following", is_flag=True, help="Keep showing what comes until the loop ends.")
@click.option("-n", "--tail", "lines", type=click.IntRange(min=0), metavar="N", help="Only the last N events.")
@click.option("--since", callback=_moment, metavar="TIME", help="Only since then: 10m, 2h, 18:30, 2026-02-06T17:50.")
@click.option("--iteration", type=click.IntRange(min=1), help="Only this iteration.")
@click.option("--ticket", metavar="ID", shell_complete=complete_tickets, help="Only this ticket.")
@click.option("--raw", is_flag=True, help="The lines of events.jsonl as they are.")
@click.option("--json", "as_json", is_flag=True, help="Like --raw, but every line is valid JSON.")
@click.option("--project", type=click.Path(path_type=Path), help="The project that the loop belongs to.")
def logs(
    name: str | None,
    following: bool,
    lines: int | None,
    since: int | None,
    iteration: int | None,
    ticket: str | None,
    raw: bool,
    as_json: bool,
    project: Path | None,
) -> None:
    """Show what a loop did: text, tool calls, iterations and their cost.

    Without -n and --since it begins with the last iteration that has ended.
    """
    if iteration is not None and (ticket is not None or since is not None):
        raise UsageError("--iteration excludes --ticket and --since", "use only one of them")
    paths = meant_loop(name, project, "any")
    if following:
        refuse_inside(paths, "logs -f", "leave -f out")
    writer = RawLog(sys.stdout, as_json) if raw or as_json else _readable(paths, sys.stdout, ticket)
    of_ticket = excerpt_of_ticket(paths, ticket) if ticket is not None else None
    excerpt: Excerpt | None = of_ticket
    if iteration is not None:
        excerpt = excerpt_of_iteration(paths, iteration)
    if since is not None:
        excerpt = excerpt_since(paths, since, of_ticket)
    if excerpt:
        reader = EventReader.at(paths.events, excerpt.start)
    else:
        reader = last_iteration(paths) if lines is None else EventReader.at_end(paths.events, lines=lines)
    try:
        ended = _show(paths, reader, writer, following, excerpt, lines)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    if excerpt and not excerpt.found:
        what = f"iteration {iteration}" if iteration is not None else f"ticket {ticket}"
        raise RalphError(f"the log of {what} is gone", "only the newest files are kept (--log-keep)")
    if following and not excerpt and not ended and loop_status(paths).shown == "crashed":
        click.echo(f"ralph-rpc: the runner is gone. Try: ralph-rpc resume {paths.name}", err=True)


def follow(paths: LoopPaths, out: TextIO, from_offset: int | None = None, until_end: bool = True) -> bool:
    """Writes the log readably, from an offset (default: its beginning), until the loop or its runner ends.

    True if the last that it saw was the loop's regular end. Without `until_end` it returns at the present end of the
    log. Ctrl-C (KeyboardInterrupt) and a closed `out` (BrokenPipeError) pass through.
    """
    return _show(paths, EventReader.at(paths.events, from_offset or 0), _readable(paths, out), until_end, None)


class RunnerSteps:
    """What the runner itself writes into the log: steps of tickets, verifications, notices; none of the agent's words."""

    def __init__(self, paths: LoopPaths, out: TextIO, offset: int) -> None:
        self._reader = EventReader.at(paths.events, offset)
        self._log = ReadableLog(out)
        self._lines: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.waiting()
        self.write()
        self._log.finish()
        self._reader.close()

    def waiting(self) -> bool:
        """True if there is something new to write."""
        while batch := self._reader.read():
            self._lines += [line for _, line in batch if line.startswith(_STEPS)]
        return bool(self._lines)

    def write(self) -> None:
        """Writes it."""
        for line in self._lines:
            self._log.line(line)
        self._lines = []
        self._log.flush(at_end=True)


_STEPS = tuple(
    b'{"type":"ralph_%s"' % kind for kind in (b"ticket", b"verify", b"notice", b"status", b"loop_end", b"lesson")
)


def _show(
    paths: LoopPaths,
    reader: EventReader,
    writer: LogWriter,
    until_end: bool,
    excerpt: Excerpt | None,
    last: int | None = None,
) -> bool:
    """Moves lines from the log to the writer; True if the last it saw was the loop's regular end.

    Of what an excerpt picks and is there already, only the `last` lines.
    """
    missed = 0
    held: deque[bytes] | None = deque(maxlen=last) if excerpt is not None and last is not None else None
    with LogFollower(reader, (lambda: loop_status(paths).runner != "dead") if until_end else None) as follower:
        try:
            for batch in follower:
                if follower.missed > missed:
                    gone = count(follower.missed - missed)
                    click.echo(
                        f"ralph-rpc: {gone} bytes of the log are gone: rotated away before they were read", err=True
                    )
                    missed = follower.missed
                for offset, line in batch:
                    if excerpt is None or excerpt.takes(offset, line):
                        (writer.line if held is None else held.append)(line)
                    if excerpt and excerpt.done:
                        return follower.ended
                if held is not None and not batch:
                    _write(held, writer)
                    held = None
                writer.flush(at_end=not batch)
            return follower.ended
        finally:
            if held is not None:
                _write(held, writer)
            writer.finish()


def _write(held: deque[bytes], writer: LogWriter) -> None:
    """Writes the lines that were held back."""
    for line in held:
        writer.line(line)


def _readable(paths: LoopPaths, out: TextIO, ticket: str | None = None) -> ReadableLog | ReadableLogByTicket:
    """One text, or where several agents may write at once, one for each."""
    state = loop_status(paths).state
    side_by_side = state is not None and state["kind"] == "tickets" and state["config"].get("parallel", 1) > 1
    return ReadableLogByTicket(out) if side_by_side and ticket is None else ReadableLog(out)
