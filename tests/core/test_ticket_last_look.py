"""Conversations about the end: a loop says that all is done only if it has looked, and could read what there is."""

from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.tickets.ticket import Backlog, BadTicket
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from tests.core.test_ticket_snapshot import state_of
from tests.core.ticket_talk import World, ticket, verdict

LATIN = BadTicket(Path("/t/b.md"), 3, "it is not UTF-8", "b")


def scans(world: World) -> int:
    return sum(isinstance(effect, tx.Scan) for effect in world.all)


def seen(world: World) -> results.Scanned:
    return results.Scanned(Backlog(dict(world.tickets), world.bad))


def test_a_ticket_that_the_last_agent_filed_as_its_last_act_is_done_as_well() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.tickets["b"] = ticket("b", "x")
    world.attempt("a")
    assert world.statuses == {"a": "closed", "b": "running"}
    world.attempt("b")
    assert verdict(world) == ("completed", "tickets-done") and world.statuses["b"] == "closed"


@pytest.mark.parametrize("worktrees", [True, False])
def test_a_look_that_had_begun_before_the_last_ticket_ended_proves_nothing(worktrees: bool) -> None:
    world = World(ticket("a", "x"), worktrees=worktrees, parallel=1)
    world.begin()
    world.hold = {tx.Scan}
    world.later(2_000)
    before, count = seen(world), scans(world)
    world.tickets["b"] = ticket("b", "x")
    world.attempt("a" if worktrees else "")
    assert not world.loop.ended and scans(world) == count, "one look at a time"
    world.say(before)
    assert not world.loop.ended and scans(world) == count + 1
    world.say(seen(world))
    assert world.statuses["b"] == "running"


def test_without_work_the_first_look_is_the_last() -> None:
    world = World(ticket("a", "x", status="closed"))
    world.begin()
    assert verdict(world) == ("completed", "tickets-done") and scans(world) == 1


def test_an_unreadable_ticket_beside_good_ones_is_no_done() -> None:
    world = World(ticket("a", "x"))
    world.bad = (LATIN,)
    world.begin()
    world.attempt("a")
    assert not world.loop.ended, "it may only be half-written"
    world.later(2_999)
    assert not world.loop.ended
    world.due()
    assert verdict(world) == ("error", "blocked")
    assert world.loop.error == "1 ticket needs a person: b.md:3 cannot be read: it is not UTF-8"
    queue = state_of(world).get("tickets", {})
    assert queue.get("unreadable") == queue.get("undone") == 1


def test_a_ticket_that_is_written_while_the_loop_looks_is_done() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.bad = (BadTicket(Path("/t/b.md"), 1, "it is only half-written", "b"),)
    world.attempt("a")
    assert not world.loop.ended
    world.bad, world.tickets["b"] = (), ticket("b", "x")
    world.later(2_000)
    world.attempt("b")
    assert verdict(world) == ("completed", "tickets-done") and world.statuses["b"] == "closed"


def test_of_chosen_tickets_an_unreadable_one_counts_only_if_it_is_among_them() -> None:
    for only, outcome in (["a"], "completed"), (["a", "b"], "error"):
        world = World(ticket("a", "x"), only=only)
        world.bad = (LATIN, BadTicket(Path("/t/c.md"), 1, "it has no id"))
        world.begin()
        world.attempt("a")
        for _ in range(3):
            if not world.loop.ended:
                world.later(2_000)
        assert verdict(world)[0] == outcome, only


def test_what_others_work_on_is_left_to_them_and_told() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", status="in_progress"), ticket("c", "z", status="in_progress"))
    world.begin()
    world.attempt("a")
    assert verdict(world) == ("completed", "tickets-done")
    assert world.loop.error == "all but what others work on: b, c"
    world = World(ticket("a", "x", status="in_progress"), takeInProgress=True)
    world.begin()
    assert world.statuses == {"a": "running"}


def test_a_ticket_that_the_loop_has_left_in_progress_is_its_own() -> None:
    world = World(ticket("a", "x"), attempts=2)
    world.begin()
    world.command("stop", when="now")
    while not world.loop.ended:
        world.due()
    records = dict(world.loop.settled)
    assert records["a"]["status"] == "orphaned"
    again = World(ticket("a", "x", status="in_progress"), records=records)
    again.begin()
    assert again.statuses == {"a": "running"}


def epic(id: str, **more: Any) -> Any:
    return ticket(id, type="epic", **more)


@pytest.mark.parametrize("travels", [False, True])
def test_epics_are_closed_one_after_the_other_once_their_children_are(travels: bool) -> None:
    world = World(epic("out"), epic("in", parent="out"), ticket("a", "x", parent="in"), ticket("b", deps=("out",)))
    world.epics_travel = travels
    world.begin()
    assert world.statuses == {"a": "running"}
    world.attempt("a")
    assert world.statuses == {"a": "closed", "in": "closed", "out": "closed", "b": "running"}
    assert world.merged == (["a", "in", "out"] if travels else ["a"])
    assert [e.ticket for e in world.all if isinstance(e, tx.Hire)] == ["a", "b"], "an epic has no agent"
    assert [e.ticket for e in world.all if isinstance(e, tx.MarkTicket)] == ["a", "b"]
    world.attempt("b")
    assert verdict(world) == ("completed", "tickets-done")


def test_in_the_only_checkout_an_epic_is_closed_between_two_tickets() -> None:
    world = World(
        epic("e"), ticket("a", parent="e"), ticket("b"), ticket("c"), worktrees=False, parallel=1, allowUntagged=True
    )
    world.hold = {tx.Commit}
    world.begin()
    world.attempt("")
    world.say(results.Committed("a"))
    assert world.statuses["e"] == "merging" and "b" not in world.statuses
    world.say(results.Committed("e"))
    assert world.statuses["e"] == "closed" and world.statuses["b"] == "running"


def test_an_epic_is_told_of_only_by_the_child_that_is_not_done() -> None:
    world = World(epic("e"), ticket("a", "x", parent="e"), attempts=1)
    world.begin()
    world.attempt("a", "no")
    assert verdict(world) == ("error", "failures")
    assert world.loop.error == "1 ticket needs a person: a: failed, not done after 1 attempts"
    assert state_of(world).get("tickets", {}).get("undone") == 1


def test_an_epic_that_cannot_be_closed_is_told_and_not_called_closed() -> None:
    world = World(epic("e"), ticket("a", "x", parent="e", status="closed"))
    world.hold = {tx.CloseEpic}
    world.begin()
    world.say(results.JobFailed("e", "its file is read-only"))
    assert verdict(world) == ("error", "failures")
    assert str(world.loop.error).endswith("e: failed, its file is read-only")


@pytest.mark.parametrize("keep", [False, True])
def test_a_worktree_is_kept_on_request_also_by_the_next_runner(keep: bool) -> None:
    world = World(ticket("a", "x"), keepWorktrees=keep)
    world.begin()
    world.attempt("a")
    removed = [e for e in world.all if isinstance(e, tx.RemoveWorktree)]
    assert verdict(world) == ("completed", "tickets-done")
    assert bool(removed) != keep
    assert world.loop.settled["a"]["worktreePath"] == ("/w/a" if keep else None)
    again = World(ticket("a", "x"), records=dict(world.loop.settled), keepWorktrees=keep)
    again.begin()
    assert not [e for e in again.all if isinstance(e, tx.RemoveWorktree)]
