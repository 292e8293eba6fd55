"""A table as text: columns two spaces apart, each under its title. Pure.

Called by `list`, `tickets` and `start --dry-run`. Cells are inert lines already. It works a column at a time, which for
ten thousand rows takes a third of what cell by cell takes.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ralph_rpc.terminal.colour import Style, paint
from ralph_rpc.terminal.width import clip_start, is_narrow, pad, width

_GAP = "  "
_LEAST = 12
"""Columns that a column which gives way keeps."""


class Column(NamedTuple):
    """One column of a table: a title, and a cell for each row."""

    cells: Sequence[str]
    title: str = ""
    right: bool = False
    """Numbers: aligned at the right."""
    styles: Sequence[Style | None] = ()
    """A style for each cell; empty for none."""
    gives_way: bool = False
    """Its cells lose their beginning where the table is wider than the terminal."""
    most: int | None = None
    """Cells wider than this do not widen the column, but push aside what follows them."""
    leaves: int = 0
    """Where the terminal is too narrow even so, the columns with the highest number leave first; 0 stays."""


def table(columns: Sequence[Column], colour: bool, terminal_columns: int | None = None) -> str:
    """The rows under their titles, no line ending in a space; no line of titles where no column has one.

    `terminal_columns`: the width that the columns which give way or leave should keep the table within; None: no limit.
    """
    titled = any(column.title for column in columns)
    blocks = [[column.title, *column.cells] if titled else list(column.cells) for column in columns]
    if terminal_columns is not None:
        columns, blocks = _fitting(columns, blocks, terminal_columns)
    padded = [_padded(cells, column) for cells, column in zip(blocks, columns, strict=True)]
    if colour:
        for cells, column in zip(padded, columns, strict=True):
            _colour(cells, column.styles, titled)
    return "\n".join(_GAP.join(line).rstrip() for line in zip(*padded, strict=True))


def _fitting(columns: Sequence[Column], blocks: list[list[str]], most: int) -> tuple[Sequence[Column], list[list[str]]]:
    """The columns, cut or left out where they would be wider than the terminal."""
    widths = [_widest(cells) for cells in blocks]

    def too_wide() -> int:
        return sum(widths) + len(_GAP) * (len(widths) - 1) - most

    for number, column in enumerate(columns):
        if column.gives_way and (over := too_wide()) > 0:
            limit = max(widths[number] - over, len(column.title), _LEAST)
            blocks[number] = [clip_start(cell, limit) for cell in blocks[number]]
            widths[number] = min(widths[number], limit)
    columns = list(columns)
    while too_wide() > 0 and (leaving := max(columns, key=lambda column: column.leaves)).leaves:
        number = columns.index(leaving)
        del columns[number], blocks[number], widths[number]
    return columns, blocks


def _widest(cells: Sequence[str]) -> int:
    return max(map(len if is_narrow("".join(cells)) else width, cells), default=0)


def _padded(cells: Sequence[str], column: Column) -> list[str]:
    columns = _widest(cells) if column.most is None else min(_widest(cells), column.most)
    if not is_narrow("".join(cells)):
        return [pad(cell, columns, column.right) for cell in cells]
    return [cell.rjust(columns) if column.right else cell.ljust(columns) for cell in cells]


def _colour(cells: list[str], styles: Sequence[Style | None], titled: bool) -> None:
    first = 1 if titled else 0
    for number, style in enumerate(styles, first):
        if style is not None:
            cells[number] = paint(cells[number], style, True)
    if titled:
        cells[0] = paint(cells[0], "bold", True)
