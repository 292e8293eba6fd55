"""pi's stderr as lines: each goes to runner.log, and the last ones are kept to tell why pi ended.

Used by the client, which reads the pipe. Holds no file; if the machine dies here, nothing but these lines is lost.
"""

import codecs
from collections import deque
from collections.abc import Callable

KEPT_LINES = 20
KEPT_BYTES = 4_096
LONGEST_LINE = 8_192
"""A longer line is cut into several, so that stderr without line feeds takes no memory."""


class StderrLines:
    """Feed it chunks, `end` it once; `note` gets each line, `tail` gives the last ones. Lines that `is_for_us` are left out."""

    def __init__(self, note: Callable[[str], None], is_for_us: Callable[[str], bool] = lambda _: False) -> None:
        self._note, self._is_for_us = note, is_for_us
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def feed(self, chunk: bytes, final: bool = False) -> None:
        *lines, self._rest = (self._rest + self._decoder.decode(chunk, final)).split("\n")
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._take(line)

    def end(self) -> None:
        self.feed(b"", final=True)
        self._take(self._rest)
        self._rest = ""

    def tail(self) -> str:
        lines = [*self._lines, self._rest] if self._rest else [*self._lines]
        text = "\n".join(lines[-KEPT_LINES:]).encode()
        return text[-KEPT_BYTES:].decode("utf-8", "ignore")

    def _take(self, line: str) -> None:
        line = line.rstrip()
        if self._is_for_us(line):
            return
        for at in range(0, len(line), LONGEST_LINE):
            piece = line[at : at + LONGEST_LINE]
            self._lines.append(piece)
            self._note(piece)
