"""Conversations about commands to a ticket loop, receipt by receipt."""

from typing import Any

import pytest

from ralph_rpc.tickets.ticket import Backlog
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.results import CommandCame, SpawnFailed
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.orders import refusal
from ralph_runner.core.tickets.state import SHARED
from tests.core.test_ticket_records import record
from tests.core.ticket_talk import World, ticket, verdict


def told(world: World, id: str) -> list[dict[str, Any]]:
    """The steps of a command, without what they all have."""
    common = ("type", "at", "id", "command")
    return [{k: v for k, v in e.items() if k not in common} for e in world.events("ralph_command") if e["id"] == id]


def journaled(world: World, id: str) -> list[tuple[str, int | None]]:
    return [(e.state, e.iteration) for e in world.all if isinstance(e, fx.Journal) and e.id == id]


def sent(world: World, key: str, command: str) -> int:
    return sum(send.command == command for send in world.sent[key])


def two() -> World:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    return world


def test_a_stop_is_delivered_with_the_end_of_the_loop_and_not_before() -> None:
    world = two()
    world.command("stop", "s")
    world.attempt("a")
    assert told(world, "s") == [{"state": "accepted"}]
    world.attempt("b")
    assert told(world, "s") == [{"state": "accepted"}, {"state": "delivered"}]
    assert journaled(world, "s") == [("delivered", None)]
    assert verdict(world) == ("stopped", "stop")


@pytest.mark.parametrize(("verb", "body"), [("stop", {"when": "now"}), ("abort", {"then": "stop"})])
def test_an_end_now_aborts_every_run(verb: str, body: dict[str, str]) -> None:
    world = two()
    world.command(verb, "s", **body)
    for key in ("a", "b"):
        assert sent(world, key, "abort") == 1
        world.attempt(key, "", stop="aborted")
    assert verdict(world) == ("stopped", "stop")
    assert told(world, "s")[-1] == {"state": "delivered"}
    assert world.statuses == {"a": "orphaned", "b": "orphaned"}


def test_a_stop_after_the_iteration_aborts_nothing() -> None:
    world = two()
    world.command("stop", "s")
    assert sent(world, "a", "abort") == 0 and not world.loop.at_once


def test_an_order_that_comes_twice_is_one_order() -> None:
    world = two()
    world.command("abort", "x")
    world.command("abort", "x")
    assert [order.id for order in world.loop.orders] == ["x"]
    assert sent(world, "a", "abort") == 1


def test_an_abort_is_delivered_when_the_last_of_the_workers_has_obeyed() -> None:
    world = two()
    world.command("abort", "x")
    world.attempt("a", "", stop="aborted")
    assert told(world, "x") == [{"state": "accepted"}]
    world.attempt("b", "", stop="aborted")
    assert told(world, "x") == [{"state": "accepted"}, {"state": "delivered"}]
    assert world.loop.orders == () and world.loop.pending == {}


def test_an_abort_is_delivered_by_a_worker_that_leaves_as_well() -> None:
    world = two()
    world.command("abort", "x")
    world.attempt("a", "", stop="aborted")
    world.command("stop", "s", when="now")
    world.say(results.From("b", PiExited(0, "sigterm", "")))
    assert told(world, "x")[-1] == {"state": "delivered"}


def test_an_abort_that_finds_nothing_to_abort_is_delivered_at_once() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.command("abort", "x")
    assert told(world, "x") == [{"state": "accepted"}, {"state": "delivered"}]


def test_an_abort_that_pauses_holds_all_workers() -> None:
    world = two()
    world.command("abort", "x", then="pause")
    for key in ("a", "b"):
        world.attempt(key, "", stop="aborted")
    assert verdict(world)[0] == "paused" and told(world, "x")[-1] == {"state": "delivered"}
    world.command("resume", "r")
    assert world.works("a") and world.works("b") and not world.loop.paused


def test_a_pause_with_no_worker_starts_no_ticket_until_it_is_resumed() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.Scan}
    world.begin()
    world.command("pause", "p")
    assert told(world, "p") == [{"state": "accepted"}, {"state": "delivered"}]
    world.hold = set()
    world.later(2_000)
    world.say(results.Scanned(Backlog(dict(world.tickets))))
    assert world.loop.jobs == {} and verdict(world)[0] == "paused"
    world.command("resume", "r")
    assert told(world, "r") == [{"state": "accepted"}, {"state": "delivered"}]
    assert world.works("a")


