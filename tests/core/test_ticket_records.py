"""A ticket's dispatch record, its events and its notes, from claimed to closed, failed or needs-merge."""

from typing import Any

import pytest

from ralph_rpc.model.ticket import TicketRecord
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.state import SHARED, Opening
from tests.core.ticket_talk import World, ticket, verdict

BEGAN = "2023-11-14T22:13:20.000Z"


def record(**changes: Any) -> TicketRecord:
    """Of ticket a, as it is claimed in a loop with worktrees."""
    claimed: dict[str, Any] = {
        "ticket": "a",
        "title": "Do a",
        "status": "claimed",
        "attempt": 0,
        "sessionId": None,
        "pid": None,
        "pidStartTime": None,
        "worktreePath": None,
        "branch": "ralph/x/a",
        "baseCommit": None,
        "startedAt": BEGAN,
        "endedAt": None,
        "durationMs": 0,
        "cost": 0.0,
        "returnCode": None,
        "terminationMethod": None,
        "error": None,
    }
    return {**claimed, **changes}  # type: ignore[typeddict-item]


def kept(world: World, id: str = "a") -> list[TicketRecord]:
    """All versions of a ticket's record, as they go to disk."""
    return [e.record for e in world.all if isinstance(e, tx.KeepRecord) and e.record["ticket"] == id]


def steps(world: World, id: str = "a") -> list[tuple[str, str, str | None]]:
    found = [e for e in world.events("ralph_ticket") if e["ticket"] == id]
    return [(e["from"], e["to"], e.get("reason")) for e in found]


def marks(world: World) -> list[tuple[str, str | None, str | None]]:
    return [(e.ticket, e.status, e.note) for e in world.all if isinstance(e, tx.MarkTicket)]


def test_a_record_is_kept_at_every_step_before_the_next_is_asked_for() -> None:
    world = World(ticket("a", "x"), verify="make")
    world.begin()
    world.mono += 5_000
    world.wall += 5_000
    world.attempt("a", cost=0.25)
    versions = kept(world)
    assert versions[0] == record()
    running = record(status="running", attempt=1, worktreePath="/w/a", baseCommit="base", pid=101, pidStartTime=1.0)
    assert versions[1] == running
    assert versions[2] == {**running, "status": "verifying"}
    done = {**running, "sessionId": None, "sessionFile": None, "durationMs": 5_000, "cost": 0.25}
    assert versions[3] == {**done, "status": "merging"}
    queued = {**done, "status": "merging", "queuedAt": "2023-11-14T22:13:25.000Z"}
    assert versions[4] == queued
    gone = {**queued, "returnCode": 0, "terminationMethod": "eof"}
    merged = {**gone, "status": "merged", "mergeCommit": "commit:a", "queuedAt": None, "waitedMs": 0}
    assert versions[5] == merged
    closed = {**merged, "status": "closed", "endedAt": "2023-11-14T22:13:25.000Z"}
    assert versions[6:] == [closed, closed, {**closed, "worktreePath": None}]
    assert world.loop.settled["a"] == versions[-1]


def test_the_steps_of_a_ticket_with_its_effects_in_their_order() -> None:
    world = World(ticket("a", "x"), into="main", worktreeSetup="npm ci")
    world.begin()
    world.attempt("a")
    asked = [
        e
        for e in world.all
        if isinstance(e, tx.TicketEffect) and not isinstance(e, fx.Emit | fx.Save | tx.To | tx.KeepRecord)
    ]
    assert asked == [
        tx.Scan(),
        tx.MarkTicket("a", "in_progress"),
        tx.OpenWorktree("a", "ralph/x/a"),
        tx.SetUp("a", "npm ci", 3_600_000),
        tx.Hire("a", "a"),
        tx.Commit("a", "Do a"),
        tx.BuildBatch((("a", "Merge a: Do a"),)),
        tx.Release("a"),
        tx.LandBatch("commit:", "commit:a", ("a",)),
        tx.CloseTicket("a"),
        tx.Remember(kept(world)[-3], "done\n<promise>COMPLETE</promise>", 1, None),
        tx.RemoveWorktree("a"),
        tx.Scan(),
        tx.LeaveQueue(),
        fx.Finish("completed"),
    ]


def test_what_is_remembered_of_a_ticket_has_the_last_answer_iteration_and_exit_code_of_verify() -> None:
    world = World(ticket("a", "x"), verify="make", attempts=3)
    world.verifies["a"] = [2, 0]
    world.begin()
    world.attempt("a", "first\n<promise>COMPLETE</promise>")
    world.attempt("a", "second\n<promise>COMPLETE</promise>")
    (told,) = [e for e in world.all if isinstance(e, tx.Remember)]
    assert (told.summary, told.iteration, told.verify_exit) == ("second\n<promise>COMPLETE</promise>", 2, 0)
    assert told.record["status"] == "closed" and told.record["attempt"] == 2


