"""Tickets as files: read as `tk` means them, again when they change, changed in one place, bad ones told."""

import json
import os
import re
import stat
import threading
import time
from pathlib import Path

import pytest

from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files.atomic import read_plain
from ralph_rpc.tickets.choice import Choice
from ralph_rpc.tickets.schedule import Rules, plan
from ralph_rpc.tickets.sources.frontmatter import with_field
from ralph_rpc.tickets.sources.markdown import LARGEST, MarkdownTickets, find_folder, find_tickets
from ralph_rpc.tickets.sources.protocol import TicketSource
from ralph_rpc.tickets.ticket import Ticket
from tests.tickets.folder import ticket_text, write
from tests.tickets.tk import tk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "web-app" / ".tickets"
    made.mkdir(parents=True)
    return made


def test_a_ticket_of_the_real_tk_is_read_and_changed_as_tk_does_it(folder: Path) -> None:
    project = folder.parent
    first = tk(project, "create", "Make the thing", "-d", "It shall work.", "-p", "1", "--tags", "component:cli,ui")
    second = tk(project, "create", "Then this", "--external-ref", "gh-12", "--parent", first, "--acceptance", "Green.")
    tk(project, "dep", second, first)
    source = MarkdownTickets(folder)
    backlog = source.scan()
    assert backlog.bad == ()
    one, two = backlog.tickets[first], backlog.tickets[second]
    assert (one.title, one.status, one.priority, sorted(one.components)) == ("Make the thing", "open", 1, ["cli"])
    assert one.assignee == "Test Person"
    assert (two.deps, two.parent, two.priority, two.type) == ((first,), first, 2, "task")

    for status in ("in_progress", "closed", "open"):
        ours, theirs = one.path.read_bytes(), two.path.read_bytes()
        source.set_status(first, status)
        tk(project, "status", second, status)
        assert one.path.read_bytes() == ours.replace(_status_line(ours), f"status: {status}\n".encode())
        assert two.path.read_bytes() == theirs.replace(_status_line(theirs), f"status: {status}\n".encode())
        found = source.scan().tickets
        assert (found[first].status, found[second].status) == (status, status)
        assert all(f"status: {status}\n" in tk(project, "show", id) for id in (first, second))


def _status_line(data: bytes) -> bytes:
    return next(line for line in data.splitlines(keepends=True) if line.startswith(b"status:"))


@pytest.mark.parametrize("body", ["# T\n\nText\n", "# T\n\nno end of line", "# T\n\n## Notes\n\nold\n\n## More\n"])
def test_a_note_is_what_tk_would_have_written(folder: Path, body: str) -> None:
    head = "---\nid: {}\nstatus: open\n---\n"
    (folder / "a-1.md").write_text(head.format("a-1") + body)
    (folder / "a-2.md").write_text(head.format("a-2") + body)
    source = MarkdownTickets(folder)
    for note in ("first note", "second\n\n- with a list\n"):
        for _ in range(3):  # both in the same second, sooner or later
            texts = [source.read(id)[1].replace("a-2", "a-1") for id in ("a-1", "a-2")]
            before = time.time() // 1
            source.add_note("a-1", note)
            tk(folder.parent, "add-note", "a-2", stdin=note)
            if time.time() // 1 == before:
                break
            for id, text in zip(("a-1", "a-2"), texts, strict=True):
                (folder / f"{id}.md").write_text(text.replace("id: a-1", f"id: {id}"))
        assert source.read("a-1")[1] == source.read("a-2")[1].replace("id: a-2", "id: a-1")


def test_a_note_stands_under_its_time_in_a_section_of_its_own(folder: Path) -> None:
    write(folder, "a-1")
    source = MarkdownTickets(folder)
    source.add_note("a-1", "first")
    source.add_note("a-1", "second\nline\n")
    time_ = r"\*\*\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\*\*"
    wanted = rf"\n## Notes\n\n{time_}\n\nfirst\n\n{time_}\n\nsecond\nline\n"
    assert re.fullmatch(re.escape(ticket_text("a-1")) + wanted, source.read("a-1")[1])


