"""Conversations about what a new runner makes of the tickets that an earlier one left."""

from ralph_runner.core.tickets import effects as tx
from tests.core.ticket_talk import World, ticket, verdict


def test_finished_work_of_an_earlier_run_is_only_merged() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.hold = {tx.BuildBatch}
    world.attempt("a")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    assert records["a"]["status"] == "merging"
    again = World(ticket("a", "x"), records=records)
    again.begin()
    assert again.merged == ["a"]
    assert verdict(again) == ("completed", "tickets-done")
    assert not any(isinstance(e, tx.Hire) for e in again.all)


def test_what_was_merged_when_the_runner_died_is_only_closed() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.CloseTicket}
    world.begin()
    world.attempt("a")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    assert records["a"]["status"] == "merged"
    again = World(ticket("a", "x"), records=records)
    again.begin()
    assert not again.merged
    assert again.statuses == {"a": "closed"}


def test_a_ticket_left_by_a_dead_runner_is_tried_again_in_its_worktree() -> None:
    world = World(ticket("a", "x"), attempts=3)
    world.begin()
    world.attempt("a", "not yet")
    records = {id: job.record for id, job in world.loop.jobs.items()}
    again = World(ticket("a", "x"), records=records, attempts=3)
    again.begin()
    assert "attempt 3 of 3" in again.prompts("a")[0] or "attempt 2 of 3" in again.prompts("a")[0]
    again.attempt("a")
    assert again.statuses == {"a": "closed"}


def test_tickets_of_a_dead_runner_are_orphaned_at_once_also_those_that_cannot_start_yet() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    records = {id: job.record for id, job in world.loop.jobs.items()}
    again = World(ticket("a", "x"), ticket("b", "y"), records=records, parallel=1)
    again.begin()
    assert again.statuses == {"a": "running", "b": "orphaned"}
    assert [e["to"] for e in again.events("ralph_ticket") if e["ticket"] == "b"] == ["orphaned"]
