"""Claims by themselves: what is the marker alone on the last line, what is a ticked checklist."""

import pytest

from ralph_runner.core.completion import checklist, claims_by_checklist, claims_by_marker


@pytest.mark.parametrize("text", ["DONE", "words\nDONE", "words\n  DONE  \n\n \n", "DONE\nDONE", "a\r\nDONE\r\n"])
def test_the_marker_alone_on_the_last_line_that_is_not_blank_is_a_claim(text: str) -> None:
    assert claims_by_marker(text, "DONE")


@pytest.mark.parametrize("text", ["", "not DONE", "DONE\nwords", "DONE!", "done", "words\n- DONE"])
def test_anything_else_is_no_claim(text: str) -> None:
    assert not claims_by_marker(text, "DONE")


@pytest.mark.parametrize(
    ("task", "ticked", "total"),
    [
        ("- [x] a\n- [ ] b\n- [X] c\n", 2, 3),
        ("* [x] a\n+ [x] b\n1. [x] c\n2) [ ] d\n  - [x] nested", 4, 5),
        ("[x] a\n-[x] b\n- [y] c\n- [x]d\n- [] e", 0, 2),
        ("- [x]", 1, 1),
        ("```\n- [ ] a\n```\n- [x] b", 1, 1),
        ("```\n~~~\n- [ ] a\n~~~\n- [ ] b\n```\n- [x] c", 1, 1),
        ("~~~\n- [ ] a\n```\n- [ ] b\n~~~\n- [x] c\n~~~\n- [ ] d", 1, 2),
        ("   ```\n- [ ] a\n   ```\n- [x] b", 1, 1),
        ("    ```\n- [ ] not fenced", 0, 1),
        ("", 0, 0),
    ],
)
def test_items_are_counted_outside_of_fenced_code(task: str, ticked: int, total: int) -> None:
    assert checklist(task) == (ticked, total)


def test_a_checklist_is_a_claim_when_it_has_items_and_all_are_ticked() -> None:
    assert claims_by_checklist("- [x] a\n- [X] b")
    assert not claims_by_checklist("- [x] a\n- [ ] b")
    assert not claims_by_checklist("no items")
