"""state.json of a ticket loop: its members one by one, and what it says of each ticket that is under way."""

from typing import Any

import pytest

from ralph_rpc.model.state import RunningTicket, State
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AgentStart, AssistantStart, PiExited, Reply, ToolEnd, ToolStart, UserMessage
from ralph_runner.core.results import Now, PiSpawned
from ralph_runner.core.snapshot import Facts
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.snapshot import resumed_tickets, snapshot
from ralph_runner.core.tickets.state import SHARED
from tests.core.talk import config
from tests.core.test_ticket_records import record
from tests.core.ticket_talk import World, ticket, verdict
from tests.core.typed import check

FACTS = Facts(
    name="night",
    cwd="/p",
    ralph_dir="/p/.ralph/night",
    pid=10,
    pid_start=11.0,
    boot_id="boot",
    started_at="2023-11-01T00:00:00.000Z",
    worktree=None,
    tmp_dir="/tmp/x",
)


def state(world: World) -> State:
    found = snapshot(world.loop, FACTS, Now(world.mono, world.wall))
    check(found, State)
    return found


def running(world: World) -> list[RunningTicket]:
    found = state(world)
    assert "tickets" in found
    return found["tickets"]["running"]


def doing(world: World, id: str = "a") -> str:
    return next(one["doing"] for one in running(world) if one["ticket"] == id)


def test_the_state_of_a_new_loop_has_all_that_is_known_of_it() -> None:
    world = World(maxIterations=7, model="asked", provider="for")
    assert state(world) == {
        "schemaVersion": 1,
        "name": "night",
        "cwd": "/p",
        "ralphDir": "/p/.ralph/night",
        "kind": "tickets",
        "status": "starting",
        "stopReason": None,
        "error": None,
        "wasPaused": False,
        "waitingFor": None,
        "outages": [],
        "pid": 10,
        "pidStartTime": 11.0,
        "bootId": "boot",
        "guardPid": None,
        "guardStartTime": None,
        "piPid": None,
        "piStartTime": None,
        "piVersion": "1.5.2",
        "model": "asked",
        "provider": "for",
        "iteration": 0,
        "maxIterations": 7,
        "currentTicket": None,
        "startedAt": "2023-11-01T00:00:00.000Z",
        "updatedAt": "2023-11-14T22:13:20.000Z",
        "monotonicMs": 1_000,
        "endedAt": None,
        "nextWakeAt": None,
        "elapsedMs": 0,
        "stats": {
            "iterations": 0,
            "turns": 0,
            "toolCalls": 0,
            "durationMs": 0,
            "tokensIn": 0,
            "tokensOut": 0,
            "cacheRead": 0,
            "cacheWrite": 0,
            "cost": 0.0,
            "unpricedRequests": 0,
        },
        "consecutiveFailures": 0,
        "unchangedIterations": 0,
        "restarts": [],
        "lastReflection": None,
        "lastOutcome": None,
        "lastText": None,
        "refusal": None,
        "held": [],
        "worktree": None,
        "tmpDir": "/tmp/x",
        "tickets": {
            "total": 0,
            "closed": 0,
            "failed": 0,
            "needsMerge": 0,
            "unreadable": 0,
            "undone": 0,
            "running": [],
            "batch": None,
            "verifyAlone": False,
        },
        "config": world.loop.config,
    }


