"""What events.jsonl and commands.jsonl say of an order, whatever the loop does when it comes."""

from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AssistantStart, LogBlocked, LogUnblocked, PiExited, QueueUpdate, UserMessage
from ralph_runner.core.results import Begin, Broken, CommandCame, PiSpawned, Terminate, Verified
from ralph_runner.core.step import next_deadline
from tests.core.talk import MARKER, Talk, done


def working(**config: Any) -> Talk:
    talk = Talk(**config)
    talk.boot()
    talk.accept()
    return talk


def resting(status: str, **config: Any) -> Talk:
    """A loop that waits for a provider, or is paused; pi is there, no iteration is under way."""
    talk = working(**config)
    if status == "paused":
        talk.command("pause", id="p")
        talk.turn()
    else:
        talk.turn("", stop="error", error="503 service unavailable")
    talk.settle()
    assert talk.status == status
    return talk


def step(talk: Talk, id: str) -> dict[str, Any]:
    """The last step of a command; its event and its line in the journal agree."""
    event = [one for one in talk.events("ralph_command") if one["id"] == id][-1]
    line = [one for one in talk.all if isinstance(one, fx.Journal) and one.id == id][-1]
    assert (line.command, line.state, line.reason) == (event["command"], event["state"], event.get("reason"))
    return event


def test_a_command_is_told_when_it_comes_with_the_text_of_a_message() -> None:
    talk = working()
    talk.command("stop", id="s")
    talk.command("steer", id="m", message="be quick")
    accepted = [one for one in talk.events("ralph_command") if one["state"] == "accepted"]
    assert accepted == [
        {"id": "s", "command": "stop", "state": "accepted"},
        {"id": "m", "command": "steer", "state": "accepted", "message": "be quick"},
    ]


def test_a_command_that_an_earlier_runner_took_is_not_told_again() -> None:
    talk = working()
    talk.say(CommandCame("p", "pause", {}, known=True), CommandCame("m", "steer", {"message": "x"}, known=True))
    assert not talk.events("ralph_command")
    assert talk.sent("steer")


def test_the_time_of_every_event_is_that_of_its_step() -> None:
    talk = working()
    talk.later(1_234)
    talk.command("pause")
    talk.turn()
    talk.settle()
    assert {dict(e.event)["at"] for e in talk.did(fx.Emit)} == {talk.wall}


@pytest.mark.parametrize("status", ["waiting", "paused"])
def test_an_abort_with_no_run_to_abort_is_delivered_and_changes_nothing(status: str) -> None:
    talk = resting(status)
    talk.command("abort", id="a")
    assert talk.status == status and not talk.did(fx.Send) and not talk.did(fx.EndPi)
    assert step(talk, "a") == {
        "id": "a",
        "command": "abort",
        "state": "delivered",
        "reason": "there was no run to abort",
    }
    talk.command("stop", id="s")
    done(talk)
    assert talk.steps("a") == ["accepted", "delivered"], "it has had its last step"


@pytest.mark.parametrize("status", ["waiting", "paused"])
def test_an_abort_that_stops_ends_a_loop_that_rests(status: str) -> None:
    talk = resting(status)
    talk.command("abort", id="a", then="stop")
    assert done(talk) == ("stopped", "stop")
    assert step(talk, "a") == {"id": "a", "command": "abort", "state": "delivered"}


def test_an_abort_that_pauses_holds_a_loop_that_waits() -> None:
    talk = resting("waiting")
    talk.command("abort", id="a", then="pause")
    assert talk.status == "paused"
    assert step(talk, "a") == {"id": "a", "command": "abort", "state": "delivered"}


def test_a_pause_holds_a_loop_that_waits_and_resume_lets_it_try_at_once() -> None:
    talk = resting("waiting")
    talk.command("pause", id="p")
    assert talk.status == "paused" and talk.loop.next_wake is None
    assert talk.steps("p") == ["accepted", "delivered"]
    talk.command("resume", id="r")
    assert step(talk, "r") == {"id": "r", "command": "resume", "state": "delivered"}
    assert talk.status == "running" and talk.sent("new_session")


def test_a_pause_is_taken_back_by_a_resume_before_it_has_had_its_effect() -> None:
    talk = working()
    talk.command("pause", id="p")
    talk.command("abort", id="a", then="pause")
    talk.command("steer", id="m", message="x")
    talk.command("resume", id="r")
    for id, verb in (("p", "pause"), ("a", "abort")):
        assert step(talk, id) == {"id": id, "command": verb, "state": "delivered", "reason": "taken back by a resume"}
    assert step(talk, "r") == {"id": "r", "command": "resume", "state": "delivered"}
    talk.turn("", stop="aborted")
    talk.settle()
    talk.reply("new_session")
    assert talk.sent("prompt"), "nothing is left that would pause it"
    assert talk.steps("p") == ["accepted", "delivered"]