def test_a_field_that_is_missing_comes_where_tk_puts_it(folder: Path) -> None:
    text = "---\nid: {}\ndeps: []\n---\n# T\n"
    (folder / "a-1.md").write_text(text.format("a-1"))
    (folder / "a-2.md").write_text(text.format("a-2"))
    source = MarkdownTickets(folder)
    assert source.scan().tickets["a-1"].status == "open"
    source.set_status("a-1", "closed")
    tk(folder.parent, "close", "a-2")
    assert source.read("a-1")[1] == source.read("a-2")[1].replace("a-2", "a-1")


def test_every_byte_and_the_mode_stay_but_for_the_status(folder: Path) -> None:
    path = folder / "a-1.md"
    before = (
        b"\xef\xbb\xbf---\r\n# by hand\r\nid: 'a-1'\r\nstatus:  \"in_progress\"  # since monday\r\nestimate: {days: 3}\r\n"
        b"---\r\n\r\n# T\xc3\xafte\r\nstatus: open\xc2\x85\r\nno end"
    )
    path.write_bytes(before)
    path.chmod(0o664)
    source: TicketSource = MarkdownTickets(folder)
    assert source.scan().tickets["a-1"].title == "Tïte"
    source.set_status("a-1", "closed")
    assert path.read_bytes() == before.replace(b"in_progress", b"closed")
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    source.add_note("a-1", "x\ny")
    assert path.read_bytes().startswith(before.replace(b"in_progress", b"closed") + b"\r\n## Notes\r\n\r\n**20")
    assert path.read_bytes().endswith(b"Z**\r\n\r\nx\r\ny\r\n")
    assert list(folder.iterdir()) == [path]


def test_a_status_that_it_has_already_touches_nothing(folder: Path) -> None:
    path = write(folder, "a-1", status="closed")
    before = path.stat()
    MarkdownTickets(folder).set_status("a-1", "closed")
    assert path.stat() == before


def test_a_note_cannot_pass_for_front_matter_nor_control_a_terminal(folder: Path) -> None:
    write(folder, "a-1")
    source = MarkdownTickets(folder)
    source.add_note("a-1", "out:\n---\nstatus: closed\n---\n\x1b[2J")
    text = source.read("a-1")[1]
    assert text.count("\n---\n") == 1
    assert "\x1b" not in text
    assert source.scan().tickets["a-1"].status == "open"


def test_what_is_not_said_has_tks_default_and_lists_may_have_any_form(folder: Path) -> None:
    (folder / "a-1.md").write_text(
        "---\nid: a-1\ndeps: b, c\ntags:\n- component:x\n- 'component:y'\n- 'component:'\n- component:x\npriority: '0'\n"
        "model: opus\ncwd: /\nverify: rm -rf /\ndeep: {a: [1, {b: 2}]}\n---\n```\nno heading\n```\n"
    )
    ticket = MarkdownTickets(folder).scan().tickets["a-1"]
    assert (ticket.status, ticket.type, ticket.title, ticket.priority) == ("open", "task", "", 0)
    assert ticket.deps == ("b", "c")
    assert ticket.tags == ("component:x", "component:y", "component:")
    assert ticket.components == {"x", "y"}


def test_an_id_that_looks_like_a_number_stays_as_it_is(folder: Path) -> None:
    for id in ("007", "1e3", "null", "0x1F", "2026-01-01"):
        (folder / f"{id}.md").write_text(f"---\nid: {id}\nstatus: open\n---\n# T\n")
    assert set(MarkdownTickets(folder).scan().tickets) == {"007", "1e3", "null", "0x1F", "2026-01-01"}


