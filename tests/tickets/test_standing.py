"""Where a ticket stands by its record, and that the table of `tickets` shows the plan that the runner makes."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.queue import queue_of, read_ticket_loop, source_of
from ralph_rpc.loops.status import LoopStatus
from ralph_rpc.model.ticket import TicketStatus
from ralph_rpc.tickets.standing import Standing, is_busy, piles_up, standing, takes_place
from ralph_rpc.tickets.ticket import BadTicket
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.results import Now
from ralph_runner.core.snapshot import Facts
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results as rp
from ralph_runner.core.tickets.snapshot import new_tickets, resumed_tickets, snapshot
from ralph_runner.core.tickets.step import step, the_plan
from tests.core.talk import config
from tests.core.ticket_talk import World, ticket
from tests.tickets.folder import write

ALIVE = LoopStatus(None, "alive", "running")
FACTS = Facts("x", "/p", "/p/.ralph/x", 5, 1.0, "boot", "", None)


@pytest.mark.parametrize("status", get_args(TicketStatus))
def test_every_status_of_a_record_means_something_or_leaves_the_ticket_free(status: str) -> None:
    record = {"status": status, "error": None}
    now, later = standing(record, has_runner=True), standing(record, has_runner=False)
    assert (now == "left") == (status == "orphaned")
    assert now in get_args(Standing)
    assert later == ("left" if status in ("claimed", "running", "verifying") else now)


def test_a_status_of_a_later_version_leaves_the_ticket_free() -> None:
    assert standing({"status": "dreaming"}, has_runner=True) is None
    assert standing({}, has_runner=True) is None


def test_a_finished_ticket_has_no_place_and_piles_up_unless_its_merge_waits_for_a_person() -> None:
    merging, waiting = {"status": "merging", "error": None}, {"status": "merging", "error": "README is in the way"}
    assert standing(merging, has_runner=True) == "merging"
    assert standing(waiting, has_runner=True) == "merge-waits"
    assert standing(waiting, has_runner=False) == "merging", "the next runner tries it first"
    assert standing({"status": "merged", "error": "x"}, has_runner=True) == "merging"
    assert [one for one in get_args(Standing) if takes_place(one)] == ["running"]
    assert [one for one in get_args(Standing) if piles_up(one)] == ["merging"]
    assert [one for one in get_args(Standing) if is_busy(one)] == ["running", "merging", "merge-waits"]
    assert not takes_place(None) and not piles_up(None) and not is_busy(None)


def test_the_table_knows_which_tickets_were_chosen_and_that_a_merge_keeps_its_place(tmp_path: Path) -> None:
    for id in "abc":
        write(tmp_path / ".tickets", id, tags=[f"component:{id}"])
    options = {"tickets": ".tickets", "parallel": 1, "only": ["a", "b"]}
    paths = LoopPaths.of(tmp_path, "night")
    paths.tickets.mkdir(parents=True)
    paths.config.write_bytes(orjson.dumps(options))
    (paths.tickets / "a.json").write_bytes(orjson.dumps({"ticket": "a", "status": "merging"}))
    loop, problems = read_ticket_loop(paths)
    backlog = source_of(loop, tmp_path).scan()
    why = {row.id: (row.state, row.reason) for row in queue_of(backlog, loop).rows}
    assert problems == []
    assert why == {
        "a": ("merging", ""),
        "b": ("ready", "the only place is taken"),
        "c": ("waiting", "is not among the tickets to run"),
    }


class Shown(World):
    """A loop whose files are written as the shell writes them, and read after every step."""

    def __init__(self, folder: Path, *tickets: Any, **options: Any) -> None:
        super().__init__(*tickets, **options)
        self.paths = LoopPaths.of(folder, "x")
        self.paths.tickets.mkdir(parents=True, exist_ok=True)
        for left in self.paths.tickets.iterdir():
            left.unlink()
        self.paths.config.write_bytes(orjson.dumps(self.loop.config))

    def say(self, *inputs: Any) -> None:
        queue = list(inputs)
        while queue:
            self.loop, effects = step(self.loop, queue.pop(0), Now(self.mono, self.wall, 0.5))
            self.all += effects
            for effect in effects:
                if isinstance(effect, tx.KeepRecord):
                    (self.paths.tickets / f"{effect.record['ticket']}.json").write_bytes(orjson.dumps(effect.record))
                queue += self._answer(effect)
            self._compare()

    def _compare(self) -> None:
        if self.loop.backlog is None:
            return
        loop, problems = read_ticket_loop(self.paths)
        assert problems == []
        assert queue_of(self.loop.backlog, replace(loop, found=ALIVE)) == the_plan(self.loop)

    def stop_and_resume(self, **changes: Any) -> None:
        self.command("stop", when="now")
        for _ in range(20):
            if self.loop.ended:
                break
            self.due()
        assert self.loop.ended
        records = {path.stem: orjson.loads(path.read_bytes()) for path in self.paths.tickets.iterdir()}
        state = snapshot(self.loop, FACTS, Now(self.mono, self.wall, 0.5))
        options = config(**{**self.loop.config, **changes})
        self.paths.config.write_bytes(orjson.dumps(options))
        self.loop = resumed_tickets("x", options, state, 0, records, {})
        self.begin()

    def lose_state_and_resume(self) -> None:
        """The runner is killed, and state.json with it."""
        records = {path.stem: orjson.loads(path.read_bytes()) for path in self.paths.tickets.iterdir()}
        self.loop = new_tickets("x", self.loop.config, records)
        self.begin()


def why(world: Shown) -> dict[str, tuple[str, str]]:
    return {row.id: (row.state, row.reason) for row in the_plan(world.loop).rows}


def test_a_merge_that_waited_and_then_goes_back_to_its_agent_needs_its_place_again(tmp_path: Path) -> None:
    world = Shown(tmp_path, ticket("a", "x"), ticket("b", "y"), ticket("c", "z"), parallel=1)
    world.begin()
    world.waits["a"] = ["README is in the way"]
    world.attempt("a")
    assert why(world)["a"] == ("merging", "its merge waits")
    assert why(world)["c"] == ("ready", "the only place is taken"), "b has it"
    world.conflicts["a"] = ["both changed README"]
    world.later(10_000)
    assert why(world)["a"] == ("merging", "")
    world.attempt("b")
    assert world.statuses == {"a": "running", "b": "closed"}, "its own work comes before that of c"
    assert why(world)["c"] == ("ready", "the only place is taken")


def test_a_ticket_that_was_left_unmerged_counts_as_unmerged_as_soon_as_the_loop_resumes(tmp_path: Path) -> None:
    world = Shown(tmp_path, ticket("a", "x"), ticket("b", "x"), parallel=1, attempts=1)
    world.begin()
    world.conflicts["a"] = ["both changed f"] * 2
    world.attempt("a")
    world.attempt("a")
    assert world.statuses == {"a": "needs-merge", "b": "running"}
    world.hold.add(tx.OpenWorktree)
    world.stop_and_resume()
    assert why(world) == {"a": ("merging", ""), "b": ("ready", "component:x is in use by a, which is being merged")}


def test_a_ticket_that_failed_gets_its_new_chance_in_the_table_as_well(tmp_path: Path) -> None:
    world = Shown(tmp_path, ticket("a", "x"), ticket("b", "y"), ticket("c", "z", deps=("a",)), parallel=1, attempts=1)
    world.begin()
    world.attempt("a", "no")
    assert why(world)["a"] == ("failed", "")
    world.tickets["b"] = ticket("b", "y", priority=0)
    world.stop_and_resume()
    assert why(world) == {
        "b": ("running", ""),
        "a": ("ready", "the only place is taken"),
        "c": ("waiting", "waits for a (ready)"),
    }


TICKETS = st.tuples(
    st.sampled_from(["", "x", "y", "z"]),
    st.booleans(),
    st.integers(0, 4),
    st.sampled_from(["open", "open", "open", "in_progress", "closed"]),
    st.sampled_from(["", "", "t0", "t3"]),
    st.booleans(),
    st.sampled_from(["joe", "@Joe", ""]),
)
EVENTS = ("done", "not yet", "conflict", "waits", "red", "failed step", "crash", "pause", "resume", "stop", "lost")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(TICKETS, min_size=1, max_size=6),
    st.integers(1, 3),
    st.fixed_dictionaries(
        {
            "allowUntagged": st.sampled_from([None, True, False]),
            "takeInProgress": st.booleans(),
            "assignees": st.sampled_from([[], [], ["joe"]]),
            "tags": st.sampled_from([[], [], ["component:x", "component:y"]]),
        }
    ),
    st.lists(st.integers(0, 5), max_size=4),
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from(EVENTS), max_size=30),
)
def test_the_table_is_the_runners_plan_at_every_step(
    tmp_path: Path,
    made: list[tuple[str, bool, int, Any, str, bool, str]],
    parallel: int,
    choice: dict[str, Any],
    only: list[int],
    worktrees: bool,
    unread: bool,
    events: list[str],
) -> None:
    tickets = [
        replace(
            ticket(f"t{n}", *component, deps=(f"t{n - 1}",) if depends and n else (), priority=priority, status=status),
            type="epic" if is_epic else "task",
            parent=parent,
            assignee=assignee,
        )
        for n, (component, depends, priority, status, parent, is_epic, assignee) in enumerate(made)
    ]
    world = Shown(
        tmp_path,
        *tickets,
        parallel=parallel if worktrees else 1,
        worktrees=worktrees,
        only=[f"t{n}" for n in only],
        verify="check",
        **choice,
    )
    world.epics_travel = worktrees
    world.bad = (BadTicket(Path("/t/bad.md"), 3, "it is not UTF-8", "bad"),) if unread else ()
    world.begin()
    for event in events:
        if world.loop.ended:
            break
        _happens(world, event)


def _happens(world: Shown, event: str) -> None:
    match event:
        case "pause" | "resume":
            world.command(event, id=f"{event}{world.mono}")
            return
        case "stop":
            world.stop_and_resume()
            return
        case "lost":
            world.lose_state_and_resume()
            return
    key = next((key for key in world.loop.workers if world.works(key)), None)
    if key is None:
        if world.loop.status != "paused":
            world.due()
        return
    match event:
        case "not yet":
            world.attempt(key, "not yet")
        case "crash":
            world.say(rp.From(key, PiExited(1, "natural", "")))
        case "conflict":
            world.conflicts[key] = ["both changed f"]
            world.attempt(key)
        case "waits":
            # And then it cannot be merged after all, which sends it back to its agent.
            world.waits[key] = ["a file of yours"]
            world.attempt(key)
            world.conflicts[key] = ["both changed f"]
        case "red":
            world.target = (*world.target, "somebody's")
            world.merge_verifies = [1]
            world.attempt(key)
        case "failed step":
            world.hold.add(tx.Commit)
            world.attempt(key)
            world.hold.clear()
            held = key or next(iter(world.loop.jobs), "")
            world.say(rp.JobFailed(held, "git is gone"))
        case _:
            world.attempt(key)
