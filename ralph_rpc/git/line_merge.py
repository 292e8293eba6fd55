"""The merge of a text that two sides have changed, line by line, so that it never conflicts: for ticket files. Pure.

A ticket's head has one field a line, and what people, agents and tk add below are notes, which are appended. So each field
is taken from the side that changed it, and of two notes at the same place both stay, the person's first. Where both
changed the status, the ticket's own branch is right: it closes the ticket.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher

_FENCE = b"---"


def merged(base: bytes, person: bytes, branch: bytes) -> bytes:
    """The text with the changes of both sides; merged again with those of `branch`, it stays the same."""
    if base in (person, branch):
        return branch if person == base else person
    heads = [_split(text) for text in (base, person, branch)]
    if not all(head for head, _ in heads):
        return b"".join(_union(*(_lines(text) for text in (base, person, branch))))
    head = _fields(*(head for head, _ in heads))
    return b"".join([*head, *_union(*(body for _, body in heads))])


def _lines(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1] + b"\n"] if lines[-1] else [])


def _split(text: bytes) -> tuple[list[bytes], list[bytes]]:
    """The head, with the lines around it, and the rest; no head where there is none."""
    lines = _lines(text)
    if not lines or lines[0].rstrip() != _FENCE:
        return [], lines
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == _FENCE:
            return lines[: number + 1], lines[number + 1 :]
    return [], lines


def _entries(head: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """The lines of each field; those that are indented, or begin with a dash, continue the field above."""
    found: dict[bytes, list[bytes]] = {}
    key = b""
    for line in head[1:-1]:
        name, colon, _ = line.partition(b":")
        if colon and not line[:1].isspace() and not line.startswith((b"-", b"#")):
            key = name
        found.setdefault(key, []).append(line)
    return found


def _fields(base: Sequence[bytes], person: Sequence[bytes], branch: Sequence[bytes]) -> list[bytes]:
    old, ours, theirs = _entries(base), _entries(person), _entries(branch)
    lines: list[bytes] = []
    for key in dict.fromkeys((*ours, *theirs)):
        was, one, other = old.get(key), ours.get(key), theirs.get(key)
        by_branch = one == was or (other != was and key == b"status")
        lines += (other if by_branch else one) or []
    return [person[0], *lines, person[-1]]


def _union(base: Sequence[bytes], person: Sequence[bytes], branch: Sequence[bytes]) -> list[bytes]:
    """A line stays if both keep it; what either has put in before it comes along."""
    sides = [_changes(base, side) for side in (person, branch)]
    result: list[bytes] = []
    for number in range(len(base) + 1):
        ours, theirs = (put_in.get(number, []) for _, put_in in sides)
        result += ours
        result += [] if _has(ours, theirs) else theirs
        if number < len(base) and all(number in kept for kept, _ in sides):
            result.append(base[number])
    return result


def _has(block: Sequence[bytes], part: Sequence[bytes]) -> bool:
    lines = iter(block)
    return all(line in lines for line in part)


def _changes(base: Sequence[bytes], side: Sequence[bytes]) -> tuple[set[int], dict[int, list[bytes]]]:
    """Which lines of `base` a side has kept, and what it has put in before which of them."""
    kept: set[int] = set()
    put_in: dict[int, list[bytes]] = {}
    for what, start, end, first, last in SequenceMatcher(None, base, side, autojunk=False).get_opcodes():
        if what == "equal":
            kept.update(range(start, end))
        else:
            put_in.setdefault(end, []).extend(side[first:last])
    return kept, put_in
