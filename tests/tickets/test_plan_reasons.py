"""The scheduler's rows: what a person reads of each ticket, in which order, and what is kept for whom."""

from ralph_rpc.tickets.choice import Choice
from ralph_rpc.tickets.schedule import Rules
from tests.tickets.test_schedule import planned, rows, ticket

UNTAGGED = "has no component tag; runs alone, or with --allow-untagged"


def test_rows_come_by_state_then_as_tickets_are_worked_on() -> None:
    made = planned(
        ticket("done-2", "a", status="closed"),
        ticket("done-1", "a", status="closed", priority=0),
        ticket("failed", "b"),
        ticket("merge", "c"),
        ticket("blocked", "d", deps="failed"),
        ticket("waiting", "e", deps="run-2"),
        ticket("ready-10", "f"),
        ticket("ready-9", "g"),
        ticket("merging", "h"),
        ticket("run-2", "i"),
        ticket("run-1", "j", priority=4),
        standing={
            "failed": "failed",
            "merge": "needs-merge",
            "merging": "merging",
            "run-2": "running",
            "run-1": "running",
        },
        parallel=9,
    )
    assert [row.id for row in made.rows] == [
        "run-2",
        "run-1",
        "merging",
        "ready-9",
        "ready-10",
        "waiting",
        "blocked",
        "merge",
        "failed",
        "done-1",
        "done-2",
    ]
    assert made.start == ("ready-9", "ready-10")


def test_a_row_has_the_tickets_title_priority_and_sorted_components() -> None:
    (row,) = planned(ticket("a", "z m a", priority=3)).rows
    assert (row.id, row.state, row.priority, row.title, row.components, row.reason) == (
        "a",
        "ready",
        3,
        "Title a",
        ("a", "m", "z"),
        "",
    )


def test_of_tickets_that_are_gone_those_are_shown_that_run() -> None:
    made = planned(
        ticket("b", "x"),
        standing={
            "r-10": "running",
            "r-9": "running",
            "m": "merging",
            "w": "merge-waits",
            "f": "failed",
            "c": "closed",
        },
    )
    assert [row.id for row in made.rows] == ["r-9", "r-10", "m", "w", "b"]
    gone = made.rows[0]
    assert (gone.priority, gone.title, gone.components) == (0, "", ())
    assert rows(made)["m"] == ("merging", "its ticket is gone or cannot be read")
    assert rows(made)["w"] == ("merging", "its merge waits")


def test_what_a_loops_record_says_of_a_ticket_outweighs_its_file() -> None:
    made = planned(ticket("a", "x", status="closed"), ticket("b", "y", deps="a"), standing={"a": "failed"})
    assert rows(made) == {"a": ("failed", ""), "b": ("blocked", "depends on a, which failed")}


def test_up_to_three_are_named_that_a_ticket_waits_for() -> None:
    tickets = [ticket(f"a-{n}") for n in range(5)]
    names = [one.id for one in tickets]
    running = {"a-0": "running"}
    for count, told in (
        (1, "waits for a-0 (running)"),
        (2, "waits for a-0 (running), a-1 (ready)"),
        (3, "waits for a-0 (running), a-1 (ready), a-2 (ready)"),
        (4, "waits for a-0 (running), a-1 (ready), a-2 (ready) and 1 more"),
        (5, "waits for a-0 (running), a-1 (ready), a-2 (ready) and 2 more"),
    ):
        made = planned(*tickets, ticket("z", deps=" ".join(names[:count])), standing=running)  # type: ignore[arg-type]
        assert rows(made)["z"] == ("waiting", told)


def test_a_dep_that_is_done_is_not_waited_for() -> None:
    made = planned(ticket("a", "x", status="closed"), ticket("b", "y"), ticket("c", "z", deps="a b"))
    assert rows(made)["c"] == ("waiting", "waits for b (ready)")


def test_a_fault_outweighs_a_wait_wherever_it_stands_among_the_deps() -> None:
    made = planned(ticket("a", "x"), ticket("b", "y", deps="a gone"), ticket("c", "z", deps="gone a"))
    assert rows(made)["b"] == ("blocked", "dep gone does not exist (b.md:4)")
    assert rows(made)["c"] == ("blocked", "dep gone does not exist (c.md:4)")


def test_a_long_ring_is_told_by_its_first_eight_members() -> None:
    ids = [f"r{n}" for n in range(10)]
    made = planned(*(ticket(id, deps=ids[(n + 1) % 10]) for n, id in enumerate(ids)), ticket("ok", "x"))
    told = "dependency cycle r0 -> r1 -> r2 -> r3 -> r4 -> r5 -> r6 -> r7 -> … (10 tickets)"
    assert rows(made)["r5"] == ("blocked", told)
    assert made.start == ("ok",)


def test_who_depends_on_a_ring_and_on_one_that_is_to_come_is_blocked_after_both_are_judged() -> None:
    made = planned(
        ticket("a", deps="a"), ticket("b", deps="a"), ticket("c", deps="b d"), ticket("d", "x"), ticket("e", deps="c d")
    )
    assert rows(made)["b"] == ("blocked", "depends on a, which is blocked: dependency cycle a -> a")
    assert rows(made)["c"] == ("blocked", "depends on b, which is blocked: dependency cycle a -> a")
    assert rows(made)["e"] == ("blocked", "depends on c, which is blocked: dependency cycle a -> a")