def test_a_resume_takes_back_no_stop_and_no_plain_abort() -> None:
    talk = working()
    talk.command("abort", id="a")
    talk.command("stop", id="s")
    talk.command("resume", id="r")
    assert talk.steps("a") == talk.steps("s") == ["accepted"]
    talk.turn("", stop="aborted")
    talk.settle()
    assert done(talk) == ("stopped", "stop")
    assert talk.steps("a")[-1] == talk.steps("s")[-1] == "delivered"


def test_a_resume_of_a_loop_that_waits_tries_again_at_once() -> None:
    talk = resting("waiting")
    talk.command("resume", id="r")
    assert talk.status == "running" and talk.did(fx.Send)
    assert talk.steps("r") == ["accepted", "delivered"]


def test_a_resume_of_a_loop_that_works_changes_nothing() -> None:
    talk = working()
    talk.turn("", stop="toolUse")
    talk.command("resume", id="r")
    assert talk.status == "running" and not talk.did(fx.Send)
    assert talk.steps("r") == ["accepted", "delivered"]


def test_orders_that_the_end_overtakes_are_told_of() -> None:
    talk = working()
    talk.command("pause", id="p")
    talk.command("followup", id="m", message="late", when="next")
    talk.turn(MARKER)
    talk.settle()
    assert done(talk) == ("completed", "marker")
    assert step(talk, "p")["state"] == step(talk, "m")["state"] == "expired"
    assert step(talk, "p")["reason"] == "the loop ended"
    assert step(talk, "m")["reason"] == "the loop ended; the text is kept in state.json"
    journal = [e for e in talk.all if isinstance(e, fx.Journal) and e.state == "expired"]
    assert [line.iteration for line in journal] == [None, None]


def test_a_receipt_names_the_iteration_in_which_the_command_had_its_effect() -> None:
    talk = working()
    talk.iterate()
    talk.accept()
    talk.command("steer", id="m", message="x")
    talk.reply("steer")
    talk.command("pause", id="p")
    talk.turn()
    talk.settle()
    lines = [(e.id, e.state, e.iteration) for e in talk.all if isinstance(e, fx.Journal)]
    assert lines == [("m", "sent", 2), ("m", "queued", 2), ("p", "delivered", 2)]


@pytest.mark.parametrize(("now", "cancelled"), [(True, True), (False, False)])
def test_a_stop_during_verify_cancels_it_only_if_it_is_to_be_now(now: bool, cancelled: bool) -> None:
    talk = working(verify="make")
    talk.turn(MARKER)
    talk.settle()
    talk.command("stop", when="now" if now else "iteration")
    assert bool(talk.did(fx.CancelVerify)) is cancelled
    if not cancelled:
        talk.say(Verified({"command": "make", "exitCode": 0, "durationMs": 5, "tail": ""}))
        assert done(talk) == ("completed", "verified")


def test_an_abort_during_verify_cancels_it_and_the_claim_does_not_count() -> None:
    talk = working(verify="make")
    talk.turn(MARKER)
    talk.settle()
    talk.command("abort", id="a")
    assert talk.did(fx.CancelVerify)
    talk.say(Verified(None))
    assert "verify" not in talk.records[-1] and talk.records[-1]["outcome"] == "ok"
    assert talk.status == "running" and talk.steps("a")[-1] == "delivered"


def test_a_stop_while_pi_starts_waits_for_it_and_ends_it_at_once() -> None:
    talk = Talk()
    talk.say(Begin())
    talk.command("stop", id="s")
    assert talk.status == "starting" and not talk.did(fx.EndPi)
    talk.say(PiSpawned(7, None, ("pi",)))
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]
    assert done(talk) == ("stopped", "stop")


def test_an_abort_that_pauses_and_comes_while_pi_starts_holds_the_loop_before_its_first_prompt() -> None:
    talk = Talk()
    talk.say(Begin())
    talk.command("abort", id="a", then="pause")
    assert talk.status == "starting" and talk.steps("a") == ["accepted"]
    talk.say(PiSpawned(7, None, ("pi",)))
    talk.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
    talk.reply("clear_queue")
    assert talk.status == "paused" and talk.steps("a") == ["accepted", "delivered"]


def test_a_loop_that_sigterm_ends_while_it_rests_ends_at_once_and_says_why() -> None:
    for status in ("waiting", "paused"):
        talk = resting(status)
        talk.say(Terminate())
        assert talk.did(fx.EndPi) == [fx.EndPi(graceful=True)]
        assert done(talk) == ("stopped", "kill")
        assert talk.loop.error == "the runner was told to end (SIGTERM)"


def test_sigterm_after_an_abort_shortens_its_patience_and_keeps_its_reason() -> None:
    talk = working()
    talk.say(AssistantStart("stop"))
    talk.command("abort", id="a")
    talk.later(1_000)
    talk.say(Terminate())
    assert not talk.sent("abort"), "it has been asked already"
    assert next_deadline(talk.loop) == talk.mono + 2_500
    talk.later(2_499)
    assert not talk.did(fx.EndPi)
    talk.say(Terminate())
    assert next_deadline(talk.loop) == talk.mono + 1, "a second SIGTERM does not put the end off"
    talk.later(1)
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]
    talk.say(PiExited(-9, "sigkill", ""))
    assert done(talk) == ("stopped", "kill")
    assert talk.records[-1]["outcome"] == "aborted"


