"""What an agent's last text teaches, and the file that keeps it."""

import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.terminal.inert import inert
from ralph_rpc.tickets.notes.lessons import LONGEST, LONGEST_ALL, MOST_AT_ONCE, extended, lessons_in, recorded

MARKER = "<promise>COMPLETE</promise>"
AT = 1_770_000_000_123
MARKDOWN = st.lists(
    st.sampled_from(
        [
            "## Lessons",
            "# Lessons Learned",
            "### x",
            "- a b",
            "* c",
            "  - deep",
            "1. one",
            "text",
            "    code",
            "```",
            "```sh",
            "- ```",
            "~~~~",
            "~~~",
            "---",
            "\r",
            "- # h",
            "None",
            "- - x",
            "",
            "intro:",
            "- `` `a",
            "## Lesson from a-1 (x)",
            "\x1b[2J\u202e",
            "\ufeff",
            "\t- tab",
            MARKER,
        ]
    )
    | st.text(max_size=20),
    max_size=30,
).map("\n".join)


def test_lessons_are_the_items_and_paragraphs_below_their_heading() -> None:
    text = f"""Done.

## Changes

- not a lesson

## Lessons

- run `make gen` first,
  otherwise the build fails
- tests need
    - a database
    - a port

* 2nd list
1. numbered

A paragraph
of two lines.

### Deeper

- still one

## Other

- no more

{MARKER}"""
    assert lessons_in(text) == [
        "run `make gen` first, otherwise the build fails",
        "tests need a database a port",
        "2nd list",
        "numbered",
        "A paragraph of two lines.",
        "still one",
    ]


@pytest.mark.parametrize(
    "heading",
    ["# lessons", "## Lessons Learned", "### LESSONS ##", "## **Lessons:**", "   ## Lessons", "##\tLessons\r"],
)
def test_the_heading_may_look_differently(heading: str) -> None:
    assert lessons_in(f"x\n{heading}\n- a") == ["a"]


@pytest.mark.parametrize(
    "text", ["", "- a", "Lessons\n- a", "## Lessons of the past\n- a", "```\n## Lessons\n- a\n```"]
)
def test_without_the_heading_there_is_none(text: str) -> None:
    assert lessons_in(text) == []


def test_the_marker_is_no_lesson() -> None:
    assert lessons_in(f"## Lessons\n- a\n\n{MARKER}\n", MARKER) == ["a"]
    assert lessons_in(f"## Lessons\n- a\n- {MARKER}\n", MARKER) == ["a"]
    assert lessons_in("## Lessons\n- a\nDONE", "DONE") == ["a"]


def test_code_belongs_to_its_item_and_hides_what_looks_like_a_heading() -> None:
    text = "## Lessons\n\n- run:\n\n  ```sh\n# setup\n- make\n  ```\n- next\n"
    assert lessons_in(text) == ["run: # setup make", "next"]


def test_a_fence_that_is_never_closed_swallows_nothing() -> None:
    assert lessons_in("```\nhere\n## Lessons\n- a\n## End\n- b") == ["a"]


def test_nothing_is_said_by_none_and_twice_said_is_once() -> None:
    text = "## Lessons\n- None.\n- n/a\n- Run it!\n- run   IT\n- ...\n\nWhat I learned:\n- b\n"
    assert lessons_in(text) == ["Run it!", "b"]


def test_lessons_are_short_and_few() -> None:
    text = "## Lessons\n" + "".join(f"- {number} {'x' * 1000}\n" for number in range(50))
    found = lessons_in(text)
    assert len(found) == MOST_AT_ONCE
    assert {len(lesson) for lesson in found} == {LONGEST}
    assert found[0].startswith("0 x")


def test_lessons_are_inert() -> None:
    assert lessons_in("## Lessons\n- a\x1b[2J\u202eb\ud800") == ["a␛[2J\\u202eb\\ud800"]


def test_a_new_file_has_the_format() -> None:
    text, new = extended(None, "ab-1", AT, ["one", "two"], 50)
    assert new == ["one", "two"]
    assert text == (
        "# Ralph Lessons Learned\n\n## Patterns\n\n## Gotchas\n\n"
        "## Lesson from ab-1 (2026-02-02T02:40:00Z)\n\n- one\n- two\n"
    )
    assert recorded(text) == ["one", "two"]


def test_known_lessons_are_not_written_again() -> None:
    text, _ = extended("Mine\n\n- Always run `make`.\n", "ab-1", AT, ["one"], 50)
    assert extended(text, "ab-2", AT, ["ONE!", "always run make", "-"], 50) == (text, [])