def test_those_that_are_not_chosen_are_named_unless_they_could_not_run_anyway() -> None:
    tickets = ticket("a", "x"), ticket("b", "y", deps="gone"), ticket("c", "z", deps="a")
    made = planned(*tickets, only=frozenset())
    assert made.start == () and made.finished
    assert rows(made)["a"] == ("waiting", "is not among the tickets to run")
    assert rows(made)["b"] == ("blocked", "dep gone does not exist (b.md:4)")
    assert rows(made)["c"][0] == "blocked"


def test_those_that_run_and_those_that_start_now_share_the_places() -> None:
    tickets = [ticket(f"t-{n}", f"c{n}") for n in range(6)]
    made = planned(*tickets, standing={"t-0": "running", "t-1": "merge-waits"}, parallel=3)
    assert made.start == ("t-2", "t-3")
    assert rows(made)["t-4"] == ("ready", "all 3 places are taken")
    assert planned(*tickets, standing={"t-0": "running"}, parallel=1).start == ()
    assert rows(planned(*tickets, standing={"t-0": "running"}, parallel=1))["t-1"] == (
        "ready",
        "the only place is taken",
    )


def test_without_a_place_a_ticket_with_a_component_keeps_nothing_from_the_next() -> None:
    made = planned(ticket("a", "x"), ticket("b", "y"), ticket("c", "y"), parallel=1)
    assert rows(made)["b"] == ("ready", "the only place is taken")
    assert rows(made)["c"] == ("ready", "the only place is taken")


def test_untagged_tickets_have_places_too_where_they_may_run_beside_others() -> None:
    made = planned(ticket("a"), ticket("b"), ticket("c", "x"), ticket("d", "x"), allow_untagged=True, parallel=2)
    assert made.start == ("a", "b")
    assert rows(made)["c"] == ("ready", "all 2 places are taken")
    one = planned(ticket("a"), ticket("b"), allow_untagged=False, parallel=2)
    assert one.start == ("a",) and rows(one)["b"] == ("ready", UNTAGGED)


def test_an_untagged_ticket_keeps_all_places_free_for_itself_and_the_first_one_does() -> None:
    made = planned(ticket("a", "x"), ticket("u1"), ticket("u2"), ticket("z", "y"), standing={"a": "running"})
    assert made.start == ()
    assert rows(made)["u1"] == rows(made)["u2"] == ("ready", UNTAGGED)
    assert rows(made)["z"] == ("ready", "u1 is next, and runs alone")


def test_a_component_in_use_is_named_before_one_that_is_kept() -> None:
    made = planned(
        ticket("r", "x"), ticket("a", "x y"), ticket("b", "x y"), ticket("c", "y"), standing={"r": "running"}
    )
    assert rows(made)["a"] == ("ready", "component:x is in use by r")
    assert rows(made)["b"] == ("ready", "component:x is in use by r")
    assert rows(made)["c"] == ("ready", "component:y goes to a first")


def test_a_component_is_kept_for_the_first_that_waits_for_it() -> None:
    made = planned(
        ticket("r", "x"),
        ticket("a", "x y"),
        ticket("b", "y z"),
        ticket("c", "z"),
        standing={"r": "running"},
        parallel=9,
    )
    assert made.start == ()
    assert rows(made)["b"] == ("ready", "component:y goes to a first")
    assert rows(made)["c"] == ("ready", "component:z goes to b first")


def test_nothing_is_kept_for_one_that_waits_for_a_merge_that_waits_for_a_person() -> None:
    made = planned(ticket("m", "x"), ticket("a", "x y"), ticket("b", "y"), standing={"m": "merge-waits"})
    assert made.start == ("b",)
    assert rows(made)["a"] == ("ready", "component:x is in use by m, whose merge waits")


def test_a_merge_of_an_unreadable_ticket_that_waits_for_a_person_keeps_nothing_either() -> None:
    made = planned(ticket("a", "x"), ticket("b", "x"), ticket("u"), standing={"gone": "merge-waits"})
    assert made.start == ()
    for id in ("a", "b"):
        assert rows(made)[id] == ("ready", "gone, whose ticket cannot be read, must be alone")
    assert rows(made)["u"] == ("ready", UNTAGGED)


def test_beside_an_untagged_one_that_merges_nothing_starts_and_its_reason_is_the_first() -> None:
    made = planned(ticket("u"), ticket("a", "x"), ticket("b", "x"), standing={"u": "merging"})
    assert made.start == ()
    assert rows(made)["a"] == rows(made)["b"] == ("ready", "u has no component tag and runs alone")


def test_what_a_config_lacks_or_what_makes_no_sense_in_it_is_as_if_it_had_not_been_given() -> None:
    assert Rules.of({}) == Rules()
    given = {"parallel": 3, "allowUntagged": True, "only": ["a", "b"], "tags": ["ui"], "takeInProgress": True}
    choice = Choice(frozenset("ab"), tags=frozenset({"ui"}), take_in_progress=True)
    assert Rules.of(given) == Rules(3, True, choice)
    assert Rules.of({"assignees": ["@Joe"]}).choice.assignees == {"joe"}
    assert Rules.of({"allowUntagged": False}).allow_untagged is False
    for parallel in (0, -1, "4", None, 2.5):
        assert Rules.of({"parallel": parallel}).parallel == 1, parallel
    assert Rules.of({"parallel": 1}).parallel == 1
    for allowed in (None, "yes", 1):
        assert Rules.of({"allowUntagged": allowed}).allow_untagged is None, allowed
    nonsense: tuple[object, ...] = ([], None, "a")
    for only in nonsense:
        assert Rules.of({"only": only}).choice == Choice(), only
    assert Rules.of({"only": ["a", 7]}).choice.only == frozenset("a")
