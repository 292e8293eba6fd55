"""Conversations about the way from one iteration to the next: its session, and what goes into its prompt."""

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from tests.core.talk import Talk


def test_every_iteration_asks_for_a_new_session_and_waits_for_it() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.settle()
    assert [e.command for e in talk.did(fx.Send)] == ["new_session"]
    talk.reply("new_session", {"cancelled": False})
    assert len(talk.sent("prompt")) == 1


def test_an_extension_that_vetoes_new_session_gets_a_new_process_instead() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn()
    talk.tree += 1
    talk.settle()
    talk.reply("new_session", {"cancelled": True})
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=True)] and not talk.sent("prompt")
    talk.say(PiExited(0, "eof", ""))
    talk.wait_over()
    assert talk.sent("prompt")


def test_reflection_comes_every_n_iterations() -> None:
    talk = Talk(reflectEvery=2)
    talk.boot()
    for _ in range(4):
        talk.iterate()
    assert [r["kind"] for r in talk.records] == ["work", "reflect", "work", "reflect"]
    assert talk.loop.last_reflection == 4
