"""What task loops and ticket loops tell the world in the same way."""

from typing import Any

from ralph_runner.core import effects as fx
from tests.core.talk import MARKER, Talk, done
from tests.core.ticket_talk import World, ticket, verdict

ENDED = "the loop ended"


def steps(effects: list[Any], id: str) -> list[tuple[str, str | None]]:
    """(state, reason) of a command, as its events tell them."""
    events = [e.event for e in effects if isinstance(e, fx.Emit)]
    return [(e["state"], e.get("reason")) for e in events if e["type"] == "ralph_command" and e["id"] == id]


def test_a_pause_that_the_end_overtakes_expires_and_a_stop_is_delivered() -> None:
    talk = Talk()
    talk.boot()
    talk.command("pause", id="p")
    talk.command("stop", id="s")
    talk.iterate(MARKER)
    assert done(talk) == ("completed", "marker")
    world = World(ticket("a", "x"))
    world.begin()
    world.command("stop", "s")
    world.attempt("a")
    assert verdict(world) == ("stopped", "stop")
    assert steps(talk.all, "p") == [("accepted", None), ("expired", ENDED)]
    for effects in (talk.all, world.all):
        assert steps(effects, "s") == [("accepted", None), ("delivered", None)]


def test_every_receipt_is_in_the_journal_before_its_event() -> None:
    talk = Talk()
    talk.boot()
    talk.command("stop", id="s")
    talk.iterate()
    done(talk)
    world = World(ticket("a", "x"))
    world.begin()
    world.command("stop", "s")
    world.attempt("a")
    for effects in (talk.all, world.all):
        told = next(
            n
            for n, e in enumerate(effects)
            if isinstance(e, fx.Emit) and e.event["type"] == "ralph_command" and e.event["state"] == "delivered"
        )
        before = effects[told - 1]
        assert isinstance(before, fx.Journal) and (before.id, before.state) == ("s", "delivered")


def test_the_last_event_tells_the_end_and_only_then_the_shell_may_leave() -> None:
    talk = Talk(maxIterations=1)
    talk.boot()
    talk.iterate()
    done(talk)
    world = World(ticket("a", "x"))
    world.begin()
    world.attempt("a")
    for effects, reason in ((talk.all, "max-iterations"), (world.all, "tickets-done")):
        last, finish = effects[-2:]
        assert isinstance(finish, fx.Finish) and isinstance(last, fx.Emit)
        assert last.event["type"] == "ralph_loop_end" and last.event["stopReason"] == reason


def test_a_change_of_status_is_told_once_and_saved() -> None:
    talk = Talk()
    talk.boot()
    talk.iterate()
    told = [e.event for e in talk.all if isinstance(e, fx.Emit) and e.event["type"] == "ralph_status"]
    assert [(e["from"], e["to"]) for e in told] == [("starting", "running")]
    at = next(n for n, e in enumerate(talk.all) if isinstance(e, fx.Emit) and e.event["type"] == "ralph_status")
    assert isinstance(talk.all[at + 1], fx.Save)
