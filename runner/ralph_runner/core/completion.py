"""Has the agent claimed that the task is done? Pure; called when an iteration has settled.

Only the last assistant message and the task file count. A claim is the marker alone on the last line of that message
(emphasis, backticks and a full stop around it don't matter), or a task file whose every checklist item is ticked.
What comes near to a claim is none, but it has words, so that the next iteration learns what was missing.
"""

import re
from collections.abc import Iterator

from ralph_rpc.prompts import fences

_AROUND = " \t*_`~.\u200b"
_ITEM = re.compile(r"^[\s>]*(?:[-*+]|\d{1,9}[.)])\s+\[\s*([^\s\]]?)\s*\](?:\s|$)")
_BULLET = r"(?:[-*+•–]|\d{1,9}[.)])"
_LOOSE = re.compile(
    rf"[\s>]*(?:{_BULLET}\s+)*{_BULLET}\s*\\?\[\s*([^\s\]\\]?)\s*\\?\](?=\s|$|(?<=[\[\s]\])\w)|[\s>]*\[([ ~-]?)\](?=\s|$)"
)
"""What people mean as an item and Markdown does not know. Without a bullet only what can be nothing else: `[1]` is a
footnote.
"""
_CELL = re.compile(r"(?<=\|)\s*\[\s*([^\s\]]?)\s*\]\s*(?=\|)")
"""A cell of a table that is a box."""
_MARKUP = re.compile(r"[\s\\*_`]+")
_TICKED = "xX"


def claims_by_marker(text: str, marker: str) -> bool:
    """True if the last line that is not blank is the marker, alone."""
    return _is_marker(text.rstrip().rpartition("\n")[2], marker)


def beside_marker(text: str, marker: str) -> str:
    """What a message says besides the marker."""
    return "\n".join(line for line in text.splitlines() if not _is_marker(line, marker)).strip()


def near_marker(text: str, marker: str) -> str | None:
    """One sentence for the next prompt if the text holds the marker but claims nothing; else None."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or claims_by_marker(text, marker):
        return None
    if any(_is_marker(line, marker) for line in lines):
        return f"The last message had the line {marker}, but more text after it; it counts only as the very last line."
    if marker in text:
        return f"The last message had {marker} on a line with other words; it counts only alone on the last line."
    if any(_is_marker(line.lower(), marker.lower()) for line in lines) or _is_spoilt_in(text, marker):
        return f"The last message had the marker in other letters; it counts only as {marker}, alone on the last line."
    return None


def checklist(task: str) -> tuple[int, int]:
    """(ticked, all) checklist items of a task file; items in fenced code and in comments don't count."""
    boxes = list(_boxes(task))
    return sum(box != "" and box in _TICKED for box in boxes), len(boxes)


def claims_by_checklist(task: str) -> bool:
    """True if there is a checklist and every item of it is ticked."""
    ticked, total = checklist(task)
    return total > 0 and ticked == total


def near_checklist(task: str) -> str | None:
    """One sentence for the next prompt if no box is empty, but some hold another sign than an x; else None."""
    boxes = list(_boxes(task))
    other = sorted({box for box in boxes if box and box not in _TICKED})
    if not other or "" in boxes:
        return None
    return f"The checklist has boxes such as [{other[0]}], which count as open; only [x] counts as done."


def _is_marker(line: str, marker: str) -> bool:
    return line.strip() == marker or line.strip(_AROUND) == marker.strip(_AROUND) != ""


def _is_spoilt_in(text: str, marker: str) -> bool:
    """Whether the text has a marker such as `<promise>…</promise>` with spaces, line ends, escapes or entities in it."""
    wanted = _squeezed(marker)
    is_bracketed = len(wanted) > 2 and not (wanted[0].isalnum() or wanted[-1].isalnum())
    return is_bracketed and wanted in _squeezed(text.replace("&lt;", "<").replace("&gt;", ">"))


def _squeezed(text: str) -> str:
    return _MARKUP.sub("", text).lower()


def _boxes(task: str) -> Iterator[str]:
    """What stands in each box of the checklist: "" for an open one.

    An open box that is not quite an item holds a claim as well; a ticked one is no checklist by itself.
    """
    for line in _without_code_and_comments(task.splitlines()):
        if (item := _ITEM.match(line)) is not None:
            yield item[1]
        elif (loose := _LOOSE.match(line)) is not None:
            yield from _open(loose[1] or loose[2] or "")
        elif line.lstrip().startswith("|"):
            for cell in _CELL.finditer(line):
                yield from _open(cell[1])


def _open(box: str) -> Iterator[str]:
    if box.strip() == "" or box not in _TICKED:
        yield box.strip()


def _without_code_and_comments(lines: list[str]) -> Iterator[str]:
    """A fence or a comment that is never closed hides nothing: an open item must not go unseen."""
    plain = [line for line, outside in zip(lines, fences.outside(lines), strict=True) if outside]
    closed_below = _last_with("-->", plain)
    commented = False
    for number, line in enumerate(plain):
        shown = ""
        while line:
            before, mark, line = line.partition("-->" if commented else "<!--")
            shown += "" if commented else before
            if mark:
                # A comment ends on its own line, or on one below.
                commented = not commented and ("-->" in line or number < closed_below)
                shown += "" if commented or mark == "-->" else mark
        yield shown


def _last_with(mark: str, lines: list[str]) -> int:
    """The number of the last line that holds the mark; -1 for none."""
    return max((number for number, line in enumerate(lines) if mark in line), default=-1)
