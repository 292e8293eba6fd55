"""Tickets as Markdown files with YAML front matter, one file each in one folder, as the `tk` tool keeps them.

Used by the runner and by `ralph-rpc tickets`. People, agents and `tk` write the same files at any time: a
file that is half-written or broken is a bad ticket until it is mended, and never in the way of the others. A
change touches one field or appends a note, and replaces the file as a whole; if the machine dies, the file is
old or new.
"""

import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, cast

from ralph_rpc.clock import iso, now_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files.atomic import read_plain, write_atomic
from ralph_rpc.text import inert, line_of
from ralph_rpc.tickets.deps import wrong_deps
from ralph_rpc.tickets.frontmatter import Field, Malformed, fields, with_field
from ralph_rpc.tickets.ticket import PRIORITIES, STATUSES, Backlog, BadTicket, Status, Ticket, safe_id

LARGEST = 1 << 20
"""Bytes of a ticket."""
_TOUCHED_NS = 2_000_000_000
"""What changed so shortly before it was read may change again and look the same: file times are coarse."""
_TRIES = 5

_TITLE = re.compile(r"^# +(\S.*)", re.MULTILINE)
_NOTES = re.compile(r"^## Notes", re.MULTILINE)
_FENCE_LIKE = re.compile(r"^---$", re.MULTILINE)

Stamp = tuple[int, int, int, int, int]


class _Known(NamedTuple):
    """What a file held when it was read."""

    stamp: Stamp | None
    """None: it must be read again."""
    found: Ticket | BadTicket
    id_line: int


def find_folder(project: Path, environ: Mapping[str, str]) -> Path | None:
    """`$TICKETS_DIR`, or the `.tickets` of the project or of its nearest parent that has one."""
    given = environ.get("TICKETS_DIR")
    if given:
        return project / Path(given).expanduser()
    return next((found for at in (project, *project.parents) if (found := at / ".tickets").is_dir()), None)


