"""A part of the log, folded into blocks: it follows the end, and reaches further back when asked.

Only reads. Memory is bounded however large the log is: blocks are dropped at the far end, and read again
when they are scrolled to. A part begins where nothing is open (a *seam*), so that a fold which starts there misses
nothing; a run without one is joined in its middle, which the fold allows.
"""

from pathlib import Path

from ralph_rpc.attach.blocks import Block, Blocks, TextBlock, ToolBlock
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.model import pi
from ralph_rpc.story.fold import View
from ralph_rpc.story.items import Item
from ralph_rpc.story.lines import skim_line, ticket_of

STEP = 256 << 10
"""Bytes of the log that are read back at once; more where they hold no seam."""
FARTHEST = 16 << 20
"""Bytes that are searched for a seam."""
SLICE = 1 << 20
"""Bytes that are folded between two frames."""
MOST = 1_500
"""Blocks that are kept."""
MOST_BYTES = 4 << 20
"""Text that is kept in them."""
MOST_LINES = 10_000
"""Lines that this makes on the screen: each is kept as it is sent to the terminal, and takes a kilobyte or more."""

_NEAR = 50
"""Blocks after a seam among which the end of something that was open there is looked for."""
_SEAMS = tuple(map(pi.head, (pi.AGENT_START, "ralph_iteration_start", "ralph_loop_start")))
_TURN = pi.head(pi.TURN_START)