def test_costs_and_times_of_all_attempts_are_the_tickets() -> None:
    world = World(ticket("a", "x"), attempts=3)
    world.begin()
    for n, text in enumerate(("not yet", "not yet", "done\n<promise>COMPLETE</promise>")):
        world.mono += 1_000
        world.wall += 1_000
        world.attempt("a", text, cost=0.25)
        assert kept(world)[-1]["attempt"] == n + (2 if n < 2 else 1)
    last = world.loop.settled["a"]
    assert (last.get("cost"), last["durationMs"], last["attempt"]) == (0.75, 3_000, 3)


def test_a_ticket_that_is_tried_again_keeps_what_it_has_cost_and_where_its_work_is() -> None:
    before = record(
        status="orphaned",
        attempt=2,
        worktreePath="/w/old",
        baseCommit="old",
        durationMs=7_000,
        cost=0.5,
        sessionId="s",
        pid=7,
        endedAt=BEGAN,
        returnCode=1,
        error="why",
    )
    world = World(ticket("a", "x"), records={"a": before}, attempts=3)
    world.hold = {tx.OpenWorktree}
    world.begin()
    assert steps(world) == [("orphaned", "claimed", None)]
    assert kept(world) == [
        record(attempt=2, worktreePath="/w/old", baseCommit="old", durationMs=7_000, cost=0.5, startedAt=BEGAN)
    ]
    world.say(results.Opened("a", "new", "/w/new", reused=True))
    assert (kept(world)[-1]["worktreePath"], kept(world)[-1]["baseCommit"]) == ("/w/new", "old")
    assert "attempt 3 of 3" in world.prompts("a")[0]


@pytest.mark.parametrize(("reused", "base"), [(True, "old"), (False, "new")])
def test_a_worktree_that_is_made_anew_begins_at_another_commit(reused: bool, base: str) -> None:
    world = World(ticket("a", "x"), records={"a": record(status="orphaned", baseCommit="old")})
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.say(results.Opened("a", "new", "/w/a", reused=reused))
    assert kept(world)[-1]["baseCommit"] == base


def test_a_ticket_whose_attempts_are_used_up_gets_one_more_when_it_is_claimed_again() -> None:
    world = World(ticket("a", "x"), records={"a": record(status="orphaned", attempt=5)}, attempts=3)
    world.begin()
    assert "attempt 6 of 6" in world.prompts("a")[0]
    world.attempt("a", "no")
    assert world.statuses == {"a": "failed"}


def test_a_record_of_an_older_runner_may_lack_the_cost() -> None:
    before = record(status="orphaned")
    del before["cost"]
    world = World(ticket("a", "x"), records={"a": before})
    world.begin()
    world.attempt("a", cost=0.25)
    assert world.loop.settled["a"].get("cost") == 0.25


def test_a_ticket_that_fails_is_opened_again_with_a_note_and_its_work_is_kept() -> None:
    world = World(ticket("a", "x"), verify="make", attempts=1)
    world.verifies["a"] = [2]
    world.begin()
    world.mono += 1_000
    world.wall += 1_000
    world.attempt("a")
    why = "not done after 1 attempts; the last lacked: `make` ended with exit code 2. The end of its output: exit 2"
    assert steps(world)[-1] == ("verifying", "failed", why)
    assert marks(world) == [("a", "in_progress", None), ("a", "open", f"ralph-rpc (x) gave up: {why}")]
    last = world.loop.settled["a"]
    assert (last["error"], last["endedAt"], last["worktreePath"]) == (why, "2023-11-14T22:13:21.000Z", "/w/a")
    assert [e.record["status"] for e in world.all if isinstance(e, tx.Remember)] == ["failed"]
    assert not any(isinstance(e, tx.RemoveWorktree) for e in world.all)
    assert [e.key for e in world.all if isinstance(e, tx.Release)] == ["a"]
    assert verdict(world) == ("error", "failures")


def test_a_note_has_at_most_a_thousand_characters_and_a_reason_three_hundred_of_what_was_lacking() -> None:
    world = World(ticket("a", "x"), attempts=1)
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.say(results.JobFailed("a", "x" * 2_000))
    assert [len(note) for _, _, note in marks(world) if note] == [1_000]
    assert world.loop.settled["a"]["error"] == "x" * 2_000

    world = World(ticket("a", "x"), verify="y" * 400, attempts=1)
    world.verifies["a"] = [1]
    world.begin()
    world.attempt("a")
    assert world.loop.settled["a"]["error"] == "not done after 1 attempts; the last lacked: `" + "y" * 299