def test_a_pause_is_shown_once_no_merge_is_under_way() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.BuildBatch}
    world.begin()
    world.attempt("a")
    world.command("pause", "p")
    assert verdict(world)[0] == "running"
    world.conflicts["a"] = ["both changed f"]
    world.let_go()
    assert verdict(world)[0] == "paused" and len(world.prompts("a")) == 1
    world.command("resume", "r")
    assert len(world.prompts("a")) == 2


def test_a_pause_that_is_resumed_before_it_was_obeyed_says_so() -> None:
    world = two()
    world.command("pause", "p")
    world.command("resume", "r")
    assert told(world, "p") == [{"state": "accepted"}, {"state": "delivered", "reason": "taken back by a resume"}]
    world.attempt("a", "not yet")
    assert world.works("a")


def test_a_resume_takes_back_no_stop() -> None:
    world = two()
    world.command("stop", "s")
    world.command("resume", "r")
    world.attempt("a", "not yet")
    world.attempt("b", "not yet")
    assert verdict(world) == ("stopped", "stop")


def test_a_pause_that_the_end_overtakes_expires() -> None:
    world = two()
    world.command("pause", "p")
    world.command("stop", "s", when="now")
    for key in ("a", "b"):
        world.say(results.From(key, PiExited(0, "sigterm", "")))
    assert verdict(world) == ("stopped", "stop")
    assert told(world, "p")[-1]["state"] in ("expired", "delivered") and told(world, "s")[-1] == {"state": "delivered"}


def test_a_command_of_an_earlier_runner_is_not_told_again_but_obeyed() -> None:
    world = World(ticket("a", "x"))
    world.say(CommandCame("p", "pause", {}, known=True))
    world.begin()
    assert told(world, "p") == [{"state": "delivered"}] and world.loop.jobs == {}


def test_a_message_to_a_worker_is_told_with_its_ticket() -> None:
    world = two()
    world.command("steer", "m", message="quick", ticket="b")
    assert told(world, "m")[0] == {"state": "accepted", "message": "quick", "ticket": "b"}
    assert [m.id for m in world.loop.workers["b"].mail] == ["m"]
    world.attempt("b", "not yet")
    assert "quick" in world.prompts("b")[-1] and "quick" not in "".join(world.prompts("a"))


def test_a_message_for_no_ticket_goes_to_the_only_one_that_works() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)))
    world.begin()
    world.command("followup", "m", message="go on", when="next")
    world.attempt("a", "not yet")
    assert "go on" in world.prompts("a")[-1]


def test_a_message_for_no_ticket_waits_for_the_next_where_none_works() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.command("steer", "m", message="quick")
    assert told(world, "m") == [{"state": "accepted", "message": "quick"}, {"state": "queued"}]
    world.say(results.Opened("a", "base", "/w/a", reused=False))
    assert "quick" in world.prompts("a")[0] and world.loop.mail == ()


def test_a_message_of_an_earlier_runner_waits_without_being_told_again() -> None:
    world = World(ticket("a", "x"))
    world.say(CommandCame("m", "steer", {"message": "quick", "ticket": "a"}, known=True, maybe=True))
    assert told(world, "m") == [] and world.loop.mail[0].maybe
    world.begin()
    assert "quick" in world.prompts("a")[0]


def test_a_message_to_a_ticket_without_a_worker_waits_for_it_alone() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)))
    world.begin()
    world.command("steer", "m", message="for b", ticket="b")
    assert told(world, "m")[-1] == {"state": "queued"}
    world.attempt("a")
    assert "for b" in world.prompts("b")[0] and "for b" not in "".join(world.prompts("a"))


def test_a_message_that_a_worker_leaves_behind_waits_for_the_next() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)))
    world.begin()
    world.command("followup", "m", message="later", when="next")
    world.attempt("a")
    assert "later" in world.prompts("b")[0]


