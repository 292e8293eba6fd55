"""The files that `tf ralph` keeps in `.tf/ralph/`, in its format: read and extended without loss, by both.

`Other` does to them what that tool does: it finds a field by how a line begins, rewrites every such line,
puts an entry right below the marker line, and appends a section per lesson.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ralph_rpc.tickets.notes.memory import MemoryPlaces, read_lessons, remember, show_state
from ralph_rpc.tickets.notes.progress import TicketEntry

PROGRESS = """\
# Ralph Loop Progress

## Current State

- Status: RUNNING
- Current ticket: (none)
- Started: 2026-02-08T16:06:23Z
- Last updated: 2026-02-08T16:09:27Z

## Statistics

- Tickets completed: 2
- Tickets failed: 1
- Total iterations: 3

## History

<!-- Auto-appended entries below -->
- ms-t1: COMPLETE (2026-02-08T16:09:27Z)
  - Summary: Refactor the extractor
  - Issues: Critical(0)/Major(0)/Minor(3)
  - Attempt: 0, Retry Count: 0
  - Status: COMPLETE
- ms-t2: FAILED (2026-02-08T16:07:00Z)
  - Summary: Move the dispatcher
  - Issues: Critical(0)/Major(0)/Minor(0)
  - Status: FAILED
  - Error: pi -p failed (exit -6)
- ms-t3: CLOSED 2026-02-08T16:06:23Z
  - Summary: Define the API
  - Commit: 1f4171c
"""
BARE = """\

- pt-x1: BLOCKED (2026-02-10T13:15:41Z)
  - Summary: Retry in the workflow
  - Retry: Attempt 1, Count 1

## pt-x2: COMPLETE - 2026-02-09T14:21:00Z
- Summary: Added an id
- Status: RUNNING
"""
AGENTS = """\
# Ralph Lessons Learned

## Patterns

- keep functions small

## Gotchas

## Lesson from pt-a1 (2026-02-09T00:15:16Z)

- Decision tickets need a section "Decision"
- Say which alternatives were weighed

## Lesson from pt-a2 (2026-02-09T16:47:00Z)

**Context**: A shim replaced the original.

**Lesson**: It must behave the same. Compare:
- the fallbacks
- the edge cases

**Apply when**: moving code. Check with:
```bash
## not a heading
grep -r "from old" new/
```

## Lesson from pt-a3 (2026-02-10T12:30:36Z)

