"""People work beside a ticket loop: they rewrite the target, and write into the tickets that run."""

from pathlib import Path

import pytest

from ralph_rpc.git import checkout
from ralph_rpc.git.line_merge import merged
from ralph_rpc.git.merge import Landed
from ralph_rpc.git.repository import repository_lock
from ralph_rpc.git.trees import Conflict
from tests.tickets.folder import write

from .conftest import Repo
from .ticketing import Ticket

NOTE = "\n## Notes\n\n**2026-02-06T18:00:00Z**\n\n{}\n"


@pytest.fixture
def ticket(repo: Repo) -> Ticket:
    """With one commit of its own, on top of two of a person's that are only on main."""
    repo.commit("person.txt", "first\n")
    repo.commit("person.txt", "second\n")
    made = Ticket(repo.path, "ab-1")
    made.add()
    made.write("own.txt", "the ticket's\n")
    made.commit()
    return made


def on_main(repo: Repo) -> list[str]:
    return repo.git("log", "--topo-order", "--format=%s", "main").splitlines()


@pytest.mark.parametrize("how", ["amend", "squash", "reset", "rebase"])
def test_of_a_target_that_was_rewritten_no_old_commit_comes_back(repo: Repo, ticket: Ticket, how: str) -> None:
    old = repo.git("rev-parse", "main")
    match how:
        case "amend":
            repo.write("person.txt", "second, amended\n")
            repo.git("commit", "-qam", "amended", "--amend")
        case "squash":
            repo.git("reset", "-q", "--soft", "HEAD~2")
            repo.git("commit", "-qm", "squashed")
        case "reset":
            repo.git("reset", "-q", "--hard", "HEAD~1")
        case "rebase":
            repo.git("checkout", "-qb", "upstream", "HEAD~2")
            repo.commit("upstream.txt", "theirs\n")
            repo.git("checkout", "-q", "main")
            repo.git("rebase", "-q", "upstream")
    before = on_main(repo)
    landed = ticket.land()
    assert isinstance(landed, Landed)
    assert sorted(on_main(repo)) == sorted([*before, "Merge ab-1", "Work on ab-1"])
    assert repo.git("log", "--first-parent", "--format=%s", "main").splitlines() == ["Merge ab-1", *before]
    assert old not in repo.git("rev-list", "main").splitlines()
    assert repo.git("show", "main:own.txt") == "the ticket's"
    assert ticket.remove() is None


def test_each_commit_of_the_ticket_s_keeps_its_author_and_message(repo: Repo, ticket: Ticket) -> None:
    repo.write("more.txt", "more\n", at=ticket.path)
    repo.git("add", "more.txt", at=ticket.path)
    repo.git(
        "commit", "-qm", "more, at last", "--author", "Ägent <a@b.c>", "--date", "@1000000000 +0200", at=ticket.path
    )
    repo.git("commit", "-q", "--amend", "-m", "amended")
    assert isinstance(ticket.land(), Landed)
    told = repo.git("log", "--topo-order", "--no-merges", "--format=%an|%s|%aI", "-2", "main").splitlines()
    assert told[0] == "Ägent|more, at last|2001-09-09T03:46:40+02:00" and "|Work on ab-1|" in told[1]


def test_a_branch_that_had_merged_the_old_target_is_carried_over_as_one_commit(repo: Repo, ticket: Ticket) -> None:
    repo.commit("between.txt", "between\n")
    assert isinstance(ticket.update(), str)
    repo.git("reset", "-q", "--hard", "HEAD~2")
    repo.commit("new.txt", "new\n")
    assert isinstance(ticket.land(), Landed)
    assert repo.git("ls-tree", "--name-only", "main").split() == [
        ".gitignore",
        "a.txt",
        "new.txt",
        "own.txt",
        "person.txt",
    ]
    assert repo.git("show", "main:person.txt") == "first"


def test_a_conflict_with_the_rewritten_target_tells_the_agent_to_rebase_and_not_to_merge(
    repo: Repo, ticket: Ticket
) -> None:
    fork = repo.git("rev-parse", "main")
    repo.write("own.txt", "a person's\n")
    repo.git("add", "own.txt")
    repo.git("commit", "-q", "--amend", "-m", "amended")
    assert ticket.look().outdated == {ticket.branch}
    found = ticket.land()
    assert isinstance(found, Conflict) and found.files == ("own.txt",)
    assert f"git rebase --onto main {fork[:12]}" in found.text
    repo.git("rebase", "-q", "--onto", "main", fork, "-X", "theirs", at=ticket.path)
    assert isinstance(ticket.land(), Landed)
    assert sorted(on_main(repo)) == ["Merge ab-1", "Work on ab-1", "a.txt: one", "amended", "person.txt: first"]


@pytest.fixture
def noted(repo: Repo) -> Ticket:
    """A ticket that git tracks, closed on its branch with a note; main is checked out."""
    write(repo.path / ".tickets", "ab-1", "Sort it")
    repo.git("add", ".tickets")
    repo.git("commit", "-qm", "tickets")
    made = Ticket(repo.path, "ab-1")
    made.add()
    own = made.path / ".tickets/ab-1.md"
    own.write_text(own.read_text().replace("status: open", "status: closed") + NOTE.format("The agent's."))
    made.write("own.txt", "own\n")
    made.commit()
    return made


