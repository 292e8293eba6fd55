"""The inbox: one file per command, dropped by anyone, taken by the runner in order of time.

A command exists when its file has its final name. `drop` is the client's side, `Inbox` the runner's. A file is taken by
renaming it to `.claimed-…` within the inbox; one that others may overwrite (`steer.json`) is renamed by the watching
thread as soon as it is complete. It is removed (`done`) only once the journal has it. If the machine dies in between,
the next scan returns the claimed file again, so nothing is lost, and the journal knows it, so nothing is done twice.
A file that is not a command ends up in `rejected/` with a reason; no file in the folder can block the runner, lead it
outside, or end it.
"""

import errno
import heapq
import os
import re
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ralph_rpc.errors import UsageError
from ralph_rpc.files.atomic import fsync_dir, make_private_dir, write_all, write_atomic
from ralph_rpc.files.commandfile import MAX_BYTES, UNKNOWN_NAME, InvalidCommand, parse_command, verb_of
from ralph_rpc.files.reserve import lacks_room, spares
from ralph_rpc.machine import nofollow
from ralph_rpc.model.commands import MESSAGES, ORDERS, Body, Verb

STILL_S = 1.0
"""How long an invalid file must stay unchanged before it is rejected: its writer may be half done."""

_REJECTED = "rejected"
_NO_FILE = "it is a link, a folder or another special file; only plain files are taken"
_CLAIMED = re.compile(r"\.claimed-(\d+-[0-9a-f]{8})-(.+)", re.DOTALL)
_LONGEST_NAME = 180
"""Bytes kept of a foreign name, so that it fits into 255 together with our prefix and suffix."""


class Claimed(NamedTuple):
    """A valid command; its file is in the inbox until `done` is called."""

    id: str
    """The file's own id, otherwise the unique part of the claimed name."""
    verb: Verb
    body: Body
    path: Path
    file: str
    """The claimed file's name."""
    mtime_ns: int
    origin: str | None
    """Of a file without an id of its own: inode and time of change before it was claimed. A power loss may undo the
    claim's rename after the receipt was written; by this the file is recognised under its old name."""


class Rejected(NamedTuple):
    """A file that was moved to rejected/."""

    verb: Verb | None
    name: str
    """Its name in rejected/."""
    reason: str
    id: str
    """The file's own id if that could be read, otherwise its name."""


class Scan(NamedTuple):
    """What one look found, control verbs first, then by time."""

    commands: list[Claimed]
    rejected: list[Rejected]
    retry: bool
    """Something waits: look again within 100 ms."""