def test_a_ticket_under_way_is_told_with_all_that_a_person_may_ask() -> None:
    world = World(ticket("a", "x"), attempts=3)
    world.begin()
    world.attempt("a", "not yet", cost=0.25)
    (found,) = running(world)
    assert found == {
        "ticket": "a",
        "title": "Do a",
        "status": "running",
        "doing": "working",
        "attempt": 2,
        "iteration": 2,
        "since": "2023-11-14T22:13:20.000Z",
        "cost": 0.25,
        "worktree": "/w/a",
        "run": {
            "turns": 0,
            "toolCalls": 0,
            "tokensIn": 0,
            "tokensOut": 0,
            "cacheRead": 0,
            "cacheWrite": 0,
            "cost": 0.0,
            "unpricedRequests": 0,
        },
    }
    assert state(world)["currentTicket"] == "a"
    assert (state(world)["model"], state(world)["provider"]) == ("m1", "fake")
    assert (state(world)["lastOutcome"], state(world)["lastText"]) == ("ok", "not yet")


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (tx.OpenWorktree, "opening its worktree"),
        (tx.SetUp, "running --worktree-setup"),
        (tx.Commit, "committing what is left"),
        (tx.BuildBatch, "merging"),
        (tx.VerifyBatch, "verifying the merged tree"),
        (tx.LandBatch, "landing"),
        (tx.CloseTicket, "closing the ticket"),
        (tx.RemoveWorktree, "removing its worktree"),
    ],
)
def test_what_is_being_done_for_a_ticket_is_told_in_a_few_words(held: type, told: str) -> None:
    world = World(ticket("a", "x"), verify="make", worktreeSetup="npm ci")
    world.hold = {held}
    world.begin()
    world.target = ("other",)
    if "a" in world.loop.workers:
        world.attempt("a")
    assert doing(world) == told
    assert "run" not in running(world)[0]


def test_what_an_agent_does_is_told_with_its_tool() -> None:
    world = World(ticket("a", "x"), verify="make")
    world.begin()
    prompt = world.sent["a"][-1]
    started: list[Any] = [Reply("prompt", prompt.id, True), AgentStart(), UserMessage("x"), AssistantStart(None)]
    world.say(*(results.From("a", one) for one in started))
    assert doing(world) == "working"
    world.say(results.From("a", ToolStart("t", "bash")))
    assert doing(world) == "working: bash"
    world.say(results.From("a", ToolEnd("t", "bash", False)))
    assert doing(world) == "working"


def test_a_pi_that_is_being_started_is_told_of() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.say(results.From("a", PiExited(1, "natural", "boom")))
    assert doing(world).startswith("waiting: pi ended in the middle of an iteration (exit code 1: boom)")
    assert state(world)["status"] == "waiting" and state(world)["nextWakeAt"] == "2023-11-14T22:13:20.750Z"
    assert state(world)["error"] == "pi ended in the middle of an iteration (exit code 1: boom); starting pi again"


def test_a_worker_whose_pi_is_not_there_yet_starts_pi() -> None:
    world = World(ticket("a", "x"))
    world.hold = {fx.StartPi}
    world.begin()
    assert doing(world) == "starting pi"
    world.hold = {fx.Send}
    world.say(results.From("a", PiSpawned(101, "1.5.2", ("pi",), 1.0)))
    assert doing(world) == "working"


def test_a_verification_by_the_worker_is_told_of() -> None:
    world = World(ticket("a", "x"), verify="make")
    world.hold = {fx.RunVerify}
    world.begin()
    world.attempt("a")
    assert doing(world) == "verifying"


def test_a_paused_worker_is_told_of() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.command("pause")
    world.attempt("a", "not yet")
    assert doing(world) == "paused" and state(world)["status"] == "paused"


def test_a_merge_that_waits_or_is_being_resolved_is_told_of() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"), parallel=1)
    world.waits["a"] = ["in the way"]
    world.begin()
    world.attempt("a")
    assert doing(world) == "merge waits: in the way"
    world.conflicts["a"] = ["both changed f"]
    world.later(6_000)
    assert doing(world) == "waiting for a place to fix its merge"
    world.attempt("b")
    assert doing(world) == "resolving the merge"


def test_a_merge_that_has_to_wait_for_another_is_told_of() -> None:
    world = World(ticket("a", "x"), ticket("b", "y"))
    world.hold = {tx.BuildBatch}
    world.begin()
    world.attempt("a")
    world.attempt("b")
    assert doing(world, "b") == "waiting to be merged"


