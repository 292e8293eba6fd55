"""The next session is asked for while the project is still being measured."""

from typing import Any

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited, Reply
from tests.core.talk import MARKER, Talk

OPENED = {"cancelled": False}


def closing(text: str = "did something", **config: Any) -> Talk:
    """A first iteration has settled and pi has told its figures; the measure is still to come."""
    talk = Talk(**config)
    talk.boot()
    talk.accept()
    talk.turn(text)
    talk.slow_measure = True
    talk.settle()
    return talk


def test_the_prompt_waits_for_the_measure_and_the_session() -> None:
    talk = closing()
    assert len(talk.sent("new_session")) == 1 and not talk.records
    talk.reply("new_session", OPENED)
    assert not talk.effects
    talk.measured()
    assert len(talk.records) == 1
    assert [e.command for e in talk.did(fx.Send)] == ["prompt"]


def test_a_measure_that_comes_first_leaves_the_session_to_be_waited_for() -> None:
    talk = closing()
    talk.measured()
    assert len(talk.records) == 1 and not talk.did(fx.Send)
    talk.reply("new_session", OPENED)
    assert [e.command for e in talk.did(fx.Send)] == ["prompt"]


@pytest.mark.parametrize(
    ("text", "config"), [(f"done\n{MARKER}", {}), (f"done\n{MARKER}", {"verify": "true"}), ("on", {"maxIterations": 1})]
)
def test_no_session_is_asked_for_where_the_loop_may_end(text: str, config: dict[str, Any]) -> None:
    assert not closing(text, **config).sent("new_session")


def test_a_pause_that_comes_now_leaves_the_session_unused_and_its_late_answer_without_effect() -> None:
    talk = closing()
    early = talk.sent("new_session")[0].id
    talk.command("pause")
    talk.measured()
    assert talk.status == "paused" and len(talk.records) == 1
    talk.slow_measure = False
    talk.command("resume", id="c2")
    (again,) = talk.sent("new_session")
    # Taken for the second one's, it would let the prompt out, into the session that is about to be replaced.
    talk.say(Reply("new_session", early, True, OPENED, ""))
    assert not talk.did(fx.Send)
    talk.say(Reply("new_session", again.id, True, OPENED, ""))
    assert len(talk.sent("prompt")) == 1


def test_a_stop_that_comes_now_ends_the_loop_after_the_record() -> None:
    talk = closing()
    talk.command("stop")
    talk.measured()
    assert len(talk.records) == 1 and talk.status == "stopping"


def test_a_pi_that_dies_over_the_session_is_replaced_and_the_iteration_stands() -> None:
    talk = closing()
    talk.say(PiExited(1, "natural", ""))
    talk.measured()
    assert [r["outcome"] for r in talk.records] == ["ok"]
    assert talk.did(fx.StartPi)


def test_a_message_that_comes_now_goes_into_the_next_prompt() -> None:
    talk = closing()
    talk.command("steer", message="look at the tests")
    assert not talk.did(fx.Send)
    talk.reply("new_session", OPENED)
    talk.measured()
    assert "look at the tests" in talk.prompt and len(talk.sent("prompt")) == 1


@pytest.mark.parametrize(("verb", "body"), [("pause", {}), ("stop", {}), ("abort", {"then": "pause"})])
def test_no_session_is_asked_for_where_an_order_waits_for_the_end_of_the_iteration(
    verb: str, body: dict[str, str]
) -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.command(verb, **body)
    talk.slow_measure = True
    talk.settle()
    assert not talk.sent("new_session")


@pytest.mark.parametrize("config", [{"maxCost": 0.01}, {"maxTokens": 110}])
def test_no_session_is_asked_for_where_the_budget_is_used_up(config: dict[str, Any]) -> None:
    assert not closing(**config).sent("new_session")