@pytest.mark.parametrize("tail", ["", "  \n", "a" * 400 + "no network"])
def test_a_set_up_that_fails_tells_the_end_of_its_output(tail: str) -> None:
    world = World(ticket("a", "x"), worktreeSetup="npm ci")
    world.hold = {tx.SetUp}
    world.begin()
    world.say(results.WasSetUp("a", {"command": "npm ci", "exitCode": 3, "durationMs": 5, "tail": tail}))
    told = tail.strip()[-300:] or "(no output)"
    assert steps(world)[-1] == ("claimed", "failed", f"--worktree-setup ended with exit code 3: {told}")


def test_a_worktree_that_was_set_up_by_an_earlier_runner_is_not_set_up_again() -> None:
    world = World(ticket("a", "x"), worktreeSetup="npm ci")
    world.hold = {tx.OpenWorktree}
    world.begin()
    world.say(results.Opened("a", "base", "/w/a", reused=True, set_up=True))
    assert not any(isinstance(e, tx.SetUp) for e in world.all) and world.works("a")


@pytest.mark.parametrize("stage", ["opening", "committing"])
def test_a_step_of_a_job_that_git_refuses_fails_the_ticket(stage: str) -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.OpenWorktree if stage == "opening" else tx.Commit}
    world.begin()
    if stage == "committing":
        world.attempt("a")
    world.say(results.JobFailed("a", "git: disk full"))
    assert world.statuses == {"a": "failed"} and world.loop.settled["a"]["error"] == "git: disk full"


def test_a_merge_that_git_refuses_needs_a_person() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.BuildBatch}
    world.begin()
    world.attempt("a")
    world.say(results.BatchBuilt("h", "t", faults={"a": "git: no"}))
    assert steps(world)[-1] == ("merging", "needs-merge", "git: no")
    assert marks(world)[-1] == ("a", "open", "ralph-rpc (x): done on branch ralph/x/a, but not merged: git: no")


def test_a_ticket_that_cannot_be_closed_is_merged_all_the_same_and_told_of() -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.CloseTicket}
    world.begin()
    world.attempt("a")
    world.say(results.JobFailed("a", "read-only"))
    assert world.statuses == {"a": "closed"} and verdict(world) == ("completed", "tickets-done")
    (notice,) = world.events("ralph_notice")
    assert (notice["level"], notice["ticket"]) == ("error", "a")
    assert notice["message"] == "a is merged, but cannot be closed: read-only"


@pytest.mark.parametrize("how", ["kept", "failed"])
def test_a_worktree_that_cannot_be_removed_stays_in_the_record_and_is_told_of(how: str) -> None:
    world = World(ticket("a", "x"))
    world.hold = {tx.RemoveWorktree}
    world.begin()
    world.attempt("a")
    world.say(results.Removed("a", "busy") if how == "kept" else results.JobFailed("a", "busy"))
    assert world.loop.settled["a"]["worktreePath"] == "/w/a"
    (notice,) = world.events("ralph_notice")
    assert (notice["level"], notice["ticket"]) == ("warning", "a")
    assert notice["message"] == "the worktree of a stays: busy"


def test_work_that_must_not_be_merged_stays_on_its_branch_and_its_worker_leaves() -> None:
    world = World(ticket("a", "x"), merge=False)
    world.begin()
    world.attempt("a")
    assert steps(world)[-1] == ("merging", "needs-merge", "done; its branch is ralph/x/a (--no-merge)")
    assert [e.key for e in world.all if isinstance(e, tx.Release)] == ["a"]
    assert marks(world) == [("a", "in_progress", None)]


def test_what_the_agent_has_to_fix_before_its_work_can_be_committed_is_its_next_prompt() -> None:
    world = World(ticket("a", "x"))
    world.commits["a"] = ["a file is too large"]
    world.begin()
    world.attempt("a")
    assert "a file is too large" in world.prompts("a")[-1] and len(world.prompts("a")) == 2
    world.attempt("a")
    assert world.statuses == {"a": "closed"}


def test_without_worktrees_a_ticket_has_no_branch_and_is_closed_by_one_worker_after_the_other() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, into="")
    world.begin()
    first = kept(world)[0]
    assert (first["branch"], first["worktreePath"], first["status"]) == (None, None, "claimed")
    world.attempt(SHARED)
    assert steps(world) == [
        ("ready", "claimed", None),
        ("claimed", "running", None),
        ("running", "merging", None),
        ("merging", "closed", None),
    ]
    last = kept(world)[-1]
    assert (last["returnCode"], last["terminationMethod"]) == (0, "natural")
    assert [e for e in world.all if isinstance(e, tx.Hire | tx.Reassign)] == [tx.Hire("", "a"), tx.Reassign("", "b")]
    assert not any(isinstance(e, tx.OpenWorktree | tx.BuildBatch | tx.RemoveWorktree) for e in world.all)
    world.attempt(SHARED)
    assert verdict(world) == ("completed", "tickets-done")
    assert [e.key for e in world.all if isinstance(e, tx.Release)] == [SHARED]


