"""Code fences in text that models and people write: which lines are code. Pure.

Called by the runner's core (checklists), by the lessons of tickets, and by `attach` as text streams in. A fence that
is never closed is none: otherwise a single stray one would hide everything below it. It may stand in an item of a list
(`- ```sh`). The time taken grows with the text only.
"""

import re
from collections.abc import Sequence

BULLET = re.compile(r"\s*(?:[-*+•]|[0-9]{1,3}[.)])\s+")
_FENCE = re.compile(r"\s*(`{3,}(?=[^`]*$)|~{3,})")


def opened_by(line: str) -> str:
    """The characters of the fence that this line may open; empty if it opens none."""
    found = _FENCE.match(without_bullets(line))
    return found[1] if found else ""


def is_closed_by(line: str, fence: str) -> bool:
    """Whether this line closes the fence."""
    line = line.strip()
    return len(line) >= len(fence) and line == fence[0] * len(line)


def outside(lines: Sequence[str]) -> list[bool]:
    """For each line whether it is outside of code; the lines of the fences themselves are not."""
    found = [True] * len(lines)
    closable = _longest_below(lines)
    at = 0
    while at < len(lines):
        fence = opened_by(lines[at])
        if fence and len(fence) <= closable[fence[0]][at]:
            end = next(below for below in range(at + 1, len(lines)) if is_closed_by(lines[below], fence))
            found[at : end + 1] = [False] * (end + 1 - at)
            at = end
        at += 1
    return found


def without_bullets(line: str) -> str:
    """What follows the bullets and numbers at the beginning of a line."""
    at = 0
    while bullet := BULLET.match(line, at):
        at = bullet.end()
    return line[at:]


def _longest_below(lines: Sequence[str]) -> dict[str, list[int]]:
    """For each line the longest fence that any later line can close, by the fence's character."""
    longest = {char: [0] * len(lines) for char in "`~"}
    for char, lengths in longest.items():
        for at in range(len(lines) - 1, 0, -1):
            bare = lines[at].strip()
            length = len(bare) if bare and bare == char * len(bare) else 0
            lengths[at - 1] = max(lengths[at], length)
    return longest
