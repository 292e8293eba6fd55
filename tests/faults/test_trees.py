"""Runner or guard, or both, are killed over trees of real processes: nothing of the trees survives.

The trees hold background, setsid, double-forked, deaf and env-wiped children. One thing escapes, and only when guard
and runner are killed at the same instant: a process that wiped its environment and left the tree (row 5 shows it).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.machine import identity, locks
from ralph_runner.guarded import guard
from ralph_runner.shell.orphans import sweep_orphans
from tests.faults.conftest import Note
from tests.faults.lives import GONE_S, fake_life, work
from tests.faults.tiers import times
from tests.process.trees import KINDS, is_gone, new_token, nothing_of, runner, survivors, until
from tests.rig import wait_for

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(600)]
AT_ONCE = 5
"""Trees that one test kills at the same time."""


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def forest(token: str, *, but: str = "", deaf: bool = False) -> str:
    """One line of shell: every kind of descendant (but one), then `ready`, then a long sleep."""
    lines = [line if line.endswith("&") else f"{line};" for kind, line in KINDS.items() if kind != but]
    trap = "trap '' TERM; " if deaf else ""
    return f"{' '.join(lines)} {trap}echo ready; sleep {token}".replace("TOKEN", token)


def stop_everything_but_the_guard(token: str) -> None:
    for pid, command in survivors(token).items():
        if guard.IN_MEMORY not in command:
            os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@times(quick=1, full=8)
def test_row_02_a_runner_killed_takes_its_tree_along(token: str, count: int, stopped: bool, figure: Note) -> None:
    longest = 0.0
    for _ in range(count):
        with runner() as stand_in:
            for _ in range(AT_ONCE):
                stand_in.order(f"spawn {forest(token, deaf=True)}")
            assert len(survivors(token)) > AT_ONCE * len(KINDS)
            if stopped:
                stop_everything_but_the_guard(token)
            stand_in.die()
            began = time.monotonic()
            until(lambda: not survivors(token), "the tree has ended", GONE_S)
            longest = max(longest, time.monotonic() - began)
    figure(f"{count * AT_ONCE} deaf trees: 0 survivors, longest {longest:.2f} s")


def test_row_22_the_tree_lock_is_held_until_the_tree_of_a_dead_runner_has_ended(token: str, tmp_path: Path) -> None:
    lock = tmp_path / "tree.lock"
    with runner(lock) as stand_in:
        stand_in.order(f"spawn {forest(token)}")
        stand_in.die()
        assert survivors(token) and locks.is_held(lock)
        until(lambda: not locks.is_held(lock), "the lock is free")
        # The guard itself may still be on its way out; what it guarded is not.
        assert not [command for command in survivors(token).values() if guard.IN_MEMORY not in command]


def open_inodes(pid: int) -> set[int]:
    """The files that a process holds open; one that it closes meanwhile is none."""
    found: set[int] = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(fd.stat().st_ino)
    return found


def test_row_22_the_program_does_not_inherit_the_tree_lock(token: str, tmp_path: Path) -> None:
    lock = tmp_path / "tree.lock"
    with runner(lock) as stand_in:
        pid = stand_in.order(f"spawn echo ready; exec sleep {token}")["pid"]
        assert lock.stat().st_ino not in open_inodes(pid)


@times(quick=1, full=10)
def test_row_22_a_new_runner_starts_no_pi_while_the_old_tree_lives(
    tmp_path: Path, token: str, count: int, figure: Note
) -> None:
    # Deaf to SIGTERM, pi and all it starts: the guard is busy for as long as it ever is.
    life = fake_life(tmp_path / "life", token, work(token), deaf=True)
    life.begin()
    longest = 0.0
    for _ in range(count):
        wait_for("the tree", lambda: len(survivors(token)) >= len(KINDS))
        before, began = life.starts(), time.monotonic()
        life.kill("runner")
        life.go_on()
        assert life.left(), "nothing was left for the new runner to wait for"
        life.await_pi(before)
        longest = max(longest, time.monotonic() - began)
    tally = life.end()
    assert tally.overlaps == 0
    figure(
        f"{tally.kills} restarts over a deaf tree: {tally.overlaps} overlaps, the next pi after {longest:.1f} s at most"
    )


@times(quick=1, full=40)
def test_row_04_a_guard_killed_leaves_its_tree_to_the_runner_which_ends_it(
    token: str, count: int, figure: Note
) -> None:
    longest = 0.0
    for _ in range(count):
        with runner() as stand_in:
            programs = [stand_in.order(f"spawn {forest(token)}") for _ in range(AT_ONCE)]
            began = time.monotonic()
            for program in programs:
                stand_in.order(f"kill-guard {program['number']}")
            answers = [stand_in.order(f"wait {program['number']}") for program in programs]
            longest = max(longest, time.monotonic() - began)
            assert all((answer["code"], answer["method"]) == (None, "sigkill") for answer in answers)
            assert answers[-1]["zombies"] == 0 and not survivors(token)
            assert all(is_gone(program["pid"]) and is_gone(program["guard"]) for program in programs)
    assert longest < GONE_S
    figure(f"{count * AT_ONCE} guards killed, deaf children below: 0 survivors, longest {longest:.2f} s")


def test_row_04_the_sweep_after_a_killed_guard_spares_other_guards_and_the_runners_helpers(token: str) -> None:
    other = new_token()
    with nothing_of(other), runner() as stand_in:
        helper = stand_in.order("helper 300")["pid"]
        spared = stand_in.order(f"spawn echo ready; sleep {other}")
        stand_in.order(f"spawn {forest(token)}")
        stand_in.order("kill-guard 1")
        assert stand_in.order("wait 1")["method"] == "sigkill"
        assert not survivors(token)
        try:
            assert not any(is_gone(pid) for pid in (helper, spared["pid"], spared["guard"]))
        finally:
            os.kill(helper, signal.SIGKILL)
        stand_in.order("terminate 0")
        assert stand_in.order("wait 0")["method"] == "sigterm"


@pytest.mark.full
def test_row_04_a_stopped_guard_is_killed_in_the_end(token: str) -> None:
    with runner() as stand_in:
        program = stand_in.order(f"spawn echo ready; sleep {token}")
        os.kill(program["guard"], signal.SIGSTOP)
        stand_in.order("kill 0")
        assert stand_in.order("wait 0") == {"code": None, "method": "sigkill", "zombies": 0}
        assert not survivors(token)


@times(quick=1, full=20)
def test_row_05_what_survives_runner_and_guard_is_ended_at_the_next_start(
    token: str, tmp_path: Path, count: int, figure: Note
) -> None:
    marked = {"RALPH_LOOP_DIR": str(tmp_path)}
    longest = 0.0
    escaped = new_token()
    for _ in range(count):
        with nothing_of(escaped), runner(tmp_path / "tree.lock", marked) as stand_in:
            code = f"{KINDS['env-wiped'].replace('TOKEN', escaped)} {forest(token, but='env-wiped', deaf=True)}"
            programs = [stand_in.order(f"spawn {code}") for _ in range(AT_ONCE)]
            victims = [stand_in.process.pid, *(program["guard"] for program in programs)]
            # Stopped first, so that none has time to act on another's death.
            for sig in (signal.SIGSTOP, signal.SIGKILL):
                for pid in victims:
                    os.kill(pid, sig)
            stand_in.process.wait()
            for guard in victims[1:]:
                until(lambda pid=guard: is_gone(pid), "the guard is dead")  # type: ignore[misc]
            left = survivors(token)
            assert {program["pid"] for program in programs} < left.keys() and len(left) > AT_ONCE * len(KINDS)
            began = time.monotonic()
            ended = sweep_orphans(tmp_path, [], identity.boot_id())
            longest = max(longest, time.monotonic() - began)
            # One or the other may have ended by itself: the kernel hangs up on a group that a guard's death left stopped.
            assert ended and not survivors(token)
            # The stated exception; the shell that holds the word in its command line has just been ended.
            assert len(survivors(escaped)) == AT_ONCE
    figure(
        f"{count * AT_ONCE} pairs killed: 0 survivors with the mark, {longest:.2f} s at most; "
        "env-wiped double forks escape, all of them"
    )
