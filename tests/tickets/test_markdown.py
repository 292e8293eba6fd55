"""Tickets as files: read as `tk` means them, again when they change, changed in one place, bad ones told."""

import os
import re
import stat
import threading
import time
from pathlib import Path

import pytest

from ralph_rpc.errors import RalphError
from ralph_rpc.files.atomic import read_plain
from ralph_rpc.tickets.frontmatter import with_field
from ralph_rpc.tickets.markdown import LARGEST, MarkdownTickets, find_folder
from ralph_rpc.tickets.source import TicketSource
from tests.tickets.folder import ticket_text, write
from tests.tickets.tk import tk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "web-app" / ".tickets"
    made.mkdir(parents=True)
    return made


def test_a_ticket_of_the_real_tk_is_read_and_changed_as_tk_does_it(folder: Path) -> None:
    project = folder.parent
    first = tk(
        project, "create", "Make the thing", "-d", "It shall work.", "-p", "1", "--tags", "component:cli,ui"
    )
    second = tk(
        project, "create", "Then this", "--external-ref", "gh-12", "--parent", first, "--acceptance", "Green."
    )
    tk(project, "dep", second, first)
    source = MarkdownTickets(folder)
    backlog = source.scan()
    assert backlog.bad == ()
    one, two = backlog.tickets[first], backlog.tickets[second]
    assert (one.title, one.status, one.priority, sorted(one.components)) == (
        "Make the thing",
        "open",
        1,
        ["cli"],
    )
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
        assert tk(project, "query").count(f'"status":"{status}"') == 2


def _status_line(data: bytes) -> bytes:
    return next(line for line in data.splitlines(keepends=True) if line.startswith(b"status:"))


@pytest.mark.parametrize(
    "body", ["# T\n\nText\n", "# T\n\nno end of line", "# T\n\n## Notes\n\nold\n\n## More\n"]
)
def test_a_note_is_what_tk_would_have_written(folder: Path, body: str) -> None:
    head = "---\nid: {}\nstatus: open\n---\n"
    (folder / "a-1.md").write_text(head.format("a-1") + body)
    (folder / "a-2.md").write_text(head.format("a-2") + body)
    source = MarkdownTickets(folder)
    for note in ("first note", "second\n\n- with a list\n"):
        for _ in range(3):  # both in the same second, sooner or later
            texts = [source.text(id).replace("a-2", "a-1") for id in ("a-1", "a-2")]
            before = time.time() // 1
            source.add_note("a-1", note)
            tk(folder.parent, "add-note", "a-2", stdin=note)
            if time.time() // 1 == before:
                break
            for id, text in zip(("a-1", "a-2"), texts, strict=True):
                (folder / f"{id}.md").write_text(text.replace("id: a-1", f"id: {id}"))
        assert source.text("a-1") == source.text("a-2").replace("id: a-2", "id: a-1")


def test_a_note_stands_under_its_time_in_a_section_of_its_own(folder: Path) -> None:
    write(folder, "a-1")
    source = MarkdownTickets(folder)
    source.add_note("a-1", "first")
    source.add_note("a-1", "second\nline\n")
    time_ = r"\*\*\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\*\*"
    wanted = rf"\n## Notes\n\n{time_}\n\nfirst\n\n{time_}\n\nsecond\nline\n"
    assert re.fullmatch(re.escape(ticket_text("a-1")) + wanted, source.text("a-1"))


def test_a_field_that_is_missing_comes_where_tk_puts_it(folder: Path) -> None:
    text = "---\nid: {}\ndeps: []\n---\n# T\n"
    (folder / "a-1.md").write_text(text.format("a-1"))
    (folder / "a-2.md").write_text(text.format("a-2"))
    source = MarkdownTickets(folder)
    assert source.scan().tickets["a-1"].status == "open"
    source.set_status("a-1", "closed")
    tk(folder.parent, "close", "a-2")
    assert source.text("a-1") == source.text("a-2").replace("a-2", "a-1")


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
    assert path.read_bytes().startswith(
        before.replace(b"in_progress", b"closed") + b"\r\n## Notes\r\n\r\n**20"
    )
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
    text = source.text("a-1")
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
        ("id: x\nstatus: done\n", 3, "status 'done' is none of open, in_progress, closed"),
        ("id: x\nstatus: [open]\n", 3, "status is not plain text"),
        ("id: x\npriority: 5\n", 3, "priority '5' is not 0 to 4"),
        ("id: x\npriority: -1\n", 3, "priority '-1' is not 0 to 4"),
        ("id: x\npriority: '٣'\n", 3, "priority '٣' is not 0 to 4"),
        ("id: x\n\ndeps: {a: b}\n", 4, "deps is not a list of plain texts"),
        ("id: ../x\n", 2, "id '../x' cannot be the name of a file and a branch"),
        ("id: x.lock\n", 2, "id 'x.lock' cannot be the name of a file and a branch"),
        ("id: a..b\n", 2, "id 'a..b' cannot be the name of a file and a branch"),
        ("id: -x\n", 2, "id '-x' cannot be the name of a file and a branch"),
        ("id: [x]\n", 2, "id is not plain text"),
        ('id: "a\\e[31m"\n', 2, "id 'a␛[31m' cannot be the name of a file and a branch"),
        ("status: open\n", 1, "it has no id"),
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
    assert backlog.bad[0].id == "x"