def test_without_worktrees_a_failed_ticket_that_left_nothing_makes_way_for_the_next() -> None:
    world = World(ticket("a"), ticket("b"), worktrees=False, parallel=1, attempts=1, into="")
    world.hold = {tx.LookAtRest}
    world.begin()
    world.attempt(SHARED, "no")
    assert [e.ticket for e in world.all if isinstance(e, tx.LookAtRest)] == ["a"]
    world.later(10_000)
    assert len(world.prompts(SHARED)) == 1
    world.say(results.RestSeen("a", None))
    assert len(world.prompts(SHARED)) == 2 and world.statuses["b"] == "running"


def test_a_pi_that_dies_is_in_the_record_of_its_ticket() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    world.say(results.From("a", PiExited(-9, "sigkill", "")))
    assert world.loop.jobs["a"].record["returnCode"] == -9
    assert world.loop.jobs["a"].record["terminationMethod"] == "sigkill"
    world.due()
    assert world.loop.jobs["a"].record["pid"] == 102


@pytest.mark.parametrize("status", ["claimed", "running", "verifying"])
def test_a_ticket_that_was_under_way_when_its_runner_died_goes_back_to_the_queue(status: str) -> None:
    before = record(status=status, attempt=1, worktreePath="/w/a")
    world = World(ticket("a", "x"), records={"a": before})
    world.hold = {tx.Scan}
    world.begin()
    assert steps(world) == [(status, "orphaned", "the runner died while it was worked on")]
    assert kept(world)[-1]["worktreePath"] == "/w/a" and kept(world)[-1]["endedAt"] == BEGAN
    assert world.loop.jobs == {}


@pytest.mark.parametrize("status", ["failed", "orphaned"])
def test_what_is_settled_is_left_alone_by_the_next_runner(status: str) -> None:
    world = World(records={"a": record(status=status)})
    world.hold = {tx.Scan}
    world.begin()
    assert world.loop.jobs == {} and not steps(world)


def test_a_closed_ticket_whose_worktree_is_still_there_is_only_cleaned_up() -> None:
    before = record(status="closed", worktreePath="/w/a")
    world = World(ticket("a", "x", status="closed"), records={"a": before})
    world.begin()
    assert [e for e in world.all if isinstance(e, tx.RemoveWorktree | tx.OpenWorktree | tx.CloseTicket)] == [
        tx.RemoveWorktree("a")
    ]
    assert not steps(world) and world.loop.settled["a"] == {**before, "worktreePath": None}
    assert verdict(world) == ("completed", "tickets-done")


def test_a_closed_ticket_without_a_worktree_is_done() -> None:
    world = World(ticket("a", "x", status="closed"), records={"a": record(status="closed")})
    world.begin()
    assert not any(isinstance(e, tx.RemoveWorktree | tx.KeepRecord) for e in world.all)


@pytest.mark.parametrize("status", ["merging", "needs-merge"])
def test_finished_work_is_taken_up_at_its_commit_and_needs_no_worker(status: str) -> None:
    before = record(status=status, attempt=2, branch="ralph/other/a", worktreePath="/w/a")
    world = World(ticket("a", "x"), records={"a": before})
    world.hold = {tx.Commit}
    world.begin()
    assert [e for e in world.all if isinstance(e, tx.OpenWorktree)] == [tx.OpenWorktree("a", "ralph/other/a")]
    assert [e for e in world.all if isinstance(e, tx.Commit)] == [tx.Commit("a", "Do a")]
    assert not any(isinstance(e, tx.Hire | tx.MarkTicket) for e in world.all)
    assert world.statuses == {"a": "merging"}


def test_finished_work_whose_branch_is_not_known_is_on_the_usual_one() -> None:
    world = World(ticket("a", "x"), records={"a": record(status="merging", branch=None)})
    world.hold = {tx.OpenWorktree}
    world.begin()
    assert [e.branch for e in world.all if isinstance(e, tx.OpenWorktree)] == ["ralph/x/a"]
    assert isinstance(world.loop.jobs["a"].stage, Opening)


def test_without_worktrees_finished_work_is_committed_where_it_is() -> None:
    before = record(status="merging", branch=None)
    world = World(ticket("a"), records={"a": before}, worktrees=False, parallel=1, into="")
    world.begin()
    assert world.statuses == {"a": "closed"}
    assert not any(isinstance(e, tx.OpenWorktree | tx.Hire) for e in world.all)
