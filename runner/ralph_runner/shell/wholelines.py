"""For an event log that several pis write at once: a line that comes in pieces is held until it is whole.

Used by a ticket loop for each of its pis. A single pi streams such a line into the log; with several, the others would
have to wait for its end, which a pi stopped in the middle never writes. If the machine dies here, the pieces are lost
with the unfinished line.
"""

from ralph_rpc.files.eventlog import EventLog


class WholeLines:
    """One pi's `Log` (pi/framing.py)."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._pieces: list[bytes] | None = None

    def append(self, data: bytes) -> int:
        return self._log.append(data)

    def begin_line(self) -> None:
        self._pieces = []

    def extend(self, chunk: bytes) -> None:
        assert self._pieces is not None
        self._pieces.append(chunk)

    def end_line(self, tail: bytes) -> int:
        assert self._pieces is not None
        # Kept if the disk is full: the end of the line is tried again.
        offset = self._log.append(b"".join([*self._pieces, tail]))
        self._pieces = None
        return offset

    def abandon_line(self) -> None:
        pieces, self._pieces = self._pieces, None
        if pieces:
            raw = b"".join(pieces)[:4096].decode("utf-8", "replace")
            self._log.append_event({"type": "ralph_unparsed", "raw": raw})
