"""Conversations about dialogs of extensions, which nobody is there to answer."""

from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import Dialog
from tests.core.talk import Talk


@pytest.mark.parametrize(
    ("method", "given", "members"),
    [
        ("confirm", True, {"confirmed": True}),
        ("confirm", False, {"confirmed": False}),
        ("confirm", "yes", {"confirmed": True}),
        ("confirm", "TRUE", {"confirmed": True}),
        ("confirm", "Y", {"confirmed": True}),
        ("confirm", "no", {"confirmed": False}),
        ("select", "b", {"value": "b"}),
        ("input", True, {"value": "True"}),
    ],
)
def test_an_answer_that_the_operator_gave_is_handed_on(method: str, given: Any, members: dict[str, Any]) -> None:
    talk = Talk(uiAnswers={"Deploy?": given})
    talk.boot()
    talk.say(Dialog("d", method, "Deploy?", (), False))
    assert talk.did(fx.AnswerDialog) == [fx.AnswerDialog("d", members)]
    assert talk.events("ralph_notice") == [
        {"level": "info", "message": "an extension's dialog was answered by --ui-answers: 'Deploy?'"}
    ]


def test_any_other_dialog_is_cancelled_and_told_of_by_the_beginning_of_its_title() -> None:
    talk = Talk(uiAnswers={"Deploy?": True})
    talk.boot()
    talk.say(Dialog("d", "confirm", "x" * 300, (), False))
    assert talk.did(fx.AnswerDialog) == [fx.AnswerDialog("d", {"cancelled": True})]
    assert talk.notices() == [f"an extension's dialog was cancelled: {'x' * 200!r}"]
