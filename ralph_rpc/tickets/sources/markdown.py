"""Tickets as Markdown files with YAML front matter, one file each in one folder, as the `tk` tool keeps them.

Opened by `opening`, for the runner and for `ralph-rpc tickets`. People, agents and `tk` write the same files at any
time: a file that is half-written or broken is a bad ticket until it is fixed, and never in the way of the others. A
change touches one field or appends a note, and replaces the file as a whole; if the machine dies, the file is old or
new.
"""

import codecs
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ralph_rpc.clock import iso, now_ms
from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files.atomic import read_plain, write_atomic
from ralph_rpc.machine import nofollow, upward
from ralph_rpc.terminal.inert import inert
from ralph_rpc.tickets.deps import wrong_deps
from ralph_rpc.tickets.sources.frontmatter import Malformed, is_cut_off, with_field
from ralph_rpc.tickets.sources.parsed import Parsed, composed, parsed
from ralph_rpc.tickets.ticket import COMPONENT, Backlog, BadTicket, Doubt, Status, Ticket, usable_id

LARGEST = 1 << 20
"""Bytes of a ticket."""
_TOUCHED_NS = 2_000_000_000
"""A file that changed this shortly before it was read may change again and look the same: file times are coarse."""
_TRIES = 5

_NOTES = re.compile(r"^## Notes", re.MULTILINE)
_TEMPLATE = re.compile(r"_?(?:ticket[-_])?template\.md", re.IGNORECASE)
"""What people copy to make a ticket."""
_FENCE_LIKE = re.compile(r"^---$", re.MULTILINE)

Stamp = tuple[int, int, int, int, int]


class _Known(NamedTuple):
    """What a file held when it was read."""

    stamp: Stamp | None
    """None: it must be read again."""
    found: Ticket | BadTicket | None
    """None: it is no ticket."""
    id_line: int


def find_folder(project: Path, environ: Mapping[str, str]) -> Path | None:
    """`$TICKETS_DIR`, or the `.tickets` of the project or of its nearest parent that has one of this user's."""
    given = environ.get("TICKETS_DIR")
    if given:
        return project / Path(given).expanduser()
    return next((found for at in upward.own_folders(project) if _is_ours(found := at / ".tickets")), None)


def _is_ours(folder: Path) -> bool:
    """The user's own folder, or a link of theirs to one."""
    try:
        owners = {folder.lstat().st_uid, folder.stat().st_uid}
    except OSError:
        return False
    return folder.is_dir() and all(map(upward.owner_counts, owners))


def find_tickets(project: Path, given: str) -> Path:
    """The folder that is given, relative to where the user is; else the one that `tk` would use. Raises UsageError."""
    if given:
        folder = Path(os.path.normpath(Path.cwd() / Path(given).expanduser()))
        if not folder.is_dir():
            raise UsageError(f"--tickets: {folder} is not a folder", "name the folder of the tickets, such as .tickets")
        return _followed(folder)
    found = find_folder(project, os.environ)
    if found is None:
        raise UsageError(
            f"there is no .tickets folder in {project} or above it",
            "create a ticket first: ralph-rpc tickets add 'what to do', or set TICKETS_DIR",
        )
    return _followed(found)


def _followed(folder: Path) -> Path:
    """The folder itself where this is a link into the same repository. UsageError where it leads anywhere else.

    git does not look through links, so to it the tickets are where they really are.
    """
    if not folder.is_symlink():
        return folder
    real, home = folder.resolve(), folder.parent.resolve()
    top = next((at for at in (home, *home.parents) if (at / ".git").exists()), home)
    if not real.is_relative_to(top):
        raise UsageError(
            f"{folder} is a link to {real}, outside of this repository, and is not followed",
            f"if those tickets are meant, say so: --tickets {real}",
        )
    return real