def test_an_end_after_sigterm_is_not_graceful() -> None:
    talk = working()
    talk.say(Terminate())
    talk.turn("", stop="aborted")
    talk.settle()
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=False)]


def test_an_end_after_a_stop_is_graceful() -> None:
    talk = working()
    talk.command("stop")
    talk.turn()
    talk.settle()
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=True)]


def test_the_first_reason_why_a_runner_is_broken_is_the_one_that_is_told() -> None:
    talk = working()
    talk.say(Broken("the folder was deleted"), Broken("something else, too"))
    talk.turn("", stop="aborted")
    talk.settle()
    done(talk)
    assert talk.events("ralph_loop_end") == [
        {"status": "error", "stopReason": "blocked", "error": "the folder was deleted"}
    ]


def test_a_message_that_comes_while_the_loop_ends_is_kept_but_goes_nowhere() -> None:
    talk = working()
    talk.turn(MARKER)
    talk.settle()
    assert talk.status == "stopping"
    talk.command("steer", id="m", message="too late")
    assert talk.steps("m") == ["accepted"] and not talk.did(fx.Send)
    done(talk)
    assert talk.steps("m") == ["accepted", "expired"]


@pytest.mark.parametrize(
    ("verb", "body", "steps"),
    [
        ("steer", {}, ["accepted"]),
        ("followup", {"when": "now"}, ["accepted"]),
        ("followup", {"when": "next"}, ["accepted", "queued"]),
    ],
)
def test_a_message_is_queued_where_it_is_not_sent_at_once(verb: str, body: dict[str, str], steps: list[str]) -> None:
    talk = working()
    talk.command(verb, id="m", message="x", **body)
    assert talk.steps("m") == steps
    assert bool(talk.sent("steer") or talk.sent("follow_up")) is (steps == ["accepted"])
    talk.command(verb, id="n", message="y", **body)
    talk.turn("", stop="aborted")
    talk.settle()
    talk.command(verb, id="o", message="z", **body)
    assert talk.steps("o") == ["accepted", "queued"]


def test_an_abort_has_its_receipt_once_however_the_loop_continues() -> None:
    talk = working()
    talk.command("abort", id="a")
    talk.command("pause", id="p")
    talk.turn("", stop="aborted")
    talk.settle()
    talk.command("resume", id="r")
    talk.reply("new_session")
    talk.command("abort", id="b")
    talk.accept()
    talk.turn("", stop="aborted")
    talk.settle()
    talk.command("stop", id="s")
    talk.reply("new_session")
    done(talk)
    for id in ("a", "p", "b", "s"):
        assert talk.steps(id) == ["accepted", "delivered"], id
    assert talk.loop.orders == ()


def test_a_full_disk_is_shown_in_a_loop_that_rests_as_well() -> None:
    talk = resting("paused")
    talk.say(LogBlocked("No space left on device", is_full=True))
    assert talk.status == "paused" and "disk is full" in str(talk.loop.error) and talk.did(fx.Save)
    talk.say(LogUnblocked())
    assert talk.status == "paused" and talk.loop.error is None and talk.did(fx.Save)


def test_a_disk_that_was_full_while_a_loop_waited_leaves_its_wait() -> None:
    talk = resting("waiting")
    before = next_deadline(talk.loop)
    talk.say(LogBlocked("No space left on device", is_full=True))
    assert talk.status == "waiting" and "disk is full" in str(talk.loop.error)
    talk.say(LogUnblocked())
    assert talk.status == "waiting" and next_deadline(talk.loop) == before


@pytest.mark.parametrize("queue", ["steer", "follow_up"])
def test_a_message_that_pi_expanded_is_known_by_the_queue_that_became_shorter(queue: str) -> None:
    talk = working()
    talk.command("steer", id="s", message="/one")
    talk.command("followup", id="f", message="/two")
    talk.reply("steer")
    talk.reply("follow_up")
    talk.say(QueueUpdate(("/one",), ("/two",)))
    talk.say(QueueUpdate((), ("/two",)) if queue == "steer" else QueueUpdate(("/one",), ()))
    talk.say(UserMessage("expanded"), AssistantStart("stop"))
    read, waiting = ("s", "f") if queue == "steer" else ("f", "s")
    assert talk.steps(read)[-1] == "delivered" and talk.steps(waiting)[-1] == "queued"


def test_a_message_of_somebody_else_takes_none_from_a_queue_that_did_not_become_shorter() -> None:
    talk = working()
    talk.command("steer", id="s", message="/one")
    talk.command("followup", id="f", message="/two")
    talk.reply("steer")
    talk.reply("follow_up")
    talk.say(QueueUpdate(("/one",), ()), QueueUpdate(("/one",), ("/two",)), QueueUpdate(("/one",), ("/two",)))
    talk.say(UserMessage("written by an extension"), AssistantStart("stop"))
    assert talk.steps("s")[-1] == talk.steps("f")[-1] == "queued"