def test_files_that_are_no_tickets_are_named_and_never_followed(folder: Path, tmp_path: Path) -> None:
    write(folder, "good")
    outside = write(tmp_path / "outside", "link")
    (folder / "link.md").symlink_to(outside)
    (folder / "folder.md").mkdir()
    os.mkfifo(folder / "fifo.md")
    (folder / "big.md").write_bytes(ticket_text("big").encode() + b"x" * LARGEST)
    (folder / "latin.md").write_bytes(b"---\nid: latin\n---\n\n\xe9\n")
    (folder / "plain.md").write_text("hello\n")
    (folder / ".hidden.md").write_text("not ours")
    (folder / "good.md.tmp.12").write_text("half of it")
    backlog = MarkdownTickets(folder).scan()
    assert list(backlog.tickets) == ["good"]
    assert {one.path.name: (one.line, one.reason) for one in backlog.bad} == {
        "link.md": (1, "it is a link, and links are not followed"),
        "folder.md": (1, "it is not a file"),
        "fifo.md": (1, "it is not a file"),
        "big.md": (1, "it is larger than 1 MiB"),
        "latin.md": (5, "it is not UTF-8"),
        "plain.md": (1, "it has no front matter: the first line is not ---"),
    }
    for id in ("link", "fifo", "big", "latin"):
        with pytest.raises(RalphError, match=rf"ticket {id} cannot be used: .*{id}\.md:"):
            MarkdownTickets(folder).set_status(id, "closed")
    assert "status: open" in outside.read_text()


def test_of_two_tickets_with_one_id_both_are_named_and_neither_is_used(folder: Path) -> None:
    write(folder, "a")
    (folder / "b.md").write_text("---\nstatus: open\nid: a\n---\n")
    write(folder, "c", deps=["a"])
    backlog = MarkdownTickets(folder).scan()
    assert list(backlog.tickets) == ["c"]
    assert [(one.place, one.reason, one.id) for one in backlog.bad] == [
        ("a.md:2", "id a is that of b.md, too", "a"),
        ("b.md:3", "id a is that of a.md, too", "a"),
        ("c.md:4", "dep a cannot be used (b.md:3: id a is that of a.md, too)", "c"),
    ]


def test_missing_deps_and_cycles_are_named_where_they_stand_and_closed_tickets_do_not_care(
    folder: Path,
) -> None:
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

    monkeypatch.setattr("ralph_rpc.tickets.markdown.read_plain", noted)
    monkeypatch.setattr("ralph_rpc.tickets.markdown._TOUCHED_NS", 0)
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
    assert [
        f"{name} {n}" for name in ("one", "two") for n in range(20) if f"\n{name} {n}\n" not in text
    ] == []
    assert text.startswith(ticket_text("a-1"))
    assert text.count("## Notes") == 1


def test_what_somebody_else_writes_meanwhile_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, "a-1")

    def interrupted(text: str, key: str, value: str) -> str:
        if "by hand" not in text:
            path.write_text(text + "by hand\n")
        return with_field(text, key, value)

    monkeypatch.setattr("ralph_rpc.tickets.markdown.with_field", interrupted)
    MarkdownTickets(folder).set_status("a-1", "closed")
    assert path.read_text() == ticket_text("a-1", status="closed") + "by hand\n"


def test_errors_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RalphError, match=r"cannot read the tickets in .*nowhere: No such file"):
        MarkdownTickets(tmp_path / "nowhere").scan()
    source = MarkdownTickets(folder)
    with pytest.raises(RalphError, match="there is no ticket a-1 in") as caught:
        source.text("a-1")
    assert caught.value.hint
    with pytest.raises(RalphError, match="is no id of a ticket"):
        source.text("../a-1")
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


def test_the_folder_is_that_of_the_nearest_parent_unless_one_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / ".tickets").mkdir()
    assert find_folder(inner, {}) == tmp_path / ".tickets"
    (tmp_path / "a" / ".tickets").mkdir()
    assert find_folder(inner, {"TICKETS_DIR": ""}) == tmp_path / "a" / ".tickets"
    assert find_folder(inner, {"TICKETS_DIR": "../todo"}) == inner / "../todo"
    assert find_folder(inner, {"TICKETS_DIR": "/todo"}) == Path("/todo")
