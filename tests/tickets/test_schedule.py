"""The scheduler, by examples and by whole runs of random backlogs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.tickets.choice import Choice, epics_of
from ralph_rpc.tickets.deps import wrong_deps
from ralph_rpc.tickets.schedule import Plan, Rules, State, plan
from ralph_rpc.tickets.standing import Standing
from ralph_rpc.tickets.ticket import Backlog, BadTicket, Doubt, Status, Ticket
from tests.effort import examples

Rows = dict[str, tuple[State, str]]
UNTAGGED = "has no component tag; runs alone, or with --allow-untagged"


def ticket(id: str, components: str = "", deps: str = "", priority: int = 2, status: Status = "open") -> Ticket:
    tags = tuple(f"component:{name}" for name in components.split())
    return Ticket(id, status, Path(f"/t/{id}.md"), f"Title {id}", tuple(deps.split()), (), tags, priority, deps_line=4)


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
    return plan(backlog(*tickets, bad=bad), standing or {}, Rules(parallel, allow_untagged, Choice(only)))


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
        assert rows(made)["b"] == ("waiting", f"waits for a ({'running' if stands == 'running' else 'merging'})")
    assert planned(*tickets).start == ("b",)
    assert planned(ticket("a", "x"), tickets[1], standing={"a": "closed"}).start == ("b",)
    assert planned(tickets[1], standing={"a": "closed"}).start == ("b",), "the file of a closed one may be gone"
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


def test_a_ticket_keeps_its_place_until_it_is_merged_unless_its_merge_waits() -> None:
    tickets = [ticket(f"a-{n}", f"c{n}") for n in range(5)]
    made = planned(*tickets, standing={"a-0": "running", "a-1": "merging"}, parallel=2)
    assert made.start == ()
    assert rows(made)["a-3"] == ("ready", "all 2 places are taken")
    made = planned(*tickets, standing={"a-0": "running", "a-1": "merge-waits"}, parallel=2)
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


def test_the_reason_is_the_same_in_whatever_order_the_records_come() -> None:
    for order in ("a-9 a-10", "a-10 a-9"):
        standing: dict[str, Standing] = {id: "running" for id in order.split()}
        assert rows(planned(ticket("b", "x"), standing=standing))["b"][1].startswith("a-9, whose ticket")


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
        ticket("f"),
        ticket("n"),
        ticket("f1", deps="f"),
        ticket("f2", deps="f1"),
        ticket("f3", deps="f2"),
        ticket("n1", deps="n"),
        ticket("m1", deps="gone\x1b"),
        ticket("m2", deps="m1"),
        ticket("b1", deps="bad"),
        ticket("c1", deps="c2"),
        ticket("c2", deps="c1"),
        ticket("c3", deps="c2"),
        ticket("ok"),
        standing={"f": "failed", "n": "needs-merge"},
        bad=(bad,),
    )
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


def epic(id: str, parent: str = "", status: Status = "open", deps: str = "") -> Ticket:
    return replace(ticket(id, deps=deps, status=status), type="epic", parent=parent)


def child(id: str, parent: str, **more: Any) -> Ticket:
    return replace(ticket(id, id, **more), parent=parent)


def test_an_epic_with_children_is_no_work_and_is_closed_with_the_last_of_them() -> None:
    tickets = epic("e"), child("a", "e"), child("b", "e"), ticket("c", "c", deps="e")
    made = planned(*tickets, parallel=1)
    assert (made.start, made.close) == (("a",), ())
    assert rows(made)["e"] == ("waiting", "epic: 0 of 2 children done")
    assert rows(made)["c"] == ("waiting", "waits for e (waiting)")
    made = planned(*tickets, standing={"a": "closed", "b": "merging"})
    assert (made.start, made.close, made.finished) == ((), (), False)
    assert rows(made)["e"] == ("waiting", "epic: 1 of 2 children done")
    made = planned(*tickets, standing={"a": "closed", "b": "closed"})
    assert (made.start, made.close, made.finished) == ((), ("e",), False)
    assert rows(made)["e"] == ("waiting", "epic: its children are done")
    assert planned(*tickets, standing={"a": "closed", "b": "closed", "e": "merging"}).close == ()
    assert planned(*tickets, standing={"a": "closed", "b": "closed", "e": "closed"}).start == ("c",)
    assert [row.is_epic for row in made.rows if row.id == "e"] == [True]


def test_an_epic_without_children_is_work_and_so_is_a_parent_that_is_no_epic() -> None:
    made = planned(epic("e"), ticket("p", "p"), child("a", "p"), child("b", "gone"), allow_untagged=True, parallel=9)
    assert made.start == ("a", "b", "e", "p")


def test_epics_in_epics_are_closed_from_within() -> None:
    tickets = epic("out"), epic("in", "out"), child("a", "in"), child("b", "out", status="closed")
    made = planned(*tickets)
    assert (made.start, made.close) == (("a",), ())
    assert rows(made)["out"] == ("waiting", "epic: 1 of 2 children done")
    made = planned(*tickets, standing={"a": "closed"})
    assert made.close == ("in",)
    assert planned(*tickets, standing={"a": "closed", "in": "closed"}).close == ("out",)
    for stuck in (epic("x", "y"), epic("y", "x")), (epic("z", "z"),):
        assert {reason for _, reason in rows(planned(*stuck)).values()} <= {
            "dependency cycle x -> y -> x",
            "dependency cycle z -> z",
        }


def test_an_epic_is_in_nobodys_way_while_it_is_closed() -> None:
    tickets = epic("e"), child("a", "e", status="closed"), ticket("b", "b"), ticket("c")
    made = planned(*tickets, standing={"e": "merging", "b": "running"}, parallel=2)
    assert rows(made)["c"] == ("ready", UNTAGGED)
    assert planned(*tickets, standing={"e": "merging"}, parallel=1).start == ("b",)
    assert not planned(*tickets[:2], standing={"e": "merging"}).finished


def test_what_waits_for_an_epic_is_blocked_by_a_child_that_fails() -> None:
    made = planned(epic("e"), child("a", "e"), ticket("b", deps="e"), standing={"a": "failed"})
    assert rows(made)["e"] == ("waiting", "epic: 0 of 1 children done")
    assert rows(made)["b"] == ("blocked", "depends on e, which waits for a, which failed")
    assert made.finished


def test_an_epic_stays_open_where_a_ticket_cannot_be_read_that_may_be_its_child() -> None:
    bad = BadTicket(Path("/t/bad.md"), 3, "it is not UTF-8", "bad")
    made = planned(epic("e"), child("a", "e", status="closed"), bad=(bad,))
    assert (made.close, made.finished) == ((), True)
    assert rows(made)["e"] == ("waiting", "epic: 1 of 1 children done, but bad.md:3 cannot be read")


def test_a_ticket_that_somebody_works_on_is_left_to_them_unless_it_is_asked_for() -> None:
    theirs = replace(ticket("a", "x", status="in_progress"), assignee="@joe")
    tickets = theirs, ticket("b", "y", deps="a"), replace(ticket("c", "z"), assignee="joe")
    made = planned(*tickets)
    assert made.start == ("c",), "who is merely assigned to it decides nothing"
    assert rows(made)["a"] == ("waiting", "is worked on by @joe; --take-in-progress takes it")
    assert rows(made)["b"] == ("blocked", "depends on a, which is worked on by @joe")
    assert [row.left_out is not None and row.left_out.is_claimed for row in made.rows if row.id == "a"] == [True]
    assert rows(planned(ticket("a", status="in_progress")))["a"][1].startswith("is worked on;")
    choose = backlog(*tickets)
    assert plan(choose, {}, Rules(9, choice=Choice(take_in_progress=True))).start == ("a", "c")
    assert plan(choose, {}, Rules(9, choice=Choice(frozenset({"a"})))).start == ("a",)
    assert plan(choose, {"a": "left"}, Rules(9)).start == ("a", "c"), "the loop itself had begun it"
    made = plan(choose, {"a": "failed"}, Rules(9))
    assert [row.left_out for row in made.rows if row.id == "a"] == [None]


def test_tickets_are_chosen_by_assignee_and_by_tag() -> None:
    tickets = [
        replace(ticket("a", "x"), assignee="Joe"),
        replace(ticket("b", "y"), assignee="@joe", tags=("ui",)),
        replace(ticket("c", "z"), tags=("ui", "area:z")),
        replace(ticket("d"), tags=("api",)),
    ]

    def chosen(**by: frozenset[str]) -> tuple[str, ...]:
        return plan(backlog(*tickets), {}, Rules(9, True, Choice(**by))).start  # type: ignore[arg-type]

    assert chosen(assignees=frozenset({"joe"})) == ("a", "b")
    assert chosen(tags=frozenset({"ui"})) == ("b", "c")
    assert chosen(tags=frozenset({"api", "area:z"})) == ("c", "d")
    assert chosen(assignees=frozenset({"joe"}), tags=frozenset({"ui"})) == ("b",)
    made = plan(backlog(*tickets), {}, Rules(9, True, Choice(assignees=frozenset({"joe", "jane"}))))
    assert rows(made)["c"] == ("waiting", "is not assigned to jane or joe")
    made = plan(backlog(*tickets), {}, Rules(9, True, Choice(tags=frozenset({"ui"}))))
    assert rows(made)["a"] == ("waiting", "has no tag ui")


def test_with_an_epic_its_children_are_chosen() -> None:
    tickets = epic("out"), epic("in", "out"), child("a", "in"), child("b", "out"), ticket("c", "c")
    assert planned(*tickets, only=frozenset({"out"})).start == ("a", "b")
    assert planned(*tickets, only=frozenset({"in"})).start == ("a",)


def test_without_a_single_component_in_the_backlog_all_run_side_by_side_unless_that_is_forbidden() -> None:
    tickets = ticket("a"), ticket("b"), ticket("c", status="closed")
    assert plan(backlog(*tickets), {}, Rules(9)).start == ("a", "b")
    assert plan(backlog(*tickets), {}, Rules(9, False)).start == ("a",)
    assert plan(backlog(*tickets, ticket("d", "x", status="closed")), {}, Rules(9)).start == ("a",)


def test_component_tags_may_begin_with_anything() -> None:
    tickets = [replace(ticket(id), tags=("area:x", "component:y"), prefix="area:") for id in "ab"]
    made = planned(*tickets)
    assert made.start == ("a",)
    assert rows(made)["b"] == ("ready", "area:x goes to a first")
    assert made.rows[0].components == ("x",)


IDS = [f"t-{n}" for n in range(8)]
COMPONENTS = "abc"
STANDS: tuple[Status, ...] = ("open", "open", "open", "in_progress", "closed")


@st.composite
def backlogs(draw: st.DrawFn) -> Backlog:
    tagged = draw(st.booleans())
    tickets = [
        Ticket(
            id,
            draw(st.sampled_from(STANDS)),
            Path(f"/t/{id}.md"),
            deps=tuple(
                draw(
                    st.lists(
                        st.sampled_from([*IDS[:n], *draw(st.sampled_from([[], IDS]))] or ["gone"]),
                        max_size=2,
                        unique=True,
                    )
                )
            )
            if draw(st.integers(0, 3))
            else (),
            tags=tuple(f"component:{c}" for c in draw(st.sets(st.sampled_from(COMPONENTS), max_size=2))) * tagged,
            priority=draw(st.integers(0, 4)),
            type=draw(st.sampled_from(["task", "task", "epic"])),
            parent=draw(st.sampled_from(["", *IDS])),
            doubt=draw(st.sampled_from([None] * 9 + [Doubt("who knows", 3)])),
        )
        for n, id in enumerate(IDS)
    ]
    return backlog(*draw(st.permutations(tickets)))


class Run:
    """A runner in miniature, which checks every plan against the rules."""

    def __init__(self, backlog: Backlog, rules: Rules) -> None:
        self.backlog, self.rules = backlog, rules
        self.standing: dict[str, Standing] = {}
        self.epics = epics_of(backlog.tickets)

    def done(self, id: str) -> bool:
        closed = id in self.backlog.tickets and self.backlog.tickets[id].status == "closed"
        return self.standing.get(id, "closed" if closed else "") == "closed"

    def busy(self) -> set[str]:
        return {id for id, stands in self.standing.items() if stands in ("running", "merging")}

    def plan(self, backwards: bool = False) -> Plan:
        tickets, standing = dict(self.backlog.tickets), dict(self.standing)
        if backwards:
            tickets, standing = dict(reversed(list(tickets.items()))), dict(reversed(list(standing.items())))
        return plan(Backlog(tickets, self.backlog.bad), standing, self.rules)

    def step(self) -> Plan:
        made = self.plan()
        assert self.plan(backwards=True) == made
        first = next((row.id for row in made.rows if row.state == "ready"), None)
        for id in made.start:
            self._may_start(id)
            self.standing[id] = "running"
        for id in made.close:
            assert self.epics[id] and all(self.done(child) for child in self.epics[id])
            assert id not in self.standing and not self.done(id)
            self.standing[id] = "merging"
        self._check_together()
        assert bool(made.start) or bool(self.busy()) or not first, "something is ready, and nothing happens"
        assert made.finished == (not self.busy())
        if first is not None and first not in made.start:
            # Those in its way may only become fewer, so its turn comes.
            assert not any(self._meet(first, id) for id in made.start)
        again = self.plan()
        assert (again.start, again.close) == ((), ()), "a plan is complete"
        return made

    def _may_start(self, id: str) -> None:
        ticket = self.backlog.tickets[id]
        assert self.standing.get(id) in (None, "left") and id not in self.epics and ticket.doubt is None
        assert all(self.done(dep) for dep in ticket.deps)
        theirs = ticket.status == "in_progress" and id not in self.standing
        assert not theirs or self.rules.choice.take_in_progress

    def _meet(self, one: str, other: str) -> bool:
        mine, its = (self.backlog.tickets[id].components for id in (one, other))
        return bool(mine & its) or (not self.rules.lets_untagged(self.backlog) and not (mine and its))

    def _check_together(self) -> None:
        busy = sorted(self.busy() - self.epics.keys())
        assert len(busy) <= self.rules.parallel
        assert not [(a, b) for a in busy for b in busy if a < b and self._meet(a, b)]


@settings(max_examples=examples(400))
@given(
    backlogs(),
    st.integers(1, 4),
    st.sampled_from([None, True, False]),
    st.booleans(),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_a_whole_run_keeps_every_rule_and_ends(
    tickets: Backlog, parallel: int, allow_untagged: bool | None, take: bool, random: Random, failures: bool
) -> None:
    run = Run(tickets, Rules(parallel, allow_untagged, Choice(take_in_progress=take)))
    for _ in range(12 * len(IDS)):
        if run.step().finished:
            break
        id = random.choice(sorted(run.busy()))
        after: list[Standing] = ["closed", "needs-merge"]
        if run.standing[id] == "running":
            after = ["merging"]
        if failures and run.standing[id] == "running":
            after = [*after, "failed", "left"]
        run.standing[id] = after[0] if not failures else random.choice(after)
    else:
        raise AssertionError("it does not end")
    made = run.plan()
    for row in made.rows:
        if row.state == "waiting":
            assert row.is_epic or (row.left_out is not None and row.left_out.is_claimed)
        else:
            assert row.state in ("done", "blocked", "failed", "needs-merge")
        if row.state == "blocked" and not failures:
            assert any(why in row.reason for why in ("does not exist", "cycle", "who knows", "is worked on")), row


def many(count: int, tags: Callable[[Random], tuple[str, ...]]) -> Backlog:
    random = Random(1)
    ids = [f"ab-{n:04x}" for n in range(count)]
    return backlog(
        *(
            Ticket(
                id,
                "open",
                Path(f"/t/{id}.md"),
                "Title",
                tuple({random.choice(ids[:n]) for _ in range(2)}) if n % 3 else (),
                (),
                tags(random),
                random.randrange(5),
            )
            for n, id in enumerate(ids)
        )
    )


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
        made = plan(tickets, standing, Rules(200))
        standing |= dict.fromkeys(made.start, "running")
    assert time.process_time() - began < 3
    assert standing


def test_a_chain_of_ten_thousand_is_planned_at_once() -> None:
    chain = [ticket(f"a-{n}", deps=f"a-{n - 1}" if n else "a-9999" * ring) for ring in (0, 1) for n in range(10_000)]
    for tickets in chain[:10_000], chain[10_000:]:
        stored = Backlog({ticket.id: ticket for ticket in tickets})
        began = time.process_time()
        made = plan(stored, {}, Rules(3))
        assert time.process_time() - began < 2
        assert made.finished == (not made.start)
        assert sum(len(row.reason) for row in made.rows) < 2_000_000
