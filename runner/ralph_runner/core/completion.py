"""Has the agent claimed that the task is done? Pure; called when an iteration has settled.

Only the last assistant text and the task file count. A marker in prose, in the prompt, in a tool result or in
thinking never reaches these functions or is refused by them.
"""

import re

_FENCE = re.compile(r"^\s{0,3}(```|~~~)")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+\[([ xX])\](?:\s|$)")


def claims_by_marker(text: str, marker: str) -> bool:
    """True if the last line that is not blank is the marker, alone."""
    return text.rstrip().rpartition("\n")[2].strip() == marker


def checklist(task: str) -> tuple[int, int]:
    """(ticked, all) checklist items of a task file; items in fenced code don't count."""
    ticked = total = 0
    fence = ""
    for line in task.splitlines():
        mark = _FENCE.match(line)
        if mark:
            fence = "" if fence == mark.group(1) else fence or mark.group(1)
            continue
        item = None if fence else _ITEM.match(line)
        if item:
            total += 1
            ticked += item.group(1) != " "
    return ticked, total


def claims_by_checklist(task: str) -> bool:
    """True if there is a checklist and every item of it is ticked."""
    ticked, total = checklist(task)
    return total > 0 and ticked == total
