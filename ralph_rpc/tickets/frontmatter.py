"""YAML front matter: the fields at the head of a Markdown file, and how one is changed in place. Pure.

Called by `markdown`. All values are taken as text, as the `tk` tool takes them: an id `007` stays `007`, and
no type of YAML means anything. What YAML could be blown up with is refused: anchors, aliases, deep nesting, a
very long head. Heads as `tk` writes them are read without YAML, in an eighth of the time; PyYAML gets all
others.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from yaml.events import Event

LONGEST = 64 << 10
"""Characters of front matter; a ticket has some hundred."""
DEEPEST = 16
"""Levels of nesting; libyaml takes quadratic time for thousands of them."""

Value = str | tuple[str, ...] | None
"""Text, a list of texts, or None for what is more than that."""

_FENCE = "---"
# Text that is itself in YAML, too, with brackets around it and without: no indicator in front, no `: `, no
# ` #`, no comma. Possessive, as a long line must not be tried in every way.
_PLAIN = r"\w(?:[\w ./@+-]|:(?=[\w/]))*+"
_LIST = rf"\[(?: *+{_PLAIN}(?:, *+{_PLAIN})*+)?\]"
_LINE = re.compile(rf"([A-Za-z][\w-]*+):(?: ++(?:({_LIST}) *+|({_PLAIN})))? *+\r?")


class Malformed(Exception):
    """No front matter, or none that can be read: where and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class Field(NamedTuple):
    """The value of one key, and where it stands."""

    value: Value
    line: int
    """Of the key; counted from 1, in the whole file."""
    start: int
    end: int
    """The value's characters, counted from the beginning of the front matter."""
    quote: str = ""


def fields(text: str) -> tuple[dict[str, Field], int]:
    """The fields of the front matter by key, and where the text behind it begins. Raises Malformed."""
    start, end, body = _bounds(text)
    head = text[start:end]
    return _of_lines(head) or _of_yaml(head), body


def with_field(text: str, key: str, value: str) -> str:
    """The text with another value for a key, all else as it was; `value` is a plain word.

    A key that is not there comes first, where `tk` puts it. Raises Malformed, also where the form of the head
    does not allow a change that leaves all else alone.
    """
    start, _, _ = _bounds(text)
    old, _ = fields(text)
    line = old[key].line if key in old else 1
    if key in old:
        changed = _replaced(text, start, old[key], value)
    else:
        newline = "\r\n" if text[:start].endswith("\r\n") else "\n"
        changed = f"{text[:start]}{key}: {value}{newline}{text[start:]}"
    try:
        kept = _values(fields(changed)[0]) == _values(old) | {key: value}
    except Malformed:
        kept = False
    if not kept:
        raise Malformed(line, f"{key} cannot be changed where it stands")
    return changed


def _values(found: dict[str, Field]) -> dict[str, Value]:
    return {key: field.value for key, field in found.items()}


def _replaced(text: str, start: int, field: Field, value: str) -> str:
    before, old, after = (
        text[: start + field.start], text[start + field.start : start + field.end], text[start + field.end :],
    )  # fmt: skip
    space = " " if before.endswith(":") else ""
    ending = old[len(old.rstrip("\r\n")) :]  # a block scalar has the end of its line in it
    return f"{before}{space}{field.quote}{value}{field.quote}{ending}{after}"


def _bounds(text: str) -> tuple[int, int, int]:
    """Where the front matter begins, where it ends, and where the body begins."""
    start = text.find("\n") + 1
    if text[:start].removeprefix("\ufeff").rstrip() != _FENCE:
        raise Malformed(1, "it has no front matter: the first line is not ---")
    at = start - 1
    while (at := text.find("\n---", at, start + LONGEST)) >= 0:
        line_end = text.find("\n", at + 1)
        line_end = len(text) if line_end < 0 else line_end
        if text[at + 1 : line_end].rstrip() == _FENCE:
            return start, at + 1, min(line_end + 1, len(text))
        at += 1
    if len(text) > start + LONGEST:
        raise Malformed(1, f"its front matter has no end within {LONGEST >> 10} KiB")
    raise Malformed(1, "its front matter has no end: there is no second line ---")


