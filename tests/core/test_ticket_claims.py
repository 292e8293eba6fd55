"""A ticket's claim that the shell refuses before verify: told once or twice for nothing, then at the price of an attempt."""

from typing import Any

from ralph_runner.core import effects as fx
from ralph_runner.core.results import Verified
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from tests.core.ticket_talk import World, ticket, verdict


def refuses(world: World, why: str = "nothing here") -> None:
    world.attempt("a", "It is so.\n<promise>COMPLETE</promise>")
    world.say(results.From("a", Verified(None, refusal=why)))


def held(attempts: int, **options: Any) -> World:
    world = World(ticket("a"), attempts=attempts, **options)
    world.hold = {fx.RunVerify}
    world.begin()
    return world


def test_a_refused_claim_uses_up_no_attempt_and_heads_the_next_prompt() -> None:
    world = held(1)
    refuses(world)
    assert "nothing here" in world.prompts("a")[1] and "attempt 2 of 2" in world.prompts("a")[1]
    world.attempt("a")
    world.say(results.From("a", Verified(None, passed=True)))
    assert world.statuses == {"a": "closed"}


def test_an_agent_that_does_not_listen_comes_to_its_end() -> None:
    world = held(1)
    for _ in range(3):
        refuses(world)
    assert world.statuses["a"] == "failed" and len(world.prompts("a")) == 3
    assert verdict(world) == ("error", "failures")


def test_what_it_says_beside_the_claim_goes_with_the_question() -> None:
    world = held(1, verify="make")
    world.attempt("a", "First.\n\nIt is so.\n**<promise>COMPLETE</promise>**\n")
    asked = [one.effect for one in world.all if isinstance(one, tx.To) and isinstance(one.effect, fx.RunVerify)]
    assert asked == [fx.RunVerify("make", 3_600_000, "First.\n\nIt is so.")]
