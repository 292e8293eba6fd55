"""Which verifications run at one time, and that a red one in company is not believed."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_runner.core import effects as fx
from ralph_runner.core.results import Verified
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import gate as gt
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.gate import QUEUE, Gate
from tests.core.ticket_talk import World, ticket
from tests.effort import examples

GREEN: Any = {"command": "check", "exitCode": 0, "durationMs": 1, "tail": ""}
RED: Any = {"command": "check", "exitCode": 1, "durationMs": 1, "tail": "port in use"}
RUN = tx.CancelVerifyBatch()
"""Any effect: the gate does not look at it."""


def verifying(*ids: str, **options: Any) -> World:
    """These tickets' agents are done; their verify commands run, or wait to run."""
    world = World(*(ticket(id, id) for id in ids), parallel=len(ids), verify="check", **options)
    world.hold = {fx.RunVerify}
    world.begin()
    for id in ids:
        world.attempt(id)
    return world


def started(world: World) -> list[str]:
    return [e.key for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.RunVerify)]


def say(world: World, key: str, verify: Any) -> None:
    world.say(results.From(key, Verified(verify)))


def notices(world: World) -> list[str]:
    return [e["message"] for e in world.events("ralph_notice")]


def test_a_red_run_beside_another_is_done_again_alone_and_only_that_counts() -> None:
    world = verifying("a", "b")
    assert started(world) == ["a", "b"], "at the same time"
    say(world, "a", RED)
    assert started(world) == ["a", "b"], "b is not done yet"
    assert len(world.prompts("a")) == 1
    say(world, "b", GREEN)
    assert started(world) == ["a", "b", "a"]
    say(world, "a", GREEN)
    assert len(world.prompts("a")) == 1 and world.merged == ["b", "a"]
    assert [one for one in notices(world) if "red beside another one and green alone" in one]


def test_a_run_that_is_red_alone_as_well_counts() -> None:
    world = verifying("a", "b")
    say(world, "a", RED)
    say(world, "b", GREEN)
    say(world, "a", RED)
    assert len(world.prompts("a")) == 2 and "port in use" in world.prompts("a")[-1]
    assert not notices(world)


def test_a_red_run_that_nothing_ran_beside_counts_at_once() -> None:
    world = verifying("a")
    say(world, "a", RED)
    assert started(world) == ["a"] and len(world.prompts("a")) == 2


def test_once_two_have_disturbed_each_other_one_runs_at_a_time_and_that_outlives_the_runner() -> None:
    world = verifying("a", "b", "c")
    say(world, "a", RED)
    say(world, "b", GREEN)
    say(world, "c", GREEN)
    say(world, "a", GREEN)
    assert world.loop.gate.alone
    later = World(ticket("a", "x"), ticket("b", "y"), parallel=2, verify="check")
    later.loop = replace(later.loop, gate=Gate(alone=True), verified=("base",))
    later.hold = {fx.RunVerify}
    later.begin()
    later.attempt("a")
    later.attempt("b")
    assert started(later) == ["a"]
    say(later, "a", RED)
    assert len(later.prompts("a")) == 2, "nothing ran beside it"
    assert started(later) == ["a", "b"]


def test_a_number_that_the_user_has_fixed_stays() -> None:
    world = verifying("a", "b", "c", verifyParallel=2)
    assert started(world) == ["a", "b"]
    say(world, "a", RED)
    say(world, "b", GREEN)
    assert started(world) == ["a", "b", "a"], "alone, though two may run"
    say(world, "a", GREEN)
    assert started(world) == ["a", "b", "a", "c"]
    assert any("--verify-parallel 2" in one for one in notices(world))


def test_the_queues_verify_goes_before_those_of_workers_that_wait() -> None:
    gate = Gate()
    for key in ("a", "b", QUEUE):
        gate = gt.asked(gate, key, RUN)
    order = []
    for _ in range(3):
        gate, run = gt.admit(gate, 1)
        assert run is not None
        order.append(run.key)
        gate, _, _ = gt.ended(gate, run.key, GREEN)
    assert order == [QUEUE, "a", "b"]


def test_a_stop_ends_a_verify_that_only_waits() -> None:
    world = verifying("a", "b", verifyParallel=1)
    assert started(world) == ["a"]
    world.command("stop", when="now")
    cancelled = [e.key for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.CancelVerify)]
    assert cancelled == ["a"]
    say(world, "a", None)
    assert world.loop.status == "stopped" and world.statuses == {"a": "orphaned", "b": "orphaned"}
    assert started(world) == ["a"]


def test_tickets_that_come_while_the_queue_waits_to_verify_are_taken_into_its_batch() -> None:
    world = verifying("a", "b", "c", "d")
    world.target = ("somebody's",)
    say(world, "a", RED)
    say(world, "d", GREEN)
    assert not world.queue_verifies, "a is to be alone first"
    say(world, "b", GREEN)
    say(world, "c", GREEN)
    say(world, "a", GREEN)
    assert world.queue_verifies[0] == ("somebody's", "d", "b", "c")


@settings(max_examples=examples(200))
@given(
    st.lists(st.tuples(st.sampled_from("abcdq"), st.booleans()), max_size=40), st.one_of(st.none(), st.integers(1, 3))
)
def test_no_red_run_counts_that_another_ran_beside(events: list[tuple[str, bool]], limit: int | None) -> None:
    gate = Gate()
    beside: dict[str, bool] = {}
    known: set[str] = set()

    def admit() -> None:
        nonlocal gate
        while True:
            gate, run = gt.admit(gate, limit)
            if run is None:
                break
            for key in beside:
                beside[key] = True
            assert not (run.again and beside), "a second run is alone"
            beside[run.key] = bool(beside)
        assert limit is None or len(gate.running) <= limit
        assert gate.running or not gate.waiting, "something waits, and nothing runs"
        assert not gate.alone or limit is not None or len(beside) <= 1 or all(beside.values())

    for key, green in events:
        if key in beside:
            company = beside.pop(key)
            gate, counts, _ = gt.ended(gate, key, GREEN if green else RED)
            assert counts == (green or not company)
            if counts:
                known.discard(key)
        elif key not in known:
            known.add(key)
            gate = gt.asked(gate, key, RUN)
        admit()
