"""Conversations with the core of a ticket loop."""

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AgentEnd, AgentStart, AssistantEnd, AssistantStart, PiExited, Reply, Settled, Usage
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.state import SHARED
from tests.core.talk import MARKER
from tests.core.ticket_talk import World, ticket, verdict


def finish(world: World) -> fx.Finish:
    return next(e for e in world.all if isinstance(e, fx.Finish))


def test_tickets_are_worked_on_merged_and_closed_one_after_the_other_where_they_depend() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)))
    world.begin()
    assert list(world.loop.workers) == ["a"]
    world.attempt("a")
    assert world.merged == ["a"]
    assert list(world.loop.workers) == ["b"]
    world.attempt("b")
    assert verdict(world) == ("completed", "tickets-done")
    assert world.statuses == {"a": "closed", "b": "closed"}
    assert world.merged == ["a", "b"]
    assert finish(world).how == "completed"


def test_the_record_is_on_disk_before_each_step_that_it_tells_of() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.attempt("a")
    kept = [e.record["status"] for e in world.all if isinstance(e, tx.KeepRecord)]
    assert [s for n, s in enumerate(kept) if n == 0 or kept[n - 1] != s] == [
        "claimed",
        "running",
        "merging",
        "merged",
        "closed",
    ]
    order = [type(e).__name__ for e in world.all]
    landed = order.index("LandBatch")
    assert [e.record["status"] for e in world.all[:landed] if isinstance(e, tx.KeepRecord)][-1] == "merging"


def test_as_many_run_as_parallel_says_and_never_two_of_one_component() -> None:
    world = World(ticket("a", "x"), ticket("b", "x"), ticket("c", "y"), ticket("d", "z"), parallel=2)
    world.begin()
    assert sorted(world.loop.workers) == ["a", "c"]
    world.attempt("a")
    assert sorted(world.loop.workers) == ["c", "d"], "a is not merged yet, but has given its place away"
    world.attempt("c")
    assert sorted(world.loop.workers) == ["b", "d"]


def test_one_pi_is_kept_for_all_tickets_without_worktrees_and_gets_a_new_session_for_each() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, into="")
    world.begin()
    assert list(world.loop.workers) == [SHARED]
    world.attempt(SHARED)
    world.attempt(SHARED)
    assert verdict(world) == ("completed", "tickets-done")
    starts = [e for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.StartPi)]
    assert len(starts) == 1
    asked = [send.command for send in world.sent[SHARED] if send.command in ("new_session", "prompt")]
    # Each prompt has a session of its own, and the one that a ticket was done in is left at once.
    assert asked == ["new_session", "prompt", "new_session"] * 2
    assert not world.merged


def test_an_attempt_without_a_claim_is_followed_by_another_until_they_are_used_up() -> None:
    world = World(ticket("a", "x"), attempts=2)
    world.begin()
    world.attempt("a", "not yet")
    assert world.statuses == {"a": "running"}
    world.attempt("a", "still not")
    assert world.statuses == {"a": "failed"}
    assert verdict(world)[0] == "error"
    assert "a: failed" in (world.loop.error or "")
    notes = [e.note for e in world.all if isinstance(e, tx.MarkTicket) and e.note]
    assert len(notes) == 1 and "not done after 2 attempts" in notes[0]
    (remembered,) = [e.record for e in world.all if isinstance(e, tx.Remember)]
    assert remembered["status"] == "failed" and remembered["endedAt"] is not None
    assert not any(isinstance(e, tx.RemoveWorktree) for e in world.all), "its work is kept"


def test_a_red_verify_is_told_to_the_agent_and_never_merged() -> None:
    world = World(ticket("a", "x"), verify="make check", attempts=2)
    world.verifies["a"] = [1, 1]
    world.begin()
    world.attempt("a")
    assert "`make check` ended with exit code 1" in world.prompts("a")[-1]
    world.attempt("a")
    assert world.statuses == {"a": "failed"}
    assert not world.merged
    assert "make check" in (world.loop.settled["a"]["error"] or "")


