"""What a ticket loop remembers from one ticket to the next: progress.md and the lessons.

`remember` is called once a ticket has ended, `read_lessons` before a prompt is built, `show_state` when the set of
running tickets changes. People edit both files too: what they wrote stays, and a file that cannot be read as text (too
large, not UTF-8, a link) is left alone and reported as a RalphError. Each file is replaced as a whole: a machine that
dies leaves the old one or the new one, and writing the same entry again changes nothing. An edit that somebody else
saves in the instant between our reading and our replacing is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import RalphError
from ralph_rpc.files.atomic import Unreadable, read_plain, write_atomic
from ralph_rpc.machine import nofollow
from ralph_rpc.tickets.notes import lessons as lesson_file
from ralph_rpc.tickets.notes import progress as progress_file
from ralph_rpc.tickets.notes.progress import TicketEntry

LARGEST = 8 << 20
"""Bytes of either file; a larger one is not read."""


@dataclass(frozen=True)
class MemoryPlaces:
    """Where the two files of a loop are."""

    progress: Path
    lessons: Path

    @classmethod
    def of(cls, project: Path, loop_dir: Path) -> "MemoryPlaces":
        """Those of `<project>/.tf/ralph` where that is a folder (not a link), otherwise the loop's own."""
        shared = project / ".tf" / "ralph"
        if nofollow.is_folder(shared):
            return cls(shared / "progress.md", shared / "AGENTS.md")
        return cls(loop_dir / "progress.md", loop_dir / "lessons.md")


def remember(places: MemoryPlaces, entry: TicketEntry, lessons: Sequence[str], most: int) -> list[str]:
    """Record how a ticket ended and what it taught; return the lessons that were not known yet.

    At most `most` lessons are kept, the oldest are dropped. Raises RalphError if a file could not be read or written;
    the other one is written all the same.
    """
    try:
        return _learn(places.lessons, entry, lessons, most)
    finally:
        text = progress_file.with_entry(_read(places.progress), entry)
        if text is not None:
            _write(places.progress, text)


def read_lessons(places: MemoryPlaces) -> list[str]:
    """All lessons for a prompt, in the order of the file. Raises RalphError."""
    return lesson_file.recorded(_read(places.lessons) or "")


def show_state(places: MemoryPlaces, status: str, running: Sequence[str], at: int) -> None:
    """Bring Current State of progress.md up to date: RUNNING, COMPLETE, STOPPED … Raises RalphError.

    `at` in epoch milliseconds.
    """
    _write(places.progress, progress_file.with_state(_read(places.progress), status, running, at))


def _learn(path: Path, entry: TicketEntry, lessons: Sequence[str], most: int) -> list[str]:
    if not lessons:
        return []
    text, new = lesson_file.extended(_read(path), entry.id, entry.ended_at, lessons, most)
    if new:
        _write(path, text)
    return new


def _read(path: Path) -> str | None:
    """The text of a file, None if there is none."""
    try:
        data = read_plain(path, LARGEST, follow=False)
        if len(data) > LARGEST:
            raise Unreadable(path, f"it is larger than {LARGEST >> 20} MiB")
        return data.decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise Unreadable(path, "it is not UTF-8") from error
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from error


def _write(path: Path, text: str) -> None:
    """Replace a file and keep its mode; a new one may be read by those who may read its folder."""
    try:
        there = nofollow.exists(path)
        mode = nofollow.lstat(path).st_mode & 0o777 if there else nofollow.lstat(path.parent).st_mode & 0o666
        write_atomic(path, text.encode(), mode)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RalphError(f"cannot write {path}: {reason}", "free some space, or fix the permissions") from error
