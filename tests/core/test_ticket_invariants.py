"""What holds for a ticket loop whatever its agents, its merges and its operator do."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_runner.core.inputs import PiExited
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.state import Removing
from tests.core.ticket_talk import World, ticket
from tests.effort import examples

COMPONENTS = ("x", "y", "z")
OUTCOMES = ("done", "done", "done", "not yet", "conflict", "waits", "moved", "red", "crash")
STEPS = 200


@st.composite
def backlogs(draw: st.DrawFn) -> list[Any]:
    count = draw(st.integers(1, 8))
    found = []
    for n in range(count):
        components = draw(st.lists(st.sampled_from(COMPONENTS), max_size=2, unique=True))
        deps = draw(st.lists(st.sampled_from([f"t{i}" for i in range(n)]), max_size=2, unique=True)) if n else []
        found.append(ticket(f"t{n}", *components, deps=tuple(deps), priority=draw(st.integers(0, 4))))
    return found


class Watched(World):
    """Looks after every input at what must never be."""

    def say(self, *inputs: Any) -> None:
        for one in inputs:
            super().say(one)
            self._check()

    def _check(self) -> None:
        taken: list[str] = []
        untagged = 0
        active = [id for id, job in self.loop.jobs.items() if not isinstance(job.stage, Removing)]
        for id in active:
            own = self.tickets[id].components
            untagged += not own
            taken += own
            for dep in self.tickets[id].deps:
                assert dep in self.merged, f"{id} runs before {dep} is merged"
        assert len(taken) == len(set(taken)), f"two tickets of one component: {taken}"
        assert not untagged or len(active) == 1, "an untagged ticket runs beside another"
        running = sum(1 for worker in self.loop.workers.values() if worker.status != "stopped")
        assert running <= 3 + sum(
            job.record["status"] in ("merging", "merged", "closed") for job in self.loop.jobs.values()
        )
        assert len(self.merged) == len(set(self.merged)), "merged twice"


@settings(max_examples=examples(150))
@given(backlogs(), st.lists(st.sampled_from(OUTCOMES), max_size=40), st.integers(1, 3))
def test_no_rule_of_the_queue_is_ever_broken_and_every_ticket_gets_its_end(
    tickets: list[Any], outcomes: list[str], parallel: int
) -> None:
    world = Watched(*tickets, parallel=parallel, verify="check", allowUntagged=False)
    world.begin()
    left = list(outcomes)
    for _ in range(STEPS):
        if world.loop.ended:
            break
        busy = sorted(key for key in world.loop.workers if world.works(key))
        if not busy:
            world.due()
            continue
        _carry_out(world, busy[0], left.pop(0) if left else "done")
    assert world.loop.ended, world.statuses
    settled = world.statuses
    for one in tickets:
        blocked = any(settled.get(dep) not in ("closed",) for dep in one.deps)
        assert settled.get(one.id) in (("closed", "failed", "needs-merge") if not blocked else (None,)), (
            one.id,
            settled,
        )
    assert (world.loop.status == "completed") == all(settled.get(one.id) == "closed" for one in tickets)
    assert set(world.merged) == {id for id, status in settled.items() if status == "closed"}


def _carry_out(world: World, key: str, outcome: str) -> None:
    match outcome:
        case "not yet":
            world.attempt(key, "not yet")
        case "crash":
            world.say(results.From(key, PiExited(1, "natural", "")))
        case "conflict":
            world.conflicts[key] = ["both changed f"]
            world.attempt(key)
        case "waits":
            world.waits[key] = ["a file of yours"]
            world.attempt(key)
        case "moved":
            world.lands = [results.BatchLanded()]
            world.attempt(key)
        case "red":
            world.target = (*world.target, "somebody's")
            world.merge_verifies = [1]
            world.attempt(key)
        case _:
            world.attempt(key)