def test_dependents_of_a_failed_ticket_are_blocked_with_the_reason_and_the_others_continue() -> None:
    world = World(ticket("a", "x", priority=0), ticket("b", "y", deps=("a",)), ticket("c", "z"), attempts=1)
    world.begin()
    world.attempt("a", "no")
    world.attempt("c")
    assert world.statuses == {"a": "failed", "c": "closed"}
    assert verdict(world) == ("error", "failures")
    assert "b: blocked" in (world.loop.error or "")


def test_iterations_of_all_workers_are_numbered_in_one_row() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    world.attempt("a", "not yet")
    world.attempt("b", "not yet")
    numbers = [
        e.effect.iteration for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.BeginIteration)
    ]
    assert numbers == [1, 2, 3, 4]
    records = [e.effect.record for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.EndIteration)]
    assert [(r["iteration"], r.get("ticket"), r.get("attempt")) for r in records] == [(1, "a", 1), (2, "b", 1)]


def test_a_pi_without_a_key_ends_the_loop_and_not_only_the_ticket() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.begin()
    answer = "401 invalid api key"
    prompt = world.sent["a"][-1]
    for event in (
        Reply("prompt", prompt.id, True),
        AgentStart(),
        AssistantStart("error"),
        AssistantEnd("", "error", answer, "m1", "fake", Usage(), 0),
        AgentEnd(False),
        Settled(False),
    ):
        world.say(results.From("a", event))
    world.say(results.From("b", PiExited(0, "eof", "")))
    assert verdict(world) == ("error", "auth")
    assert set(world.statuses.values()) == {"orphaned"}


def test_a_ticket_that_makes_pi_crash_again_and_again_is_set_aside() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)), ticket("c", "z"))
    world.begin()
    for _ in range(6):
        world.say(results.From("a", PiExited(-11, "natural", "segfault")))
        world.later(120_000) if "a" in world.loop.workers and world.loop.workers["a"].status == "waiting" else None
    assert world.statuses["a"] == "failed"
    world.later(600_000)
    world.attempt("c")
    assert verdict(world)[0] == "error"


def test_new_tickets_are_taken_up_while_the_loop_runs() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.tickets["n"] = ticket("n", "y")
    world.later(10_000)
    assert sorted(world.loop.workers) == ["a", "n"]


def test_a_set_up_that_fails_fails_the_ticket_with_its_output() -> None:
    world = World(ticket("a", "x"), worktreeSetup="npm ci")
    world.hold = {tx.SetUp}
    world.begin()
    world.say(results.WasSetUp("a", {"command": "npm ci", "exitCode": 1, "durationMs": 5, "tail": "no network"}))
    assert world.statuses == {"a": "failed"}
    assert "no network" in (world.loop.settled["a"]["error"] or "")


def test_a_failed_ticket_that_left_work_in_the_project_itself_ends_a_loop_without_worktrees() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, attempts=1, into="")
    world.hold = {tx.LookAtRest}
    world.begin()
    world.attempt(SHARED, "no")
    assert len(world.prompts(SHARED)) == 1, "nothing starts before it is known what was left"
    world.say(results.RestSeen("a", "2 uncommitted files"))
    assert verdict(world) == ("error", "failures")
    assert "2 uncommitted files" in (world.loop.error or "")


def test_a_ticket_the_agent_closed_itself_counts_as_claimed() -> None:
    world = World(ticket("a", "x"))
    world.closed_in_file.add("a")
    world.begin()
    world.attempt("a", "closed it")
    assert world.merged == ["a"]


def test_a_marker_in_prose_is_no_claim() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.attempt("a", f"I will write {MARKER} when done.")
    assert world.statuses == {"a": "running"}
    assert not world.merged


def test_every_change_of_a_ticket_is_told_once() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.verifies["a"] = [1]
    world.begin()
    world.attempt("a")
    world.attempt("a")
    told = [(e["from"], e["to"]) for e in world.events("ralph_ticket")]
    assert told == [
        ("ready", "claimed"),
        ("claimed", "running"),
        ("running", "verifying"),
        ("verifying", "running"),
        ("running", "verifying"),
        ("verifying", "merging"),
        ("merging", "merged"),
        ("merged", "closed"),
    ]


def test_a_start_does_not_wait_for_worktrees_that_take_long() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.OpenWorktree}
    world.begin()
    assert world.loop.status == "starting"
    world.later(5_000)
    assert verdict(world)[0] == "running"
