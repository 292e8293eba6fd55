"""YAML front matter: the fields at the head of a Markdown file, and how one is changed in place. Pure.

Called by `markdown`. All values are text, as they are to the `tk` tool: an id `007` stays `007`, and no YAML type means
anything. Heads as `tk` writes them are read without YAML, in an eighth of the time; PyYAML reads all others; and where
it fails, `line_rule` reads the head as `tk` does, which knows no YAML. What could make a YAML parser explode is never
given to it: anchors, aliases, deep nesting, a very long head.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ralph_rpc.tickets.sources import line_rule
from ralph_rpc.tickets.sources.field import Field, Value

if TYPE_CHECKING:
    from yaml.events import Event

LONGEST = 64 << 10
"""Characters of front matter that YAML is asked about; a ticket has some hundred."""
DEEPEST = 16
"""Levels of nesting; libyaml takes quadratic time for thousands of them."""

_FENCE = "---"
_OPENS = re.compile(r"\ufeff?(?:(?:<!--(?:[^-]|-(?!->))*+-->)?[ \t\r]*+\n)*+---[ \t\r]*+\n")
"""Empty lines and comments, such as one for a linter, may stand before it."""
_NUMBERED = re.compile(r"^(?:deps:[^\n]*[ \[,]|[ \t]*-[ \t]+)#\w", re.MULTILINE)
"""`deps: [#12]`: YAML takes it for a comment, and the ticket would start too early."""
# Text that YAML reads as itself, with and without brackets around it: no indicator in front, no `: `, no
# ` #`, no comma. Possessive, as a long line must not be tried in every way.
_PLAIN = r"\w(?:[\w ./@+-]|:(?=[\w/]))*+"
_LIST = rf"\[(?: *+{_PLAIN}(?:, *+{_PLAIN})*+)?\]"
_LINE = re.compile(rf"([A-Za-z][\w-]*+):(?: ++(?:({_LIST}) *+|({_PLAIN})))? *+\r?")


class Malformed(Exception):
    """There is no front matter, or it means nothing usable, or it cannot be changed: where and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class Head(NamedTuple):
    """Where the front matter is."""

    start: int
    end: int
    body: int
    """Where the text behind it begins."""
    line: int
    """Of its first line, counted from 1."""
    is_closed: bool = True
    """There is a line that ends it."""


def is_cut_off(text: str) -> bool:
    """Whether there is a head with neither end nor text behind it, as while the file is being written."""
    try:
        head = _head(text)
    except Malformed:
        return False
    return not head.is_closed and head.body == len(text)


def fields(text: str) -> tuple[dict[str, Field], int]:
    """The fields of the front matter by key, and where the text behind it begins. Raises Malformed where there is none."""
    head = _head(text)
    return _fields(text[head.start : head.end], head.line), head.body


def _fields(head: str, first: int) -> dict[str, Field]:
    found = _of_lines(head, first)
    if found is None and len(head) <= LONGEST and not _NUMBERED.search(head):
        found = _of_yaml(head, first)
    return line_rule.fields(head, first) if found is None else found


def with_field(text: str, key: str, value: str) -> str:
    """The text with another value for a key, all else as it was; `value` is a plain word.

    A missing key comes first, where `tk` puts it. Raises Malformed, also where the form of the head allows no change
    that leaves everything else alone.
    """
    head = _head(text)
    start = head.start
    old = _fields(text[start : head.end], head.line)
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
        raise Malformed(line, f"{key} cannot be changed in place")
    return changed


def _values(found: dict[str, Field]) -> dict[str, Value]:
    return {key: field.value for key, field in found.items()}


def _replaced(text: str, start: int, field: Field, value: str) -> str:
    parts: list[str] = []
    done = 0
    # Every line that gives the key, as `tk` does.
    for begin, end, quote in (*field.earlier, (field.start, field.end, field.quote)):
        before, old = text[done : start + begin], text[start + begin : start + end]
        space = " " if before.endswith(":") else ""
        ending = old[len(old.rstrip("\r\n")) :]  # a block scalar has the end of its line in it
        parts += before, space, quote, value, quote, ending
        done = start + end
    return "".join((*parts, text[done:]))


def _head(text: str) -> Head:
    """Raises Malformed where the first line that is not empty is no fence."""
    found = _OPENS.match(text)
    if found is None:
        raise Malformed(1, "it has no front matter: the first line is not ---")
    start, line = found.end(), text.count("\n", 0, found.end()) + 1
    at = start - 1
    while (at := text.find("\n---", at)) >= 0:
        line_end = text.find("\n", at + 1)
        line_end = len(text) if line_end < 0 else line_end
        if text[at + 1 : line_end].rstrip() == _FENCE:
            return Head(start, at + 1, min(line_end + 1, len(text)), line)
        at += 1
    # Nothing says where it ends: with the last line that looks like one of a head.
    end = line_rule.end_of_head(text, start)
    return Head(start, end, end, line, is_closed=False)


def _of_lines(head: str, first: int = 2) -> dict[str, Field] | None:
    """The fields of a head in which each line is a key and plain text; None if it takes YAML to read it."""
    found: dict[str, Field] = {}
    at = 0
    for number, line in enumerate(head.split("\n"), first):
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
                found[key] = Field(tuple(filter(None, listed)), number, at + match.start(2), at + match.end(2))
            else:
                start = at + match.end(1) + 1
                found[key] = Field("", number, start, start)
        elif line.strip(" \r"):
            return None
        at += len(line) + 1
    return found


class _NotForYaml(Exception):
    """YAML may read it, and it would do harm, or mean something else than it means to `tk`."""


def _of_yaml(head: str, first: int = 2) -> dict[str, Field] | None:
    """The fields as YAML reads them; None if it cannot, or should not."""
    import yaml  # few backlogs need it, and it takes longer to load than they take to read

    # The loader serves as a parser only: it makes events, never values.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _top_level(_checked(yaml.parse(head, Loader=loader)), first)
    except (_NotForYaml, yaml.YAMLError):
        return None


def _checked(events: "Iterator[Event]") -> "Iterator[Event]":
    """The events, as long as they are harmless."""
    from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

    depth = 0
    for event in events:
        if isinstance(event, NodeEvent):
            depth += isinstance(event, CollectionStartEvent)
            if isinstance(event, AliasEvent) or event.anchor is not None or depth > DEEPEST:
                raise _NotForYaml
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        yield event


def _top_level(events: "Iterator[Event]", first: int) -> dict[str, Field]:
    """The keys and values of the one mapping that there must be; an empty head has none."""
    from yaml.events import MappingEndEvent, MappingStartEvent, ScalarEvent, StreamEndEvent

    found: dict[str, Field] = {}
    next(events)  # the stream begins
    if isinstance(next(events), StreamEndEvent):
        return found
    if not isinstance(next(events), MappingStartEvent):
        raise _NotForYaml
    while not isinstance(key := next(events), MappingEndEvent):
        # Of two values for one key, tk and YAML take different ones.
        if not isinstance(key, ScalarEvent) or key.value in found:
            raise _NotForYaml
        line = key.start_mark.line + first if key.start_mark else first
        found[key.value] = _field(line, next(events), events)
    next(events)  # the document ends
    if not isinstance(next(events), StreamEndEvent):
        raise _NotForYaml  # there is a second document
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


def _index(mark: Any) -> int:
    """libyaml's marks and those of the Python parser have no type in common."""
    index: int = mark.index
    return index
