"""What a ticket loop is refused for before anything is made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig import git
from tests.ticket_rig import TicketRig, fake_tickets, hold

pytestmark = pytest.mark.usefixtures("no_leftovers")


def refused(rig: TicketRig, *args: str) -> str:
    """The one line of a start that makes nothing."""
    done = rig.begin(*args, check=2)
    assert not rig.paths.dir.exists()
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return str(done.stderr)


@pytest.fixture
def rig(tmp_path: Path) -> TicketRig:
    rig = fake_tickets(tmp_path)
    rig.add("t-1", "cli")
    rig.commit()
    return rig


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--only", "t-9"], "no such ticket"),
        (["-m", "hello"], "a ticket loop's tasks are its tickets"),
        (["--into", "main"], "--into needs worktrees"),
        (["--no-merge"], "--no-merge needs worktrees"),
        (["--worktree-setup", "true"], "--worktree-setup needs worktrees"),
        (["--no-worktrees", "--parallel", "2"], "needs worktrees"),
        (["--worktrees", "--into", "nowhere"], "no branch 'nowhere'"),
        (["--worktree", "b"], "--worktree is for task loops"),
        (["--reflect-every", "2"], "--reflect-every is for task loops"),
        (["--prompt-template", "/tf {ticket}"], "{ticket}"),
        (["--parallel", "0"], "at least 1"),
        (["--attempts", "x"], "whole number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused_with_one_line(rig: TicketRig, args: list[str], why: str) -> None:
    assert why in refused(rig, *args)


def test_a_ticket_that_is_closed_is_named_where_only_chooses_it(rig: TicketRig) -> None:
    """Others are open, so that it is not the backlog that is empty."""
    for id in ("t-2", "t-3"):
        rig.add(id, "cli")
    path = rig.project / ".tickets" / "t-2.md"
    path.write_text(path.read_text().replace("status: open", "status: closed"))
    rig.commit()
    assert "--only: t-2 is closed. See: ralph-rpc tickets" in refused(rig, "--only", "t-2")


def closed(rig: TicketRig) -> None:
    path = rig.project / ".tickets" / "t-1.md"
    path.write_text(path.read_text().replace("status: open", "status: closed"))
    rig.commit()


def gone(rig: TicketRig) -> None:
    git(rig.project, "rm", "-rqf", ".tickets")
    git(rig.project, "commit", "-qm", "none")


def dirty(rig: TicketRig) -> None:
    (rig.project / "README").write_text("mine\n")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [(closed, "no open ticket"), (gone, "there is no .tickets folder"), (dirty, "1 uncommitted file")],
    ids=["all closed", "no folder", "own changes in the only checkout"],
)
def test_a_project_in_which_there_is_nothing_to_do_safely_is_refused(
    rig: TicketRig, spoil: Callable[[TicketRig], None], why: str
) -> None:
    spoil(rig)
    assert why in refused(rig)


def test_options_of_ticket_loops_are_refused_for_a_task(rig: TicketRig) -> None:
    done = rig.run("start", "x", "--pi", rig.pi, "-m", "hi", "--parallel", "2", check=2)
    assert "--parallel is for ticket loops" in done.stderr


def test_a_dry_run_shows_the_first_ticket_and_makes_nothing(rig: TicketRig) -> None:
    shown = rig.begin("--worktrees", "--dry-run").stdout
    assert "Ticket t-1, Do t-1 (attempt 1 of 3)" in shown and "merges the branch into main" in shown
    assert not rig.paths.dir.exists()


def test_a_second_ticket_loop_in_the_project_is_refused_and_names_the_first(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [[{"tool": "bash", "run": hold()}, "x"]]})
    rig.add("t-1", "cli")
    rig.commit()
    rig.begin("--worktrees")
    rig.wait_held("t-1")
    done = rig.run("start", "y", "--pi", rig.pi, "--tickets", "--worktrees", check=4)
    assert "'x' is working on the tickets" in done.stderr
    rig.run("stop", "x", "--now")
    rig.wait_end()
