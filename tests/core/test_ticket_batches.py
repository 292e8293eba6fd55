"""What the merge queue makes of finished tickets: together where that is green, and never a tree that was not verified."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_runner.core.tickets import batch as bt
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.batch import Batch, Link
from ralph_runner.core.tickets.state import Queued
from tests.core.ticket_talk import World, ticket, tree_of
from tests.effort import examples

GREEN: Any = {"command": "check", "exitCode": 0, "durationMs": 1, "tail": ""}
RED: Any = {"command": "check", "exitCode": 1, "durationMs": 1, "tail": "broken"}


class Tried:
    """A batch that is tried to its end: what landed, who was blamed, and how many runs that took."""

    def __init__(self, count: int, red: Callable[[frozenset[int]], bool], target_known: bool = True) -> None:
        self.landed: list[int] = []
        self.blamed: list[int] = []
        self.runs = 0
        self.flukes = 0
        self.red_target = False
        self.verified = {self._tree(())} if target_known else set()
        waiting = list(range(count))
        while waiting and not self.red_target:
            waiting = self._one_batch(waiting, red)

    def _one_batch(self, waiting: list[int], red: Callable[[frozenset[int]], bool]) -> list[int]:
        links = tuple(
            Link(str(n), f"c{n}", self._tree((*self.landed, *waiting[: at + 1]))) for at, n in enumerate(waiting)
        )
        batch = Batch(links, "target", self._tree(self.landed), size=len(links))
        while True:
            match bt.next_move(batch, self.verified):
                case bt.Over():
                    return []
                case bt.Blame():
                    self.blamed.append(int(batch.links[0].ticket))
                    return [int(link.ticket) for link in batch.links[1:]]
                case bt.Check(count):
                    self.runs += 1
                    batch = replace(batch, count=count)
                    inside = (*self.landed, *(int(link.ticket) for link in batch.links[:count]))
                    if not red(frozenset(inside)):
                        self.verified.add(self._tree(inside))
                    elif count == 0:
                        self.red_target = True
                        return []
                    else:
                        batch = bt.was_red(batch, RED)
                case bt.Land(count):
                    batch = replace(batch, count=count)
                    self.flukes += bt.was_fluke(batch)
                    assert batch.links[count - 1].tree in self.verified, "it lands a tree that was not verified"
                    self.landed += [int(link.ticket) for link in batch.links[:count]]
                    batch = bt.has_landed(batch, "target")

    @staticmethod
    def _tree(inside: Any) -> str:
        return str(sorted(inside))


def _has(culprit: int, inside: frozenset[int]) -> bool:
    return culprit in inside


@pytest.mark.parametrize("count", range(1, 40))
def test_one_fault_costs_no_more_runs_than_the_logarithm_and_one(count: int) -> None:
    most = math.ceil(math.log2(count)) + 1
    for culprit in range(count):
        tried = Tried(count, partial(_has, culprit))
        assert tried.blamed == [culprit] and len(tried.landed) == count - 1
        assert tried.runs - 1 <= most, f"{tried.runs} for number {culprit} of {count}"


def test_what_is_green_together_takes_one_run() -> None:
    tried = Tried(12, lambda inside: False)
    assert (tried.runs, len(tried.landed), tried.blamed) == (1, 12, [])


def test_a_red_target_blames_nobody() -> None:
    for count in (1, 2, 7, 12):
        tried = Tried(count, lambda inside: True, target_known=False)
        assert tried.red_target and not tried.blamed and not tried.landed
        assert tried.runs <= math.ceil(math.log2(count)) + 2


def test_a_target_that_is_known_to_be_green_is_not_verified() -> None:
    assert Tried(1, lambda inside: bool(inside)).runs == 1
    assert Tried(1, lambda inside: bool(inside), target_known=False).runs == 2


@settings(max_examples=examples(300))
@given(
    st.integers(1, 12),
    st.sets(st.integers(0, 11), max_size=3),
    st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=4),
    st.booleans(),
)
def test_every_innocent_lands_and_of_each_pair_that_breaks_one_goes_back(
    count: int, alone: set[int], pairs: set[tuple[int, int]], known: bool
) -> None:
    broken = [{one, other} for one, other in pairs if one != other]

    def red(inside: frozenset[int]) -> bool:
        return bool(alone & inside) or any(pair <= inside for pair in broken)

    tried = Tried(count, red, known)
    assert sorted(tried.landed + tried.blamed) == list(range(count))
    assert not red(frozenset(tried.landed))
    assert set(tried.blamed) >= alone & set(range(count))
    for one in tried.blamed:
        before = frozenset(other for other in tried.landed if other < one)
        assert red(before | {one}), f"{one} is blamed, but breaks nothing that came before it"
    assert tried.flukes == 0


@settings(max_examples=examples(200))
@given(st.integers(2, 12), st.integers(0, 0), st.booleans())
def test_one_red_run_that_means_nothing_sends_no_one_of_several_back(count: int, first: int, known: bool) -> None:
    runs = iter([True])
    tried = Tried(count, lambda inside: next(runs, False), known)
    assert not tried.blamed and len(tried.landed) == count
    assert tried.flukes == 1


# The same in a loop, with agents


def queued(count: int, **options: Any) -> World:
    """So many tickets whose work is done while the queue was held; none is merged yet."""
    world = World(*(ticket(f"t{n}", f"c{n}") for n in range(count)), parallel=count, verify="check", **options)
    world.hold = {tx.BuildBatch}
    world.begin()
    for n in range(count):
        world.attempt(f"t{n}")
    return world


def lands(world: World) -> list[tuple[str, ...]]:
    return [e.tickets for e in world.all if isinstance(e, tx.LandBatch)]


def test_all_that_is_queued_when_the_queue_is_free_lands_by_one_move_after_one_run() -> None:
    world = queued(5)
    world.let_go()
    assert lands(world) == [("t0",), ("t1", "t2", "t3", "t4")]
    assert world.queue_verifies == [("t0", "t1", "t2", "t3", "t4")]
    assert world.merged == [f"t{n}" for n in range(5)]
    assert [e["state"] for e in world.events("ralph_batch")] == ["landed", "verifying", "landed"]


def test_the_order_is_that_of_arrival_and_not_that_of_starting() -> None:
    world = World(*(ticket(id, id) for id in "abcd"), parallel=4)
    world.hold = {tx.BuildBatch}
    world.begin()
    for id in "dbca":
        world.attempt(id)
    world.let_go()
    assert world.merged == list("dbca")


def test_the_one_at_fault_goes_back_with_the_output_and_the_names_of_those_it_broke_with() -> None:
    world = queued(4)
    world.red = lambda inside: {"t1", "t2"} <= set(inside)
    world.let_go()
    assert world.merged == ["t0", "t1", "t3"]
    prompt = world.prompts("t2")[-1]
    assert "with t0, t1; then `check` ended with exit code 1" in prompt and "exit 1" in prompt
    order = [e for e in world.all if isinstance(e, tx.Update) or (isinstance(e, tx.Hire) and e.ticket == "t2")]
    assert isinstance(order[-2], tx.Update) and isinstance(order[-1], tx.Hire), "it has what it broke with"
    world.red = lambda inside: False
    world.attempt("t2")
    assert world.merged == ["t0", "t1", "t3", "t2"] and world.loop.status == "completed"


def test_a_ticket_that_conflicts_with_the_target_goes_back_at_once_and_the_others_land() -> None:
    world = queued(4)
    world.conflicts["t2"] = ["both changed f"]
    world.hold = {tx.VerifyBatch, tx.BuildBatch}
    held, world.held = world.held, []
    world.hold = {tx.VerifyBatch}
    world.held = []
    for effect in held:
        world.say(*world._answer(effect))
    assert "both changed f" in world.prompts("t2")[-1], "while the others are still verified"
    world.let_go()
    assert world.merged == ["t0", "t1", "t3"]


def test_a_ticket_that_conflicts_with_another_of_the_batch_goes_back_when_that_one_has_landed() -> None:
    world = queued(4)
    world.behind["t3"] = ["t1"]
    world.hold = {tx.VerifyBatch}
    held, world.held = world.held, []
    for effect in held:
        world.say(*world._answer(effect))
    assert "t3" not in world.loop.workers, "what it would have to merge is not there yet"
    world.conflicts["t3"] = ["both changed f"]
    world.let_go()
    assert world.merged == ["t0", "t1", "t2"]
    assert "both changed f" in world.prompts("t3")[-1]


def test_those_that_come_while_a_batch_waits_for_its_turn_to_verify_are_taken_into_it() -> None:
    world = World(*(ticket(id, id) for id in "abcd"), parallel=4, verify="check", verifyParallel=1)
    world.begin()
    world.target = ("somebody's",)
    world.attempt("a")  # its queue's verify has the only place as soon as its own is over
    world.hold = set()
    assert world.merged == ["a"]


def test_a_tree_that_was_seen_green_is_not_verified_again() -> None:
    world = queued(1)
    world.let_go()
    assert world.queue_verifies == [] and world.merged == ["t0"], "its own verify has seen it"


def test_a_batch_that_could_not_land_is_not_verified_again_when_it_can() -> None:
    world = queued(3)
    world.lands = [results.BatchLanded("commit:t0"), results.BatchLanded(waits="a git command is running")]
    world.target = ()
    world.lands = []
    world.let_go()
    runs = len(world.queue_verifies)
    assert world.merged == ["t0", "t1", "t2"] and runs == 1


def test_a_red_target_holds_the_loop_and_costs_nobody_an_attempt() -> None:
    world = World(*(ticket(id, id) for id in "abcd"), parallel=2, verify="check")
    world.begin()
    world.target = ("broken",)
    world.red = lambda inside: "broken" in inside and "repair" not in inside
    world.attempt("a")
    world.attempt("b")
    assert not world.merged and list(world.loop.jobs) == ["a", "b", "c"], "nothing is started on a red target"
    assert "main does not pass `check` by itself" in str(world.loop.jobs["a"].record["error"])
    assert [world.loop.jobs[id].record["attempt"] for id in "abc"] == [1, 1, 1]
    runs = len(world.queue_verifies)
    for _ in range(10):
        world.later(5_000)
    assert len(world.queue_verifies) == runs, "it is verified once, not over and over"
    world.target = ("broken", "repair")
    world.later(5_000)
    assert world.merged == ["a", "b"] and world.works("d")
    assert [e for e in world.events("ralph_batch") if e["state"] == "target-red"]


def test_a_loop_that_has_nothing_but_a_red_target_waits_with_that_reason() -> None:
    world = World(ticket("a", "x"), verify="check")
    world.begin()
    world.target = ("broken",)
    world.red = lambda inside: True
    world.verifies["a"] = [0]
    world.attempt("a")
    assert world.loop.status == "waiting" and world.loop.waiting_for == "merge"
    assert "main does not pass `check` by itself" in (world.loop.error or "")


def test_a_ticket_that_repairs_a_red_target_lands_and_frees_the_others() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), parallel=2, verify="check")
    world.begin()
    world.target = ("broken",)
    world.red = lambda inside: "broken" in inside and "b" not in inside
    world.attempt("a")
    assert isinstance(world.loop.jobs["a"].stage, Queued) and world.loop.jobs["a"].stage.reason
    world.attempt("b")
    assert world.merged == ["b"]
    world.later(5_000)
    assert world.merged == ["b", "a"]


def test_a_red_verify_on_a_target_that_is_red_by_itself_uses_up_no_attempt() -> None:
    world = World(ticket("a", "x"), verify="check", attempts=1)
    world.target = ("broken",)
    world.red = lambda inside: "broken" in inside and "repair" not in inside
    world.begin()
    world.attempt("a")
    assert world.queue_verifies[0] == ("broken",), "what it began with is verified, once"
    assert world.loop.status == "waiting" and "main does not pass `check` by itself" in (world.loop.error or "")
    assert len(world.prompts("a")) == 1 and world.statuses == {"a": "merging"}
    world.target = ("broken", "repair")
    world.later(5_000)
    assert world.merged == ["a"] and world.loop.ended
    assert tree_of(world.target) in world.trees, "its own verify had not seen it"


def test_a_red_verify_on_a_target_that_is_green_counts_and_that_is_looked_at_once() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), verify="check", attempts=3)
    world.begin()
    for _ in range(2):
        world.verifies["a"] = [1]
        world.attempt("a")
    world.verifies["b"] = [1]
    world.attempt("b")
    assert len(world.prompts("a")) == 3 and len(world.prompts("b")) == 2
    assert world.queue_verifies == [()]


def test_a_stop_ends_a_claim_that_waits_for_what_is_known_of_the_target() -> None:
    world = World(ticket("a", "x"), verify="check")
    world.hold = {tx.CheckOutBatch}
    world.begin()
    world.verifies["a"] = [1]
    world.attempt("a")
    assert len(world.prompts("a")) == 1
    world.command("stop", when="now")
    world.let_go()
    assert world.loop.status == "stopped" and world.statuses == {"a": "orphaned"}


def test_a_red_target_is_looked_at_again_after_a_while_and_at_once_when_a_person_resumes() -> None:
    for resumed in (False, True):
        world = World(ticket("a", "x"), verify="check")
        world.begin()
        world.target = ("broken",)
        world.red = lambda inside: True
        world.verifies["a"] = [0]
        world.attempt("a")
        world.red = lambda inside: False
        world.later(20_000)
        assert not world.merged
        if resumed:
            world.command("resume", "r")
            world.later(5_000)
        else:
            world.later(600_000)
        assert world.merged == ["a"]


def test_a_batch_that_was_red_and_whose_parts_are_green_lands_and_is_told_as_unreliable() -> None:
    world = queued(3)
    world.merge_verifies = [1]
    world.let_go()
    assert world.merged == ["t0", "t1", "t2"]
    assert [e for e in world.events("ralph_batch") if e.get("fluke")]
    assert any("not reliable" in e["message"] for e in world.events("ralph_notice"))
    assert all(len(world.prompts(id)) == 1 for id in world.merged)


def test_how_long_a_ticket_has_waited_to_be_merged_is_in_its_record() -> None:
    world = queued(1)
    assert world.loop.jobs["t0"].record.get("queuedAt")
    world.later(7_000)
    world.let_go()
    record = world.loop.settled["t0"]
    assert record.get("waitedMs") == 7_000 and record.get("queuedAt") is None


@settings(max_examples=examples(60))
@given(
    st.integers(1, 8),
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=4),
    st.permutations(range(8)),
    st.integers(1, 4),
    st.lists(st.sampled_from(["moved", "landed"]), max_size=4),
)
def test_no_batch_of_a_loop_lands_a_tree_that_was_not_verified_and_every_ticket_gets_in(
    count: int, pairs: set[tuple[int, int]], order: list[int], parallel: int, moves: list[str]
) -> None:
    """Of each pair that breaks, the one that comes later is repaired by its agent when it is sent back."""
    broken = {frozenset((f"t{one}", f"t{other}")) for one, other in pairs if one != other and max(one, other) < count}
    repaired: set[str] = set()
    world = World(*(ticket(f"t{n}", f"c{n}") for n in range(count)), parallel=parallel, verify="check", attempts=9)

    def red(inside: tuple[str, ...]) -> bool:
        return any(
            pair <= set(inside) and not pair & repaired
            for pair in map(frozenset, combinations(inside, 2))
            if pair in broken
        )

    world.red = red
    world.begin()
    for _ in range(300):
        if world.loop.ended:
            break
        busy = sorted(
            (key for key in world.loop.workers if world.works(key)), key=lambda key: order.index(int(key[1:]))
        )
        if not busy:
            world.due()
            continue
        if len(world.prompts(busy[0])) > 1:
            repaired.add(busy[0])
        if moves and moves.pop() == "moved":
            world.lands = [results.BatchLanded()]
        world.attempt(busy[0])
        own = {tree_of((*world.began.get(busy[0], ()), busy[0]))}
        world.trees |= own
        assert tree_of(world.target) in world.trees | {tree_of(())}, "a tree that nobody has verified"
    assert world.loop.status == "completed", world.statuses
    assert sorted(world.merged) == [f"t{n}" for n in range(count)]
    assert not red(world.target)