def users(repo: Repo) -> Path:
    return repo.path / ".tickets/ab-1.md"


def check_both(repo: Repo) -> None:
    text = users(repo).read_text()
    assert text.count("status: closed") == 1 and "status: open" not in text
    assert text.count("A person's.") == 1 and text.count("The agent's.") == 1 and "<<<<" not in text


@pytest.mark.parametrize("staged", [False, True])
def test_a_note_on_a_ticket_that_runs_is_not_in_the_way_of_its_merge(repo: Repo, noted: Ticket, staged: bool) -> None:
    users(repo).write_text(users(repo).read_text() + NOTE.format("A person's."))
    if staged:
        repo.git("add", ".tickets")
    assert isinstance(noted.land(), Landed)
    check_both(repo)
    assert "The agent's." in repo.git("show", "main:.tickets/ab-1.md")
    assert "A person's." not in repo.git("show", "main:.tickets/ab-1.md")
    assert ("A person's." in repo.git("show", ":.tickets/ab-1.md")) is staged
    assert repo.git("status", "--porcelain").split() == ["M", ".tickets/ab-1.md"]
    repo.git("commit", "-qam", "note")
    check_both(repo)


def test_a_note_that_was_committed_on_the_target_does_not_conflict(repo: Repo, noted: Ticket) -> None:
    users(repo).write_text(users(repo).read_text() + NOTE.format("A person's."))
    repo.git("commit", "-qam", "a note")
    assert isinstance(noted.land(), Landed)
    check_both(repo)
    assert repo.git("status", "--porcelain") == ""


def test_a_ticket_that_a_person_has_removed_stays_gone_and_its_work_lands(repo: Repo, noted: Ticket) -> None:
    repo.git("rm", "-q", ".tickets/ab-1.md")
    repo.git("commit", "-qm", "not needed any more")
    assert isinstance(noted.land(), Landed)
    assert repo.git("ls-tree", "-r", "--name-only", "main", "--", ".tickets", "own.txt").split() == ["own.txt"]
    assert repo.git("status", "--porcelain") == "" and not users(repo).exists()


def test_a_branch_is_brought_up_to_date_with_a_target_that_lacks_its_ticket(repo: Repo, noted: Ticket) -> None:
    repo.git("rm", "-q", ".tickets/ab-1.md")
    repo.git("commit", "-qm", "not needed any more")
    assert not isinstance(noted.update(), Conflict)
    assert not (noted.path / ".tickets/ab-1.md").exists() and (noted.path / "own.txt").exists()


def test_a_status_that_both_have_changed_is_the_branch_s_and_other_fields_are_the_person_s(
    repo: Repo, noted: Ticket
) -> None:
    text = users(repo).read_text().replace("status: open", "status: in_progress").replace("priority: 2", "priority: 0")
    users(repo).write_text(text + NOTE.format("A person's."))
    assert isinstance(noted.land(), Landed)
    check_both(repo)
    assert "priority: 0" in users(repo).read_text()


def test_a_note_beside_a_conflict_in_the_code_leaves_only_the_code_to_the_agent(repo: Repo, noted: Ticket) -> None:
    users(repo).write_text(users(repo).read_text() + NOTE.format("A person's."))
    repo.write("own.txt", "a person's\n")
    repo.git("add", "-A", ".tickets", "own.txt")
    repo.git("commit", "-qm", "both")
    found = noted.conflict()
    assert isinstance(found, Conflict) and found.files == ("own.txt",)


def test_a_move_that_died_before_the_note_was_merged_is_finished(
    repo: Repo, noted: Ticket, monkeypatch: pytest.MonkeyPatch
) -> None:
    users(repo).write_text(users(repo).read_text() + NOTE.format("A person's."))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkout, "_merge_lines", dies)
        noted.land()
    assert "The agent's." not in users(repo).read_text()
    for _ in range(2):
        with repository_lock(repo.path) as held:
            checkout.finish_interrupted(held, repo.path)
    check_both(repo)
    assert isinstance(noted.land(), Landed)
    check_both(repo)


def test_a_merge_by_lines_keeps_what_either_side_took_out_and_changes_nothing_when_done_again() -> None:
    base = b"---\nid: a\nstatus: open\ntags:\n  - x\n---\n# T\n\n- [ ] one\n- [ ] two\nlast"
    person = b"---\nid: a\nstatus: open\ntags:\n  - x\n  - y\n---\n# T\n\n- [ ] two\nlast\nnote\n"
    branch = b"---\nid: a\nstatus: closed\ntags:\n  - x\n---\n# T\n\n- [ ] one\n- [x] two\nlast\nagent\n"
    whole = merged(base, person, branch)
    assert whole == b"---\nid: a\nstatus: closed\ntags:\n  - x\n  - y\n---\n# T\n\n- [x] two\nlast\nnote\nagent\n"
    assert merged(base, whole, branch) == whole
    assert merged(b"", b"a\n", b"b\n") == b"a\nb\n"
