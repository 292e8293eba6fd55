"""Runner, guard and pi are killed with SIGKILL, singly and together, at any instant.

No command is lost or repeated after its receipt, no file is torn, nothing of a tree lives three seconds later, and
no pi begins while another one, or what that one left, is alive. What escapes when guard and runner die together is a
process that wiped its environment and left its tree: see test_trees.py.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.conftest import Note
from tests.faults.lives import Tally, Victim, fake_life, work
from tests.faults.tiers import times
from tests.process.trees import new_token, nothing_of

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(900)]
SIDE_BY_SIDE = 4
COMMANDS = 20
"""While each kill is awaited."""


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def total(lives: int, live: Callable[[int], Tally]) -> Tally:
    """The sum over lives, some of them side by side."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return sum(pool.map(live, range(lives)), Tally())


def check(tally: Tally, figure: Note) -> None:
    figure(str(tally))
    assert not (tally.lost or tally.repeated or tally.unflagged or tally.overlaps), tally
    assert tally.redeliveries <= tally.kills, tally


@times(quick=8, full=1000)
def test_row_02_a_runner_killed_at_any_instant_loses_nothing(
    tmp_path: Path, token: str, count: int, figure: Note
) -> None:
    kills = min(count // SIDE_BY_SIDE, 20)

    def live(number: int) -> Tally:
        life = fake_life(
            tmp_path / f"{number}", f"{token}{number:03}", work(f"{token}{number:03}", "deaf"), seed=number
        )
        life.begin()
        for _ in range(kills):
            life.while_speaking(COMMANDS, 0.5, lambda: time.sleep(life.random.uniform(0, 1.2)))
            life.kill("runner")
            if life.random.random() < 0.5:
                life.gone()
            life.go_on()
        return life.end()

    check(total(count // kills, live), figure)


def kill_all_of(folder: Path, token: str, seed: int, kills: int, *victims: Victim) -> Tally:
    """A life with a few kills of these at once. Not more than two: a loop waits longer for each pi that it starts."""
    unguarded = {"runner", "guard"} <= set(victims)
    token = f"{token}{seed:03}"
    behaviour = work(token, "deaf", "env-wiped") if unguarded else work(token, "deaf")
    life = fake_life(folder / f"{seed}", token, behaviour, seed=seed)
    life.begin()
    for _ in range(kills):
        before = life.starts()
        life.while_speaking(COMMANDS, 0.5, lambda: time.sleep(life.random.uniform(0, 0.8)))
        life.kill(*victims)
        if not unguarded:
            life.gone()
        if "runner" in victims:
            life.go_on()
        life.await_pi(before)
    return life.end()


@times(quick=2, full=200)
def test_row_04_a_guard_killed_at_any_instant_leaves_its_tree_to_the_runner(
    tmp_path: Path, token: str, count: int, figure: Note
) -> None:
    kills = 1 if count < 10 else 2
    check(total(count // kills, lambda n: kill_all_of(tmp_path, token, n, kills, "guard")), figure)


TOGETHER: list[tuple[Victim, ...]] = [("runner", "guard"), ("runner", "pi"), ("guard", "pi"), ("runner", "guard", "pi")]


@times(quick=4, full=100)
def test_row_05_any_two_killed_at_once_and_all_three(tmp_path: Path, token: str, count: int, figure: Note) -> None:
    kills = 1 if count < 10 else 2
    check(total(count // kills, lambda n: kill_all_of(tmp_path, token, n, kills, *TOGETHER[n % len(TOGETHER)])), figure)


@times(quick=2, full=500)
def test_row_06_a_pi_killed_at_any_instant_loses_nothing(tmp_path: Path, token: str, count: int, figure: Note) -> None:
    kills = 1 if count < 10 else 2
    check(total(count // kills, lambda n: kill_all_of(tmp_path, token, n, kills, "pi")), figure)