class MarkdownTickets:
    """The tickets of a folder: a `TicketSource`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, _Known] = {}
        self._backlog: Backlog | None = None

    def scan(self) -> Backlog:
        """The backlog as it is now; only files that look different are read again."""
        known = self._look()
        if self._backlog is None or not _same(known, self._known):
            self._backlog = _backlog(known)
        self._known = known
        return self._backlog

    def text(self, id: str) -> str:
        """The whole text of a ticket."""
        return self._open(id)[1]

    def set_status(self, id: str, status: Status) -> None:
        """Change the status in place."""
        self._edit(id, lambda text: with_field(text, "status", status))

    def add_note(self, id: str, text: str) -> None:
        """Append a note as `tk add-note` does: under `## Notes`, which is made if it is not there."""
        self._edit(id, lambda old: _with_note(old, text, now_ms()))

    def _look(self) -> dict[str, _Known]:
        """Every file of the folder, read if it is not known yet."""
        try:
            with os.scandir(self.folder) as entries:
                files = sorted(
                    (entry for entry in entries if _is_ticket(entry.name)), key=lambda entry: entry.name
                )
        except OSError as error:
            raise RalphError(
                f"cannot read the tickets in {self.folder}: {error.strerror}",
                "make some with tk, or set TICKETS_DIR",
            ) from error
        settled = time.time_ns() - _TOUCHED_NS
        known: dict[str, _Known] = {}
        for entry in files:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # it is gone
            stamp = _stamp(found)
            before = self._known.get(entry.name)
            if before is not None and before.stamp == stamp:
                known[entry.name] = before
            else:
                ticket, id_line = _read(self.folder / entry.name, found)
                known[entry.name] = _Known(stamp if found.st_ctime_ns < settled else None, ticket, id_line)
        return known

    def _open(self, id: str) -> tuple[Path, str, os.stat_result]:
        """The file of a ticket, its text, and what it looked like before that was read."""
        if not safe_id(id):
            raise RalphError(f"{id!r} is no id of a ticket")
        path = self.folder / f"{id}.md"
        opened = _opened(path, id)
        if opened is None:
            backlog = self.scan()
            if id in backlog.tickets:
                path = backlog.tickets[id].path
                opened = _opened(path, id)
        if opened is None:
            wrong = next((one for one in self.scan().bad if one.id == id), None)
            if wrong is None:
                raise RalphError(
                    f"there is no ticket {id} in {self.folder}", "ralph-rpc tickets shows those there are"
                )
            raise RalphError(
                f"ticket {id} cannot be used: {wrong.path}:{wrong.line}: {wrong.reason}", "repair its file"
            )
        return path, *opened

    def _edit(self, id: str, change: Callable[[str], str]) -> None:
        with _alone(self.folder):
            for _ in range(_TRIES):
                path, text, before = self._open(id)
                if self._replaced(path, text, before, change):
                    return
        raise RalphError(
            f"cannot change ticket {id}: its file keeps changing", "end what writes it, then try again"
        )

    def _replaced(self, path: Path, text: str, before: os.stat_result, change: Callable[[str], str]) -> bool:
        """Whether the file now holds the changed text; if not, somebody else wrote it since it was read."""
        try:
            changed = change(text)
            if changed == text:
                return True
            data = changed.encode()
            if len(data) > LARGEST:
                raise RalphError(f"cannot write {path}: a ticket has at most {LARGEST >> 20} MiB")
            if _stamp(path.lstat()) != _stamp(before):
                return False
            write_atomic(path, data, mode=stat.S_IMODE(before.st_mode))
            return True
        except Malformed as error:
            raise RalphError(
                f"cannot change {path}:{error.line}: {error.reason}", "change it by hand"
            ) from None
        except OSError as error:
            raise RalphError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of all loops, only this one changes the backlog meanwhile. People and `tk` know no lock."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RalphError(f"cannot read the tickets in {folder}: {error.strerror}") from error
    try:
        with suppress(OSError):  # a file system that cannot lock a folder
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_ticket(name: str) -> bool:
    return name.endswith(".md") and not name.startswith(".")


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def _same(new: dict[str, _Known], old: dict[str, _Known]) -> bool:
    """Whether the files say the same as before; the same objects mostly, which is quick."""
    return new.keys() == old.keys() and all(
        known is old[name] or known.found == old[name].found for name, known in new.items()
    )


def _backlog(known: Mapping[str, _Known]) -> Backlog:
    """All that can be used, and all that is wrong."""
    bad: list[BadTicket] = []
    by_id: dict[str, list[_Known]] = {}
    for one in known.values():
        if isinstance(one.found, Ticket):
            by_id.setdefault(one.found.id, []).append(one)
        else:
            bad.append(one.found)
    tickets: dict[str, Ticket] = {}
    for id, same in by_id.items():
        if len(same) == 1:
            tickets[id] = cast(Ticket, same[0].found)
            continue
        # Which one is meant, nobody can know.
        for one in same:
            others = ", ".join(
                inert(other.found.path.name, keep_newlines=False) for other in same if other is not one
            )
            bad.append(BadTicket(one.found.path, one.id_line, f"id {id} is that of {others}, too", id))
    bad += wrong_deps(tickets, bad)
    return Backlog(tickets, tuple(sorted(bad, key=lambda one: (one.path, one.line))))


def _read(path: Path, found: os.stat_result) -> tuple[Ticket | BadTicket, int]:
    """The ticket in a file, and the line of its id."""
    id = path.stem if safe_id(path.stem) else None
    if not stat.S_ISREG(found.st_mode):
        what = (
            "it is a link, and links are not followed" if stat.S_ISLNK(found.st_mode) else "it is not a file"
        )
        return BadTicket(path, 1, what, id), 1
    try:
        return _parsed(path, _decoded(read_plain(path, LARGEST, follow=False)))
    except OSError as error:
        return BadTicket(path, 1, f"it cannot be read: {error.strerror}", id), 1
    except Malformed as error:
        return BadTicket(path, error.line, error.reason, id), 1


def _opened(path: Path, id: str) -> tuple[str, os.stat_result] | None:
    """The text of the file if it is there, is a usable ticket and has this id."""
    try:
        before = path.lstat()
        text = _decoded(read_plain(path, LARGEST, follow=False))
        ticket, _ = _parsed(path, text)
    except (OSError, Malformed):
        return None
    return (text, before) if isinstance(ticket, Ticket) and ticket.id == id else None


def _decoded(data: bytes) -> str:
    if len(data) > LARGEST:
        raise Malformed(1, f"it is larger than {LARGEST >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(data.count(b"\n", 0, error.start) + 1, "it is not UTF-8") from None


def _parsed(path: Path, text: str) -> tuple[Ticket | BadTicket, int]:
    """What the fields mean; only these mean anything, whatever else a ticket says. Raises Malformed."""
    found, body = fields(text)
    if "id" not in found:
        raise Malformed(1, "it has no id")
    id, id_line = _word(found, "id", ""), found["id"].line
    if not safe_id(id):
        raise Malformed(id_line, f"id {_shown(id)} cannot be the name of a file and a branch")
    try:
        status = _word(found, "status", "open")
        if status not in STATUSES:
            raise Malformed(found["status"].line, f"status {_shown(status)} is none of {', '.join(STATUSES)}")
        priority = _word(found, "priority", "2")
        if not (len(priority) == 1 and priority in "".join(map(str, PRIORITIES))):
            raise Malformed(
                found["priority"].line, f"priority {_shown(priority)} is not 0 to {PRIORITIES[-1]}"
            )
        title = _TITLE.search(text, body)
        ticket = Ticket(
            id, status, path, title[1].rstrip() if title else "", _listed(found, "deps"),
            _listed(found, "links"), _listed(found, "tags"), int(priority), _word(found, "type", "task"),
            _word(found, "assignee", ""), _word(found, "parent", ""), _word(found, "created", ""),
            found["deps"].line if "deps" in found else id_line,
        )  # fmt: skip
    except Malformed as error:
        return BadTicket(path, error.line, error.reason, id), id_line
    return ticket, id_line


def _word(found: Mapping[str, Field], key: str, default: str) -> str:
    field = found.get(key)
    if field is None or field.value == "":
        return default
    if not isinstance(field.value, str):
        raise Malformed(field.line, f"{key} is not plain text")
    return field.value


def _listed(found: Mapping[str, Field], key: str) -> tuple[str, ...]:
    """A list, each member once; of plain text, as `tk` takes it, what the commas separate."""
    field = found.get(key)
    if field is None:
        return ()
    if field.value is None:
        raise Malformed(field.line, f"{key} is not a list of plain texts")
    items = (item.strip() for item in field.value.split(",")) if isinstance(field.value, str) else field.value
    return tuple(dict.fromkeys(item for item in items if item))


def _shown(value: str) -> str:
    return repr(line_of(value, 40))


def _with_note(text: str, note: str, at: int) -> str:
    # tk takes a line --- anywhere for the beginning or the end of front matter.
    note = _FENCE_LIKE.sub(" ---", inert(note.strip("\r\n")))
    section = "" if _NOTES.search(text) else "\n## Notes\n"
    added = f"{section}\n**{iso(at)[:19]}Z**\n\n{note}\n"
    return text + (added.replace("\n", "\r\n") if text.partition("\n")[0].endswith("\r") else added)
