"""A ticket from its text: what the fields of its head mean. Pure; called by `markdown`.

A field that decides nothing never disqualifies a ticket, whatever stands in it; what is wrong with one that decides
whether the ticket may start (status, deps) keeps it from being started until a person has looked, and no more than
that. And closed is closed: of such a ticket nothing matters but its id.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ralph_rpc.terminal.width import line_of
from ralph_rpc.tickets.sources import words
from ralph_rpc.tickets.sources.field import Field
from ralph_rpc.tickets.sources.frontmatter import Malformed, fields
from ralph_rpc.tickets.ticket import COMPONENT, STATUSES, BadTicket, Doubt, Status, Ticket, usable_id

_OF_TK = frozenset(
    [
        "id",
        "status",
        "deps",
        "links",
        "created",
        "type",
        "priority",
        "assignee",
        "external-ref",
        "parent",
        "tags",
        "title",
    ]
)
"""Keys of which it is known what they mean."""
_TITLE = re.compile(r"^# +(\S.*)", re.MULTILINE)
_TITLES = ("title", "Title", "name", "summary", "subject")
_PARENTS = ("parent", "parent_id", "parentId", "epic", "epic_id", "epicId")
_CONFLICT = re.compile(r"^(?:<{7}|>{7})(?: |$)", re.MULTILINE)


class Parsed(NamedTuple):
    """What a file holds."""

    ticket: Ticket | BadTicket | None
    """None: it is no ticket at all, such as a README."""
    id_line: int = 1


def parsed(path: Path, text: str, prefix: str = COMPONENT) -> Parsed:
    """What the fields of a file mean; `prefix` begins its component tags."""
    try:
        found, body = fields(text)
    except Malformed:
        return Parsed(None)
    if (line := _line_of_conflict(text, body)) is not None:
        id = composed(_text(found, "id")) or path.stem
        reason = "its head holds both sides of a merge that git could not finish"
        return Parsed(BadTicket(path, line, reason, id if usable_id(id) else None))
    if "id" not in found:
        if _status_field(found) is None or _status(found) == "closed":
            return Parsed(None)
        return Parsed(BadTicket(path, 1, "it has no id", path.stem if usable_id(path.stem) else None))
    id, id_line = composed(_text(found, "id")), found["id"].line
    status = _status(found)
    if status != "closed" and not usable_id(id):
        reason = f"id {shown(id)} cannot be the name of a file" if id else "its id is not plain text"
        return Parsed(BadTicket(path, id_line, reason, path.stem if usable_id(path.stem) else None), id_line)
    return Parsed(_ticket(path, text, body, found, id, status, prefix), id_line)


def _ticket(
    path: Path, text: str, body: int, found: Mapping[str, Field], id: str, status: Status | None, prefix: str
) -> Ticket:
    title = (
        next(filter(None, (_text(found, key) for key in _TITLES)), "")
        or ((heading := _TITLE.search(text, body)) and heading[1])
        or ""
    )
    deps = _list(found, "deps")
    return Ticket(
        id,
        status or "open",
        path,
        title.rstrip(),
        deps,
        _list(found, "links"),
        _list(found, "tags"),
        words.priority_of(_text(found, "priority")),
        _text(found, "type") or "task",
        _people(found),
        composed(next(filter(None, (_text(found, key) for key in _PARENTS)), "")),
        _text(found, "created"),
        found["deps"].line if "deps" in found else found["id"].line,
        None if status == "closed" else next(_doubts(found, status, deps), None),
        () if status == "closed" else tuple(dependents(found)),
        prefix,
    )


def _line_of_conflict(text: str, body: int) -> int | None:
    """The line where git has written two versions of the head, of which nobody can know which one is meant."""
    mark = _CONFLICT.search(text, 0, body)
    return None if mark is None else text.count("\n", 0, mark.start()) + 1


def _status_field(found: Mapping[str, Field]) -> Field | None:
    """That of `tk`, or else one that people and other tools write for it."""
    return found.get("status") or next((found[key] for key in found if words.says_status(key)), None)


def _people(found: Mapping[str, Field]) -> str:
    """Who it is assigned to: one, or several with commas between them."""
    field = found.get("assignee") or found.get("assignees")
    value = "" if field is None else field.value
    return ", ".join(value) if isinstance(value, tuple) else value or ""


def _status(found: Mapping[str, Field]) -> Status | None:
    """None: nobody can know what it means."""
    field = _status_field(found)
    if field is None or field.value == "":
        return "open"
    return words.status_of(field.value) if isinstance(field.value, str) else None


def _doubts(found: Mapping[str, Field], status: Status | None, deps: tuple[str, ...]) -> Iterator[Doubt]:
    """Why nobody but a person can know whether the ticket may start."""
    if status is None and (field := _status_field(found)) is not None:
        told = f"status {shown(field.value)}" if isinstance(field.value, str) else "status"
        yield Doubt(f"{told} is none of {', '.join(STATUSES)}", field.line)
    if "deps" in found and found["deps"].value is None:
        yield Doubt("deps is not a list of plain texts", found["deps"].line)
    for key in found.keys() - _OF_TK:
        field = found[key]
        if words.says_deps(key) and (field.value is None or set(_items(field.value)) - set(deps)):
            why = f"{shown(key)} looks like dependencies, and only deps counts: move them to deps, or delete the key"
            yield Doubt(why, field.line)


def dependents(found: Mapping[str, Field]) -> Iterator[str]:
    """Which tickets wait for this one, by a key of another tool's."""
    for key in found.keys() - _OF_TK:
        if words.says_dependents(key) and (value := found[key].value):
            yield from _items(value)


def _text(found: Mapping[str, Field], key: str) -> str:
    """Plain text, empty for anything else."""
    value = found[key].value if key in found else ""
    return value if isinstance(value, str) else ""


def _list(found: Mapping[str, Field], key: str) -> tuple[str, ...]:
    """A list, each member once; of plain text, as `tk` takes it, what the commas separate."""
    value = found[key].value if key in found else ()
    return tuple(dict.fromkeys(_items(value))) if value else ()


def _items(value: str | tuple[str, ...]) -> list[str]:
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    return [composed(item) for item in items if not words.is_nothing(item)]


def composed(text: str) -> str:
    """With letters and their accents in one, so that what looks alike is alike."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def shown(value: str) -> str:
    """A value as a message names it."""
    return repr(line_of(value, 40))
