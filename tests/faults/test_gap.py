"""A message that comes in the gap between two prompts is never dropped: pi forgets at new_session what it had accepted.

Most of it is played with the core alone, against a pi that reads its stdin, works and is heard in any order
(gap_pi.py), so that messages meet every position of the gap; the whole program gets a stream of them.
"""

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import Note
from tests.faults.gap_pi import Conversation, in_turn
from tests.faults.lives import fake_life
from tests.faults.tiers import times
from tests.process.trees import new_token, nothing_of

pytestmark = pytest.mark.timeout(600)
KINDS: list[tuple[str, dict[str, str]]] = [("steer", {}), ("followup", {"when": "now"}), ("followup", {"when": "next"})]


@pytest.mark.parametrize("new", [True, False], ids=["new", "old"])
def test_row_10_a_message_at_every_position_of_three_iterations_is_delivered(new: bool, figure: Note) -> None:
    cases = 0
    for first, (verb, body), turns in itertools.product((False, True), KINDS, (1, 2)):
        position, whole = 0, False
        while not whole:
            # Positions before each thing that happens, until the third prompt is answered.
            choose = (lambda choices: choices - 1) if first else in_turn()
            talk = Conversation(new=new, turns=turns, choose=choose)
            for _ in range(position):
                talk.step()
                whole = talk.talk.loop.iteration > 3
            talk.say(verb, **body)
            talk.end()
            position += 1
            cases += 1
    figure(f"{cases} positions: 0 lost, 0 twice")


@times(quick=300, full=10_000)
def test_row_10_messages_at_any_positions_are_delivered_whoever_is_slow(count: int, figure: Note) -> None:
    messages: Counter[str] = Counter()
    for seed in range(count):
        rng = random.Random(seed)
        talk = Conversation(new=rng.random() < 0.7, turns=rng.randint(1, 3), choose=rng.randrange)
        for _ in range(rng.randint(1, 4)):
            for _ in range(rng.randrange(80)):
                talk.step()
            verb, body = rng.choice(KINDS)
            messages[verb] += 1
            talk.say(verb, **body)
        talk.end()
    figure(f"{count} conversations, {messages.total()} messages: 0 lost, 0 twice")


@pytest.mark.usefixtures("no_leftovers")
@times(quick=60, full=1_000)
def test_row_10_a_stream_of_messages_into_short_iterations_is_delivered(
    tmp_path: Path, count: int, figure: Note
) -> None:
    token = new_token()
    with nothing_of(token):
        life = fake_life(tmp_path / "life", token, ["done"])
        life.begin()
        life.while_speaking(count, count / 40, lambda: None)
        tally = life.end()
    assert not (tally.lost or tally.repeated or tally.twice or tally.flagged), tally
    figure(f"{tally.commands} messages into {len(life.rig.records())} iterations of one turn: 0 lost, 0 twice")
