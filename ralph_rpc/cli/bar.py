"""The progress of a loop in the last line of a terminal. Used by `wait`, and by `start --foreground` for tickets.

Drawn again over itself, and gone when it is no longer needed; nothing is drawn where nobody looks (no terminal).
"""

import os
from types import TracebackType
from typing import Self, TextIO

from ralph_rpc.loops import LoopStatus
from ralph_rpc.model.state import State
from ralph_rpc.text import line_of, money, pad

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
        """Draws it anew if it has changed."""
        if found.state is None or not self._out.isatty():
            return
        line = progress_line(found.state, found.shown, _columns(self._out) - 1)
        if line != self._drawn:
            encoding = self._out.encoding or "utf-8"
            self._out.write(_ERASE + line.encode(encoding, "replace").decode(encoding))
            self._out.flush()
            self._drawn = line

    def clear(self) -> None:
        """Takes it away, so that something else can be written."""
        if self._drawn:
            self._out.write(_ERASE)
            self._out.flush()
            self._drawn = ""


def progress_line(state: State, shown: str, columns: int) -> str:
    """One inert line of at most so many columns: bar, figures, and what runs."""
    tickets = state.get("tickets")
    if tickets is not None:
        done, most = tickets["closed"], tickets["total"]
        what = f"{done}/{most} tickets"
        running = ", ".join(f"{one['ticket']}: {one['doing']}" for one in tickets["running"])
    else:
        done, most = state["stats"]["iterations"], state["maxIterations"]
        what = f"{done}{f'/{most}' if most else ''} iterations"
        running = ""
    cost = money(state["stats"]["cost"])
    filled = "" if not most else pad("#" * (WIDTH * min(done, most) // most), WIDTH).replace(" ", ".")
    parts = [part for part in (f"[{filled}]" if filled else "", state["name"], shown, what, cost, running) if part]
    return line_of("  ".join(parts), max(columns, 10))


def _columns(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns
    except (OSError, ValueError):
        return 80
