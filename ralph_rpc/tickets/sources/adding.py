"""A new ticket: a file of its own, in the form that `markdown` reads and `tk` keeps.

Called by `ralph-rpc tickets add`. The file is made under a name that no other has; if the machine dies here, it is there
as a whole, or torn, and then `tickets` names it as a bad one.
"""

import os
import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ralph_rpc.clock import iso, now_ms
from ralph_rpc.errors import UsageError
from ralph_rpc.files.atomic import write_all
from ralph_rpc.machine import nofollow, upward
from ralph_rpc.tickets.sources.markdown import MarkdownTickets, find_folder, find_tickets
from ralph_rpc.tickets.ticket import PRIORITIES, named

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]*")
"""What stands in the head of a ticket without quotes, and is a text to every reader of YAML."""
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?![.]|$|lock$)){0,63}")
"""Narrower than what is read: it becomes the name of a file and of a branch as it is."""
_LETTERS = string.ascii_lowercase + string.digits
_TRIES = 100


@dataclass(frozen=True)
class NewTicket:
    """What a person says of it."""

    title: str
    text: str = ""
    id: str | None = None
    """None: one is made up."""
    type: str = "task"
    priority: int = 2
    deps: Sequence[str] = ()
    tags: Sequence[str] = ()


def folder_for_new(start: Path) -> Path:
    """`$TICKETS_DIR`, the nearest `.tickets`, or a new one at the top of the repository, or here. It need not exist."""
    if find_folder(start, os.environ) is not None:
        return find_tickets(start, "")
    top = next((at for at in upward.own_folders(start) if (at / ".git").exists()), start)
    return top / ".tickets"


def add_ticket(folder: Path, new: NewTicket) -> Path:
    """Writes the ticket and returns its file. UsageError for what a reader would not take, OSError."""
    title = " ".join(new.title.split())
    if not title:
        raise UsageError("a ticket needs a title", "such as: ralph-rpc tickets add 'Parse the notes'")
    if new.priority not in PRIORITIES:
        raise UsageError(f"priority {new.priority} is none", "0 is the most urgent, 4 the least")
    for word in (new.type, *new.tags):
        if _WORD.fullmatch(word) is None:
            raise UsageError(f"{word!r} cannot stand in a ticket", "a type or tag is letters, digits and . _ : / + -")
    if new.deps:
        new = replace(new, deps=[_dep(dep, folder) for dep in new.deps])
    if new.id is not None and _ID.fullmatch(new.id) is None:
        raise UsageError(f"{new.id!r} is no id", "letters, digits, '.', '_' and '-', at most 64")
    if not nofollow.is_folder(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        nofollow.make_folder(folder, 0o755)
    for _ in range(_TRIES):
        id = new.id or f"{_prefix(folder)}-{''.join(random.choices(_LETTERS, k=4))}"
        try:
            return _written(folder / f"{id}.md", _content(id, title, new))
        except FileExistsError:
            if new.id is not None:
                raise UsageError(f"there is a ticket {id!r} already", f"see {folder / id}.md") from None
    raise UsageError(f"no id is free in {folder}", "give one with --id")


def _dep(part: str, folder: Path) -> str:
    """The id of the ticket that is meant by an id or a part of one."""
    found = named(part, MarkdownTickets(folder).scan().tickets) if folder.is_dir() else []
    if len(found) > 1:
        shown = ", ".join(found[:5])
        raise UsageError(f"--dep {part}: {len(found)} tickets have that in their id: {shown}", "say more of the id")
    if not found:
        raise UsageError(f"there is no ticket {part!r} in {folder}", "see: ralph-rpc tickets")
    return found[0]


def _prefix(folder: Path) -> str:
    """The first letters of the project's name, as `tk` does it: `my-notes` gives `mn`, `notes` gives `no`."""
    words = re.findall(r"[a-z0-9]+", folder.absolute().parent.name.lower())
    if len(words) > 1:
        return "".join(word[0] for word in words[:4])
    return words[0][:2] if words else "t"


def _content(id: str, title: str, new: NewTicket) -> str:
    head = [
        f"id: {id}",
        "status: open",
        f"deps: [{', '.join(new.deps)}]",
        "links: []",
        f"created: {iso(now_ms())[:19]}Z",
        f"type: {new.type}",
        f"priority: {new.priority}",
        *([f"tags: [{', '.join(new.tags)}]"] if new.tags else []),
    ]
    text = f"\n{new.text.strip()}\n" if new.text.strip() else ""
    return "---\n" + "\n".join(head) + f"\n---\n# {title}\n{text}"


def _written(path: Path, text: str) -> Path:
    fd = nofollow.open_fd(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        write_all(fd, text.encode())
    finally:
        os.close(fd)
    return path
