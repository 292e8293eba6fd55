"""progress.md: an entry per ticket, in a format that other tools read."""

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.tickets.notes.progress import MARKER, TicketEntry, with_entry, with_state

AT = 1_770_000_000_123
ENTRY = TicketEntry(
    id="ab-1",
    title="Sort the list",
    outcome="complete",
    iteration=7,
    attempt=2,
    duration_ms=192_000,
    cost=0.4217,
    ended_at=AT,
    commit="1f4171c",
    summary="Sorted it.\n\nAll tests pass.",
    verify=0,
)


def entered(text: str | None, entry: TicketEntry) -> str:
    new = with_entry(text, entry)
    assert new is not None
    return new


def figures(text: str) -> dict[str, int]:
    """As the other tools read them: at the very start of a line."""
    names = ("Tickets completed", "Tickets failed", "Total iterations")
    return {name: int(match[1]) for name in names if (match := re.search(rf"(?m)^- {name}: (\d+)$", text))}


def test_a_new_file_has_its_sections_and_the_entry() -> None:
    assert entered(None, ENTRY) == (
        "# Ralph Loop Progress\n\n"
        "## Current State\n\n"
        "- Status: RUNNING\n- Current ticket: (none)\n"
        "- Started: 2026-02-02T02:40:00Z\n- Last updated: 2026-02-02T02:40:00Z\n\n"
        "## Statistics\n\n"
        "- Tickets completed: 1\n- Tickets failed: 0\n- Total iterations: 1\n\n"
        "## History\n\n"
        f"{MARKER}\n"
        "- ab-1: COMPLETE (2026-02-02T02:40:00Z)\n"
        "  - Summary: Sort the list\n"
        "  - Result: Sorted it. …\n"
        "  - Attempt: 2, Retry Count: 1\n"
        "  - Iteration: 7\n"
        "  - Duration: 3m12s\n"
        "  - Cost: $0.42\n"
        "  - Verify: exit 0\n"
        "  - Status: COMPLETE\n"
        "  - Commit: 1f4171c\n"
    )


def test_the_newest_comes_first_and_failures_are_counted_apart() -> None:
    text = entered(None, ENTRY)
    failed = replace(ENTRY, id="ab-2", outcome="failed", commit=None, ended_at=AT + 60_000, error="it\nbroke")
    text = entered(text, failed)
    text = entered(text, replace(ENTRY, id="ab-3", outcome="needs-merge", ended_at=AT + 90_000))
    heads = [line.split(" (")[0] for line in text.split("\n") if re.match("- ab-", line)]
    assert heads == ["- ab-3: NEEDS-MERGE", "- ab-2: FAILED", "- ab-1: COMPLETE"]
    assert figures(text) == {"Tickets completed": 1, "Tickets failed": 2, "Total iterations": 3}
    assert "- Last updated: 2026-02-02T02:41:30Z" in text
    assert "  - Error: it …\n" in text


def test_the_same_end_is_not_written_twice() -> None:
    text = entered(None, ENTRY)
    assert with_entry(text, ENTRY) is None
    assert with_entry(text, replace(ENTRY, ended_at=AT + 1000)) is not None
    assert with_entry(text, replace(ENTRY, id="ab-11")) is not None
    assert with_entry(text, replace(ENTRY, id="ab")) is not None
    assert with_entry(entered(None, replace(ENTRY, id="ab-11")), ENTRY) is not None


def test_the_state_follows_what_runs() -> None:
    text = with_state(None, "RUNNING", ["ab-1", "ab-2"], AT)
    assert "- Current ticket: ab-1, ab-2\n" in text
    text = entered(text, replace(ENTRY, ended_at=AT + 60_000))
    assert "- Current ticket: ab-2\n" in text
    assert "- Started: 2026-02-02T02:40:00Z\n" in text
    text = with_state(text, "COMPLETE", [], AT + 61_000)
    assert "- Status: COMPLETE\n- Current ticket: (none)\n" in text
    assert "  - Status: COMPLETE\n" in text  # the entry's own


def test_a_loop_that_was_not_started_is_now() -> None:
    text = "## Current State\n- Status: INITIALIZED\n- Started: (not started)\n"
    assert with_state(text, "RUNNING", [], AT) == (
        "## Current State\n- Status: RUNNING\n- Started: 2026-02-02T02:40:00Z\n"
    )


def test_what_people_wrote_stays_wherever_it_is() -> None:
    text = (
        "Mine\n\n## Notes\n\n- Status: do not touch\n- Tickets completed: 99\n\n## Statistics\n\n"
        "- Tickets completed: many\n- Tickets failed: 3 \n\n"
        "## History\n\n- old-1: FAILED (2026-01-01T00:00:00Z)\n\n## After\n\nmore\n"
    )
    new = entered(text, replace(ENTRY, outcome="failed"))
    assert "- Status: do not touch\n- Tickets completed: 99\n" in new
    assert "- Tickets completed: many\n- Tickets failed: 4\n" in new
    assert new.index("old-1") < new.index("ab-1: FAILED") < new.index("## After\n\nmore\n")
    added = new.split("\n")
    for line in text.split("\n"):
        assert line in added or line == "- Tickets failed: 3 "


def test_a_file_without_any_section_gets_the_entry_at_its_end() -> None:
    assert entered("just\nnotes", ENTRY).startswith("just\nnotes\n- ab-1: COMPLETE (")
    assert entered("just\nnotes\n", ENTRY).startswith("just\nnotes\n- ab-1: COMPLETE (")


def test_line_ends_are_kept() -> None:
    text = entered(entered(None, ENTRY).replace("\n", "\r\n"), replace(ENTRY, id="ab-2"))
    assert text.count("\n") == text.count("\r\n")
    counted = {"Tickets completed": 2, "Tickets failed": 0, "Total iterations": 2}
    assert figures(text.replace("\r", "")) == counted


LINES = st.lists(
    st.sampled_from(
        [
            "## Current State",
            "## Statistics",
            "## History",
            MARKER,
            "- Tickets completed: 3",
            "- Status: X",
            "- Current ticket: a, ab-1",
            "- Started: (not started)",
            "- Tickets failed: 9" * 3,
            "# x",
            "",
            "\r",
        ]
    )
    | st.text(max_size=10),
    max_size=20,
).map("\n".join)


@given(LINES, st.text(max_size=40), st.text(max_size=40))
def test_any_file_takes_an_entry_once_and_keeps_its_lines(text: str, title: str, error: str) -> None:
    entry = replace(ENTRY, title=title, summary=title, error=error)
    new = with_entry(text, entry)
    assert new is not None
    assert with_entry(new, entry) is None
    new.encode()
    fields = ("- Status:", "- Current ticket:", "- Started:", "- Last updated:", "- Tickets", "- Total")
    left = [line.rstrip("\r") for line in new.split("\n")]
    if text.strip():
        for line in text.split("\n"):
            assert line.rstrip("\r") in left or line.startswith(fields)
    entries = [line for line in left if line.startswith("- ab-1: COMPLETE (")]
    assert len(entries) == 1
    at = left.index(entries[0])
    assert all(line.startswith("  - ") for line in left[at + 1 : at + 8])


@given(st.text(max_size=200))
def test_state_is_never_doubled(text: str) -> None:
    once = with_state(text, "RUNNING", ["a"], AT)
    assert with_state(once, "RUNNING", ["a"], AT) == once
