"""A fault of our own that does not pass: the loop ends with it named, and no ticket and no claim pays for it."""

from dataclasses import replace

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.phases import Preparing
from ralph_runner.core.results import Begin, Broken, Now, SpawnFailed, TaskRead, Tick, Verified
from ralph_runner.core.step import next_deadline, step
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from tests.core.talk import MARKER, Talk, done
from tests.core.ticket_talk import World, ticket, verdict

WHY = "--verify cannot be run: cannot run anything (No such file or directory: /venv/bin/python)"


def test_a_verify_that_could_not_be_run_refuses_nothing_and_ends_the_loop_with_the_reason() -> None:
    talk = Talk(verify="make test")
    talk.boot()
    talk.accept()
    talk.turn(MARKER)
    talk.settle()
    talk.say(Verified(None, own=WHY))
    assert done(talk) == ("error", "blocked")
    assert talk.loop.error == WHY
    (record,) = [e.record for e in talk.all if isinstance(e, fx.EndIteration)]
    assert (record["outcome"], record.get("errorKind"), record.get("error")) == ("failed", "own", WHY)
    assert "verify" not in record
    assert (talk.loop.refusal, talk.loop.stats["iterations"]) == (None, 0)


def test_a_guard_that_could_not_be_started_is_no_crash_of_pi() -> None:
    talk = Talk()
    talk.say(Begin(), SpawnFailed("pi's guard cannot be started", own=True))
    assert done(talk) == ("error", "blocked")
    assert talk.loop.restarts == ()


def test_a_task_that_is_looked_for_again_is_not_pis_to_answer_for() -> None:
    talk = Talk()
    talk.boot()
    talk.iterate()
    later = replace(talk.loop, phase=Preparing(talk.mono + 60_000, "new_session-9", session=True, measured=True))
    assert next_deadline(later) is None
    later, effects = step(later, Tick(), Now(talk.mono + 90_000, 0))
    assert effects == []
    _, effects = step(later, TaskRead("The task."), Now(talk.mono + 90_000, 0))
    assert [e.command for e in effects if isinstance(e, fx.Send)] == ["prompt"]


def test_a_ticket_whose_verify_could_not_be_run_keeps_its_attempts() -> None:
    world = World(ticket("a", "x"), verify="make check", attempts=2)
    world.hold = {fx.RunVerify}
    world.begin()
    world.attempt("a")
    world.say(results.From("a", Verified(None, own=WHY)))
    assert verdict(world) == ("error", "blocked")
    assert world.loop.error == WHY
    assert (world.statuses, world.loop.settled["a"]["attempt"]) == ({"a": "orphaned"}, 1)
    assert not [e for e in world.all if isinstance(e, tx.MarkTicket) and e.note]
    (record,) = [e.effect.record for e in world.all if isinstance(e, tx.To) and isinstance(e.effect, fx.EndIteration)]
    assert record.get("errorKind") == "own"
    assert world.loop.stats["iterations"] == 0


@pytest.mark.parametrize(
    ("held", "status"), [(tx.OpenWorktree, "orphaned"), (tx.Commit, "merging"), (tx.BuildBatch, "merging")]
)
def test_a_git_that_could_not_be_run_fails_no_ticket(held: type, status: str) -> None:
    world = World(ticket("a", "x"))
    world.hold = {held}
    world.begin()
    if held is not tx.OpenWorktree:
        world.attempt("a")
    why = "a: `git worktree add` failed: git is not installed"
    world.say(Broken(why), results.JobFailed("a", why, own=True))
    assert world.statuses == {"a": status}
    assert verdict(world) == ("error", "blocked")
    assert not [e for e in world.all if isinstance(e, tx.MarkTicket) and e.note]
