"""One value of a ticket's front matter, and where it stands. Pure; made by `frontmatter` and `line_rule`."""

from typing import NamedTuple

Value = str | tuple[str, ...] | None
"""Text, a list of texts, or None for what is more than that."""

Place = tuple[int, int, str]
"""A value's characters, counted from the beginning of the front matter, and its quote: start, end, quote."""


class Field(NamedTuple):
    """The value of one key, and where it is."""

    value: Value
    line: int
    """Of the key; counted from 1, in the whole file."""
    start: int
    end: int
    """The value's characters, counted from the beginning of the front matter."""
    quote: str = ""
    earlier: tuple[Place, ...] = ()
    """Of lines with the same key further up, whose values do not count."""
