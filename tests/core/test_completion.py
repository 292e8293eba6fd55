"""What claims that a task is done, and what only comes near to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_runner.core.completion import checklist, claims_by_checklist, claims_by_marker, near_checklist, near_marker

MARKER = "<promise>COMPLETE</promise>"


@pytest.mark.parametrize(
    "line",
    [
        MARKER,
        f"  {MARKER}  ",
        f"**{MARKER}**",
        f"*{MARKER}*",
        f"__{MARKER}__",
        f"`{MARKER}`",
        f"**`{MARKER}`**",
        f"{MARKER}.",
        f"**{MARKER}.**",
        f"`{MARKER}`.",
        f"***{MARKER}***",
    ],
)
@pytest.mark.parametrize("before", ["", "All done.\n\n", "It works.\r\n"])
@pytest.mark.parametrize("after", ["", "\n", "\n\n  \n"])
def test_the_marker_alone_on_the_last_line_claims_whatever_is_set_around_it(before: str, line: str, after: str) -> None:
    assert claims_by_marker(before + line + after, MARKER)
    assert near_marker(before + line + after, MARKER) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"Done: {MARKER}", "with other words"),
        (f"{MARKER} I think so", "with other words"),
        (f"{MARKER}!", "with other words"),
        (f"- {MARKER}", "with other words"),
        (f"I shall write {MARKER} at the end.\nNot yet.", "with other words"),
        (f"{MARKER}\nAnything else?", "more text after it"),
        (f"```\n{MARKER}\n```", "more text after it"),
        (f"**{MARKER}**\n\nSummary: all is well.", "more text after it"),
        ("<promise>complete</promise>", "in other letters"),
        (f"{MARKER} {MARKER}", "with other words"),
        ("<promise> COMPLETE </promise>", "in other letters"),
        ("All done.\n<promise>\n**COMPLETE**\n</promise>\n", "in other letters"),
        ("&lt;promise&gt;COMPLETE&lt;/promise&gt;", "in other letters"),
        (r"\<promise\>COMPLETE\</promise\>", "in other letters"),
    ],
)
def test_a_near_miss_is_no_claim_and_has_words(text: str, words: str) -> None:
    assert not claims_by_marker(text, MARKER)
    told = near_marker(text, MARKER)
    assert told is not None and words in told and "\n" not in told


@pytest.mark.parametrize(
    "text", ["", "\n", "Done.", "The promise is complete.", "<promise>", "<promise>INCOMPLETE</promise>"]
)
def test_other_texts_claim_nothing_and_come_near_to_nothing(text: str) -> None:
    assert not claims_by_marker(text, MARKER)
    assert near_marker(text, MARKER) is None


def test_a_marker_that_is_a_word_is_not_looked_for_in_prose() -> None:
    assert near_marker("The old page was abandoned, so not all done.", "ALL DONE") is None
    assert near_marker("So far:\nall done", "ALL DONE") is not None


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        ("- [x] a\n- [X] b", (2, 2)),
        ("- [x] a\n- [ ] b", (1, 2)),
        ("- [x] a\n- [~] b", (1, 2)),
        ("- [x] a\n- [-] b", (1, 2)),
        ("- [x] a\n- [✓] b", (1, 2)),
        ("- [x] a\n- [/] b\n- [>] c\n- [] d", (1, 4)),
        ("1. [x] a\n2) [ ] b\n* [x] c\n+ [x] d", (3, 4)),
        ("- [x] a\n  - [ ] nested", (1, 2)),
        ("> - [x] quoted", (1, 1)),
        ("- [ x ] a", (1, 1)),
        ("- [x]", (1, 1)),
        ("- [link](url)\n- [API] notes\n- [a](b)", (0, 0)),
        ("text [x] in prose", (0, 0)),
        ("- [x] a\n```\n- [ ] example\n```", (1, 1)),
        ("- [x] a\n````md\n```\n- [ ] example\n```\n- [ ] more\n````", (1, 1)),
        ("- [x] a\n~~~\n- [ ] example\n```\n- [ ] example\n~~~\n- [x] b", (2, 2)),
        ("- [x] a\n  ```\n  - [ ] example\n  ```", (1, 1)),
        ("- ```\n  - [ ] example\n  ```\n- [x] a", (1, 1)),
        ("- [x] a\n`````\n- [ ] example\n```\n`````", (1, 1)),
        ("- [x] a\n```\n- [ ] never closed", (1, 2)),
        ("- [x] a\n``` not a ` fence\n- [ ] b", (1, 2)),
        ("- [x] a\n<!-- - [ ] hidden -->", (1, 1)),
        ("- [x] a\n<!--\n- [ ] hidden\n-->\n- [x] b", (2, 2)),
        ("<!-- a -->- [x] a\n<!-- b --> <!--\n- [ ] hidden\n--> \n- [x] c", (2, 2)),
        ("- [x] a\n<!-- never closed\n- [ ] b", (1, 2)),
        ("- [x] a <!-- note\n- [ ] hidden -->\n- [ ] b", (1, 2)),
        ("```sh\n- [ ] code\n```sh\n- [ ] only a bare fence closes it\n```\n- [x] b\n", (1, 1)),
        ("- [x] a\n-[ ] no space\n- [ ]nor here\n-[x] b", (1, 3)),
        ("- [x] a\n[ ] no bullet\n[x] nor here\n[~] nor here", (1, 3)),
        ("- [x] a\n[1] a footnote\n[link] text", (1, 1)),
        ("- [x] a\n• [x] b\n• [ ] c\n- - [ ] d", (1, 3)),
        ("- [x] a\n- \\[ \\] exported", (1, 2)),
        ("- [x] a\n| Task | Done |\n|---|---|\n| a | [x] |\n| b | [ ] |\n| c [ ] d | [e](f) |", (1, 2)),
        ("[x] a\n| [x] | b |", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_items_are_counted_as_a_person_reads_them(task: str, counts: tuple[int, int]) -> None:
    assert checklist(task) == counts
    assert claims_by_checklist(task) == (counts[0] == counts[1] > 0)


def test_boxes_with_other_signs_are_told_once_no_box_is_empty() -> None:
    assert near_checklist("- [x] a\n- [ ] b\n- [~] c") is None
    assert near_checklist("- [x] a\n- [x] b") is None
    told = near_checklist("- [x] a\n- [~] b")
    assert told is not None and "[~]" in told


LINE = st.sampled_from(
    ["- [ ] a", "- [x] b", "- [~] c", "```", "````", "~~~", "<!--", "-->", "<!-- x -->", "text", "", "> - [ ] q"]
)


@given(st.lists(LINE, max_size=12))
def test_an_open_item_outside_of_code_and_comments_is_never_done(lines: list[str]) -> None:
    task = "\n".join([*lines, "", "<!-- -->", "- [ ] open"])
    closed = [*lines, "- [ ] open"]
    if not any(line.startswith(("`", "~", "<", "--")) for line in lines):
        assert not claims_by_checklist(task)
    ticked, total = checklist("\n".join(closed))
    assert 0 <= ticked <= total <= len(closed)


@given(st.text(max_size=60), st.text(max_size=60))
def test_only_the_last_line_claims(before: str, after: str) -> None:
    text = f"{before}\n{MARKER}\n{after}"
    assert claims_by_marker(text, MARKER) == (after.strip() == "" or claims_by_marker(after, MARKER))


@given(st.text(alphabet="- []xX~`<>!\n.*", max_size=300))
def test_any_text_is_read_without_a_fault(text: str) -> None:
    ticked, total = checklist(text)
    assert claims_by_checklist(text) == (ticked == total > 0)
    near_checklist(text)
    near_marker(text, MARKER)
