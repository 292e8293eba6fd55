"""Conversations about jobs on an engine: what each may spend, what comes back, and what does not."""

from typing import Any

import pytest

from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import RunningTicket
from ralph_rpc.model.ticket import EngineJob, TicketRecord
from ralph_rpc.model.work import WorkRecord
from ralph_runner.core.results import Now
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.snapshot import snapshot
from tests.core.ticket_talk import World, facts, ticket, verdict


def world(count: int = 3, **options: Any) -> World:
    tickets = [ticket(f"t{n}", f"c{n}") for n in range(count)]
    made = World(*tickets, engine="slurm:partition=cpu", **options)
    made.begin()
    return made


def jobs(world: World, id: str | None = None) -> list[tx.SubmitJob]:
    return [e for e in world.all if isinstance(e, tx.SubmitJob) and id in (None, e.ticket)]


def iteration(cost: float = 0.5, outcome: Any = "ok", number: int = 1) -> Iteration:
    return {
        "iteration": number,
        "kind": "work",
        "outcome": outcome,
        "startedAt": "2024-01-01T00:00:00.000Z",
        "endedAt": "2024-01-01T00:01:00.000Z",
        "durationMs": 60_000,
        "turns": 2,
        "toolCalls": 1,
        "tokensIn": 100,
        "tokensOut": 10,
        "cacheRead": 0,
        "cacheWrite": 0,
        "cost": cost,
        "model": "m1",
        "provider": "fake",
        "sessionId": "s",
        "sessionFile": "/there/s",
        "summary": "said",
        "steering": [],
        "eventsFrom": 7,
        "eventsTo": 8,
    }


def report(id: str, number: int, outcome: Any = "done", cost: float = 0.5, **more: Any) -> results.JobReturned:
    made: WorkRecord = {
        "loop": "x",
        "ticket": id,
        "job": f"key-{number}",
        "host": "n1",
        "startedAt": "2024-01-01T00:00:00.000Z",
        "endedAt": "2024-01-01T00:01:00.000Z",
        "outcome": outcome,
        "stopReason": None,
        "error": None if outcome == "done" else f"it {outcome}",
        "record": None,
        "iterations": [iteration(cost, "ok" if outcome in ("done", "failed") else "aborted")],
    }
    return results.JobReturned(id, number, {**made, **more})  # type: ignore[typeddict-item]


def queued(world: World, *ids: str, state: Any = "queued") -> None:
    for id in ids:
        world.say(results.JobTold(id, world.loop.jobs[id].record.get("jobs", 0), state, f"id-{id}"))


def adopted(world: World) -> list[Iteration]:
    return [e.record for e in world.all if isinstance(e, tx.AdoptIteration)]


def shown(world: World) -> tuple[RunningTicket, EngineJob]:
    """The only ticket that is under way, and its job, as state.json has them."""
    tickets = snapshot(world.loop, facts(), Now(world.mono, world.wall, 0.5)).get("tickets")
    assert tickets is not None
    (running,) = tickets["running"]
    job = running.get("job")
    assert job is not None
    return running, job


def test_a_ticket_goes_away_comes_back_and_is_merged() -> None:
    it = world(1)
    (job,) = jobs(it)
    assert (job.ticket, job.number, job.attempts, job.max_cost) == ("t0", 1, 2, None)
    assert not it.loop.workers
    queued(it, "t0")
    assert verdict(it)[0] == "waiting" and it.loop.waiting_for == "queued"
    queued(it, "t0", state="active")
    assert verdict(it)[0] == "running"
    it.say(report("t0", 1))
    assert verdict(it) == ("completed", "tickets-done") and it.merged == ["t0"]
    assert it.loop.stats["cost"] == 0.5
    (record,) = adopted(it)
    assert (record["iteration"], record.get("job"), record.get("host"), record["sessionFile"]) == (1, "1.1", "n1", None)
    order = [
        type(e) for e in it.all if isinstance(e, tx.AdoptIteration | tx.TakeBranch | tx.OpenWorktree | tx.ForgetJob)
    ]
    assert order == [tx.AdoptIteration, tx.TakeBranch, tx.OpenWorktree, tx.ForgetJob]


def test_a_record_that_comes_twice_is_counted_once() -> None:
    it = world(1)
    it.hold = {tx.TakeBranch, tx.LeaveQueue}
    it.say(report("t0", 1))
    it.say(report("t0", 1))
    it.let_go()
    it.say(report("t0", 1))
    assert it.loop.stats["cost"] == 0.5 and len(adopted(it)) == 1
    assert len([e for e in it.all if isinstance(e, tx.TakeBranch)]) == 1