(None extracted - straightforward implementation)
"""
ENTRY = TicketEntry(
    id="ab-1",
    title="Sort the list",
    outcome="complete",
    iteration=7,
    attempt=1,
    duration_ms=1000,
    cost=0.5,
    ended_at=1_770_700_000_000,
)


class Other:
    """The other tool."""

    def __init__(self, places: MemoryPlaces) -> None:
        self.progress, self.agents = places.progress, places.lessons

    def figures(self) -> list[int]:
        names = ("Tickets completed", "Tickets failed", "Total iterations")
        lines = self.progress.read_text().splitlines()
        starts = [f"- {name}: " for name in names]
        return [int(line.split(": ")[1]) for start in starts for line in lines if line.startswith(start)]

    def closes(self, ticket: str, lesson: str) -> None:
        done, _, total = self.figures()
        values = {"Status": "RUNNING", "Tickets completed": done + 1, "Total iterations": total + 1}
        lines = self.progress.read_text().splitlines()
        for at, line in enumerate(lines):
            if (found := re.match("- ([A-Za-z ]+):", line)) and found[1] in values:
                lines[at] = f"- {found[1]}: {values[found[1]]}"
        below = lines.index("<!-- Auto-appended entries below -->") + 1
        lines[below:below] = [f"- {ticket}: COMPLETE (2026-02-11T00:00:00Z)", "  - Status: COMPLETE"]
        self.progress.write_text("\n".join(lines) + "\n")
        with self.agents.open("a") as file:
            file.write(f"\n## Lesson from {ticket} (2026-02-11T00:00:00Z)\n\n{lesson}\n")


@pytest.fixture
def places(tmp_path: Path) -> MemoryPlaces:
    shared = tmp_path / ".tf" / "ralph"
    shared.mkdir(parents=True)
    (shared / "progress.md").write_text(PROGRESS)
    (shared / "AGENTS.md").write_text(AGENTS)
    return MemoryPlaces.of(tmp_path, tmp_path / ".ralph" / "x")


def without(text: str, *fields: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(tuple(f"- {name}:" for name in fields))]


def test_progress_is_extended_and_all_else_stays(places: MemoryPlaces) -> None:
    remember(places, ENTRY, [], 50)
    text = places.progress.read_text()
    head, marker, rest = PROGRESS.partition("<!-- Auto-appended entries below -->\n")
    assert text.endswith(rest)
    changed = ("Last updated", "Tickets completed", "Total iterations")
    assert without(text.partition(marker)[0], *changed) == without(head, *changed)
    assert Other(places).figures() == [3, 1, 4]
    assert "- Last updated: 2026-02-10T05:06:40Z\n" in text
    assert text.partition(marker)[2].startswith("- ab-1: COMPLETE (2026-02-10T05:06:40Z)\n  - Summary: Sort")


def test_a_progress_file_of_entries_only_keeps_them_all(places: MemoryPlaces) -> None:
    places.progress.write_text(BARE)
    remember(places, ENTRY, [], 50)
    show_state(places, "COMPLETE", [], ENTRY.ended_at)
    assert places.progress.read_text().startswith(f"{BARE}- ab-1: COMPLETE (")


def test_lessons_are_read_as_they_were_meant(places: MemoryPlaces) -> None:
    assert read_lessons(places) == [
        "keep functions small",
        'Decision tickets need a section "Decision"',
        "Say which alternatives were weighed",
        (
            "**Context**: A shim replaced the original. **Lesson**: It must behave the same. Compare: the "
            "fallbacks the edge cases **Apply when**: moving code. Check with: ## not a heading "
            'grep -r "from old" new/'
        ),
        "(None extracted - straightforward implementation)",
    ]


def test_lessons_are_appended_and_all_else_stays(places: MemoryPlaces) -> None:
    assert remember(places, ENTRY, ["Keep functions small!", "the edge cases", "new"], 50) == ["new"]
    added = "\n## Lesson from ab-1 (2026-02-10T05:06:40Z)\n\n- new\n"
    assert places.lessons.read_text() == AGENTS + added


def test_the_oldest_lessons_go_whole(places: MemoryPlaces) -> None:
    remember(places, ENTRY, ["new"], 3)
    text = places.lessons.read_text()
    begin, _, rest = AGENTS.partition("## Lesson from pt-a1")
    assert text == begin + rest[rest.index("## Lesson from pt-a2") :] + (
        "\n## Lesson from ab-1 (2026-02-10T05:06:40Z)\n\n- new\n"
    )


def test_both_tools_write_in_turn_and_nothing_is_lost(places: MemoryPlaces) -> None:
    other = Other(places)
    lessons: list[str] = []
    for number in range(4):
        end = replace(ENTRY, id=f"ours-{number}", ended_at=ENTRY.ended_at + number * 1000)
        remember(places, end, [f"ours {number}"], 50)
        other.closes(f"theirs-{number}", f"theirs {number}")
        lessons += [f"ours {number}", f"theirs {number}"]
    assert other.figures() == [10, 1, 11]
    text = places.progress.read_text()
    heads = re.findall(r"(?m)^- ((?:ours|theirs)-\d|ms-t\d): ", text)
    new = [f"{who}-{number}" for number in (3, 2, 1, 0) for who in ("theirs", "ours")]
    assert heads == [*new, "ms-t1", "ms-t2", "ms-t3"]
    assert read_lessons(places)[-8:] == lessons
    assert len(read_lessons(places)) == 5 + 8
