"""Front matter as `tk` reads it: each line that begins with `key:` gives the key, and the last one counts. Pure.

Called by `frontmatter` for heads that YAML cannot read, such as `assignee: @joe`, which `tk` writes without a thought. It
never fails. In addition to what `tk` knows it reads lists over several lines, quotes and comments as YAML does, as far
as one line shows them: a dependency that it missed would let a ticket start too early.
"""

import re
from collections.abc import Sequence

from ralph_rpc.tickets.sources.field import Field, Place, Value

_KEY = re.compile(
    r"""(?P<quote>["']?)(?P<key>[^\W\d][\w -]*+)(?P=quote)[ \t]*+:(?:[ \t]++(?P<value>\S.*)?|(?P<tight>[^\s:/].*))?"""
)
"""A key at the beginning of a line. Without a space behind the colon it is one to `tk` alone."""
_ITEM = re.compile(r"[ \t]*+-(?:[ \t]++(.*)|)")
_COMMENT = re.compile(r"[ \t]++#.*")
_QUOTED = re.compile(r"""(["'])(.*)\1(?:[ \t]*+|[ \t]++#.*)""")
_NUMBERED = re.compile(r"#\w")
"""No comment to people: `deps: [#12]`."""
_PLAIN_COMMENT = re.compile(r"[ \t]++#(?!\w).*")
_HEAD = re.compile(r"""["']?[^\W\d][\w -]*+["']?[ \t]*+:|[ \t]*+-[ \t]|[ \t]++\S|[\])}]""")
"""How a line of a head begins: a key, an item, what is indented below them, the end of a bracket."""


def fields(head: str, first: int) -> dict[str, Field]:
    """The fields of a head, whose first line has this number."""
    lines = head.split("\n")
    found: dict[str, tuple[Value, int]] = {}
    places: dict[str, list[Place]] = {}
    at = 0
    for number, line in enumerate(lines):
        match = _KEY.fullmatch(line.rstrip(" \t\r"))
        if match is not None:
            key = match["key"].rstrip()
            group = "tight" if match["tight"] else "value"
            start = at + (match.end() if match[group] is None else match.start(group))
            value, length, quote = _scalar(match[group] or "", keeps_number=key == "deps")
            found[key] = _listed(value, quote, lines, number + 1), first + number
            places.setdefault(key, []).append((start, start + length, quote))
        at += len(line) + 1
    return {key: Field(value, line, *places[key][-1], tuple(places[key][:-1])) for key, (value, line) in found.items()}


def end_of_head(text: str, start: int) -> int:
    """Where a head ends that nothing closes: before the first line that cannot be one of its own."""
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end + 1
        if not _HEAD.match(text, start, end):
            break
        start = end
    return start


def _scalar(text: str, keeps_number: bool = False) -> tuple[str, int, str]:
    """The value on a key's line without quotes and comment, how many characters it takes, and its quote."""
    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        return quoted[2].strip(), quoted.end(2) + 1, quoted[1]
    comment = _PLAIN_COMMENT if keeps_number else _COMMENT
    is_comment = text.startswith("#") and not (keeps_number and _NUMBERED.match(text))
    bare = "" if is_comment else comment.sub("", text, count=1).rstrip()
    return bare, len(bare), ""


def _listed(value: str, quote: str, lines: Sequence[str], below: int) -> Value:
    """A list in brackets, or as items in the lines from `below` on; else the text itself."""
    if not value and not quote:
        return _items(lines, below) or ""
    if quote or not value.startswith("["):
        return value
    parts = [value[1:]]
    while "]" not in parts[-1] and below < len(lines) and not _KEY.fullmatch(lines[below].rstrip(" \t\r")):
        parts.append(_PLAIN_COMMENT.sub("", f" {lines[below].strip()}"))
        below += 1
    inside = " ".join(parts).partition("]")[0]
    if "[" in inside or "{" in inside:
        return None
    return tuple(filter(None, (_scalar(item.strip(), keeps_number=True)[0] for item in inside.split(","))))


def _items(lines: Sequence[str], below: int) -> tuple[str, ...]:
    found: list[str] = []
    for number in range(below, len(lines)):
        line = lines[number].strip(" \t\r")
        item = _ITEM.fullmatch(line)
        if item is not None:
            found.append(_scalar(item[1] or "", keeps_number=True)[0])
        elif line and not line.startswith("#"):
            break
    return tuple(filter(None, found))
