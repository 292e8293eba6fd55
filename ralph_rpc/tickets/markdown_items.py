"""The little of Markdown that lessons need: headings, code fences, items of lists, paragraphs. Pure.

Made for text that models write: nothing is an error, and the time taken grows with the text only. A fence
that is never closed is none, otherwise it would swallow all that comes after it. Called by `lessons`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ralph_rpc.text import inert

_HEADING = re.compile(r" {0,3}(#{1,6})(?:\s+(.*))?$")
_BULLET = re.compile(r"\s*(?:[-*+•]|[0-9]{1,3}[.)])\s+")
_LEAD = re.compile(r"(?:(?:[-*+•]|[0-9]{1,3}[.)])\s+|`{3,}(?=[^`]*$)|~{3,})")
_FENCE = re.compile(r"\s*(`{3,}(?=[^`]*$)|~{3,})")


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


def plain(lines: Sequence[str]) -> list[bool]:
    """For each line whether it is outside of code fences; the fences themselves are not."""
    outside = [True] * len(lines)
    closable = _longest_below(lines)
    at = 0
    while at < len(lines):
        opened = _fence(lines[at])
        if opened and len(opened) <= closable[opened[0]][at]:
            closed = next(later for later in range(at + 1, len(lines)) if _closes(lines[later], opened))
            outside[at : closed + 1] = [False] * (closed + 1 - at)
            at = closed
        at += 1
    return outside


def _longest_below(lines: Sequence[str]) -> dict[str, list[int]]:
    """For each line the longest fence that any later line can close, by the fence's character."""
    longest = {char: [0] * len(lines) for char in "`~"}
    for char, lengths in longest.items():
        for at in range(len(lines) - 1, 0, -1):
            bare = lines[at].strip()
            length = len(bare) if bare and bare == char * len(bare) else 0
            lengths[at - 1] = max(lengths[at], length)
    return longest


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
        bare = _FENCE.match(_without_bullets(line)) if not outside[at] else None
        if outside[at] and (_HEADING.match(line.rstrip()) or _is_rule(line)):
            yield from _closed(open_item)
            open_item = None
        elif open_item and open_item.takes(line, outside[at], bare is not None):
            open_item.add(at, "" if bare else line)
        else:
            yield from _closed(open_item)
            bullet = _BULLET.match(line) is not None and (outside[at] or bare is not None)
            open_item = _Open(at, _indent(line), bullet)
            open_item.add(at, "" if bare else line)
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
        if _BULLET.match(line):
            return self.bullet and _indent(line) > self.indent + 1
        return fence or not self.blank or (self.bullet and deeper)

    def add(self, at: int, line: str) -> None:
        self.end = at + 1
        self.blank = False
        self.parts.append(_without_bullets(line).strip())


def _closed(item: _Open | None) -> Iterator[Item]:
    if item and (text := " ".join(filter(None, item.parts))):
        yield Item(item.start, item.end, text, item.bullet)


def _without_bullets(line: str) -> str:
    at = 0
    while found := _BULLET.match(line, at):
        at = found.end()
    return line[at:]


def _is_rule(line: str) -> bool:
    bare = "".join(line.split())
    return len(bare) >= 3 and bare[0] in "-*_" and bare == bare[0] * len(bare)


def _indent(line: str) -> int:
    line = line.expandtabs(4)
    return len(line) - len(line.lstrip())


def _fence(line: str) -> str:
    """The characters of the fence that this line may open, otherwise nothing."""
    found = _FENCE.match(_without_bullets(line))
    return found[1] if found else ""


def _closes(line: str, opened: str) -> bool:
    line = line.strip()
    return len(line) >= len(opened) and line == opened[0] * len(line)
