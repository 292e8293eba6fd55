"""What --worktree-setup changed in a worktree is not the ticket's work."""

import json
from pathlib import Path

import pytest

from ralph_rpc.git import set_up
from ralph_rpc.git.merge import Landed
from ralph_rpc.git.uncommitted import drop_uncommitted

from .conftest import Repo
from .ticketing import Ticket


@pytest.fixture
def ticket(repo: Repo) -> Ticket:
    """Its setup has rewritten a lock file, removed a file, and made a new file and a link."""
    repo.commit("package.lock", "one\n")
    repo.commit("removed.txt", "there\n")
    made = Ticket(repo.path, "ab-1")
    made.add()
    made.write("package.lock", "one\ntwo\n")
    made.write("new.txt", "by setup\n")
    (made.path / "removed.txt").unlink()
    (made.path / "link").symlink_to("new.txt")
    set_up.note_changes(made.path)
    return made


def as_set_up(path: Path) -> bool:
    read = {name: (path / name).read_text() for name in ("package.lock", "new.txt", "link")}
    return (
        read == {"package.lock": "one\ntwo\n", "new.txt": "by setup\n", "link": "by setup\n"}
        and not (path / "removed.txt").exists()
    )


def test_it_is_not_committed_and_stays_through_verification_and_update(repo: Repo, ticket: Ticket) -> None:
    ticket.write("own.txt", "own\n")
    ticket.commit()
    assert repo.git("show", "--name-only", "--format=", ticket.branch) == "own.txt"
    ticket.write("own.txt", "by verify\n")
    drop_uncommitted(ticket.path)
    assert as_set_up(ticket.path) and (ticket.path / "own.txt").read_text() == "own\n"
    repo.commit("a.txt", "two\n")
    assert isinstance(ticket.land(), Landed)
    assert as_set_up(ticket.path)
    assert repo.git("show", "main:package.lock") == "one" and repo.git("show", "main:removed.txt") == "there"
    assert ticket.remove() is None


def test_what_the_agent_then_changes_in_such_a_file_is_work(repo: Repo, ticket: Ticket) -> None:
    ticket.write("package.lock", "one\ntwo\nthree\n")
    ticket.commit()
    assert repo.git("show", "--name-only", "--format=", ticket.branch) == "package.lock"


def test_what_the_agent_has_committed_of_it_is_taken_back(repo: Repo, ticket: Ticket) -> None:
    base = repo.git("rev-parse", "main")
    ticket.write("own.txt", "own\n")
    repo.git("add", "-A", at=ticket.path)
    repo.git("commit", "-qm", "everything", at=ticket.path)
    assert set_up.leave_out(ticket.path, base, "Leave out\n")
    assert not set_up.leave_out(ticket.path, base, "Leave out\n")
    assert repo.git("diff", "--name-only", base, ticket.branch) == "own.txt"
    assert as_set_up(ticket.path)
    assert isinstance(ticket.land(), Landed) and ticket.remove() is None


def test_a_file_that_the_target_has_changed_meanwhile_is_the_target_s(repo: Repo, ticket: Ticket) -> None:
    ticket.write("own.txt", "own\n")
    ticket.commit()
    repo.commit("package.lock", "another\n")
    assert isinstance(ticket.update(), str)
    assert (ticket.path / "package.lock").read_text() == "another\n"


def test_a_note_that_makes_no_sense_is_as_if_there_were_none(repo: Repo, ticket: Ticket) -> None:
    note = Path(repo.git("rev-parse", "--absolute-git-dir", at=ticket.path)) / set_up.CHANGED
    assert set(json.loads(note.read_text())) == {"package.lock", "removed.txt", "new.txt", "link"}
    note.write_text("[")
    assert set_up.left_by_setup(ticket.path) == frozenset()
