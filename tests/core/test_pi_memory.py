"""A pi that has grown past --pi-memory is replaced between two iterations, and no failure is counted."""

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import PiExited
from ralph_runner.core.results import Measure, WorkMeasured
from tests.core.talk import Talk, done


def iterate(talk: Talk, memory: int) -> None:
    """One iteration after which pi has so much memory."""
    talk.slow_measure = True
    talk.accept()
    talk.turn()
    talk.tree += 1
    talk.settle()
    talk.say(WorkMeasured(Measure("head", str(talk.tree)), pi_memory=memory))
    talk.slow_measure = False


def test_a_pi_that_has_grown_is_replaced_by_a_fresh_one_that_gets_the_next_prompt() -> None:
    talk = Talk(piMemory=1000)
    talk.boot()
    iterate(talk, 1001 << 20)
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=True)]
    assert "1001 MiB" in talk.notices()[-1] and "--pi-memory" in talk.notices()[-1]
    talk.say(PiExited(0, "eof", ""))
    assert len(talk.did(fx.StartPi)) == 1
    talk.greet()
    assert len(talk.ever_sent("prompt")) == 2
    assert talk.loop.restarts == () and talk.loop.stats["iterations"] == 1 and talk.loop.consecutive_failures == 0


def test_a_pi_within_its_limit_stays_and_0_means_any_size() -> None:
    for limit, memory in ((1000, 1000), (0, 1 << 40), (1000, 0)):
        talk = Talk(piMemory=limit)
        talk.boot()
        iterate(talk, memory)
        assert talk.did(fx.EndPi) == []


def test_a_loop_of_an_older_version_allows_a_gibibyte() -> None:
    talk = Talk()
    talk.boot()
    iterate(talk, 1 << 30)
    assert talk.did(fx.EndPi) == []
    talk.reply("new_session", {"cancelled": False})
    iterate(talk, (1 << 30) + 1)
    assert talk.did(fx.EndPi) == [fx.EndPi(graceful=True)]


def test_however_often_pi_is_replaced_the_restart_budget_is_untouched() -> None:
    talk = Talk(piMemory=1, maxIterations=12)
    talk.boot()
    for _ in range(11):
        iterate(talk, 2)
        talk.say(PiExited(0, "eof", ""))
        talk.greet()
    iterate(talk, 2)
    assert done(talk) == ("stopped", "max-iterations")
    assert talk.loop.restarts == ()


def test_a_stop_that_comes_while_pi_is_replaced_ends_the_loop() -> None:
    talk = Talk(piMemory=1)
    talk.boot()
    iterate(talk, 2)
    talk.command("stop")
    talk.say(PiExited(0, "eof", ""))
    assert done(talk) == ("stopped", "stop") and len(talk.ever_sent("prompt")) == 1
