"""The little of Markdown that lessons need: headings, items of lists, paragraphs. Pure; called by `lessons`.

Made for text that models write: nothing is an error, and the time taken grows with the text only. It is not CommonMark,
on purpose: there a stray fence swallows everything below it, and code that is not indented ends the item it belongs to.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ralph_rpc.prompts.fences import BULLET, opened_by, without_bullets
from ralph_rpc.terminal.inert import inert

_HEADING = re.compile(r" {0,3}(#{1,6})(?:\s+(.*))?$")
_LEAD = re.compile(r"(?:(?:[-*+•]|[0-9]{1,3}[.)])\s+|`{3,}(?=[^`]*$)|~{3,})")


class Heading(NamedTuple):
    line: int
    level: int
    title: str


class Item(NamedTuple):
    """An item of a list (`bullet`) or a paragraph: lines [start, end), its text on one line."""

    start: int
    end: int
    text: str
    bullet: bool

    @property
    def introduces(self) -> bool:
        """Says only what the following items are about."""
        return not self.bullet and self.text.endswith(":")


def headings(lines: Sequence[str], outside: Sequence[bool]) -> Iterator[Heading]:
    """All headings outside of code fences."""
    for at, line in enumerate(lines):
        if outside[at] and (found := _HEADING.match(line.rstrip())):
            yield Heading(at, len(found[1]), (found[2] or "").rstrip("#").strip())


def items(lines: Sequence[str], outside: Sequence[bool], start: int, end: int) -> Iterator[Item]:
    """The items and paragraphs of some lines. What is indented below an item belongs to it, lists too."""
    open_item: _Open | None = None
    for at in range(start, end):
        line = lines[at]
        if not line.strip():
            if open_item:
                open_item.blank = True
            continue
        fence = not outside[at] and opened_by(line) != ""
        if outside[at] and (_HEADING.match(line.rstrip()) or _is_rule(line)):
            yield from _closed(open_item)
            open_item = None
        elif open_item and open_item.takes(line, outside[at], fence):
            open_item.add(at, "" if fence else line)
        else:
            yield from _closed(open_item)
            bullet = BULLET.match(line) is not None and (outside[at] or fence)
            open_item = _Open(at, _indent(line), bullet)
            open_item.add(at, "" if fence else line)
    yield from _closed(open_item)


def tidy(text: str, limit: int) -> str:
    """One inert line of at most `limit` characters that, written as an item, reads the same again."""
    text = inert(" ".join(text.split()), keep_newlines=False)
    if len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    while lead := _LEAD.match(text):
        text = text[lead.end() :].strip()
    return text


@dataclass
class _Open:
    """The item being read."""

    start: int
    indent: int
    bullet: bool
    end: int = 0
    blank: bool = False
    parts: list[str] = field(default_factory=list)

    def takes(self, line: str, outside: bool, fence: bool) -> bool:
        """Whether the line still belongs to this item."""
        deeper = _indent(line) > self.indent
        if not outside and not fence:  # code
            return True
        if BULLET.match(line):
            return self.bullet and _indent(line) > self.indent + 1
        return fence or not self.blank or (self.bullet and deeper)

    def add(self, at: int, line: str) -> None:
        self.end = at + 1
        self.blank = False
        self.parts.append(without_bullets(line).strip())


def _closed(item: _Open | None) -> Iterator[Item]:
    if item and (text := " ".join(filter(None, item.parts))):
        yield Item(item.start, item.end, text, item.bullet)


def _is_rule(line: str) -> bool:
    bare = "".join(line.split())
    return len(bare) >= 3 and bare[0] in "-*_" and bare == bare[0] * len(bare)


def _indent(line: str) -> int:
    line = line.expandtabs(4)
    return len(line) - len(line.lstrip())