class MarkdownTickets:
    """The tickets of a folder: a `TicketSource`."""

    def __init__(self, folder: Path, prefix: str = COMPONENT) -> None:
        self.folder = folder
        self._prefix = prefix
        self._known: dict[str, _Known] = {}
        self._backlog: Backlog | None = None

    @property
    def where(self) -> str:
        return str(self.folder)

    def scan(self) -> Backlog:
        """The backlog as it is now; only files that look different are read again."""
        known = self._look()
        if self._backlog is None or not _same(known, self._known):
            self._backlog = _backlog(known)
        self._known = known
        return self._backlog

    def read(self, id: str) -> tuple[Ticket, str]:
        """A ticket and its whole text."""
        found = self._open(id)
        return found.ticket, found.text

    def locate(self, id: str) -> Path:
        """The file named after the ticket, or else the one that has its id."""
        usual = self._named_after(id)
        return usual if nofollow.is_file(usual) else self._open(id).ticket.path

    def set_status(self, id: str, status: Status) -> None:
        """Change the status in place."""
        self._edit(id, lambda text: with_field(text, "status", status))

    def add_note(self, id: str, text: str) -> None:
        """Append a note as `tk add-note` does: under `## Notes`, which is made if it is not there."""
        self._edit(id, lambda old: _with_note(old, text, now_ms()))

    def holds(self, path: Path) -> bool:
        """Whether a file lies in the folder."""
        return path.is_relative_to(self.folder)

    def in_checkout(self, top: Path, other: Path) -> "MarkdownTickets | None":
        """The tickets of the same folder in another checkout; there may be no such folder."""
        if not self.folder.is_relative_to(top):
            return None
        return MarkdownTickets(other / self.folder.relative_to(top), self._prefix)

    def _look(self) -> dict[str, _Known]:
        """Every file of the folder, read if it is not known yet."""
        try:
            with nofollow.scan(self.folder) as there:
                found_files = {entry.name: _stat(entry) for entry in there if _is_ticket(entry.name)}
        except OSError as error:
            raise RalphError(
                f"cannot read the tickets in {self.folder}: {error.strerror}", "make some with tk, or set TICKETS_DIR"
            ) from error
        settled = time.time_ns() - _TOUCHED_NS
        known: dict[str, _Known] = {}
        for name, found in sorted(found_files.items(), key=lambda item: item[0]):
            if found is None:
                continue
            stamp = _stamp(found)
            before = self._known.get(name)
            if before is not None and before.stamp == stamp:
                known[name] = before
            else:
                is_new = found.st_ctime_ns >= settled
                ticket, id_line = _read(self.folder / name, found, is_new, self._prefix)
                known[name] = _Known(None if is_new else stamp, ticket, id_line)
        return known

    def _named_after(self, id: str) -> Path:
        """Where a ticket's file usually is."""
        if not usable_id(id):
            raise RalphError(f"{id!r} is not a ticket id")
        return self.folder / f"{id}.md"

    def _open(self, id: str) -> "_Opened":
        """A ticket as it is now."""
        opened = _opened(self._named_after(id), id)
        if opened is None:
            backlog = self.scan()
            if id in backlog.tickets:
                opened = _opened(backlog.tickets[id].path, id)
        if opened is None:
            wrong = next((one for one in self.scan().bad if one.id == id), None)
            if wrong is None:
                raise RalphError(f"there is no ticket {id} in {self.folder}", "to see all tickets: ralph-rpc tickets")
            raise RalphError(f"ticket {id} cannot be used: {wrong.path}:{wrong.line}: {wrong.reason}", "fix its file")
        return opened

    def _edit(self, id: str, change: Callable[[str], str]) -> None:
        with _alone(self.folder):
            for _ in range(_TRIES):
                if _replaced(self._open(id), change):
                    return
        raise RalphError(
            f"cannot change ticket {id}: its file keeps changing", "stop the program that writes it, then try again"
        )


class _Opened(NamedTuple):
    """A usable ticket."""

    ticket: Ticket
    text: str
    before: os.stat_result
    """What its file looked like before it was read."""