def _of_lines(head: str) -> dict[str, Field] | None:
    """The fields of a head in which each line is a key and plain text; None if it takes YAML to read it."""
    found: dict[str, Field] = {}
    at = 0
    for number, line in enumerate(head.split("\n"), 2):
        match = _LINE.fullmatch(line)
        if match is not None:
            key, items, plain = match.groups()
            if key in found:
                return None
            if plain is not None:
                value = plain.rstrip(" ")
                start = at + match.start(3)
                found[key] = Field(value, number, start, start + len(value))
            elif items is not None:
                listed = [item.strip(" ") for item in items[1:-1].split(",")]
                found[key] = Field(
                    tuple(filter(None, listed)), number, at + match.start(2), at + match.end(2)
                )
            else:
                start = at + match.end(1) + 1
                found[key] = Field("", number, start, start)
        elif line.strip(" \r"):
            return None
        at += len(line) + 1
    return found


def _of_yaml(head: str) -> dict[str, Field]:
    import yaml  # few backlogs need it, and it takes longer to load than they take to read

    # The loader serves as a parser only: it makes events, never values.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _top_level(_checked(yaml.parse(head, Loader=loader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "it cannot be read"
        raise Malformed(mark.line + 2 if mark else 1, f"bad YAML: {reason}") from None
    except yaml.YAMLError as error:
        before = head[: getattr(error, "position", 0)]
        raise Malformed(before.count("\n") + 2, "bad YAML: it holds a control character") from None


def _checked(events: "Iterator[Event]") -> "Iterator[Event]":
    """The events as long as they are harmless."""
    from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

    depth = 0
    for event in events:
        if isinstance(event, NodeEvent):
            if isinstance(event, AliasEvent) or event.anchor is not None:
                raise _bad(event, "anchors and aliases are not allowed")
            depth += isinstance(event, CollectionStartEvent)
            if depth > DEEPEST:
                raise _bad(event, f"it is nested more than {DEEPEST} deep")
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        yield event


def _top_level(events: "Iterator[Event]") -> dict[str, Field]:
    """The keys and values of the one mapping that there must be; an empty head has none."""
    from yaml.events import MappingEndEvent, MappingStartEvent, ScalarEvent, StreamEndEvent

    found: dict[str, Field] = {}
    next(events)  # the stream begins
    if isinstance(next(events), StreamEndEvent):
        return found
    top = next(events)
    if not isinstance(top, MappingStartEvent):
        raise _bad(top, "the front matter is not made of keys and values")
    while not isinstance(key := next(events), MappingEndEvent):
        if not isinstance(key, ScalarEvent):
            raise _bad(key, "a key is not plain text")
        if key.value in found:
            # Of two values, tk takes another one than YAML.
            raise _bad(key, f"{key.value} is there twice")
        found[key.value] = _field(_line(key), next(events), events)
    next(events)  # the document ends
    if not isinstance(after := next(events), StreamEndEvent):
        raise _bad(after, "there is a second document")
    return found


def _field(line: int, first: "Event", events: "Iterator[Event]") -> Field:
    """The value that begins with an event, and the rest of its events taken."""
    from yaml.events import CollectionEndEvent, CollectionStartEvent, ScalarEvent, SequenceStartEvent

    start = _index(first.start_mark)
    if isinstance(first, ScalarEvent):
        quote = first.style if first.style in ("'", '"') else ""
        return Field(first.value.strip(), line, start, _index(first.end_mark), quote)
    items: list[str] = []
    flat = isinstance(first, SequenceStartEvent)
    depth = 1
    event = first
    while depth:
        event = next(events)
        if isinstance(event, CollectionStartEvent):
            flat = False
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        elif isinstance(event, ScalarEvent):
            items.append(event.value.strip())
    return Field(tuple(items) if flat else None, line, start, _index(event.end_mark))


def _bad(event: "Event", reason: str) -> Malformed:
    return Malformed(_line(event), f"bad YAML: {reason}")


def _line(event: "Event") -> int:
    return event.start_mark.line + 2 if event.start_mark else 1


def _index(mark: Any) -> int:
    """libyaml's marks and those of the Python parser have no type in common."""
    index: int = mark.index
    return index
