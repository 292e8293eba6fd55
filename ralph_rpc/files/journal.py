"""commands.jsonl, the journal of commands: received, sent, queued, then delivered, rejected or expired.

Written only by the runner, from one thread. A command counts as received once its line is durable; its inbox file is
removed after that. If the machine dies in between, the file is found again and recognised by its id, by its claimed
name, or, if the claim was undone, by its origin; a torn last line was never durable, so it is cut off, and its file is
still there.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import orjson

from ralph_rpc.files.atomic import append_whole, cut_to, end_of_lines, read_plain, write_atomic
from ralph_rpc.machine import nofollow
from ralph_rpc.model.commands import Body, JournalLine, Verb

COMPACT_ABOVE = 4 << 20
REMEMBERED = 1000
"""How many ended commands a compacted journal still knows."""

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
        self._origins: set[str] = set()
        self._unsynced = False
        self._doubtful = False
        """A sync failed: what it should have written may be lost, even if a later sync succeeds."""

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

    @classmethod
    def read(cls, path: Path) -> "CommandJournal":
        """Read the journal without changing it: nothing is created, cut or kept open. Raises OSError."""
        journal = cls(path)
        if nofollow.is_file(path):
            journal._recall()
        elif nofollow.exists(path):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        return journal

    def append(self, line: JournalLine, durable: bool) -> None:
        """Append one step of one command; with `durable` it and all before it survive a power loss once this returns.

        Raises OSError; then the step is neither in the file nor counted.
        """
        if not self.is_intact():
            self.restore(line["at"])
        size = append_whole(self._fd, orjson.dumps(line) + b"\n", self._size)
        if durable:
            try:
                self._sync()
            except OSError:
                cut_to(self._fd, self._size)
                raise
        self._unsynced = not durable
        self._size = size
        self._count(line)

    def sync(self, at: int) -> None:
        """Make durable what was appended without `durable`. Raises OSError."""
        if self._unsynced and not self.is_intact():
            self.restore(at)
        elif self._unsynced:
            self._sync()
            self._unsynced = False

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._doubtful = self._unsynced
            raise

    def is_intact(self) -> bool:
        """True if the file is still the one we write, and holds all of our lines and nothing else."""
        if self._doubtful:
            return False
        try:
            there = nofollow.lstat(self._path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd)) and there.st_size == self._size

    def restore(self, at: int) -> None:
        """Write the file anew: what can still be read in it, and every open command. Raises OSError.

        For a file that somebody else has changed: the next runner would not know what this one has received.
        """
        kept = list(self._lines()) if nofollow.is_file(self._path) else self._lines_held()
        there = {line["id"] for line in kept if line["state"] == "received"}
        for command in self._open.values():
            if command.id not in there:
                step: JournalLine = {"at": at, "id": command.id, "command": command.verb, "state": "received"}
                kept.append({**step, "body": command.body})
                if command.sent:
                    kept.append({**step, "state": "sent"})
        data = _encoded(kept)
        write_atomic(self._path, data)
        fd = self._open_file()
        os.close(self._fd)
        self._fd, self._size = fd, len(data)
        self._unsynced = self._doubtful = False

    def open_commands(self) -> list[OpenCommand]:
        """Return the commands that have not ended, in order of receipt."""
        return list(self._open.values())

    def knows(self, id: str) -> bool:
        """True if a command with this id was ever received."""
        return id in self._ids

    def knows_file(self, name: str) -> bool:
        """True if the claimed file of this name was received and only has to be removed."""
        return name in self._files

    def had_origin(self, origin: str | None) -> bool:
        """True if an earlier runner received this very file before a power loss undid its claim."""
        return origin in self._origins

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open_file(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        return nofollow.open_fd(self._path, flags, 0o600)

    def _load(self) -> None:
        self._fd = self._open_file()
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise OSError(errno.EINVAL, "it is not a plain file", str(self._path))
            self._size = end_of_lines(self._fd)
            cut_to(self._fd, self._size)
            self._recall()
        except BaseException:
            self.close()
            raise

    def _recall(self) -> None:
        for line in self._lines():
            self._count(line)
            # Only here: while the system runs, no rename is undone.
            if isinstance(origin := line.get("origin"), str):
                self._origins.add(origin)

    def _lines_held(self) -> list[JournalLine]:
        """The lines of the file that we hold, which may have no name any more."""
        return list(_parsed(os.pread(self._fd, os.fstat(self._fd).st_size, 0)))

    def _lines(self) -> Iterator[JournalLine]:
        """Yield the lines of the file; a damaged one is skipped."""
        return _parsed(read_plain(self._path, sys.maxsize, follow=False))

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
        """Return every line of open commands, and of the last ended ones what it takes to recognise them."""
        ended = [id for id in self._ids if id not in self._open]
        remembered = set(ended[-REMEMBERED:])
        kept: list[JournalLine] = []
        for line in self._lines():
            if line["id"] in remembered and (line["state"] == "received" or line["state"] in _ENDED):
                line.pop("body", None)
                kept.append(line)
            elif line["id"] in self._open:
                kept.append(line)
        return _encoded(kept)


def _parsed(data: bytes) -> Iterator[JournalLine]:
    for raw in data.split(b"\n"):
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue
        if isinstance(line, dict) and all(isinstance(line.get(k), str) for k in ("id", "command", "state")):
            if line["state"] == "accepted":  # as 0.1 called it; in events.jsonl that word means received
                line["state"] = "queued"
            yield cast(JournalLine, line)


def _encoded(lines: list[JournalLine]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)
