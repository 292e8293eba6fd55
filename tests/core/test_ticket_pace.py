"""How long a backlog takes beside the work in it, and that verify is started over with newcomers only where that pays."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ralph_runner.core import effects as fx
from ralph_runner.core.results import Verified
from ralph_runner.core.tickets import batch as bt
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.batch import Batch, Link
from ralph_runner.core.tickets.gate import QUEUE
from tests.core.ticket_clock import ClockedWorld
from tests.core.ticket_talk import World, ticket
from tests.effort import examples

WORK_MS, VERIFY_MS = 3_000, 5_000
TIMES_IDEAL = 1.2
"""The goal of the benchmark is 1.3, and there are other costs."""
GREEN: Any = {"command": "check", "exitCode": 0, "durationMs": 1, "tail": ""}
RED: Any = {"command": "check", "exitCode": 1, "durationMs": 1, "tail": "broken"}


@pytest.mark.parametrize(("tickets", "parallel"), [(12, 6), (24, 12)])
@pytest.mark.parametrize("early", [200, 500])
def test_a_backlog_takes_the_time_of_its_work_and_one_verify(tickets: int, parallel: int, early: int) -> None:
    """The first agent of a round is ready so much earlier than the others, which come in one after the other."""
    backlog = [ticket(f"t{n}", f"c{n}") for n in range(tickets)]
    works = [WORK_MS, *(WORK_MS + early + 40 * place for place in range(1, parallel))]
    world = ClockedWorld(*backlog, works=works, verify_ms=VERIFY_MS, parallel=parallel, verify="check")
    ideal = tickets // parallel * (WORK_MS + VERIFY_MS) + VERIFY_MS
    assert world.run(10 * ideal) <= TIMES_IDEAL * ideal
    assert world.loop.status == "completed"


def links(count: int) -> Batch:
    tried = tuple(Link(f"t{n}", f"c{n}", f"tree{n}") for n in range(count))
    return Batch(tried, doing="verifying", count=count, size=count, formed=1_000, first=1_000)


def test_verify_is_started_over_where_the_newcomers_gain_more_than_the_others_lose() -> None:
    for inside, newcomers, passed, grows in (
        (1, 1, 2_400, True),
        (1, 1, 2_500, False),
        (4, 1, 900, True),
        (4, 1, 1_000, False),
        (1, 5, 4_000, True),
    ):
        told = f"{newcomers} to {inside} after {passed} ms"
        assert bt.should_grow(links(inside), newcomers, 5_000, 1_000 + passed) == grows, told


def test_verify_is_not_started_over_where_it_is_not_known_how_long_it_takes() -> None:
    assert not bt.should_grow(links(1), 5, 0, 1_000)


@given(st.integers(1, 600_000), st.lists(st.tuples(st.integers(1, 5), st.floats(0, 1)), max_size=30))
@example(60_000, [(1, 0.99)] * 12)
def test_however_many_come_the_last_run_begins_before_the_first_would_have_ended(
    verify_ms: int, coming: list[tuple[int, float]]
) -> None:
    """They come after such a part of the time in which it pays to start over."""
    batch = links(1)
    for newcomers, part in coming:
        now = batch.formed + int(part * verify_ms * newcomers / (batch.count + newcomers))
        if bt.should_grow(batch, newcomers, verify_ms, now):
            batch = replace(links(batch.count + newcomers), formed=now, first=batch.first)
    assert batch.formed - batch.first < verify_ms


def verifying(*ids: str) -> World:
    """The first of these tickets has landed, and the second is verified by the queue; the others are still worked on."""
    world = World(*(ticket(id, id) for id in ids), parallel=len(ids), verify="check", attempts=3)
    world.verify_ms = 5_000
    world.begin()
    world.attempt(ids[0])
    world.hold = {tx.VerifyBatch, tx.CancelVerifyBatch}
    world.attempt(ids[1])
    assert world.merged == [ids[0]] and world.held == [
        tx.VerifyBatch((ids[1],), "check", world.held[0].timeout_ms, (ids[1],))
    ]
    return world


def cancelled(world: World) -> int:
    return sum(isinstance(effect, tx.CancelVerifyBatch) for effect in world.all)


@pytest.mark.parametrize("late", [None, RED, GREEN], ids=["none", "red", "green"])
def test_what_a_cancelled_verify_says_after_all_does_not_count(late: Any) -> None:
    world = verifying("a", "b", "c", "d")
    world.later(100)
    world.attempt("c")
    assert cancelled(world) == 1
    world.attempt("d")
    assert cancelled(world) == 1, "it is told to end once"
    world.say(results.BatchVerified(late))
    assert world.merged == ["a"] and len(world.prompts("b")) == 1
    assert isinstance(world.held[-1], tx.VerifyBatch) and world.held[-1].tickets == ("b", "c", "d")
    assert not world.loop.gate.waiting and len(world.loop.gate.running) == 1
    assert [e["tickets"] for e in world.events("ralph_batch") if e["state"] == "restarted"] == [["b"]]
    world.held = world.held[-1:]
    world.let_go()
    assert world.merged == ["a", "b", "c", "d"] and world.loop.status == "completed"
    assert world.queue_verifies == [("a", "b", "c", "d")]


def test_a_verify_that_has_run_for_long_is_not_started_over() -> None:
    world = verifying("a", "b", "c")
    world.later(2_500)
    world.attempt("c")
    assert not cancelled(world)
    world.let_go()
    assert world.merged == ["a", "b", "c"] and world.queue_verifies == [("a", "b"), ("a", "b", "c")]


def test_a_verify_is_not_started_over_where_another_would_take_its_place() -> None:
    world = World(*(ticket(id, id) for id in "abcd"), parallel=4, verify="check", verifyParallel=2)
    world.verify_ms = 5_000
    world.begin()
    world.attempt("a")
    world.hold = {tx.VerifyBatch, fx.RunVerify}
    world.attempt("b")
    world.attempt("c")
    world.say(results.From("b", Verified(GREEN)))
    world.attempt("d")
    world.say(results.From("c", Verified(GREEN)))
    assert [run.key for run in world.loop.gate.running] == [QUEUE, "d"]
    assert not cancelled(world), "d is verified by then, and the merge queue would have to wait for it"


def test_a_stop_while_a_verify_is_started_over_lands_nothing_more() -> None:
    world = verifying("a", "b", "c")
    world.attempt("c")
    assert cancelled(world) == 1
    world.command("stop", when="now")
    world.say(results.BatchVerified(None))
    assert world.loop.status == "stopped" and world.merged == ["a"]
    assert world.statuses == {"a": "closed", "b": "merging", "c": "merging"}


@settings(max_examples=examples(60))
@given(
    st.integers(1, 8),
    st.integers(1, 6),
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=3),
    st.lists(st.integers(100, 12_000), min_size=1, max_size=12),
    st.integers(200, 9_000),
    st.sampled_from([None, 1, 2]),
)
def test_whenever_tickets_come_each_lands_and_no_tree_that_no_whole_run_has_seen(
    count: int, parallel: int, pairs: set[tuple[int, int]], works: list[int], verify_ms: int, limit: int | None
) -> None:
    """Of each pair that breaks, the one that comes later is repaired by its agent when it is sent back."""
    broken = {frozenset((f"t{one}", f"t{other}")) for one, other in pairs if one != other and max(one, other) < count}
    options: dict[str, Any] = {"verifyParallel": limit} if limit else {}
    world = ClockedWorld(
        *(ticket(f"t{n}", f"c{n}") for n in range(count)),
        works=works,
        verify_ms=verify_ms,
        parallel=parallel,
        verify="check",
        attempts=9,
        **options,
    )

    def red(inside: tuple[str, ...]) -> bool:
        found = (frozenset(pair) for pair in combinations(inside, 2))
        return any(pair in broken and not any(len(world.prompts(id)) > 1 for id in pair) for pair in found)

    world.red = red
    world.run(10_000_000)
    assert world.loop.status == "completed", world.statuses
    assert sorted(world.merged) == [f"t{n}" for n in range(count)] and not red(world.target)
    assert not world.unverified
    for told in world.restarted:
        first = max(at for at in world.begun if at <= told)
        assert told - first < verify_ms
