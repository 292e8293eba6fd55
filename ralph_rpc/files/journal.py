"""commands.jsonl, the journal of commands: received, sent, accepted, then delivered, rejected or expired.

Written by the runner only, from one thread. A command counts as received once its line is durable; its inbox
file is removed after that. If the machine dies in between, the file is met again and recognised by the id or
by the name in the journal; a torn last line was never durable, so it is cut off and its file is still there.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import orjson

from ralph_rpc.files.atomic import append_whole, cut_to, end_of_lines, write_atomic
from ralph_rpc.model.commands import Body, JournalLine, Verb

COMPACT_ABOVE = 4 << 20
REMEMBERED = 1000
"""Ended commands that a compacted journal still knows."""

_ENDED = ("delivered", "rejected", "expired")


class OpenCommand(NamedTuple):
    """A command that was received and has not ended."""

    id: str
    verb: Verb
    body: Body
    sent: bool
    """It may have reached pi."""


class CommandJournal:
    """The journal, open for appending, and what its lines add up to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0
        self._open: dict[str, OpenCommand] = {}
        self._ids: dict[str, None] = {}
        self._files: set[str] = set()

    @classmethod
    def open(cls, path: Path) -> "CommandJournal":
        """Open or create the journal: cuts a torn tail, rewrites a file over 4 MiB. Raises OSError."""
        journal = cls(path)
        journal._load()
        if journal._size > COMPACT_ABOVE:
            journal.close()
            write_atomic(path, journal._compacted())
            journal = cls(path)
            journal._load()
        return journal

    def append(self, line: JournalLine, durable: bool) -> None:
        """Append one step of one command; with `durable` it survives a power loss once this returns.

        Raises OSError; then the step is neither in the file nor counted.
        """
        size = append_whole(self._fd, orjson.dumps(line) + b"\n", self._size)
        if durable:
            try:
                os.fdatasync(self._fd)
            except OSError:
                cut_to(self._fd, self._size)
                raise
        self._size = size
        self._count(line)

    def open_commands(self) -> list[OpenCommand]:
        """Return the commands that have not ended, in order of receipt."""
        return list(self._open.values())

    def knows(self, id: str) -> bool:
        """Tell whether a command of this id was ever received."""
        return id in self._ids

    def knows_file(self, name: str) -> bool:
        """Tell whether the claimed file of this name was received, so that it only has to be removed."""
        return name in self._files

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _load(self) -> None:
        self._fd = os.open(
            self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            self._size = end_of_lines(self._fd)
            cut_to(self._fd, self._size)
            for line in self._lines():
                self._count(line)
        except BaseException:
            self.close()
            raise

    def _lines(self) -> Iterator[JournalLine]:
        """Yield the lines of the file; one that is damaged tells nothing and is passed over."""
        for raw in self._path.read_bytes().split(b"\n"):
            try:
                line = orjson.loads(raw)
            except orjson.JSONDecodeError:
                continue
            if isinstance(line, dict) and all(
                isinstance(line.get(k), str) for k in ("id", "command", "state")
            ):
                yield cast(JournalLine, line)

    def _count(self, line: JournalLine) -> None:
        id, state = line["id"], line["state"]
        known = id in self._ids
        self._ids[id] = None
        file, body = line.get("file"), line.get("body")
        if isinstance(file, str):
            self._files.add(file)
        if state == "received":
            if not known and isinstance(body, dict):
                self._open[id] = OpenCommand(id, line["command"], body, sent=False)
        elif state in _ENDED:
            self._open.pop(id, None)
        elif id in self._open:
            self._open[id] = self._open[id]._replace(sent=True)

    def _compacted(self) -> bytes:
        """Return every line of open commands, and of the last ended ones what it takes to know them again."""
        ended = [id for id in self._ids if id not in self._open]
        remembered = set(ended[-REMEMBERED:])
        kept: list[JournalLine] = []
        for line in self._lines():
            if line["id"] in remembered and (line["state"] == "received" or line["state"] in _ENDED):
                line.pop("body", None)
                kept.append(line)
            elif line["id"] in self._open:
                kept.append(line)
        return b"".join(orjson.dumps(line) + b"\n" for line in kept)