def _replaced(opened: _Opened, change: Callable[[str], str]) -> bool:
    """Whether the file now holds the changed text; if not, somebody else wrote it since it was read."""
    path = opened.ticket.path
    try:
        changed = change(opened.text)
        if changed == opened.text:
            return True
        data = changed.encode()
        if len(data) > LARGEST:
            raise RalphError(f"cannot write {path}: a ticket has at most {LARGEST >> 20} MiB")
        if _stamp(nofollow.lstat(path)) != _stamp(opened.before):
            return False
        write_atomic(path, data, mode=stat.S_IMODE(opened.before.st_mode))
        return True
    except Malformed as error:
        raise RalphError(f"cannot change {path}:{error.line}: {error.reason}", "change it by hand") from None
    except OSError as error:
        raise RalphError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other loops from changing the backlog meanwhile. People and `tk` know no lock."""
    try:
        fd = nofollow.open_fd(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RalphError(f"cannot read the tickets in {folder}: {error.strerror}") from error
    try:
        with suppress(OSError):  # a file system that cannot lock a folder
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_ticket(name: str) -> bool:
    return name.endswith(".md") and not name.startswith(".") and _TEMPLATE.fullmatch(name) is None


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    """None where it is gone by now."""
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def _same(new: dict[str, _Known], old: dict[str, _Known]) -> bool:
    """Whether the files say the same as before; the same objects mostly, which is quick."""
    return new.keys() == old.keys() and all(
        known is old[name] or known.found == old[name].found for name, known in new.items()
    )


def _backlog(known: Mapping[str, _Known]) -> Backlog:
    """What can be used, and what is wrong."""
    bad: list[BadTicket] = []
    by_id: dict[str, list[tuple[Ticket, int]]] = {}
    for one in known.values():
        if isinstance(one.found, Ticket):
            by_id.setdefault(one.found.id, []).append((one.found, one.id_line))
        elif one.found is not None:
            bad.append(one.found)
    tickets: dict[str, Ticket] = {}
    for id, same in by_id.items():
        if len(same) == 1 or all(ticket.status == "closed" for ticket, _ in same):
            tickets[id] = same[0][0]
            continue
        # Nobody can know which one is meant.
        for ticket, line in same:
            others = ", ".join(inert(other.path.name, keep_newlines=False) for other, _ in same if other is not ticket)
            bad.append(BadTicket(ticket.path, line, f"id {id} is also that of {others}", id))
    _hold_back(tickets)
    bad += [BadTicket(one.path, one.doubt.line, one.doubt.reason, id) for id, one in tickets.items() if one.doubt]
    bad += wrong_deps(tickets, bad)
    return Backlog(tickets, tuple(sorted(bad, key=lambda one: (one.path, one.line))))


def _hold_back(tickets: dict[str, Ticket]) -> None:
    """Doubts of tickets that others name as waiting for them, which `tk` knows nothing of."""
    for id, ticket in list(tickets.items()):
        for other in ticket.blocks:
            waits = tickets.get(other)
            if waits is not None and waits.status != "closed" and id not in waits.deps and waits.doubt is None:
                why = f"{id} says that this one waits for it, and only deps counts: add it to deps, or change {id}"
                tickets[other] = replace(waits, doubt=Doubt(why, waits.deps_line))


def _read(path: Path, found: os.stat_result, is_new: bool, prefix: str) -> Parsed:
    """The ticket in a file; one that is new may be written this very moment."""
    id = composed(path.stem) if usable_id(path.stem) else None
    if not stat.S_ISREG(found.st_mode):
        if stat.S_ISLNK(found.st_mode) and _is_second_name(path):
            return Parsed(None)
        what = "it is a link, and links are not followed" if stat.S_ISLNK(found.st_mode) else "it is not a file"
        return Parsed(BadTicket(path, 1, what, id))
    try:
        data = read_plain(path, LARGEST, follow=False)
    except OSError as error:
        return Parsed(BadTicket(path, 1, f"it cannot be read: {error.strerror}", id))
    try:
        text = _decoded(data)
        if is_new and (not text or is_cut_off(text)):
            return Parsed(BadTicket(path, 1, "it is only half-written", id))
        return parsed(path, text, prefix)
    except Malformed as error:
        closed = parsed(path, data.decode(_utf16(data) or "utf-8", errors="replace"), prefix)
        if closed.ticket is None or (isinstance(closed.ticket, Ticket) and closed.ticket.status == "closed"):
            return closed
        return Parsed(BadTicket(path, error.line, error.reason, id))


def _is_second_name(path: Path) -> bool:
    """Whether a link leads to a file of its own folder, which is read under its own name."""
    real = Path(os.path.realpath(path))  # unlike Path.resolve it does not mind links in a circle
    return real.parent == path.parent.resolve() and real.is_file()


def _opened(path: Path, id: str) -> _Opened | None:
    """The file's ticket if the file is there, its ticket is usable and has this id."""
    try:
        before = nofollow.lstat(path)
        text = _decoded(read_plain(path, LARGEST, follow=False))
        ticket = parsed(path, text).ticket
    except (OSError, Malformed):
        return None
    return _Opened(ticket, text, before) if isinstance(ticket, Ticket) and ticket.id == id else None


def _decoded(data: bytes) -> str:
    if len(data) > LARGEST:
        raise Malformed(1, f"it is larger than {LARGEST >> 20} MiB")
    if _utf16(data) is not None:
        raise Malformed(1, "it is UTF-16, save it as UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(data.count(b"\n", 0, error.start) + 1, "it is not UTF-8") from None


def _utf16(data: bytes) -> str | None:
    """The name of this encoding if the data has its mark, or a head's first line in it, as some editors leave out the mark."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return next((name for name in ("utf-16-le", "utf-16-be") if data.startswith("---".encode(name))), None)


def _with_note(text: str, note: str, at: int) -> str:
    # To tk, a line --- anywhere begins or ends front matter.
    note = _FENCE_LIKE.sub(" ---", inert(note.strip("\r\n")))
    section = "" if _NOTES.search(text) else "\n## Notes\n"
    added = f"{section}\n**{iso(at)[:19]}Z**\n\n{note}\n"
    return text + (added.replace("\n", "\r\n") if text.partition("\n")[0].endswith("\r") else added)
