"""Front matter is read as YAML reads it, and changed in one place."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.tickets import frontmatter
from ralph_rpc.tickets.frontmatter import Malformed, fields, with_field

LINES = st.one_of(
    st.text(alphabet="ab:- ,[]#/.0é²_\r\t'\"&*|>?!%@`{}", max_size=16),
    st.from_regex(frontmatter._LINE, fullmatch=True),
    st.sampled_from(
        ["id: ab-1", "deps: [a, b]", "tags: [component:x]", "x: http://a/b", "- a", "  b: c", "x:", ""]
    ),
)


@settings(max_examples=1_000)
@given(st.lists(LINES, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_what_is_read_without_yaml_is_what_yaml_would_read(lines: list[str], newline: str) -> None:
    head = "".join(line + newline for line in lines)
    quick = frontmatter._of_lines(head)
    if quick is not None:
        assert quick == frontmatter._of_yaml(head)


def test_what_tk_writes_is_read_without_yaml() -> None:
    head = (
        "id: ab-5c46\nstatus: open\ndeps: [ab-1, ab-2]\nlinks: []\ncreated: 2025-12-18T10:00:00Z\ntype: task\n"
        "priority: 2\nassignee: Jané Doe\nexternal-ref: gh-123\nparent: ab-0\ntags: [ui, component:cli]\n"
    )
    found = frontmatter._of_lines(head)
    assert found is not None
    assert found["deps"].value == ("ab-1", "ab-2")
    assert found["created"].value == "2025-12-18T10:00:00Z"
    assert found["tags"] == (("ui", "component:cli"), 12, *_span(head, "[ui, component:cli]"), "")


def _span(text: str, part: str) -> tuple[int, int]:
    return text.index(part), text.index(part) + len(part)


@settings(max_examples=500)
@given(st.text(max_size=60), st.text(max_size=30))
def test_any_text_is_read_or_refused_with_a_place(head: str, body: str) -> None:
    text = f"---\n{head}\n---\n{body}"
    try:
        fields(text)
        changed = with_field(text, "status", "closed")
    except Malformed as error:
        assert error.line >= 1
        assert error.reason
        return
    assert fields(changed)[0]["status"].value == "closed"
    assert changed.endswith(f"\n---\n{body}") or "\n---" in head


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("id: a\nstatus: open\nx: 1\n", "id: a\nstatus: closed\nx: 1\n"),
        ("status:open: x\nstatus: open\n", "status:open: x\nstatus: closed\n"),
        ("status:   open   # by hand\nid: a\n", "status:   closed   # by hand\nid: a\n"),
        ('status: "open"\n', 'status: "closed"\n'),
        ("'status': 'open'\r\nid: 'a'\r\n", "'status': 'closed'\r\nid: 'a'\r\n"),
        ("title: status\n# status: open\nstatus: open\n", "title: status\n# status: open\nstatus: closed\n"),
        ("note: |\n  status: open\nstatus: open\n", "note: |\n  status: open\nstatus: closed\n"),
        ("{id: a, status: open, deps: []}\n", "{id: a, status: closed, deps: []}\n"),
        ("status:\nid: a\n", "status: closed\nid: a\n"),
        ("status: |\n  open\nid: a\n", "status: closed\nid: a\n"),
        ('who: "😀"\nstatus: open\n', 'who: "😀"\nstatus: closed\n'),
        ("id: a\n", "status: closed\nid: a\n"),
        ("id: a\r\n", "status: closed\r\nid: a\r\n"),
        ("", "status: closed\n"),
    ],
)
def test_one_value_is_changed_and_nothing_else(head: str, expected: str) -> None:
    end = "\r\n" if "\r\n" in head else "\n"
    for bom in ("", "\ufeff"):
        for body in ("", "status: open", f"# T{end}{end}status: open{end}---{end}status: open"):
            before, after = (f"{bom}---{end}{text}---{end}{body}" for text in (head, expected))
            assert with_field(before, "status", "closed") == after
            assert with_field(after, "status", "closed") == after


def test_a_form_that_cannot_take_a_new_key_is_refused_and_told() -> None:
    with pytest.raises(Malformed, match="status cannot be changed"):
        with_field("---\n{id: a}\n---\n", "status", "closed")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("# just text\n", 1, "no front matter"),
        ("", 1, "no front matter"),
        ("---", 1, "no front matter"),
        (" ---\nid: a\n---\n", 1, "no front matter"),
        ("---\nid: a\n", 1, "no end"),
        ("---\nid: a\n----\n", 1, "no end"),
        ("---\nid: a\nx: [1\ny: 2\n---\n", 4, "bad YAML"),
        ("---\nid: a\n\tx: 1\n---\n", 3, "bad YAML"),
        ("---\nid: a\nx: \x01\n---\n", 3, "control character"),
        ("---\n- a\n---\n", 2, "not made of keys"),
        ("---\nid: a\n? [b]\n: c\n---\n", 3, "a key is not plain text"),
        ("---\nid: a\nx: 1\nid: b\n---\n", 4, "id is there twice"),
        ("---\nid: &x a\n---\n", 2, "anchors"),
        ("---\nid: a\nx: *y\n---\n", 3, "anchors"),
        ("---\nid: a\n...\nx: 1\n---\n", 4, "bad YAML"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(Malformed, match=reason) as caught:
        fields(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "head",
    [
        "a: " + "[" * 60_000,
        "a: " + "{a: " * 15_000,
        "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
        "a" + " " * 60_000 + "#",
        "a: [" + "b, " * 20_000 + "#",
        "a: b" + " " * 60_000 + "#",
        "a: " + "b:" * 30_000 + " ",
        "x: y\n" * 100_000,
    ],
    ids=["brackets", "braces", "aliases", "spaces", "list", "text and spaces", "colons", "long"],
)
def test_a_bomb_costs_little(head: str) -> None:
    began = time.process_time()
    with contextlib.suppress(Malformed):
        fields(f"---\n{head}\n---\n")
    assert time.process_time() - began < 2
