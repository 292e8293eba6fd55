"""Conversations about the operator's messages: held, sent, read, delivered, never lost."""

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AgentEnd, AssistantStart, QueueUpdate, Settled, UserMessage
from ralph_runner.core.results import CommandCame
from tests.core.talk import MARKER, Talk, done


def test_a_steer_is_sent_to_a_running_pi_and_delivered_when_the_model_answers() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn(stop="toolUse", tools=1)
    talk.command("steer", message="be quick")
    assert [s.members["message"] for s in talk.sent("steer")] == ["be quick"]
    talk.reply("steer")
    assert talk.steps("c1") == ["accepted", "queued"]
    talk.say(QueueUpdate(("be quick",), ()), QueueUpdate((), ()), UserMessage("be quick"))
    assert talk.steps("c1") == ["accepted", "queued"]
    talk.say(AssistantStart("stop"))
    assert talk.steps("c1") == ["accepted", "queued", "delivered"]


def test_a_steer_whose_text_pi_expanded_is_recognised_by_the_queue() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="/review")
    talk.reply("steer")
    talk.say(
        QueueUpdate(("/review",), ()), QueueUpdate((), ()), UserMessage("Review all of it"), AssistantStart("stop")
    )
    assert talk.steps("c1")[-1] == "delivered"


def test_a_steer_that_pi_had_not_read_heads_the_next_prompt() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="late words")
    talk.reply("steer")
    talk.turn()
    talk.tree += 1
    talk.settle()
    talk.reply("new_session")
    assert "Message from the operator. Follow it before anything else:\n\nlate words" in talk.prompt
    assert talk.prompt.index("late words") < talk.prompt.index("make it work")
    talk.accept()
    talk.say(AssistantStart("stop"))
    assert talk.steps("c1") == ["accepted", "queued", "delivered"]


def test_a_steer_between_iterations_is_held_and_never_sent_to_an_idle_pi() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.say(AgentEnd(False), Settled(False))
    talk.command("steer", message="in the gap")
    assert not talk.sent("steer")
    talk.reply("get_session_stats")
    talk.reply("new_session")
    assert "in the gap" in talk.prompt


def test_a_followup_for_next_waits_for_the_next_prompt() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("followup", message="afterwards", when="next")
    assert not talk.sent("follow_up")
    talk.turn()
    talk.settle()
    talk.reply("new_session")
    assert "afterwards" in talk.prompt


def test_a_followup_now_continues_the_session() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("followup", message="and then this")
    assert [s.members["message"] for s in talk.sent("follow_up")] == ["and then this"]


def test_a_steer_that_pi_refuses_goes_into_the_next_prompt() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="/command")
    talk.reply("steer", success=False, error="extension commands cannot be queued")
    talk.turn()
    talk.settle()
    talk.reply("new_session")
    assert "/command" in talk.prompt


def test_a_prompt_that_the_model_never_answered_gives_its_messages_back() -> None:
    talk = Talk()
    talk.command("steer", message="important")
    talk.boot()
    assert "important" in talk.prompt
    talk.accept()
    talk.turn("", stop="error", error="529 Overloaded")
    talk.settle()
    assert talk.status == "waiting"
    talk.wait_over()
    assert "important" in talk.prompt
    talk.accept()
    talk.say(AssistantStart("stop"))
    assert talk.steps("c1")[-1] == "delivered"


def test_messages_that_are_left_at_the_end_expire_and_are_kept() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("followup", message="too late", when="next")
    talk.turn(MARKER)
    talk.settle()
    assert done(talk) == ("completed", "marker")
    assert talk.steps("c1")[-1] == "expired"
    assert [m.text for m in talk.loop.mail] == ["too late"]


def test_a_message_that_may_have_been_read_is_delivered_again_and_flagged() -> None:
    talk = Talk()
    talk.say(CommandCame("old", "steer", {"message": "again"}, known=True, maybe=True))
    talk.boot()
    talk.accept()
    talk.say(AssistantStart("stop"))
    receipts = [e for e in talk.all if isinstance(e, fx.Journal) and e.state == "delivered"]
    assert [(r.id, r.redelivered) for r in receipts] == [("old", True)]


def receipts(talk: Talk, id: str) -> tuple[list[bool], list[bool]]:
    """Of each `delivered` of a message whether it says `redelivered`: in the journal, and in the events."""
    journal = [e.redelivered for e in talk.all if isinstance(e, fx.Journal) and (e.id, e.state) == (id, "delivered")]
    events = [
        e.event.get("redelivered", False)
        for e in talk.all
        if isinstance(e, fx.Emit) and e.event["type"] == "ralph_command" and e.event["id"] == id
        if e.event["state"] == "delivered"
    ]
    return journal, events


def test_a_message_that_headed_a_prompt_whose_answer_never_began_says_redelivered_when_it_comes_again() -> None:
    talk = Talk()
    talk.command("steer", message="pay the invoice")
    talk.boot()
    assert "pay the invoice" in talk.prompt
    talk.accept()
    talk.exit(-9)  # the model may have had the prompt by then
    talk.wait_over()
    assert "pay the invoice" in talk.prompt
    talk.accept()
    talk.say(AssistantStart("stop"))
    assert receipts(talk, "c1") == ([True], [True])


def test_a_steer_that_pi_had_read_when_it_died_says_redelivered_when_it_comes_again() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="pay the invoice")
    talk.reply("steer")
    talk.say(QueueUpdate(("pay the invoice",), ()), QueueUpdate((), ()), UserMessage("pay the invoice"))
    talk.exit(-9)
    talk.wait_over()
    talk.accept()
    talk.say(AssistantStart("stop"))
    assert receipts(talk, "c1") == ([True], [True])


def test_a_steer_that_pi_had_not_read_comes_for_the_first_time_with_the_next_prompt() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="pay the invoice")
    talk.reply("steer")
    talk.exit(-9)
    talk.wait_over()
    assert "pay the invoice" in talk.prompt
    talk.accept()
    talk.say(AssistantStart("stop"))
    assert receipts(talk, "c1") == ([False], [False])


def test_the_journal_calls_a_message_that_pi_has_taken_queued_as_the_events_do() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.command("steer", message="be quick")
    talk.reply("steer")
    talk.say(QueueUpdate(("be quick",), ()), QueueUpdate((), ()), UserMessage("be quick"), AssistantStart("stop"))
    assert [e.state for e in talk.all if isinstance(e, fx.Journal)] == ["sent", "queued", "delivered"]
    assert talk.steps("c1") == ["accepted", "queued", "delivered"]
