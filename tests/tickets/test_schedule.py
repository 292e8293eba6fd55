"""The scheduler, by examples and by whole runs of random backlogs."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.tickets.deps import wrong_deps
from ralph_rpc.tickets.schedule import Plan, Standing, State, plan
from ralph_rpc.tickets.ticket import Backlog, BadTicket, Status, Ticket

Rows = dict[str, tuple[State, str]]


def ticket(
    id: str, components: str = "", deps: str = "", priority: int = 2, status: Status = "open"
) -> Ticket:
    tags = tuple(f"component:{name}" for name in components.split())
    return Ticket(
        id, status, Path(f"/t/{id}.md"), f"Title {id}", tuple(deps.split()), (), tags, priority, deps_line=4
    )


def backlog(*tickets: Ticket, bad: tuple[BadTicket, ...] = ()) -> Backlog:
    by_id = {ticket.id: ticket for ticket in tickets}
    return Backlog(by_id, (*bad, *wrong_deps(by_id, bad)))


def planned(
    *tickets: Ticket,
    standing: Mapping[str, Standing] | None = None,
    parallel: int = 3,
    allow_untagged: bool = False,
    only: frozenset[str] | None = None,
    bad: tuple[BadTicket, ...] = (),
) -> Plan:
    return plan(
        backlog(*tickets, bad=bad),
        standing or {},
        parallel=parallel,
        allow_untagged=allow_untagged,
        only=only,
    )


def rows(made: Plan) -> Rows:
    return {row.id: (row.state, row.reason) for row in made.rows}


def test_the_order_is_priority_then_id_as_people_count() -> None:
    made = planned(ticket("a-10", "x"), ticket("a-9", "y"), ticket("z", "z", priority=0), parallel=9)
    assert made.start == ("z", "a-9", "a-10")
    assert [row.id for row in made.rows] == ["z", "a-9", "a-10"]
    assert not made.finished


def test_nothing_starts_before_what_it_depends_on_is_closed_and_merged() -> None:
    tickets = ticket("a", "x", status="closed"), ticket("b", "y", deps="a")
    for stands in ("running", "merging", "merge-waits"):
        made = planned(*tickets, standing={"a": stands})
        assert made.start == ()
        assert rows(made)["b"] == (
            "waiting",
            f"waits for a ({'running' if stands == 'running' else 'merging'})",
        )
    assert planned(*tickets).start == ("b",)
    assert planned(ticket("a", "x"), tickets[1], standing={"a": "closed"}).start == ("b",)
    assert planned(tickets[1], standing={"a": "closed"}).start == ("b",), (
        "the file of a closed one may be gone"
    )
    assert rows(planned(*tickets))["a"] == ("done", "")


def test_a_component_is_used_by_one_until_its_work_is_merged() -> None:
    tickets = ticket("a", "cli api"), ticket("b", "cli"), ticket("c", "db")
    assert planned(*tickets).start == ("a", "c")
    assert rows(planned(*tickets))["b"] == ("ready", "component:cli goes to a first")
    made = planned(*tickets, standing={"a": "running"})
    assert (made.start, rows(made)["b"]) == (("c",), ("ready", "component:cli is in use by a"))
    made = planned(*tickets, standing={"a": "merging"})
    assert rows(made)["b"] == ("ready", "component:cli is in use by a, which is being merged")
    made = planned(*tickets, standing={"a": "merge-waits"})
    assert rows(made)["b"] == ("ready", "component:cli is in use by a, whose merge waits")
    assert rows(made)["a"] == ("merging", "its merge waits")
    assert planned(*tickets, standing={"a": "closed"}).start == ("b", "c")


def test_places_are_for_those_that_run_not_for_merges() -> None:
    tickets = [ticket(f"a-{n}", f"c{n}") for n in range(5)]
    made = planned(*tickets, standing={"a-0": "running", "a-1": "merging"}, parallel=2)
    assert made.start == ("a-2",)
    assert rows(made)["a-3"] == ("ready", "all 2 places are taken")
    assert rows(planned(*tickets, parallel=1))["a-1"] == ("ready", "the only place is taken")


def test_a_ticket_without_component_runs_alone_and_gets_its_turn() -> None:
    tickets = ticket("a", "x"), ticket("b"), ticket("c", "y"), ticket("d", "z")
    why = "has no component tag; runs alone, or with --allow-untagged"
    made = planned(*tickets)
    assert made.start == ("a",)
    assert rows(made)["b"] == ("ready", why)
    assert rows(made)["c"] == ("ready", "b is next, and runs alone")
    for stands in ("running", "merging"):
        assert planned(*tickets, standing={"a": stands}).start == ()
    made = planned(*tickets, standing={"a": "closed"})
    assert made.start == ("b",)
    assert rows(made)["c"] == ("ready", "b has no component tag and runs alone")
    assert planned(*tickets, standing={"a": "closed", "b": "merging"}).start == ()
    assert planned(*tickets, allow_untagged=True).start == ("a", "b", "c")
    assert planned(ticket("a"), ticket("b"), standing={"a": "running"}, allow_untagged=True).start == ("b",)


def test_a_ticket_that_needs_two_components_is_not_overtaken_for_ever() -> None:
    tickets = ticket("both", "x y", priority=1), ticket("y-2", "y")
    made = planned(*tickets, ticket("x-1", "x", status="in_progress"), standing={"x-1": "running"})
    assert made.start == ()
    assert rows(made)["y-2"] == ("ready", "component:y goes to both first")


def test_a_merge_that_waits_for_a_person_holds_up_only_what_shares_a_component_with_it() -> None:
    tickets = ticket("a", "x"), ticket("b"), ticket("c", "x y"), ticket("d", "y"), ticket("e", "z")
    made = planned(*tickets, standing={"a": "merge-waits"})
    assert made.start == ("d", "e")
    made = planned(*tickets, standing={"a": "merge-waits", "d": "running"})
    assert made.start == ("e",), "nothing is kept for b, which cannot start before a person has acted"


def test_what_runs_without_a_readable_ticket_counts_and_is_shown() -> None:
    made = planned(ticket("b", "x"), standing={"a": "running"})
    assert made.start == ()
    assert rows(made) == {
        "a": ("running", "its ticket is gone or cannot be read"),
        "b": ("ready", "a, whose ticket cannot be read, must be alone"),
    }
    assert not made.finished


def test_blockage_is_told_with_its_cause_however_far_away() -> None:
    bad = BadTicket(Path("/t/bad.md"), 3, "bad YAML: oh", "bad")
    made = planned(
        ticket("f"), ticket("n"), ticket("f1", deps="f"), ticket("f2", deps="f1"), ticket("f3", deps="f2"),
        ticket("n1", deps="n"), ticket("m1", deps="gone\x1b"), ticket("m2", deps="m1"), ticket("b1", deps="bad"),
        ticket("c1", deps="c2"), ticket("c2", deps="c1"), ticket("c3", deps="c2"), ticket("ok"),
        standing={"f": "failed", "n": "needs-merge"}, bad=(bad,),
    )  # fmt: skip
    assert rows(made) == {
        "ok": ("ready", ""),
        "f": ("failed", ""),
        "n": ("needs-merge", ""),
        "f1": ("blocked", "depends on f, which failed"),
        "f2": ("blocked", "depends on f1, which is blocked: f failed"),
        "f3": ("blocked", "depends on f2, which is blocked: f failed"),
        "n1": ("blocked", "depends on n, which needs a merge by hand"),
        "m1": ("blocked", "dep gone␛ does not exist (m1.md:4)"),
        "m2": ("blocked", "depends on m1, which is blocked: dep gone␛ does not exist (m1.md:4)"),
        "b1": ("blocked", "dep bad cannot be used (bad.md:3: bad YAML: oh)"),
        "c1": ("blocked", "dependency cycle c1 -> c2 -> c1"),
        "c2": ("blocked", "dependency cycle c1 -> c2 -> c1"),
        "c3": ("blocked", "depends on c2, which is blocked: dependency cycle c1 -> c2 -> c1"),
    }


def test_a_long_wait_names_a_few() -> None:
    tickets = [ticket(f"a-{n}") for n in range(5)]
    made = planned(*tickets, ticket("z", deps="a-0 a-1 a-2 a-3 a-4"), parallel=1, standing={"a-0": "running"})
    assert rows(made)["z"] == ("waiting", "waits for a-0 (running), a-1 (ready), a-2 (ready) and 2 more")


def test_only_the_chosen_start_and_those_that_need_others_are_blocked() -> None:
    tickets = ticket("a", "x"), ticket("b", "y", deps="a"), ticket("c", "z"), ticket("d", deps="b")
    made = planned(*tickets, only=frozenset({"b", "c", "d"}))
    assert made.start == ("c",)
    assert rows(made)["a"] == ("waiting", "is not among the tickets to run")
    assert rows(made)["b"] == ("blocked", "depends on a, which is not among the tickets to run")
    assert planned(*tickets, only=frozenset({"b", "c"}), standing={"c": "closed"}).finished
    assert planned(*tickets, only=frozenset({"b"}), standing={"a": "closed"}).start == ("b",)


def test_it_is_finished_when_only_a_person_or_a_new_ticket_can_help() -> None:
    assert planned().finished
    assert planned(ticket("a", status="closed")).finished
    assert planned(ticket("a"), ticket("b", deps="a"), standing={"a": "failed"}).finished
    assert planned(ticket("a", deps="gone")).finished
    for stands in ("running", "merging", "merge-waits"):
        assert not planned(ticket("a"), standing={"a": stands}).finished


IDS = [f"t-{n}" for n in range(8)]
COMPONENTS = "abc"


@st.composite
def backlogs(draw: st.DrawFn) -> Backlog:
    tickets = [
        Ticket(
            id, draw(st.sampled_from(["open", "open", "in_progress", "closed"])), Path(f"/t/{id}.md"),
            deps=tuple(draw(st.lists(st.sampled_from([*IDS[:n], *draw(st.sampled_from([[], IDS]))] or ["gone"]),
                                     max_size=2, unique=True))) if draw(st.integers(0, 3)) else (),
            tags=tuple(f"component:{c}" for c in draw(st.sets(st.sampled_from(COMPONENTS), max_size=2))),
            priority=draw(st.integers(0, 4)),
        )
        for n, id in enumerate(IDS)
    ]  # fmt: skip
    return backlog(*draw(st.permutations(tickets)))


class Run:
    """A runner in miniature, which checks every plan against the rules."""

    def __init__(self, backlog: Backlog, parallel: int, allow_untagged: bool) -> None:
        self.backlog, self.parallel, self.allow_untagged = backlog, parallel, allow_untagged
        self.standing: dict[str, Standing] = {}

    def done(self, id: str) -> bool:
        closed = id in self.backlog.tickets and self.backlog.tickets[id].status == "closed"
        return self.standing.get(id, "closed" if closed else "") == "closed"

    def busy(self) -> set[str]:
        return {id for id, stands in self.standing.items() if stands in ("running", "merging")}

    def plan(self, backwards: bool = False) -> Plan:
        tickets, standing = dict(self.backlog.tickets), dict(self.standing)
        if backwards:
            tickets, standing = dict(reversed(list(tickets.items()))), dict(reversed(list(standing.items())))
        return plan(
            Backlog(tickets, self.backlog.bad),
            standing,
            parallel=self.parallel,
            allow_untagged=self.allow_untagged,
        )

    def step(self) -> Plan:
        made = self.plan()
        assert self.plan(backwards=True) == made
        first = next((row.id for row in made.rows if row.state == "ready"), None)
        for id in made.start:
            assert id not in self.standing
            assert all(self.done(dep) for dep in self.backlog.tickets[id].deps)
            self.standing[id] = "running"
        self._check_together()
        assert bool(made.start) or bool(self.busy()) or not first, "something is ready, and nothing happens"
        assert made.finished == (not self.busy())
        if first is not None and first not in made.start:
            # Those in its way may only become fewer, so its turn comes.
            assert not any(self._meet(first, id) for id in made.start)
        assert self.plan().start == (), "a plan is complete"
        return made

    def _meet(self, one: str, other: str) -> bool:
        mine, its = (self.backlog.tickets[id].components for id in (one, other))
        return bool(mine & its) or (not self.allow_untagged and not (mine and its))

    def _check_together(self) -> None:
        assert sum(stands == "running" for stands in self.standing.values()) <= self.parallel
        busy = sorted(self.busy())
        assert not [(a, b) for a in busy for b in busy if a < b and self._meet(a, b)]


@settings(max_examples=400)
@given(backlogs(), st.integers(1, 4), st.booleans(), st.randoms(use_true_random=False), st.booleans())
def test_a_whole_run_keeps_every_rule_and_ends(
    tickets: Backlog, parallel: int, allow_untagged: bool, random: Random, failures: bool
) -> None:
    run = Run(tickets, parallel, allow_untagged)
    for _ in range(10 * len(IDS)):
        if run.step().finished:
            break
        id = random.choice(sorted(run.busy()))
        after: list[Standing] = ["merging"] if run.standing[id] == "running" else ["closed", "needs-merge"]
        if failures and run.standing[id] == "running":
            after.append("failed")
        run.standing[id] = after[0] if not failures else random.choice(after)
    else:
        raise AssertionError("it does not end")
    left = [
        row
        for row in plan(run.backlog, run.standing, parallel=1, allow_untagged=False).rows
        if row.state != "done"
    ]
    assert all(row.state in ("blocked", "failed", "needs-merge") for row in left)
    if not failures:
        assert all("does not exist" in row.reason or "cycle" in row.reason for row in left)


def many(count: int, tags: Callable[[Random], tuple[str, ...]]) -> Backlog:
    random = Random(1)
    ids = [f"ab-{n:04x}" for n in range(count)]
    return backlog(*(
        Ticket(
            id, "open", Path(f"/t/{id}.md"), "Title", tuple({random.choice(ids[:n]) for _ in range(2)}) if n % 3 else (),
            (), tags(random), random.randrange(5),
        )
        for n, id in enumerate(ids)
    ))  # fmt: skip


SHAPES: dict[str, Callable[[Random], tuple[str, ...]]] = {
    "many components": lambda random: (f"component:{random.randrange(500)}",),
    "one component": lambda _: ("component:x",),
    "none": lambda _: (),
    "mixed": lambda random: tuple(f"component:{random.randrange(50)}" for _ in range(random.randrange(4))),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_thousand_tickets_are_planned_at_once_whatever_runs(shape: str) -> None:
    """CPU time, so that a busy machine does not matter; a quadratic pass would take minutes."""
    tickets = many(10_000, SHAPES[shape])
    began = time.process_time()
    standing: dict[str, Standing] = {}
    for _ in range(3):
        made = plan(tickets, standing, parallel=200, allow_untagged=False)
        standing |= dict.fromkeys(made.start, "running")
    assert time.process_time() - began < 3
    assert standing


def test_a_chain_of_ten_thousand_is_planned_at_once() -> None:
    chain = [
        ticket(f"a-{n}", deps=f"a-{n - 1}" if n else "a-9999" * ring)
        for ring in (0, 1)
        for n in range(10_000)
    ]
    for tickets in chain[:10_000], chain[10_000:]:
        stored = Backlog({ticket.id: ticket for ticket in tickets})
        began = time.process_time()
        made = plan(stored, {}, parallel=3, allow_untagged=False)
        assert time.process_time() - began < 2
        assert made.finished == (not made.start)
        assert sum(len(row.reason) for row in made.rows) < 2_000_000