class Window:
    """`blocks.all` is what is shown of the log, `start` to `end` are its offsets; `only`: of this ticket
    alone.

    Make one, `open_at_end` or `open_at` an offset, then call `forward` repeatedly.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path = path
        self.only = only
        self.start = 0
        self.end = 0
        self.at_end = False
        """The last `forward` found nothing more."""
        self.at_start = False
        """Nothing older is kept."""
        self.missed = 0
        """Bytes that were rotated away before they were read."""
        self._reader: EventReader | None = None
        self.view = View()
        self.blocks = Blocks()
        self.new_items: list[Item] = []
        """The items that the last `forward` read, of all tickets."""

    def open_at_end(self) -> None:
        """Begins far enough before the end to fill a screen."""
        reader = EventReader.at_end(self.path, 0)
        end = reader.offset
        reader.close()
        self.open_at(_seam_before(self.path, end))

    def open_last(self, lines: int) -> None:
        """Begins with the last `lines` events."""
        reader = EventReader.at_end(self.path, lines)
        offset = reader.offset
        reader.close()
        self.open_at(offset)

    def open_at(self, offset: int) -> None:
        """Begins again, with the line that holds this offset."""
        self.close()
        self._reader = EventReader.at(self.path, offset)
        self._reader.missed = 0
        self.start = self.end = self._reader.offset
        self.at_end = False
        self.at_start = self.start <= _oldest(self.path)
        self.view, self.blocks = View(), Blocks()
        self.missed = 0

    def close(self) -> None:
        """Closes the file."""
        if self._reader is not None:
            self._reader.close()

    @property
    def has_room(self) -> bool:
        """It can grow without letting go of anything."""
        return self._beyond(self.blocks.all) == 0

    def forward(self, most: int = SLICE) -> bool:
        """Folds what comes next, about `most` bytes; True if there was anything."""
        assert self._reader is not None
        self.new_items = []
        until = self.end + most
        while self.end < until:
            batch = self._reader.read(min(most, STEP))
            if not batch:
                break
            for after, line in batch:
                self._fold(line, after - len(line) - 1)
            self.end = batch[-1][0]
        self.missed += self._reader.missed
        self._reader.missed = 0
        self.at_end = self.end < until
        if self.at_end:
            for ticket, lane in self.view.lanes.items():
                self._add(lane.release(), self.end, False, ticket)
        return bool(self.new_items) or not self.at_end

    def backward(self) -> int:
        """Reads further back; returns how many blocks came before those that were there."""
        if self.at_start:
            return 0
        start = _seam_before(self.path, self.start)
        before = Window(self.path, self.only)
        before.open_at(start)
        start = before.start
        while before.end < self.start:
            before._read_to(self.start)
            if before.at_end:
                break
        older = _without_doubles(before.blocks, self.blocks.all)
        self.blocks.all[:0] = older
        self.start, self.at_start = start, before.at_start
        before.close()
        return len(older)

    def let_go_first(self) -> int:
        """Forgets the oldest blocks beyond the limits; returns how many."""
        number = self._beyond(self.blocks.all)
        if number:
            self.blocks.drop_first(number)
            self.start = self.blocks.all[0].offset
            self.at_start = False
        return number

    def let_go_last(self) -> bool:
        """Forgets the newest blocks beyond the limits; `forward` reads them again."""
        kept = len(self.blocks.all) - self._beyond(self.blocks.all[::-1])
        while 0 < kept < len(self.blocks.all) and not self.blocks.all[kept].clean:
            kept += 1
        if kept >= len(self.blocks.all):
            return False
        older, start, at_start = self.blocks.all[:kept], self.start, self.at_start
        self.open_at(self.blocks.all[kept].offset)
        self.start, self.at_start = start, at_start
        self.blocks.all = older
        return True

    def _read_to(self, offset: int) -> None:
        assert self._reader is not None
        batch = self._reader.read(STEP)
        self.at_end = not batch
        for after, line in batch:
            if after <= offset:
                self._fold(line, after - len(line) - 1)
            self.end = after

    def _fold(self, line: bytes, offset: int) -> None:
        event = skim_line(line)
        if event is None:
            return
        clean = self.view.resting
        self._add(self.view.feed(event), offset, clean, ticket_of(event))

    def _add(self, items: list[Item], offset: int, clean: bool, ticket: str | None) -> None:
        self.new_items += items
        if self.only is None or ticket in (None, self.only):
            for item in items:
                self.blocks.add(item, offset, clean, ticket)

    @staticmethod
    def _beyond(blocks: list[Block]) -> int:
        """How many of these blocks to let go from the front, so that the rest is within the limits."""
        number, lines, size = 0, sum(block.height for block in blocks), sum(block.size for block in blocks)
        if len(blocks) <= MOST and lines <= MOST_LINES and size <= MOST_BYTES:
            return 0
        # More than needed, so that this is not done at every frame.
        while number < len(blocks) - 1 and (
            len(blocks) - number > MOST * 3 // 4 or lines > MOST_LINES * 3 // 4 or size > MOST_BYTES * 3 // 4
        ):
            lines -= blocks[number].height
            size -= blocks[number].size
            number += 1
        return number


def _oldest(path: Path) -> int:
    reader = EventReader.at_start(path)
    reader.close()
    return reader.offset


def _seam_before(path: Path, offset: int) -> int:
    """A place before `offset`, about STEP away, at which a fold may begin."""
    oldest = _oldest(path)
    step = STEP
    while offset - step > oldest and step <= FARTHEST:
        found = _first_seam(path, offset - step, offset - step * 3 // 4 if step > STEP else offset - STEP // 4)
        if found is not None:
            return found
        step *= 4
    return max(oldest, offset - STEP) if offset - step > oldest else oldest


def _first_seam(path: Path, start: int, end: int) -> int | None:
    """Where between the two the first seam lies."""
    reader = EventReader.at(path, start)
    try:
        before = b""
        at = reader.offset
        while at < end and (batch := reader.read(STEP)):
            for after, line in batch:
                at = after - len(line) - 1
                if at >= end:
                    return None
                # The turn right after agent_start begins with the prompt, and only that event tells.
                if line.startswith(_SEAMS) or (before and line.startswith(_TURN) and not before.startswith(_SEAMS)):
                    return at
                before = line
        return None
    finally:
        reader.close()


def _without_doubles(older: Blocks, newer: list[Block]) -> list[Block]:
    """The older blocks without those that were open at their end and are in the newer ones again.

    A message joined midway is there as a whole, unless it was still being written then; the end of a tool
    lacks what its beginning said.
    """
    again = [block for block in older.open_blocks() if _is_there(block, newer[:_NEAR])]
    return [block for block in older.all if block not in again]


def _is_there(block: Block, newer: list[Block]) -> bool:
    for other in newer:
        if isinstance(block, TextBlock) and isinstance(other, TextBlock) and other.ticket == block.ticket:
            return other.plain.startswith(block.plain)
        if not (isinstance(block, ToolBlock) and isinstance(other, ToolBlock)):
            continue
        if (other.id, other.ticket) == (block.id, block.ticket):
            other.args, other.at, other.details = block.args, block.at, block.details
            other.changed = True
            return True
    return False