def test_the_queue_counts_what_records_and_files_say() -> None:
    world = World(
        ticket("a", "x"),
        ticket("b", "y", status="closed"),
        ticket("c", "z"),
        ticket("d", "v"),
        ticket("e", "w"),
        records={"c": record(ticket="c", status="failed"), "gone": record(ticket="gone", status="closed")},
        merge=False,
    )
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.say(results.Opened("a", "base", "/w/a", reused=False))
    world.attempt("a")
    tickets = state(world).get("tickets")
    assert tickets is not None
    assert {k: v for k, v in tickets.items() if k != "running"} == {
        "total": 5,
        "closed": 1,
        "failed": 1,
        "needsMerge": 1,
        "batch": None,
        "verifyAlone": False,
        "unreadable": 0,
        "undone": 0,
    }
    assert [one["ticket"] for one in tickets["running"]] == ["d", "e"]


def test_a_ticket_is_closed_while_its_worktree_is_removed_and_after() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.RemoveWorktree}
    world.begin()
    world.attempt("a")
    assert state(world).get("tickets", {}).get("closed") == 1
    world.say(results.Removed("a"))
    assert state(world).get("tickets", {}).get("closed") == 1


def test_messages_of_the_loop_and_of_its_workers_are_in_the_state() -> None:
    world = World(ticket("a", "x"), ticket("b", "y", deps=("a",)))
    world.begin()
    world.command("steer", "s1", message="for a", ticket="a")
    world.command("followup", "s2", message="for b", ticket="b")
    assert state(world)["held"] == [
        {"id": "s2", "command": "followup", "message": "for b"},
        {"id": "s1", "command": "steer", "message": "for a"},
    ]


def test_a_loop_that_has_ended_has_no_process_and_an_end() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.attempt("a")
    assert verdict(world) == ("completed", "tickets-done")
    found = state(world)
    assert (found["pid"], found["pidStartTime"], found["endedAt"]) == (None, None, "2023-11-14T22:13:20.000Z")
    assert (found["status"], found["stopReason"], found["currentTicket"]) == ("completed", "tickets-done", None)


def resume(status: str, records: dict[str, Any], last: int = 0) -> World:
    before = World(ticket("a", "x"), records=records)
    found: Any = {
        **state(before),
        "status": status,
        "iteration": 5,
        "elapsedMs": 77,
        "stats": {"iterations": 3, "cost": 0.5},
        "lastOutcome": "ok",
        "lastText": "words",
    }
    again = World(ticket("a", "x"))
    again.loop = resumed_tickets("y", config(worktrees=True), found, last, records, {})
    return again


@pytest.mark.parametrize("status", ["running", "stopped", "error", "completed"])
def test_what_a_resume_keeps(status: str) -> None:
    records = {id: record(ticket=id, status=id, attempt=2) for id in ("failed", "needs-merge", "closed", "orphaned")}
    loop = resume(status, records).loop
    assert (loop.name, loop.status, loop.iteration, loop.elapsed_ms) == ("y", "starting", 5, 77)
    assert loop.stats["iterations"] == 3 and loop.stats["cost"] == 0.5 and loop.stats["turns"] == 0
    assert (loop.last_outcome, loop.last_text) == ("ok", "words")
    assert loop.config == config(worktrees=True) and loop.options.worktrees
    failed = loop.settled["failed"]
    new_chance = status in ("stopped", "error")
    assert (failed["status"], failed["attempt"]) == (("orphaned", 0) if new_chance else ("failed", 2))
    for id in ("needs-merge", "closed", "orphaned"):
        assert loop.settled[id] == records[id]


def test_a_resume_counts_iterations_on_from_the_highest_that_any_file_has() -> None:
    assert resume("running", {}, last=9).loop.iteration == 9
    assert resume("running", {}, last=4).loop.iteration == 5


@pytest.mark.parametrize("shared", [False, True])
def test_the_worker_of_a_ticket_is_found_with_worktrees_and_without(shared: bool) -> None:
    world = World(ticket("a"), worktrees=not shared, parallel=1, into="" if shared else "main")
    world.begin()
    world.command("pause")
    world.attempt(SHARED if shared else "a", "not yet")
    assert doing(world) == "paused"