def test_the_oldest_go_and_what_people_wrote_stays() -> None:
    text: str | None = "My notes\n\n## Patterns\n\n- keep me\n"
    for number in range(6):
        text, _ = extended(text, f"t-{number}", AT, [f"a{number}", f"b{number}"], 3)
    assert text is not None
    assert recorded(text) == ["My notes", "keep me", "b4", "a5", "b5"]
    assert text.startswith("My notes\n\n## Patterns\n\n- keep me\n")
    assert "t-3" not in text
    assert text.count("## Lesson from") == 2


def test_at_most_so_many_even_at_once() -> None:
    assert extended(None, "t", AT, ["a", "b", "c"], 2)[1] == ["b", "c"]
    text, new = extended("x\n", "t", AT, ["a"], 0)
    assert (text, new) == ("x\n", [])


def test_a_lesson_is_one_item_whatever_it_begins_with() -> None:
    text, new = extended(None, "t", AT, ["- 1. one\n## two", "```sh"], 50)
    assert new == recorded(text) == ["one ## two", "sh"]


def test_edits_by_hand_are_kept() -> None:
    text, _ = extended(None, "t-1", AT, ["one", "two"], 50)
    edited = text.replace("- one\n", "").replace("- two", "- two, but better")
    edited += "\n## My own\n\nremember this\n"
    more, _ = extended(edited, "t-2", AT, ["three"], 50)
    assert more.startswith(edited)
    assert recorded(more) == ["two, but better", "remember this", "three"]


def test_a_list_with_an_introduction_stays_a_list() -> None:
    assert recorded("## Lesson from t-1 (then)\n\nSeen:\n\n- one\n- two\n") == ["one", "two"]


def test_line_ends_are_kept() -> None:
    text, _ = extended("# Mine\r\n\r\n- a\r\n", "t-1", AT, ["b"], 50)
    assert text == "# Mine\r\n\r\n- a\r\n\r\n## Lesson from t-1 (2026-02-02T02:40:00Z)\r\n\r\n- b\r\n"
    assert recorded(text) == ["a", "b"]


def test_a_prompt_gets_the_newest_lessons_that_fit() -> None:
    text = "- note\n"
    for number in range(100):
        text, _ = extended(text, f"t-{number}", AT, [f"{number} " + "x" * 490], 1000)
    told = recorded(text)
    assert told[0] == "note"
    assert told[-1].startswith("99 ")
    assert LONGEST_ALL - 500 < sum(map(len, told)) <= LONGEST_ALL


@given(MARKDOWN)
def test_lessons_of_any_text_are_single_lines_that_can_be_read_back(text: str) -> None:
    found = lessons_in(text, MARKER)
    assert len(found) <= MOST_AT_ONCE
    assert all(0 < len(lesson) <= LONGEST and lesson == inert(lesson, False) for lesson in found)
    kept, new = extended(None, "t-1", AT, found, 50)
    assert new == found
    assert recorded(kept) == found


@given(MARKDOWN, st.lists(st.text(max_size=30), max_size=5), st.integers(0, 6))
def test_any_file_takes_lessons_once_and_keeps_what_is_not_a_lesson(text: str, lessons: list[str], most: int) -> None:
    kept, new = extended(text, "t-1", AT, lessons, most)
    assert len(new) <= most
    assert set(new) <= set(recorded(kept))
    assert extended(kept, "t-1", AT, new, most) == (kept, [])
    if "lesson from" not in text.casefold() and text.strip() and new:
        assert kept.startswith(text.rstrip("\r\n"))


@pytest.mark.parametrize(
    "piece", ["```\n", "- " * 10, "~" * 50 + "\n", "#", "- a\n", "\n", "`", " ", "1. ", "* * *", "## Lessons\n"]
)
def test_the_time_grows_with_the_text_only(piece: str) -> None:
    def seconds(size: int) -> float:
        text = "## Lessons\n" + piece * (size // len(piece)) + "x"
        gc.disable()  # a collection costs what all other tests have left, not what this text does
        begun = time.process_time()
        lessons_in(text)
        extended(text, "t-1", AT, ["a"], 50)
        took = time.process_time() - begun
        gc.enable()
        return took

    # Four times the text: with its square it would be sixteen times the work, whatever the machine does beside.
    assert seconds(200_000) < 10 * seconds(50_000) + 0.05


def test_fences_of_every_length_take_no_time() -> None:
    text = "\n".join("`" * length for length in range(1500, 2, -1)) + "\nx" * 200_000
    begun = time.process_time()
    lessons_in("## Lessons\n" + text)
    assert time.process_time() - begun < 5
