"""Front matter is read as YAML reads it, and changed in one place."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.tickets.sources import frontmatter
from ralph_rpc.tickets.sources.frontmatter import Malformed, fields, with_field
from tests.cpu import seconds_of
from tests.effort import examples

LINES = st.one_of(
    st.text(alphabet="ab:- ,[]#/.0é²_\r\t'\"&*|>?!%@`{}", max_size=16),
    st.from_regex(frontmatter._LINE, fullmatch=True),
    st.sampled_from(["id: ab-1", "deps: [a, b]", "tags: [component:x]", "x: http://a/b", "- a", "  b: c", "x:", ""]),
)


@settings(max_examples=examples(1_000))
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
    assert found["tags"] == (("ui", "component:cli"), 12, *_span(head, "[ui, component:cli]"), "", ())


def _span(text: str, part: str) -> tuple[int, int]:
    return text.index(part), text.index(part) + len(part)


@settings(max_examples=examples(500))
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


@pytest.mark.parametrize("text", ["# just text\n", "", "---", " ---\nid: a\n---\n", "text\n---\nid: a\n---\n"])
def test_a_text_without_a_head_has_none(text: str) -> None:
    with pytest.raises(Malformed, match="no front matter"):
        fields(text)


LINES_RULE = {
    "id: a\nassignee: @joe\nstatus: open\n": {"id": "a", "assignee": "@joe", "status": "open"},
    "id: a\nx: [1\ny: 2\n": {"id": "a", "x": ("1",), "y": "2"},
    "id: a\n\tx: 1\n": {"id": "a"},
    "id: a\nx: \x01\n": {"id": "a", "x": "\x01"},
    "id: a\nx: 1\nid: b\n": {"id": "b", "x": "1"},
    "id: &x a\n": {"id": "&x a"},
    "id: a\nx: *y\n": {"id": "a", "x": "*y"},
    "id: a\n...\nx: 1\n": {"id": "a", "x": "1"},
    "id: a\n? [b]\n: c\n": {"id": "a"},
    "- a\n": {},
    "title: it: breaks\nid: a\n": {"title": "it: breaks", "id": "a"},
    'title: "a" and b\nid: "a"  # mine\n': {"title": '"a" and b', "id": "a"},
    "who: @j\ndeps: [a, 'b',c ]\n": {"who": "@j", "deps": ("a", "b", "c")},
    "who: @j\ndeps:\n- a\n\n  - b # not yet\n# x\n-   'c'\ntags: []\n": {
        "who": "@j",
        "deps": ("a", "b", "c"),
        "tags": (),
    },
    "who: @j\ndeps: [a,\n  b, # x\n  c]\nid: a\n": {"who": "@j", "deps": ("a", "b", "c"), "id": "a"},
    "who: @j\ndeps: [[a], b]\n": {"who": "@j", "deps": None},
    "who: @j\nstatus:open\nurl:http://x\n": {"who": "@j", "status": "open", "url": "http://x"},
    "who: @j\n'status' : 'open'\r\nexternal-ref: #12\r\n": {"who": "@j", "status": "open", "external-ref": ""},
    "who: @j\nstatus: open\t# since monday\n": {"who": "@j", "status": "open"},
    "who: `x`\nété: oui\n": {"who": "`x`", "été": "oui"},
    "who: %x\ntwo words: 1\n": {"who": "%x", "two words": "1"},
}


@pytest.mark.parametrize("head", LINES_RULE, ids=repr)
def test_where_yaml_fails_each_line_counts_by_itself_as_it_does_to_tk(head: str) -> None:
    assert frontmatter._of_yaml(head) is None
    found, body = fields(f"---\n{head}---\n# T\n")
    assert {key: field.value for key, field in found.items()} == LINES_RULE[head]
    assert body == len(head) + 8
    assert [field.line for field in found.values()] == [
        max(n for n, line in enumerate(head.split("\n"), 2) if line.lstrip("'").startswith(key)) for key in found
    ]


@pytest.mark.parametrize(
    ("head", "deps"),
    [
        ("deps: [#12]\n", ("#12",)),
        ("deps: [a, #12, 'b']\n", ("a", "#12", "b")),
        ("deps: #12\n", "#12"),
        ("deps:\n  - #12\n  - a # why\n  - # nothing\n", ("#12", "a")),
        ("deps: [a] #see there\n", ("a",)),
        ("deps: # none yet\n", ""),
        ("deps: [] # none yet\n", ()),
    ],
)
def test_a_number_of_an_issue_in_deps_is_no_comment(head: str, deps: object) -> None:
    assert fields(f"---\nid: x\n{head}---\n")[0]["deps"].value == deps


@pytest.mark.parametrize("head", [head for head in LINES_RULE if "status" in head], ids=repr)
def test_there_too_one_value_is_changed_and_nothing_else(head: str) -> None:
    text = f"---\n{head}---\nstatus: open\n"
    changed = with_field(text, "status", "closed")
    before, _, after = text.partition("open")
    assert changed.replace("status: closed", "status:closed") == f"{before}closed{after}".replace(
        "status: closed", "status:closed"
    )


def test_of_a_key_that_is_there_twice_both_lines_change() -> None:
    text = "---\nstatus: open\nid: a\nstatus: 'in_progress' # x\n---\nstatus: open\n"
    assert fields(text)[0]["status"].value == "in_progress"
    wanted = "---\nstatus: closed\nid: a\nstatus: 'closed' # x\n---\nstatus: open\n"
    assert with_field(text, "status", "closed") == wanted


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("body", ["# T\n\nstatus: open\n", "\nstatus: open\n", "Just text.\nstatus: open\n", ""])
def test_a_head_that_nothing_closes_ends_with_its_last_line(body: str, newline: str) -> None:
    head = "---\nid: a\ndeps:\n- b\n- c\nstatus: open\n"
    text = (head + body).replace("\n", newline)
    found, at = fields(text)
    assert (found["id"].value, found["deps"].value, found["status"].value) == ("a", ("b", "c"), "open")
    assert text[at:] == body.replace("\n", newline)
    changed = with_field(text, "status", "closed")
    assert changed == (head.replace("open", "closed") + body).replace("\n", newline)
    assert frontmatter.is_cut_off(text) == (body == "")


def test_comments_may_come_before_the_head() -> None:
    for before in ("<!-- markdownlint-disable -->\n", "\n<!-- a\n- b --- c\n-->\n\n<!---->\n"):
        text = f"{before}---\nid: a\nstatus: open\n---\n# T\n"
        assert fields(text)[0]["id"].value == "a"
        assert with_field(text, "status", "closed") == text.replace("open", "closed")
    with pytest.raises(Malformed):
        fields("<!-- a\n---\nid: a\n---\n")


def test_empty_lines_and_a_byte_order_mark_may_come_before_the_head() -> None:
    for before in ("\n", "\ufeff", "\ufeff\r\n \n", "\n\t\n"):
        found, _ = fields(f"{before}--- \nid: a\n---\n")
        assert (found["id"].value, found["id"].line) == ("a", before.count("\n") + 2)


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
        "x:\n" * 100_000,
        "x: [a\n" * 100_000,
        "x: [\n" + "a\n" * 200_000,
        "@\nx: " + " #" * 60_000,
        "@\n" + "a " * 100_000,
        "@\n" + "'" * 100_000,
        "\n" * 200_000,
    ],
    ids=lambda head: f"{head[:8]!r}",
)
def test_a_bomb_costs_little(head: str) -> None:
    def read() -> None:
        for end in ("\n---\n", ""):
            with contextlib.suppress(Malformed):
                fields(f"---\n{head}{end}")
                with_field(f"---\n{head}{end}", "x", "y")

    assert seconds_of(read, tries=1) < 5