def test_what_is_left_of_the_money_is_shared_by_the_places_and_settled_by_records() -> None:
    it = world(5, parallel=2, maxCost=10.0)
    assert [job.max_cost for job in jobs(it)] == [5.0, 5.0]
    it.say(report("t0", 1, cost=1.0))
    assert jobs(it)[-1].ticket == "t2" and jobs(it)[-1].max_cost == pytest.approx(4.0), "10 - 1 - 5 for one place"
    it.say(report("t1", 1, cost=5.0))
    assert [job.ticket for job in jobs(it)] == ["t0", "t1", "t2"], "1 + 5 are spent, 4 reserved: t3 waits"
    it.say(report("t2", 1, cost=0.0))
    assert [job.max_cost for job in jobs(it)[3:]] == [2.0, 2.0]


def test_no_number_of_jobs_can_spend_more_than_the_limit() -> None:
    it = world(40, parallel=7, maxCost=3.0, maxTokens=7_000)
    for n in range(60):
        reserved = [job.record.get("job") for job in it.loop.jobs.values()]
        costs = [job["maxCost"] for job in reserved if job and job["maxCost"] is not None]
        assert it.loop.stats["cost"] + sum(costs) <= 3.0 + 1e-9
        away = [id for id, job in it.loop.jobs.items() if job.record.get("job")]
        if not away:
            break
        id = away[n % len(away)]
        job = it.loop.jobs[id].record.get("job")
        assert job is not None
        it.say(report(id, job["number"], cost=job["maxCost"] or 0.0))
    assert verdict(it) == ("stopped", "max-cost")


def test_a_ticket_whose_job_ran_out_of_its_share_gets_twice_as_much() -> None:
    it = world(3, parallel=2, maxCost=8.0)
    assert [job.max_cost for job in jobs(it)] == [4.0, 4.0]
    it.say(report("t0", 1, "stopped", cost=4.0, stopReason="max-cost"))
    assert len(jobs(it)) == 2, "all that is left is reserved for t1"
    it.say(report("t1", 1, cost=0.0))
    assert jobs(it)[2].ticket == "t0" and jobs(it)[2].max_cost == pytest.approx(4.0)
    assert len(jobs(it)) == 3, "t2 waits: t0 has all that is left"


def test_a_job_that_is_lost_costs_no_attempt_and_is_submitted_again_after_a_while() -> None:
    it = world(1)
    queued(it, "t0", state="active")
    it.say(results.JobLost("t0", 1, "the node is down"))
    assert len(jobs(it)) == 1 and adopted(it)[0].get("errorKind") == "lost"
    it.later(4_000)
    assert len(jobs(it)) == 1
    it.later(1_500)
    assert (jobs(it)[1].number, jobs(it)[1].attempts) == (2, 2)
    it.say(report("t0", 2))
    assert verdict(it) == ("completed", "tickets-done")
    assert it.loop.stats["iterations"] == 1


def test_the_record_of_a_job_that_was_taken_for_lost_is_still_counted() -> None:
    it = world(1)
    queued(it, "t0", state="active")
    it.say(results.JobLost("t0", 1, "could not be asked"))
    it.later(6_000)
    it.say(report("t0", 1, cost=0.7))
    assert it.loop.stats["cost"] == 0.7 and it.statuses["t0"] == "running"
    it.say(report("t0", 2))
    assert verdict(it) == ("completed", "tickets-done") and it.loop.stats["cost"] == pytest.approx(1.2)


def test_where_no_job_has_ever_worked_three_losses_are_enough() -> None:
    it = world(1)
    for number in (1, 2, 3):
        queued(it, "t0", state="active")
        it.say(results.JobLost("t0", number, "ralph-rpc: not found"))
        it.later(60_000)
    assert verdict(it) == ("error", "failures") and "not found" in (it.loop.error or "")


def test_what_the_engine_refuses_at_first_ends_the_loop_with_its_words() -> None:
    it = world(2)
    it.say(results.JobLost("t0", 1, "Invalid partition", refused=True))
    assert it.loop.ending is not None and "Invalid partition" in (it.loop.ending.error or "")
    assert [e.ticket for e in it.all if isinstance(e, tx.CancelJob)] == ["t1"]
    it.say(results.JobLost("t1", 1, "cancelled"))
    assert verdict(it)[0] == "error" and it.statuses == {"t0": "orphaned", "t1": "orphaned"}


def test_a_failed_job_fails_its_ticket_and_keeps_the_others() -> None:
    it = world(2)
    it.say(report("t0", 1, "failed"))
    assert it.statuses["t0"] == "failed" and it.statuses["t1"] == "running"


def test_a_job_that_needs_a_person_ends_the_loop_and_calls_the_others_off() -> None:
    it = world(2)
    it.say(report("t0", 1, "error", stopReason="auth", error="no key on n1"))
    assert [e.ticket for e in it.all if isinstance(e, tx.CancelJob)] == ["t1"]
    it.say(report("t1", 1, "stopped", stopReason="stop"))
    assert verdict(it) == ("error", "auth") and "no key on n1" in (it.loop.error or "")
    assert it.loop.stats["cost"] == 1.0


