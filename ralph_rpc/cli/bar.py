"""The progress of a loop in the last line of a terminal. Used by `wait`, and by `start --foreground` for tickets.

Drawn over itself, and gone when it is no longer needed; nothing is drawn where there is no terminal.
"""

from types import TracebackType
from typing import Self, TextIO

from ralph_rpc.loops.figures import of_state
from ralph_rpc.loops.status import LoopStatus
from ralph_rpc.model.state import State
from ralph_rpc.terminal.screen import columns_of, write_text
from ralph_rpc.terminal.units import cost
from ralph_rpc.terminal.width import line_of, pad

WIDTH = 20
_ERASE = "\r\x1b[K"


class Bar:
    """A line that shows how far a loop is; a context manager, at whose end it is gone."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clear()

    def show(self, found: LoopStatus) -> None:
        """Draws it again if it has changed."""
        if found.state is None or not self._out.isatty():
            return
        line = progress_line(found.state, found.shown, (columns_of(self._out) or 80) - 1)
        if line != self._drawn:
            write_text(self._out, _ERASE + line)
            self._drawn = line

    def clear(self) -> None:
        """Takes it away, so that something else can be written."""
        if self._drawn:
            write_text(self._out, _ERASE)
            self._drawn = ""


def progress_line(state: State, shown: str, columns: int) -> str:
    """One inert line of at most `columns` columns: bar, figures, and what runs."""
    figures = of_state(state, "dead")  # no time is shown
    done, most = figures.tickets or (state["stats"]["iterations"], figures.limit)
    tickets = state.get("tickets")
    running = ", ".join(f"{one['ticket']}: {one['doing']}" for one in tickets["running"]) if tickets is not None else ""
    spent = cost(figures.cost, figures.tokens)
    filled = "" if not most else pad("#" * (WIDTH * min(done, most) // most), WIDTH).replace(" ", ".")
    parts = [
        part
        for part in (f"[{filled}]" if filled else "", state["name"], shown, figures.progress_words, spent, running)
        if part
    ]
    return line_of("  ".join(parts), max(columns, 10))