@pytest.mark.parametrize(
    ("head", "line", "reason"),
    [
        ("id: ../x\n", 2, "id '../x' cannot be the name of a file"),
        ("id: [x]\n", 2, "its id is not plain text"),
        ("id:\nstatus: open\n", 2, "its id is not plain text"),
        ('id: "a\\e[31m"\n', 2, "id 'a␛[31m' cannot be the name of a file"),
        ("status: open\n", 1, "it has no id"),
        ("assignee: @joe\nstatus: who knows\n", 1, "it has no id"),
    ],
)
def test_a_bad_ticket_is_named_with_its_line_and_the_others_go_on(
    folder: Path, head: str, line: int, reason: str
) -> None:
    write(folder, "good")
    path = folder / "x.md"
    path.write_text(f"---\n{head}---\n# T\n")
    backlog = MarkdownTickets(folder).scan()
    assert list(backlog.tickets) == ["good"]
    assert [(one.path, one.line, one.reason) for one in backlog.bad] == [(path, line, reason)]
    assert backlog.bad[0].id == "x" and backlog.unread == backlog.bad
    # What is closed is no fault, whatever is wrong with it.
    path.write_text(f"---\n{head.replace('status:', 'x:')}status: Done\n---\n# T\n")
    assert MarkdownTickets(folder).scan().bad == ()