def test_stop_waits_for_what_runs_and_takes_the_others_from_the_queue() -> None:
    it = world(2)
    queued(it, "t0", state="active")
    queued(it, "t1")
    it.command("stop")
    assert [e.ticket for e in it.all if isinstance(e, tx.CancelJob)] == ["t1"]
    it.say(results.JobLost("t1", 1, "cancelled"))
    assert not adopted(it), "it never ran"
    it.say(report("t0", 1))
    assert verdict(it) == ("stopped", "stop") and it.statuses == {"t0": "closed", "t1": "orphaned"}


def test_stop_now_calls_off_all_and_counts_what_they_have_spent() -> None:
    it = world(2)
    queued(it, "t0", "t1", state="active")
    it.command("stop", when="now")
    assert [e.ticket for e in it.all if isinstance(e, tx.CancelJob)] == ["t0", "t1"]
    it.say(report("t0", 1, "stopped", stopReason="stop"))
    it.say(results.JobLost("t1", 1, "killed"))
    assert verdict(it) == ("stopped", "stop") and it.loop.stats["cost"] == 0.5


def test_abort_has_the_tickets_begin_again() -> None:
    it = world(1)
    queued(it, "t0", state="active")
    it.command("abort")
    it.say(report("t0", 1, "stopped", stopReason="stop"))
    assert [job.number for job in jobs(it)] == [1, 2] and jobs(it)[1].attempts == 2


def test_a_pause_submits_nothing_and_is_reached_when_no_job_is_left() -> None:
    it = world(5, parallel=1)
    queued(it, "t0", state="active")
    it.command("pause")
    assert verdict(it)[0] == "running"
    it.say(report("t0", 1))
    assert verdict(it)[0] == "paused" and len(jobs(it)) == 1
    it.command("resume", "c2")
    assert len(jobs(it)) == 2


def test_a_message_goes_with_the_next_job_and_is_delivered_when_it_has_worked() -> None:
    it = world(1)
    it.command("steer", message="Use tabs.", ticket="t0")
    queued(it, "t0", state="active")
    it.say(results.JobLost("t0", 1, "gone"))
    it.later(6_000)
    assert jobs(it)[1].messages == ("Use tabs.",)
    it.say(results.JobLost("t0", 2, "gone"))
    it.later(20_000)
    assert jobs(it)[2].messages == ("Use tabs.",)
    assert not [e for e in it.events("ralph_command") if e["state"] == "delivered"]
    it.say(report("t0", 3))
    assert [e["id"] for e in it.events("ralph_command") if e["state"] == "delivered"] == ["c1"]


def test_a_conflict_goes_back_as_another_job_that_is_told_of_it() -> None:
    it = world(1)
    it.conflicts["t0"] = ["both changed f"]
    it.say(report("t0", 1))
    assert "both changed f" in jobs(it)[1].messages[0] and "git merge main" in jobs(it)[1].messages[0]
    it.say(report("t0", 2))
    assert verdict(it) == ("completed", "tickets-done")
    assert [record["kind"] for record in adopted(it)] == ["work", "conflict"]


def test_the_next_head_finds_the_jobs_of_the_last_and_counts_what_it_has_not() -> None:
    it = world(1, maxCost=2.0)
    queued(it, "t0", state="active")
    record: TicketRecord = {**it.loop.jobs["t0"].record, "attempt": 0}
    new = World(ticket("t0", "c0"), ticket("t1", "c1"), records={"t0": record}, engine="slurm", maxCost=2.0, parallel=2)
    new.begin()
    assert [(e.ticket, e.number, e.id) for e in new.all if isinstance(e, tx.FindJob)] == [("t0", 1, "id-t0")]
    (other,) = jobs(new)
    assert other.ticket == "t1" and other.max_cost == pytest.approx(2.0 - 2.0 / 3)
    new.say(report("t0", 1))
    new.say(report("t1", 1))
    assert verdict(new) == ("completed", "tickets-done") and new.loop.stats["cost"] == 1.0


def test_the_state_file_says_which_job_each_ticket_has() -> None:
    it = world(1, maxCost=3.0)
    queued(it, "t0")
    running, job = shown(it)
    assert job["id"] == "id-t0" and running["doing"] == "queued on slurm (job id-t0)"
    queued(it, "t0", state="active")
    running, job = shown(it)
    assert running["doing"] == "working on slurm (job id-t0)" and job["maxCost"] == 1.0


def test_time_that_is_up_ends_the_loop_when_its_jobs_have_ended() -> None:
    it = world(2, maxTimeMs=60_000)
    assert jobs(it)[0].max_time_ms == 60_000
    queued(it, "t0", state="active")
    queued(it, "t1")
    it.later(61_000)
    assert [e.ticket for e in it.all if isinstance(e, tx.CancelJob)] == ["t1"]
    it.say(results.JobLost("t1", 1, "cancelled"))
    it.say(report("t0", 1, "stopped", stopReason="max-time"))
    assert verdict(it) == ("stopped", "max-time")