def test_messages_that_are_left_at_the_end_expire() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.command("followup", "m", message="later", when="next")
    world.attempt("a")
    assert told(world, "m")[-1] == {"state": "expired", "reason": "the loop ended; the text is kept in state.json"}
    assert [m.id for m in world.loop.mail] == ["m"]


def test_a_message_to_a_ticket_that_was_closed_expires_with_its_reason_and_is_gone() -> None:
    world = two()
    world.hold = {tx.Commit}
    world.attempt("a")
    world.command("steer", "m", message="too late", ticket="a")
    world.command("steer", "n", message="to another", ticket="b")
    world.hold = set()
    world.say(results.Committed("a"))
    assert told(world, "m")[-1] == {"state": "expired", "reason": "ticket a was closed first"}
    assert world.loop.mail == () and [m.id for m in world.loop.workers["b"].mail] == ["n"]


def test_which_messages_are_refused_and_why() -> None:
    world = World(
        ticket("a", "x"),
        ticket("b", "y"),
        ticket("c", "z", deps=("a",)),
        records={"d": record(ticket="d", status="closed"), "c": record(ticket="c", status="failed")},
    )
    assert refusal(world.loop, "steer", {"message": "m", "ticket": "zz"}) is None, "nothing has been read yet"
    assert refusal(world.loop, "steer", {"message": "m", "ticket": "d"}) == "ticket d is closed"
    world.tickets["d"] = ticket("d", "v")
    world.begin()
    for verb in ("steer", "followup"):
        assert refusal(world.loop, verb, {"message": "m"}) == (
            '2 tickets are being worked on (a, b): say which with "ticket" (--ticket)'
        )
    assert refusal(world.loop, "steer", {"message": "m", "ticket": "a"}) is None
    assert refusal(world.loop, "steer", {"message": "m", "ticket": "c"}) is None
    assert refusal(world.loop, "steer", {"message": "m", "ticket": "d"}) == "ticket d is closed"
    assert refusal(world.loop, "steer", {"message": "m", "ticket": "zz"}) == (
        "there is no ticket 'zz'; see: ralph-rpc tickets"
    )
    for verb in ("stop", "abort", "pause", "resume"):
        assert refusal(world.loop, verb, {}) is None  # type: ignore[arg-type]


def test_without_worktrees_a_message_goes_to_the_one_worker() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, into="")
    world.begin()
    world.command("steer", "m", message="quick", ticket="a")
    assert [m.id for m in world.loop.workers[SHARED].mail] == ["m"]
    world.attempt(SHARED, "not yet")
    assert "quick" in world.prompts(SHARED)[-1]
    world.command("steer", "n", message="for b", ticket="b")
    world.attempt(SHARED)
    assert "for b" in world.prompts(SHARED)[-1]


def test_events_of_a_worker_name_its_ticket_and_what_only_a_loop_says_is_not_passed_on() -> None:
    world = two()
    world.attempt("a")
    starts = world.events("ralph_pi_start")
    assert [(e["ticket"], e["pid"], e["argv"]) for e in starts] == [("a", 101, ["pi"]), ("b", 102, ["pi"])]
    assert len(world.events("ralph_loop_end")) == 0
    assert all("ticket" not in e for e in world.events("ralph_status"))
    begun = [e.effect for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.BeginIteration)]
    assert begun == [fx.BeginIteration(1, "work", "a"), fx.BeginIteration(2, "work", "b")]
    (ended,) = [e.effect.record for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.EndIteration)]
    assert (ended.get("ticket"), ended.get("attempt"), ended["iteration"]) == ("a", 1, 1)


def test_prices_are_warned_of_by_the_first_worker_and_by_none_that_is_hired_later() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)))
    world.begin()
    world.attempt("a", cost=0.0)
    world.attempt("b", cost=0.0)
    assert [e["ticket"] for e in world.events("ralph_notice") if "prices" in e["message"]] == ["a"]


def test_a_worker_that_is_hired_after_a_model_has_answered_gets_another_pi_where_the_first_fails() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)))
    world.begin()
    world.hold = {fx.StartPi}
    world.attempt("a")
    world.say(results.From("b", SpawnFailed("no such file")))
    assert verdict(world)[0] == "waiting" and world.statuses["b"] == "claimed"