def one(folder: Path, head: str) -> Ticket:
    """The ticket `x` with these lines in its head."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.md").write_text(f"---\nid: x\n{head}---\n# T\n")
    return MarkdownTickets(folder).scan().tickets["x"]


DECIDES_NOTHING = (
    *("assignee: @joe", "assignee: [a, b]", "assignee: {a: b}", "assignee: `x`", "assignee: a: b", "assignee: *x"),
    *("type: [epic", "type: {}", "created: yesterday: noon", "external-ref: #12", "links: {a: b}", "links: @x"),
    *(
        "tags: {a: b}",
        "parent: [p]",
        "estimate: 3d @ 8h",
        "x: 'open",
        'x: "',
        "x: %y",
        "x: |\n\ty",
        "\tx: y",
        "x: &a *b",
    ),
    *("- a list", "no key", "x: \x07", "? [a]\n: b", "x: {a: {b: [", "id2: 1\nid2: 2", "priority: {a: 1}", "!x"),
)


@pytest.mark.parametrize("head", DECIDES_NOTHING)
@pytest.mark.parametrize("status", ["open", "in_progress", "closed"])
def test_a_field_that_decides_nothing_never_disqualifies_a_ticket(folder: Path, head: str, status: str) -> None:
    for text in (f"{head}\nstatus: {status}\ndeps: [a, b]\n", f"status: {status}\ndeps: [a, b]\n{head}\n"):
        ticket = one(folder, text)
        assert (ticket.status, ticket.deps, ticket.title, ticket.doubt) == (status, ("a", "b"), "T", None)
        assert MarkdownTickets(folder).scan().unread == ()
        source = MarkdownTickets(folder)
        before = source.read("x")[1]
        source.set_status("x", "closed" if status == "open" else "open")
        assert source.scan().tickets["x"].status != status
        source.set_status("x", "open" if status == "open" else "closed")
        assert source.read("x")[1] == before.replace(
            f"status: {status}", f"status: {source.scan().tickets['x'].status}"
        )


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        *(
            ("0", 0),
            ("4", 4),
            ("5", 4),
            ("99", 4),
            ("-1", 0),
            ("+1", 1),
            ("P1", 1),
            ("p0", 0),
            ("P9", 4),
            ("prio 3", 3),
        ),
        *(("1.5", 1), ("High", 1), ("critical", 0), ("medium", 2), ("low", 3), ("", 2), ("whatever", 2), ("'٣'", 2)),
        *(("P1 - high", 1), ("0 (drop everything)", 0), ("High (customer)", 1), ("2nd", 2), ("3.1.2", 2)),
        *(("[1]", 2), ("'1'", 1), ("1 # urgent", 1), ("@1", 2), ("9" * 400, 2)),
    ],
)
def test_a_priority_is_read_in_many_forms_and_lies_between_0_and_4(folder: Path, value: str, priority: int) -> None:
    assert one(folder, f"priority: {value}\n").priority == priority


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *((word, "open") for word in ("open", "Open", "todo", "To Do", "ready", "backlog", "pending", '"open"', "")),
        *((word, "in_progress") for word in ("in_progress", "in-progress", "In Progress", "doing", "WIP", "review")),
        *((word, "closed") for word in ("closed", "done", "DONE", "Cancelled", "canceled", "resolved", "wontfix")),
        *((word, "closed") for word in ("won't fix", "won’t do", "completed", "duplicate", "not planned", "tombstone")),
        *(
            (word, "closed")
            for word in ("✅ done", "Done ✅", "closed (duplicate of ab-1)", "done, 3 May", "implemented")
        ),
        *((word, "in_progress") for word in ("needs review", "in progress (joe)", "claimed")),
    ],
)
def test_the_words_of_other_tools_are_understood(folder: Path, word: str, status: str) -> None:
    ticket = one(folder, f"status: {word}\n")
    assert (ticket.status, ticket.doubt) == (status, None)


@pytest.mark.parametrize(
    ("head", "status"), [("Status: Done\n", "closed"), ("state: closed\n", "closed"), ("STATE: doing\n", "in_progress")]
)
def test_a_status_by_another_name_counts_where_there_is_none_of_tks(folder: Path, head: str, status: str) -> None:
    assert one(folder, head).status == status
    assert one(folder, f"{head}status: open\n").status == "open"
    one(folder, head)
    source = MarkdownTickets(folder)
    source.set_status("x", "open")
    assert source.scan().tickets["x"].status == "open" and head in source.read("x")[1]


def test_a_child_and_who_it_is_for_are_known_by_other_names_too(folder: Path) -> None:
    assert one(folder, "epic: ep\n").parent == one(folder, "parent_id: ep\n").parent == "ep"
    assert one(folder, "epic: no\nparent: ep\n").parent == "ep"
    assert one(folder, "assignee: [joe, '@ann']\n").assignee == "joe, @ann"
    ticket = one(folder, "assignees:\n- joe\n- '@ann'\n")
    for name, is_left in (("ann", False), ("@Joe", False), ("jo", True)):
        assert (Choice.of({"assignees": [name]}).leaves_out(ticket, ()) is not None) == is_left


@pytest.mark.parametrize("status", ["open", "closed"])
def test_a_head_with_both_sides_of_a_merge_is_neither_open_nor_closed(folder: Path, status: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sides = f"<<<<<<< HEAD\nstatus: open\n=======\nstatus: {status}\n>>>>>>> theirs\n"
    (folder / "x.md").write_text(f"---\nid: ab-1\n{sides}---\n# T\n")
    backlog = MarkdownTickets(folder).scan()
    assert not backlog.tickets
    assert [(bad.id, bad.line, bad.reason) for bad in backlog.bad] == [
        ("ab-1", 3, "its head holds both sides of a merge that git could not finish")
    ]
    (folder / "x.md").write_text(f"---\nid: ab-1\nstatus: {status}\n---\n{sides}")
    assert MarkdownTickets(folder).scan().tickets["ab-1"].status == status


@pytest.mark.parametrize(
    ("head", "line", "reason"),
    [
        ("status: closed?\n", 3, "status 'closed?' is none of"),
        ("status: open (blocked)\n", 3, "status 'open (blocked)' is none of"),
        ("State: soon\n", 3, "status 'soon' is none of"),
        ("Deps: [a]\n", 3, "'Deps' looks like dependencies"),
        ("after: [a]\n", 3, "'after' looks like dependencies"),
        ("status: blocked\n", 3, "status 'blocked' is none of open, in_progress, closed"),
        ("status: [a, b]\n", 3, "status is none of open, in_progress, closed"),
        ("\ndeps: {a: b}\n", 4, "deps is not a list of plain texts"),
        ("who: @j\ndeps: [[a]]\n", 4, "deps is not a list of plain texts"),
        ("dependencies: [a]\n", 3, "'dependencies' looks like dependencies"),
        ("depends_on: a\ndeps: []\n", 3, "'depends_on' looks like dependencies"),
        ("deps: [a]\nDepends-On: [a, b]\n", 4, "'Depends-On' looks like dependencies"),
        ("blocked_by:\n- a\n", 3, "'blocked_by' looks like dependencies"),
        ("blockedBy: {a: b}\n", 3, "'blockedBy' looks like dependencies"),
        ("who: @joe\nprerequisites: [a]\n", 4, "'prerequisites' looks like dependencies"),
    ],
)
def test_what_leaves_a_doubt_whether_it_may_start_is_told_and_holds_it_back(
    folder: Path, head: str, line: int, reason: str
) -> None:
    write(folder, "a")
    ticket = one(folder, head)
    assert ticket.doubt is not None and ticket.doubt.line == line and ticket.doubt.reason.startswith(reason)
    backlog = MarkdownTickets(folder).scan()
    assert [(bad.id, bad.line, bad.reason) for bad in backlog.bad] == [("x", line, ticket.doubt.reason)]
    assert backlog.unread == ()
    assert plan(backlog, {}, Rules(9)).start == ("a",)
    assert one(folder, re.sub("(?i)stat(us|e):", "x:", head) + "status: closed\n").doubt is None


@pytest.mark.parametrize(
    "head",
    [
        *(
            "dependencies: []",
            "depends_on:",
            "blocked_by: none",
            "depends_on: null",
            "dependencies: ~",
            "blockers: n/a",
        ),
        *("deps: [a, b]\ndepends_on: [b]", "deps: none", "deps: null", "deps: '-'", "blocked: false", "dependents: []"),
    ],
)
def test_a_key_that_names_no_more_than_deps_does_holds_nothing_back(folder: Path, head: str) -> None:
    ticket = one(folder, f"{head}\n")
    assert ticket.doubt is None and ticket.deps == (("a", "b") if "[a, b]" in head else ())


def test_a_ticket_that_another_names_as_waiting_for_it_is_held_back(folder: Path) -> None:
    one(folder, "blocks: [a, b, c, d, gone]\n")
    write(folder, "a")
    write(folder, "b", deps=["x"])
    write(folder, "c", status="closed")
    write(folder, "d")
    backlog = MarkdownTickets(folder).scan()
    assert [(bad.id, bad.place) for bad in backlog.bad] == [("a", "a.md:4"), ("d", "d.md:4")]
    assert backlog.bad[0].reason.startswith("x says that this one waits for it")
    assert plan(backlog, {}, Rules(9)).start == ("x",)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\nid: x\ntitle: In the head\n---\ntext\n", "In the head"),
        ("---\nid: x\ntitle: In the head\n---\n# Notes\n", "In the head"),
        ("---\nid: x\ntitle: 'It: is'\nwho: @joe\n---\n", "It: is"),
        ("---\nid: x\ntitle: [a]\n---\n## Part\n#  Whole \r\n", "Whole"),
        ("---\nid: x\nName: no\nname: Named\n---\n# Heading\n", "Named"),
        ("---\nid: x\nsummary: Summed up\ntitle:\n---\ntext\n", "Summed up"),
        ("---\nid: x\n# Heading\n\ntext", "Heading"),
        ("\ufeff\n---\nid: x\n---\ntext", ""),
    ],
)
def test_the_title_stands_in_the_head_or_is_the_first_heading(folder: Path, text: str, title: str) -> None:
    (folder / "x.md").write_text(text)
    backlog = MarkdownTickets(folder).scan()
    assert (backlog.tickets["x"].title, backlog.bad) == (title, ())


@pytest.mark.parametrize("id", ["été-st3i", "日本-1", "a b", "ab:c*?[1]", "-x", "a~b", "'q'", "a\\b"])
def test_an_id_may_have_any_letters(folder: Path, id: str) -> None:
    path = folder / f"{id}.md"
    path.write_text(f"---\nid: {json.dumps(id, ensure_ascii=False)}\nstatus: open\n---\n# T\n")
    write(folder, "b", deps=[json.dumps(id, ensure_ascii=False)])
    source = MarkdownTickets(folder)
    assert source.scan().bad == () and source.scan().tickets["b"].deps == (id,)
    source.set_status(id, "closed")
    source.add_note(id, "hello")
    assert source.locate(id) == path and "hello" in source.read(id)[1]
    assert plan(source.scan(), {}, Rules()).start == ("b",)


def test_an_id_is_the_same_however_its_accents_are_stored(folder: Path) -> None:
    (folder / "e\u0301t.md").write_text("---\nid: e\u0301t\n---\n")
    write(folder, "b", deps=["\u00e9t"])
    source = MarkdownTickets(folder)
    assert source.scan().bad == ()
    source.set_status("\u00e9t", "closed")
    assert plan(source.scan(), {}, Rules()).start == ("b",)


def test_files_that_are_no_tickets_are_no_fault_and_links_are_never_followed(folder: Path, tmp_path: Path) -> None:
    write(folder, "good")
    outside = write(tmp_path / "outside", "link")
    (folder / "link.md").symlink_to(outside)
    (folder / "again.md").symlink_to("good.md")
    (folder / "dangling.md").symlink_to("gone.md")
    (folder / "folder.md").mkdir()
    os.mkfifo(folder / "fifo.md")
    (folder / "big.md").write_bytes(ticket_text("big").encode() + b"x" * LARGEST)
    (folder / "latin.md").write_bytes(b"---\nid: latin\n---\n\n\xe9\n")
    (folder / "README.md").write_text("# How we work\n\n---\nid: none\n")
    (folder / "page.md").write_text("---\nlayout: post\ntitle: x\n---\n")
    (folder / "latin-page.md").write_bytes(b"# Caf\xe9\n")
    (folder / "big-page.md").write_bytes(b"x" * (LARGEST + 1))
    (folder / ".hidden.md").write_text("not ours")
    (folder / "TEMPLATE.md").write_text(ticket_text("<id>"))
    (folder / "_ticket-template.md").write_text(ticket_text("xx-0000"))
    (folder / "good.md.tmp.12").write_text("half of it")
    backlog = MarkdownTickets(folder).scan()
    assert list(backlog.tickets) == ["good"]
    assert {one.path.name: (one.line, one.reason) for one in backlog.bad} == {
        "link.md": (1, "it is a link, and links are not followed"),
        "dangling.md": (1, "it is a link, and links are not followed"),
        "folder.md": (1, "it is not a file"),
        "fifo.md": (1, "it is not a file"),
        "big.md": (1, "it is larger than 1 MiB"),
        "latin.md": (5, "it is not UTF-8"),
    }
    for id in ("link", "fifo", "big", "latin"):
        with pytest.raises(RalphError, match=rf"ticket {id} cannot be used: .*{id}\.md:"):
            MarkdownTickets(folder).set_status(id, "closed")
    assert "status: open" in outside.read_text()


def test_a_closed_ticket_is_closed_even_where_it_cannot_be_read_as_text(folder: Path) -> None:
    (folder / "latin.md").write_bytes(b"---\nid: latin\nstatus: closed\n---\n\n\xe9\n")
    (folder / "big.md").write_bytes(ticket_text("big", status="closed").encode() + b"x" * LARGEST)
    (folder / "a.md").write_text(ticket_text("twice", status="closed"))
    (folder / "b.md").write_text(ticket_text("twice", status="closed"))
    write(folder, "next", deps=["latin", "big", "twice"])
    backlog = MarkdownTickets(folder).scan()
    assert backlog.bad == ()
    assert plan(backlog, {}, Rules()).start == ("next",)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_ticket_in_utf_16_is_named_and_a_page_or_a_closed_one_is_not(folder: Path, encoding: str) -> None:
    (folder / "wide.md").write_bytes(ticket_text("wide").encode(encoding))
    (folder / "old.md").write_bytes(ticket_text("old", status="closed").encode(encoding))
    (folder / "page.md").write_bytes("# How we work\n".encode(encoding))
    write(folder, "next", deps=["old"])
    backlog = MarkdownTickets(folder).scan()
    assert [(one.path.name, one.reason) for one in backlog.bad] == [("wide.md", "it is UTF-16, save it as UTF-8")]
    assert plan(backlog, {}, Rules()).start == ("next",)


def test_a_file_that_is_being_written_is_no_ticket_yet_and_no_page_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("", "---\nid: x\n", "---\nid: x\nstatus: open\ndeps: ["):
        (folder / "x.md").write_text(text)
        backlog = MarkdownTickets(folder).scan()
        assert (backlog.tickets, [bad.reason for bad in backlog.bad]) == ({}, ["it is only half-written"])
    monkeypatch.setattr("ralph_rpc.tickets.sources.markdown._TOUCHED_NS", 0)
    assert MarkdownTickets(folder).scan().bad == (), "it stays like this, so it is meant like this"


def test_of_two_tickets_with_one_id_both_are_named_and_neither_is_used(folder: Path) -> None:
    write(folder, "a")
    (folder / "b.md").write_text("---\nstatus: open\nid: a\n---\n")
    write(folder, "c", deps=["a"])
    backlog = MarkdownTickets(folder).scan()
    assert list(backlog.tickets) == ["c"]
    assert [(one.place, one.reason, one.id) for one in backlog.bad] == [
        ("a.md:2", "id a is also that of b.md", "a"),
        ("b.md:3", "id a is also that of a.md", "a"),
        ("c.md:4", "dep a cannot be used (b.md:3: id a is also that of a.md)", "c"),
    ]


def test_missing_deps_and_cycles_are_named_where_they_stand_and_closed_tickets_do_not_care(folder: Path) -> None:
    write(folder, "a", deps=["b"])
    write(folder, "b", deps=["c"])
    write(folder, "c", deps=["a", "gone"])
    write(folder, "d", deps=["gone", "d"], status="closed")
    backlog = MarkdownTickets(folder).scan()
    assert sorted(backlog.tickets) == ["a", "b", "c", "d"]
    assert [(one.place, one.reason, one.id) for one in backlog.bad] == [
        ("a.md:4", "dependency cycle a -> b -> c -> a", "a"),
        ("c.md:4", "dep gone does not exist", "c"),
    ]


def test_only_what_changed_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        write(folder, f"a-{n}")
    read: list[str] = []

    def noted(path: Path, limit: int, follow: bool = True) -> bytes:
        read.append(path.name)
        return read_plain(path, limit, follow)

    monkeypatch.setattr("ralph_rpc.tickets.sources.markdown.read_plain", noted)
    monkeypatch.setattr("ralph_rpc.tickets.sources.markdown._TOUCHED_NS", 0)
    source = MarkdownTickets(folder)
    first = source.scan()
    assert len(read) == 5
    read.clear()
    assert source.scan() is first
    assert read == []
    write(folder, "a-3", status="closed")
    (folder / "a-1.md").unlink()
    write(folder, "a-9")
    second = source.scan()
    assert read == ["a-3.md", "a-9.md"]
    assert sorted(second.tickets) == ["a-0", "a-2", "a-3", "a-4", "a-9"]
    assert second.tickets["a-3"].status == "closed"
    assert second.tickets["a-0"] is first.tickets["a-0"]


def test_a_change_that_leaves_size_and_times_alone_is_seen(folder: Path) -> None:
    path = write(folder, "a-1", "Title A")
    source = MarkdownTickets(folder)
    assert source.scan().tickets["a-1"].title == "Title A"
    before = path.stat()
    with path.open("r+") as file:
        file.write(path.read_text().replace("Title A", "Title B"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.scan().tickets["a-1"].title == "Title B"


def test_notes_that_two_loops_write_at_once_are_all_there(folder: Path) -> None:
    path = write(folder, "a-1")
    both = threading.Barrier(2)

    def notes(name: str) -> None:
        source = MarkdownTickets(folder)
        both.wait()
        for n in range(20):
            source.add_note("a-1", f"{name} {n}")

    threads = [threading.Thread(target=notes, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = path.read_text()
    assert [f"{name} {n}" for name in ("one", "two") for n in range(20) if f"\n{name} {n}\n" not in text] == []
    assert text.startswith(ticket_text("a-1"))
    assert text.count("## Notes") == 1


def test_what_somebody_else_writes_meanwhile_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, "a-1")

    def interrupted(text: str, key: str, value: str) -> str:
        if "by hand" not in text:
            path.write_text(text + "by hand\n")
        return with_field(text, key, value)

    monkeypatch.setattr("ralph_rpc.tickets.sources.markdown.with_field", interrupted)
    MarkdownTickets(folder).set_status("a-1", "closed")
    assert path.read_text() == ticket_text("a-1", status="closed") + "by hand\n"


def test_errors_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RalphError, match=r"cannot read the tickets in .*nowhere: No such file"):
        MarkdownTickets(tmp_path / "nowhere").scan()
    source = MarkdownTickets(folder)
    with pytest.raises(RalphError, match="there is no ticket a-1 in") as caught:
        source.read("a-1")[1]
    assert caught.value.hint
    with pytest.raises(RalphError, match="is not a ticket id"):
        source.read("../a-1")[1]
    (folder / "b.md").write_text("---\n{id: b}\n---\n")
    with pytest.raises(RalphError, match=r"cannot change .*b\.md:1: status cannot be changed"):
        source.set_status("b", "closed")
    write(folder, "c")
    with pytest.raises(RalphError, match="at most 1 MiB"):
        source.add_note("c", "x" * LARGEST)


def test_a_ticket_whose_file_has_another_name_is_found(folder: Path) -> None:
    (folder / "my-notes.md").write_text(ticket_text("a-1"))
    source = MarkdownTickets(folder)
    source.set_status("a-1", "closed")
    assert "status: closed" in (folder / "my-notes.md").read_text()


def test_a_folder_that_is_a_link_into_the_same_repository_is_where_it_leads_and_no_other_is_followed(
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / "docs" / "tickets").mkdir(parents=True)
    (project / "sub").mkdir()
    (project / ".tickets").symlink_to("docs/tickets")
    (project / "sub" / ".tickets").symlink_to("../.tickets")
    for start in (project, project / "sub", project / "docs"):
        assert find_tickets(start, "") == project / "docs" / "tickets"
    assert find_tickets(tmp_path, str(project / ".tickets")) == project / "docs" / "tickets"
    outside = tmp_path / "outside"
    outside.mkdir()
    (project / ".tickets").unlink()
    (project / ".tickets").symlink_to("../outside")
    with pytest.raises(UsageError, match="outside of this repository") as caught:
        find_tickets(project, "")
    assert caught.value.hint == f"if those tickets are meant, say so: --tickets {outside}"
    assert find_tickets(project, str(outside)) == outside


def test_the_folder_is_that_of_the_nearest_parent_unless_one_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / ".tickets").mkdir()
    assert find_folder(inner, {}) == tmp_path / ".tickets"
    (tmp_path / "a" / ".tickets").mkdir()
    assert find_folder(inner, {"TICKETS_DIR": ""}) == tmp_path / "a" / ".tickets"
    assert find_folder(inner, {"TICKETS_DIR": "../todo"}) == inner / "../todo"
    assert find_folder(inner, {"TICKETS_DIR": "/todo"}) == Path("/todo")
