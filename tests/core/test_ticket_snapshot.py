"""What state.json keeps of a ticket loop, and what a new runner makes of it and of the tickets' records."""

import json

from ralph_rpc.model.state import State
from ralph_runner.core.results import Now
from ralph_runner.core.tickets.snapshot import resumed_tickets, snapshot
from tests.core.ticket_talk import World, facts, ticket, verdict


def state_of(world: World) -> State:
    """As a reader of the file has it."""
    read: State = json.loads(json.dumps(snapshot(world.loop, facts(), Now(world.mono, world.wall))))
    return read


def resumed(world: World) -> World:
    """The loop under a new runner, with state.json and the records."""
    fresh = World(*world.tickets.values(), attempts=1)
    records = {**world.loop.settled, **{id: job.record for id, job in world.loop.jobs.items()}}
    fresh.loop = resumed_tickets("x", world.loop.config, state_of(world), world.loop.iteration, records, {})
    return fresh


def test_a_resume_after_an_end_gives_a_failed_ticket_a_new_chance() -> None:
    world = World(ticket("a", "x"), attempts=1)
    world.begin()
    world.attempt("a", "no")
    assert world.statuses == {"a": "failed"} and verdict(world) == ("error", "failures")
    again = resumed(world)
    again.begin()
    assert "attempt 1 of 1" in again.prompts("a")[0]
    again.attempt("a")
    assert verdict(again) == ("completed", "tickets-done")


def test_a_restart_after_a_crash_leaves_a_failed_ticket_failed() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), attempts=1)
    world.begin()
    world.attempt("a", "no")
    assert world.statuses["a"] == "failed" and world.loop.status == "running"
    again = resumed(world)
    again.begin()
    assert "a" not in again.sent and again.statuses["a"] == "failed"


def test_the_totals_and_the_ticket_include_the_run_that_is_under_way() -> None:
    world = World(ticket("a", "x"), attempts=5)
    world.begin()
    world.attempt("a", "not yet", cost=0.25)
    world.turn("a", cost=0.5)
    state = state_of(world)
    assert (state["stats"]["iterations"], state["stats"]["turns"], state["stats"]["cost"]) == (1, 2, 0.75)
    assert "tickets" in state
    (running,) = state["tickets"]["running"]
    assert running["cost"] == 0.75 and running["iteration"] == 2
    assert running.get("run") == {
        "turns": 1,
        "toolCalls": 0,
        "tokensIn": 100,
        "tokensOut": 10,
        "cacheRead": 0,
        "cacheWrite": 0,
        "cost": 0.5,
        "unpricedRequests": 0,
    }


def test_the_queue_is_told_in_figures() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), ticket("c", "z", deps=("a",)), attempts=1)
    world.begin()
    world.attempt("a")
    world.attempt("b", "no")
    state = state_of(world)
    assert "tickets" in state
    figures = {name: count for name, count in state["tickets"].items() if name != "running"}
    assert figures == {
        "total": 3,
        "closed": 1,
        "failed": 1,
        "needsMerge": 0,
        "unreadable": 0,
        "undone": 0,
        "batch": None,
        "verifyAlone": False,
    }
    assert state["currentTicket"] == "c"
