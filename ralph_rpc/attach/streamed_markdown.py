"""Cuts Markdown that streams into pieces that never change again and a short tail that still may.

Pure. Without it each delta would render its whole message again, which is quadratic. Pieces end where Markdown
allows it: at a blank line outside of a code fence. What is too long without one is cut anyway; a cut
within a fence closes it and opens it again, so that the next piece is also code.
"""

from typing import NamedTuple

from ralph_rpc.prompts import fences

LIMIT = 3_000
"""Characters of a tail that finds no end."""


class Piece(NamedTuple):
    """`glued`: it continues where the piece before it was cut, without a blank line between them."""

    text: str
    glued: bool


class StreamedMarkdown:
    """Text as it comes in; `pieces` are settled, `tail` is what comes after them."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._lines: list[str] = []
        self._size = 0
        self._rest = ""
        self._fence = ""
        self._opening = ""
        self._glued = False

    @property
    def tail(self) -> Piece:
        """What is not settled yet, as Markdown of its own."""
        return Piece("\n".join([*self._lines, self._rest]), self._glued)

    def add(self, text: str) -> None:
        """The next piece of the stream."""
        first, *others = text.split("\n")
        self._rest += first
        for line in others:
            self._line(self._rest)
            self._rest = line
        while len(self._rest) > LIMIT:
            at = self._rest.rfind(" ", LIMIT // 2, LIMIT) + 1 or LIMIT
            self._lines.append(self._rest[:at])
            self._rest = self._rest[at:]
            self._cut()

    def end(self) -> None:
        """Nothing more will come."""
        if self._rest or self._lines:
            self._lines.append(self._rest)
            self._rest = ""
            self._settle(glued_next=False)
        self._fence = ""

    def _line(self, line: str) -> None:
        if self._fence:
            if fences.is_closed_by(line, self._fence):
                self._fence = ""
        else:
            # Where the line is indented it may belong to the list item above.
            if self._lines and not self._lines[-1].strip() and line[:1].strip():
                self._settle(glued_next=False)
            if fence := fences.opened_by(line):
                self._fence, self._opening = fence, fences.without_bullets(line)
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size > LIMIT:
            self._cut()

    def _cut(self) -> None:
        """Settles all lines, wherever we are."""
        if self._fence:
            self._lines.append(self._fence)
        self._settle(glued_next=True)
        if self._fence:
            self._lines.append(self._opening)

    def _settle(self, glued_next: bool) -> None:
        text = "\n".join(self._lines)
        if text.strip():
            self.pieces.append(Piece(text, self._glued))
        self._lines = []
        self._size = 0
        self._glued = glued_next
