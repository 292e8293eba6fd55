"""Which part of a log to read: its last iteration, or the lines of one iteration, of one ticket, or since a time.

Called by `logs`. It reads state.json and the records to find where the part begins; picking its lines is pure.
"""

from typing import TypeAlias

from ralph_rpc.clock import parse_iso
from ralph_rpc.errors import RalphError
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.records import read_iterations, read_tickets
from ralph_rpc.story.lines import runner_event, stamped_iteration, stamped_ticket, stamped_time
from ralph_rpc.story.records import iteration_record, newest_iteration
from ralph_rpc.terminal.units import number
from ralph_rpc.tickets.ticket import named

_LINES = 200
"""Lines that are read back where no iteration has ended yet."""
_LONGEST = 4 << 20
"""Bytes of the last iteration that are read back."""


class IterationExcerpt:
    """Picks the lines of one iteration out of a log that is read from `start`."""

    def __init__(self, iteration: int, start: int, end: int | None, began: bool) -> None:
        self.start = start
        self.found = False
        """It has picked a line."""
        self.done = False
        """No later line belongs to the iteration."""
        self._iteration = iteration
        self._end = end
        self._began = began
        self._ticket = ""

    def takes(self, offset: int, line: bytes) -> bool:
        """True if a line belongs to the iteration; `offset` is where the line ends."""
        border = runner_event(line, "ralph_iteration_")
        if border:
            mine = border.get("iteration") == self._iteration
            begins = border.get("type") == "ralph_iteration_start"
            if mine or "ticket" not in border:  # tickets are worked on side by side
                self.done = self._began and (mine != begins)
            if mine:
                self._began, self._ticket = True, str(border.get("ticket") or "")
            taken = mine
        else:
            self.done = self._end is not None and offset > self._end
            taken = self._began and not self.done and self._is_mine(line)
        self.found = self.found or taken
        return taken

    def _is_mine(self, line: bytes) -> bool:
        iteration = stamped_iteration(line)
        return iteration == self._iteration if iteration is not None else stamped_ticket(line) in ("", self._ticket)


class TicketExcerpt:
    """Picks the lines of one ticket out of a log that is read from `start`."""

    def __init__(self, ticket: str, start: int) -> None:
        self.start = start
        self.found = False
        """It has picked a line."""
        self.done = False
        """Never: a ticket may get another attempt."""
        self._ticket = ticket

    def takes(self, offset: int, line: bytes) -> bool:
        """True if a line is about the ticket."""
        taken = stamped_ticket(line) == self._ticket
        self.found = self.found or taken
        return taken


class SinceExcerpt:
    """Picks the lines since a time out of a log that is read from `start`; with `inner` only those that it picks too."""

    def __init__(self, since_ms: int, start: int, inner: TicketExcerpt | None) -> None:
        self.start = start
        self.found = True
        """That nothing has happened since is an answer too."""
        self.done = False
        """Never."""
        self._since = since_ms
        self._inner = inner
        self._begun = False

    def takes(self, offset: int, line: bytes) -> bool:
        """True if a line was written since then. Lines stand in the order of time."""
        if not self._begun:
            at = stamped_time(line)
            self._begun = at is not None and at >= self._since
        return self._begun and (self._inner is None or self._inner.takes(offset, line))


Excerpt: TypeAlias = IterationExcerpt | TicketExcerpt | SinceExcerpt


def excerpt_of_ticket(paths: LoopPaths, ticket: str) -> TicketExcerpt:
    """From the first iteration of the ticket that has a record, else from the log's beginning.

    A part of its id is enough. Raises RalphError for a ticket that the loop has not worked on.
    """
    found = named(ticket, read_tickets(paths))
    if len(found) != 1:
        problem = f"has worked on several tickets with {ticket!r} in their id: {', '.join(found[:5])}"
        raise RalphError(
            f"'{paths.name}' {problem if found else f'has not worked on a ticket {ticket!r}'}",
            f"see: ralph-rpc tickets {paths.name}",
        )
    (ticket,) = found
    starts = [one["eventsFrom"] for one in read_iterations(paths) if one.get("ticket") == ticket]
    return TicketExcerpt(ticket, min(starts, default=0))


def excerpt_since(paths: LoopPaths, since_ms: int, inner: TicketExcerpt | None) -> SinceExcerpt:
    """From the last iteration that had begun by then; that of all lines, or of those that `inner` picks."""
    starts = [one["eventsFrom"] for one in read_iterations(paths) if (parse_iso(one["startedAt"]) or 0) <= since_ms]
    return SinceExcerpt(since_ms, max([*starts, inner.start if inner else 0]), inner)


def excerpt_of_iteration(paths: LoopPaths, iteration: int) -> IterationExcerpt:
    """From where the iteration begins by its record. Raises RalphError for one that has not begun."""
    record = iteration_record(paths, iteration)
    if record:
        start, end = int(number(record.get("eventsFrom"))), int(number(record.get("eventsTo")))
        return IterationExcerpt(iteration, start, end, began=True)
    newest = newest_iteration(paths)
    if iteration > newest:
        raise RalphError(f"'{paths.name}' has no iteration {iteration}", f"its newest is {newest}")
    # It runs, or its record could not be written: it begins somewhere after the one before.
    before = next((found for n in range(iteration - 1, 0, -1) if (found := iteration_record(paths, n))), {})
    return IterationExcerpt(iteration, int(number(before.get("eventsTo"))), None, began=False)


def last_iteration(paths: LoopPaths) -> EventReader:
    """A reader at the start of the last iteration that has ended; nearer to the end where that was a long one."""
    newest = newest_iteration(paths)
    record = iteration_record(paths, newest) or iteration_record(paths, newest - 1)
    reader = EventReader.at_end(paths.events, lines=_LINES)
    start = int(number(record.get("eventsFrom"))) if record else 0
    if record is None or reader.offset - start > _LONGEST:
        return reader
    reader.close()
    return EventReader.at(paths.events, start)