class _Problem(Exception):
    """Why a file can't be taken; `final` if waiting won't help."""

    def __init__(self, reason: str, final: bool, id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.id = id


class _Content(NamedTuple):
    """A file that is ours and valid."""

    id: str | None
    body: Body
    look: tuple[int, ...]
    origin: str


class _Place(NamedTuple):
    """A file's place in the order: by kind, then by time, then by name."""

    is_late: bool
    mtime_ns: int
    rest: str
    name: str
    is_message: bool


class _Waiting(NamedTuple):
    look: tuple[int, ...]
    since_s: float


def drop(inbox: Path, verb: Verb, body: dict[str, Any], reserve: Path | None = None) -> str:
    """Put a command into an inbox, durably, and return its id (the body's, else a new one).

    `reserve` is the runner's, of which a file may be used up where the disk has no room for another one. Raises
    UsageError for a body that the runner would reject, OSError where the inbox can't be written.
    """
    id = body.get("id") or os.urandom(16).hex()
    try:
        data = orjson.dumps({**body, "type": verb, "id": id})
        parse_command(verb, data)
    except TypeError as error:  # bytes of the command line that are not UTF-8 arrive as lone surrogates
        raise UsageError(f"cannot send {verb}: the message is not valid UTF-8") from error
    except InvalidCommand as error:
        raise UsageError(f"cannot send {verb}: {error.reason}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"cannot send {verb}: the message is over 1 MiB", "Put the text into a file and send its path")
    # write_atomic's temporary file has a dot name, which the runner ignores, and its last step is a rename.
    target = inbox / f"{verb}-{time.time_ns()}-{os.urandom(4).hex()}.json"
    try:
        write_atomic(target, data)
    except OSError as error:
        if reserve is None or not lacks_room(error) or not any(_use_up(one, data, target) for one in spares(reserve)):
            raise
    return str(id)


def _use_up(spare: Path, data: bytes, target: Path) -> bool:
    """Make `target` of a file that is there, which takes no new inode; False if that cannot be."""
    try:
        fd = nofollow.open_fd(spare, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, 0)
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        nofollow.rename(spare, target)
        fsync_dir(target.parent)
    except OSError:
        return False
    return True


def free_name(claimed: str) -> str | None:
    """The name, still unique, that makes a claimed file a waiting command again; None if it is not claimed."""
    claim = _CLAIMED.fullmatch(claimed)
    return f"{claim[2].removesuffix('.json')}-{claim[1]}.json" if claim else None


class Inbox:
    """The runner's side. For one thread, except `claim`."""

    def __init__(self, dir: Path) -> None:
        self._dir = dir
        self._renaming = threading.Lock()
        self._origins: dict[str, str] = {}
        """By claimed name, of those that this process has claimed."""
        self._order: dict[str, _Place] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._stuck: dict[str, tuple[int, ...]] = {}

    def scan(self, now_s: float, limit: int = 200, messages: bool = True) -> Scan:
        """Take up to `limit` files; `now_s` is a monotonic clock. Without `messages` steers and followups are left.

        A claimed file is returned by every scan until it is `done` or `set_aside`, so that none is forgotten if its
        receipt could not be written. Raises OSError for trouble with the disk or the folder itself (ENOSPC, EACCES,
        EIO, folder gone) if nothing could be taken; nothing is lost then.
        """
        self._list()
        ready = [
            name
            for name, place in self._order.items()
            if (messages or not place.is_message) and self._is_due(name, now_s)
        ]
        commands: list[Claimed] = []
        rejected: list[Rejected] = []
        for name in heapq.nsmallest(limit, ready, key=self._order.__getitem__):
            try:
                result = self._take(name, now_s)
            except OSError:
                if not commands and not rejected:
                    raise
                break  # what was taken counts; the trouble shows again on the next scan
            if isinstance(result, Claimed):
                commands.append(result)
            elif result:
                rejected.append(result)
        if any(command.origin is None and command.file.startswith(f".claimed-{command.id}-") for command in commands):
            fsync_dir(self._dir)  # only their claimed name identifies them: it must be the same after a power loss
        return Scan(commands, rejected, bool(self._waiting) or len(ready) > limit)

    def claim(self, name: str) -> None:
        """Claim the file of this name if it is one that others may overwrite (`steer.json`) and is valid already.

        For the thread that sees it arrive: the scanning thread may be waiting for the disk. Never fails; the next scan
        returns what was claimed, and looks again at what was not.
        """
        verb = verb_of(name)
        if verb is not None and name == f"{verb}.json":
            with suppress(OSError, _Problem):
                if stat.S_ISREG(nofollow.lstat(self._path(name)).st_mode):
                    self._claim(name, verb, self._read(name, verb, still=False))

    def done(self, claimed: Claimed) -> None:
        """Remove a command's file; to be called once the journal has the command on disk.

        `echo … > steer.json` may have opened the file just before it was claimed and written into it since: then it
        holds another command, which gets a claim of its own.
        """
        try:
            now = self._read(claimed.file, claimed.verb, still=True)
            same = now.body == claimed.body and now.id in (claimed.id, None)
        except FileNotFoundError:
            return
        except _Problem:
            same = False
        if same:
            nofollow.unlink(claimed.path, missing_ok=True)
        else:
            self._claim(claimed.file, claimed.verb, None)

    def set_aside(self, claimed: Claimed, reason: str) -> Rejected:
        """Move a command that is not to be carried out to rejected/."""
        return self._reject(claimed.file, claimed.verb, reason, claimed.id)

    def _list(self) -> None:
        """Bring `_order` up to date: each name's place in the order. Only new names cost a stat."""
        order = {}
        # A file that is renamed while the folder is read may appear under neither name, and would miss its turn.
        with self._renaming, nofollow.scan(self._dir) as entries:
            for entry in entries:
                name = entry.name
                if name == _REJECTED:
                    continue
                original = name
                if name.startswith("."):
                    claim = _CLAIMED.fullmatch(name)
                    if not claim or not name.isprintable():
                        continue
                    original = claim[2]
                place = self._order.get(name)
                if place is None:
                    try:
                        mtime_ns = entry.stat(follow_symlinks=False).st_mtime_ns
                    except FileNotFoundError:
                        continue
                    verb, _, rest = original.partition("-")
                    # The rest of our own names is a finer time than the clock of many file systems.
                    verb = verb.removesuffix(".json")
                    place = _Place(verb not in ORDERS, mtime_ns, rest, name, verb in MESSAGES)
                order[name] = place
            self._origins = {name: origin for name, origin in self._origins.items() if name in order}
        self._order = order
        self._waiting = {name: known for name, known in self._waiting.items() if name in order}
        self._stuck = {name: look for name, look in self._stuck.items() if name in order}

    def _is_due(self, name: str, now_s: float) -> bool:
        """True if a file should be read: it is new, changed since it was read, or unchanged for long enough."""
        waiting = self._waiting.get(name)
        if waiting is None and name not in self._stuck:
            return True
        look = self._look(name)
        if look is None or look == self._stuck.get(name):
            return False
        return waiting is None or look != waiting.look or now_s - waiting.since_s >= STILL_S

    def _path(self, name: str) -> str:
        return f"{self._dir}/{name}"

    def _look(self, name: str) -> tuple[int, ...] | None:
        try:
            return _looks(nofollow.lstat(self._path(name)))
        except FileNotFoundError:
            return None

    def _take(self, name: str, now_s: float) -> Claimed | Rejected | None:
        """Claim, reject or leave one file; None if it is left for later or is gone."""
        claim = _CLAIMED.fullmatch(name)
        original = claim[2] if claim else name
        verb = verb_of(original)
        look = self._look(name)
        if look is None:
            return None
        waiting = self._waiting.get(name)
        since_s = waiting.since_s if waiting and waiting.look == look else now_s
        still = now_s - since_s >= STILL_S
        try:
            if not stat.S_ISREG(look[-1]):
                raise _Problem(_NO_FILE, final=True)
            if verb is None:
                raise _Problem(UNKNOWN_NAME, final=False)
            found = self._read(name, verb, still)
            if not claim:
                name = self._claim(name, verb, found)
                claim = _CLAIMED.fullmatch(name)
                assert claim
                if name not in self._origins:
                    found = self._read(name, verb, still)
        except FileNotFoundError:
            return None
        except _Problem as problem:
            seen = self._look(name)
            if problem.final or (still and seen == look):
                self._waiting.pop(name, None)
                return self._reject(name, verb, problem.reason, problem.id)
            if seen is not None:
                # As it was before it was read: what was written after that has not been read yet.
                self._waiting[name] = _Waiting(look, since_s if seen == look else now_s)
            return None
        self._waiting.pop(name, None)
        origin = None if found.id else self._origins.get(name)
        mtime_ns = found.look[1]
        return Claimed(found.id or claim[1], verb, found.body, self._dir / name, name, mtime_ns, origin)

    def _claim(self, name: str, verb: Verb, found: _Content | None) -> str:
        """Rename a file, and note its origin if it is still the one that was read.

        Until the rename a writer could open it by its name and change it, or put another one in its place. (`done` finds
        a change to the same size within one tick of the file system's clock.)
        """
        claim = _CLAIMED.fullmatch(name)
        original = claim[2] if claim else name
        unique = f"{time.time_ns()}-{os.urandom(4).hex()}"
        claimed = f".claimed-{unique}-{original if _plain(original) == original else f'{verb}.json'}"
        with self._renaming:
            nofollow.rename(self._path(name), self._path(claimed))
            if found is not None and self._look(claimed) == found.look:
                self._origins[claimed] = found.origin
        return claimed

    def _read(self, name: str, verb: Verb, still: bool) -> _Content:
        """Read a file that must be ours and valid; raises _Problem, or OSError."""
        try:
            # Neither follows a link nor waits for a FIFO's writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
            fd = nofollow.open_fd(self._path(name), flags, foreign=True)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
                raise _Problem(_NO_FILE, final=True) from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise _Problem("the file cannot be read; give it mode 0600", final=False) from error
            raise
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise _Problem(_NO_FILE, final=True)
            if found.st_uid != os.geteuid():
                raise _Problem("the file belongs to another user; write it as the user of the loop", final=True)
            if found.st_nlink != 1:
                raise _Problem("the file has a second name (hard link); write it as a separate file", final=False)
            data = os.read(fd, min(found.st_size, MAX_BYTES) + 1)
        finally:
            os.close(fd)
        if len(data) > MAX_BYTES:
            raise _Problem("the file is over 1 MiB; put the text into another file and send its path", final=True)
        if still and not data.strip():
            data = b"{}"  # `touch stop.json`
        try:
            id, body = parse_command(verb, data)
        except InvalidCommand as problem:
            raise _Problem(problem.reason, final=False, id=problem.id) from problem
        # The system sets the time of change: no later file has both values of this one, whatever its writer does.
        return _Content(id, body, _looks(found), f"{found.st_ino}-{found.st_ctime_ns}")

    def _reject(self, name: str, verb: Verb | None, reason: str, id: str | None) -> Rejected:
        """Move a file to rejected/ and say why beside it."""
        claim = _CLAIMED.fullmatch(name)
        shown = _plain(claim[2] if claim else name)
        source, folder = self._dir / name, self._dir / _REJECTED
        target = folder / shown
        if nofollow.exists(target) or nofollow.exists(f"{target}.reason"):
            target = folder / f"{shown}~{os.urandom(4).hex()}"
        try:
            make_private_dir(folder)
            nofollow.rename(source, target)
        except FileNotFoundError:
            pass  # gone by now: nothing to move, but still to be reported
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EEXIST, errno.ENOTDIR):
                raise
            # It is immutable, or rejected/ is not a folder: reported once, then skipped until it changes.
            self._stuck[name] = self._look(name) or ()
            reason += "; it could not be moved away"
        else:
            with suppress(OSError):  # the event log has the reason as well
                write_atomic(folder / f"{target.name}.reason", f"{reason}\n".encode(), durable=False)
        return Rejected(verb, target.name, reason, id or target.name)


def _looks(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_size, found.st_mtime_ns, found.st_ino, found.st_nlink, found.st_mode)


def _plain(name: str) -> str:
    """Return a foreign file name made short, valid UTF-8 and printable."""
    text = os.fsencode(name)[:_LONGEST_NAME].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
