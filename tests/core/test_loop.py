"""Conversations: what the core does with what happens, from the first pi to the last record."""

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import Dialog
from tests.core.talk import Talk, done


def test_an_auth_error_ends_the_loop_at_once() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error='401: {"message":"Incorrect API key provided"}')
    talk.settle()
    assert done(talk) == ("error", "auth")
    assert "Incorrect API key" in (talk.loop.error or "")


def test_a_prompt_without_a_key_ends_the_loop_at_once() -> None:
    talk = Talk()
    talk.boot()
    talk.reply("prompt", success=False, error="No API key found for anthropic")
    talk.reply("get_session_stats")
    assert done(talk) == ("error", "auth")


def test_an_unknown_model_ends_the_loop_at_once() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn("", stop="error", error='404: {"message":"The model gpt-9 does not exist"}')
    talk.settle()
    assert done(talk) == ("error", "failures")


def test_a_dialog_is_answered_at_once() -> None:
    talk = Talk(uiAnswers={"Deploy?": True, "Which?": "b"})
    talk.boot()
    talk.accept()
    talk.say(Dialog("d1", "confirm", "Deploy?", (), False), Dialog("d2", "select", "Which?", ("a", "b"), False))
    talk.say(Dialog("d3", "input", "Name?", (), False))
    assert talk.did(fx.AnswerDialog) == [fx.AnswerDialog("d3", {"cancelled": True})]
    answers = [e.members for e in talk.all if isinstance(e, fx.AnswerDialog)]
    assert answers == [{"confirmed": True}, {"value": "b"}, {"cancelled": True}]
