"""Conversations about the operator's commands to a ticket loop."""

from typing import Any

import pytest

from ralph_runner.core.inputs import PiExited
from ralph_runner.core.phases import Paused
from ralph_runner.core.results import Broken, Terminate
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.orders import refusal
from tests.core.ticket_talk import World, ticket, verdict


def test_a_stop_lets_iterations_end_and_finished_work_be_merged() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), ticket("c", "z", deps=("a",)))
    world.begin()
    world.command("stop")
    assert world.loop.status == "stopping"
    world.attempt("a")
    world.attempt("b", "not yet")
    assert verdict(world) == ("stopped", "stop")
    assert world.statuses == {"a": "closed", "b": "orphaned"}
    assert "c" not in world.sent
    steps = [(e["id"], e["state"]) for e in world.events("ralph_command")]
    assert steps == [("c1", "accepted"), ("c1", "delivered")]


def test_a_stop_now_aborts_all_and_keeps_what_there_is() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.attempt("a", "not yet")
    world.command("stop", when="now")
    for key in ("a", "b"):
        assert any(send.command == "abort" for send in world.sent[key])
        world.say(results.From(key, PiExited(0, "sigterm", "")))
    assert verdict(world) == ("stopped", "stop")
    assert set(world.statuses.values()) == {"orphaned"}


def test_a_pause_holds_every_worker_and_a_resume_continues() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), ticket("c", "z"), parallel=2)
    world.begin()
    world.command("pause", "p")
    world.attempt("a")
    assert verdict(world)[0] == "running"
    world.attempt("b", "not yet")
    assert verdict(world)[0] == "paused"
    assert [e["state"] for e in world.events("ralph_command")] == ["accepted", "delivered"]
    assert isinstance(world.loop.workers["b"].phase, Paused)
    assert "c" not in world.sent
    world.command("resume", "r")
    assert world.loop.status == "running"
    assert "c" in world.sent
    assert len(world.prompts("b")) == 2


def test_an_abort_ends_the_runs_and_each_ticket_is_tried_again() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.command("abort", "ab")
    world.attempt("a", "x", stop="aborted")
    assert len(world.prompts("a")) == 2
    assert [e["state"] for e in world.events("ralph_command")] == ["accepted", "delivered"]


def test_a_steer_goes_to_the_ticket_that_it_names_and_to_the_only_one_that_works() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)), ticket("c", "z", deps=("b",)))
    world.begin()
    world.command("steer", "s1", message="be quick")
    world.command("steer", "s2", message="for c", ticket="c")
    assert world.loop.workers["a"].mail[0].id == "s1"
    assert [m.id for m in world.loop.mail] == ["s2"]
    world.attempt("a", "not yet")
    assert "be quick" in world.prompts("a")[-1]
    world.attempt("a")
    assert "for c" not in "".join(world.prompts("b"))
    world.attempt("b")
    assert "for c" in world.prompts("c")[0]


def test_a_steer_without_a_ticket_is_refused_where_several_work_and_lists_them() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    reason = refusal(world.loop, "steer", {"message": "hm"})
    assert reason is not None and "a, b" in reason
    assert refusal(world.loop, "steer", {"message": "hm", "ticket": "a"}) is None
    assert "no ticket" in (refusal(world.loop, "steer", {"message": "hm", "ticket": "zz"}) or "")


def test_a_message_to_a_ticket_that_was_closed_meanwhile_expires() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.hold = {tx.Commit}
    world.attempt("a")
    world.command("steer", "s", message="too late", ticket="a")
    world.hold = set()
    world.say(results.Committed("a"))
    told = [(e["id"], e["state"]) for e in world.events("ralph_command")]
    assert told[-1] == ("s", "expired")


@pytest.mark.parametrize("event", [Terminate(), Broken("the disk is gone")], ids=["sigterm", "broken"])
def test_a_runner_that_must_end_ends_all_workers(event: Any) -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.say(event)
    for key in list(world.loop.workers):
        world.say(results.From(key, PiExited(0, "sigterm", "")))
    assert world.loop.ended
    assert verdict(world) == (("stopped", "kill") if isinstance(event, Terminate) else ("error", "blocked"))
