"""Lessons as text: those an agent ends its work with, and the file that keeps them. Pure; called by `memory`.

The file is Markdown, in the format of `.tf/ralph/AGENTS.md`: a section `## Lesson from <id> (<time>)` per
ticket. Ours hold a list, one lesson an item; a section with prose in it, as other tools write it, is one
lesson. Whatever is under such a heading is a lesson, and is dropped when it is among the oldest of too many. All other
text belongs to people: it is never changed, and its items and paragraphs go into prompts as well.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ralph_rpc.clock import iso
from ralph_rpc.prompts import fences
from ralph_rpc.tickets.notes.items import Item, headings, items, tidy

LONGEST = 500
"""Characters of one lesson."""
MOST_AT_ONCE = 20
"""Lessons from one text: an agent that writes more has not been selective."""
LONGEST_SECTION = 2_000
"""Characters of a lesson in prose, which another tool wrote."""
LONGEST_ALL = 32_000
"""Characters of all lessons in one prompt."""

_TITLES = ("lessons", "lessons learned")
_SECTION = re.compile(r"lesson from\s", re.IGNORECASE)
_NOTHING = {"none", "na", "nothing", "nothingnew", "nolessons", "nonewlessons", "nonenew"}
_NEW_FILE = "# Ralph Lessons Learned\n\n## Patterns\n\n## Gotchas\n"


def lessons_in(text: str, marker: str = "") -> list[str]:
    """What the agent put under a heading `Lessons` or `Lessons Learned` of any level, one line each.

    Items of lists, with the lines that belong to them, and paragraphs; up to the next heading that is not
    below. `marker` is the loop's completion marker, which is not a lesson.
    """
    lines = [line for line in text.split("\n") if not marker or line.strip() != marker]
    outside = fences.outside(lines)
    found = list(headings(lines, outside))
    told: dict[str, str] = {}
    for index, heading in enumerate(found):
        if heading.title.strip("*_: ").casefold() in _TITLES:
            # By index: a slice for each heading would make the cost that of the text's square.
            ends = (found[i].line for i in range(index + 1, len(found)) if found[i].level <= heading.level)
            for item in items(lines, outside, heading.line + 1, next(ends, len(lines))):
                lesson = tidy(item.text, LONGEST)
                if _key(lesson) and lesson != marker and not item.introduces:
                    told.setdefault(_key(lesson), lesson)
    return list(told.values())[:MOST_AT_ONCE]


def recorded(text: str) -> list[str]:
    """The lessons of the file for a prompt, people's own notes included, in the order of the file.

    If there are too many for a prompt, the oldest lessons are left out.
    """
    page = _Page.of(text)
    room = LONGEST_ALL
    chosen: list[_Lesson] = []
    for lesson in [*page.notes, *reversed(page.lessons)]:
        room -= len(lesson.text)
        if room < 0:
            break
        chosen.append(lesson)
    return [lesson.text for lesson in sorted(chosen, key=lambda lesson: lesson.start)]


def extended(text: str | None, ticket: str, at: int, lessons: Sequence[str], most: int) -> tuple[str, list[str]]:
    """The file with the lessons that it does not have yet, and these; the oldest beyond `most` are gone.

    A lesson is known if it differs only in case, spaces and punctuation. `at` in epoch milliseconds.
    """
    text = text if text and text.strip() else _NEW_FILE
    page = _Page.of(text)
    known = set(page.keys)
    new: list[str] = []
    for lesson in (tidy(lesson, LONGEST) for lesson in lessons):
        if _key(lesson) and _key(lesson) not in known:
            known.add(_key(lesson))
            new.append(lesson)
    new = new[-most:] if most > 0 else []
    if not new:
        return text, []
    end = "\r\n" if "\r\n" in text else "\n"
    section = [f"## Lesson from {ticket} ({iso(at)[:19]}Z)", "", *(f"- {lesson}" for lesson in new)]
    kept = page.without_oldest(len(page.lessons) + len(new) - most).rstrip("\r\n")
    return f"{kept}{end * 2 if kept else ''}{end.join(section)}{end}", new


def _key(lesson: str) -> str:
    """What two forms of the same lesson have in common; empty if it says nothing."""
    key = re.sub(r"[\W_]+", "", lesson.casefold())
    return "" if key in _NOTHING else key


@dataclass(frozen=True)
class _Lesson:
    """Lines [start, end) of the file."""

    start: int
    end: int
    text: str


@dataclass
class _Page:
    """The file, taken apart."""

    lines: list[str]
    notes: list[_Lesson] = field(default_factory=list)
    lessons: list[_Lesson] = field(default_factory=list)
    sections: list[range] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, text: str) -> "_Page":
        lines = text.split("\n")
        outside = fences.outside(lines)
        starts = [heading for heading in headings(lines, outside) if heading.level <= 2]
        ends = [*(heading.line for heading in starts), len(lines)]
        page = cls(lines)
        page._read(list(items(lines, outside, 0, ends[0])), None)
        for heading, end in zip(starts, ends[1:], strict=True):
            told = list(items(lines, outside, heading.line + 1, end))
            lesson = heading.level == 2 and _SECTION.match(heading.title)
            page._read(told, range(heading.line, end) if lesson else None)
        return page

    def _read(self, told: list[Item], section: range | None) -> None:
        self.keys.update(_key(tidy(item.text, LONGEST)) for item in told)
        if section is None:
            self.notes += _each(told)
        elif all(item.bullet or item.introduces for item in told):
            self.sections.append(section)
            self.lessons += _each(told)
        else:
            self.sections.append(section)
            whole = tidy(" ".join(item.text for item in told), LONGEST_SECTION)
            self.lessons.append(_Lesson(section.start, section.stop, whole))

    def without_oldest(self, count: int) -> str:
        """The text without its first `count` lessons, and without the headings that have none left."""
        gone = {line for old in self.lessons[: max(count, 0)] for line in range(old.start, old.end)}
        left = {lesson.start for lesson in self.lessons[max(count, 0) :]}
        for section in self.sections if gone else ():
            if gone.intersection(section) and not left.intersection(section):
                gone.update(section)
        return "\n".join(line for at, line in enumerate(self.lines) if at not in gone)


def _each(told: list[Item]) -> Iterator[_Lesson]:
    for item in told:
        text = tidy(item.text, LONGEST)
        if _key(text) and not item.introduces:
            yield _Lesson(item.start, item.end, text)
