"""commands.jsonl, the journal of commands: received, sent, accepted, then delivered, rejected or expired.

Written by the runner only, from one thread. A command counts as received once its line is durable; its inbox
file is removed after that. If the machine dies in between, the file is met again and recognised by its id, by
its claimed name, or, where the claim was undone, by its origin; a torn last line was never durable, so it is
cut off and its file is still there.
"""

import errno
import os
import stat
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
        self._origins: set[str] = set()
        self._unsynced = False
        self._doubtful = False
        """A sync has failed: what it should have written may be lost, whatever a second sync says."""

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
        """What the journal says, to be looked at only: nothing is created, cut or kept open. Raises OSError."""
        journal = cls(path)
        if path.is_file():
            journal._recall()
        elif os.path.lexists(path):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        return journal

    def append(self, line: JournalLine, durable: bool) -> None:
        """Append one step of one command; with `durable` it and all before it survive a power loss once this returns.

        Raises OSError; then the step is neither in the file nor counted.
        """
        if not self.is_intact():
            self.mend(line["at"])
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
        """Make durable what was appended and is not yet. Raises OSError."""
        if self._unsynced and not self.is_intact():
            self.mend(at)
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
        """Tell whether the file is still the one we write and holds all that is ours and nothing else."""
        if self._doubtful:
            return False
        try:
            there = self._path.lstat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd)) and there.st_size == self._size

    def mend(self, at: int) -> None:
        """Write the journal anew: what can still be read in the file, and every open command. Raises OSError.

        Somebody else has changed it. Left as it is, a next runner would not know what this one has received.
        """
        kept = list(self._lines()) if self._path.is_file() and not self._path.is_symlink() else []
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
        """Tell whether a command of this id was ever received."""
        return id in self._ids

    def knows_file(self, name: str) -> bool:
        """Tell whether the claimed file of this name was received, so that it only has to be removed."""
        return name in self._files

    def had_origin(self, origin: str | None) -> bool:
        """Tell whether an earlier runner received the file that was this one before it was claimed."""
        return origin in self._origins

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open_file(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(self._path, flags, 0o600)

    def _load(self) -> None:
        self._fd = self._open_file()
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise OSError(errno.EINVAL, "it is no plain file", str(self._path))
            self._size = end_of_lines(self._fd)
            cut_to(self._fd, self._size)
            self._recall()
        except BaseException:
            self.close()
            raise

    def _recall(self) -> None:
        for line in self._lines():
            self._count(line)
            # Only here: while the system runs, no rename comes undone.
            if isinstance(origin := line.get("origin"), str):
                self._origins.add(origin)

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
        return _encoded(kept)


def _encoded(lines: list[JournalLine]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)
