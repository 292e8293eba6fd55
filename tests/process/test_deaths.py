"""Runner or guard or both are killed with SIGKILL: nothing of the tree survives."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.files import identity, locks
from ralph_runner.shell.orphans import sweep_orphans
from tests.process.trees import KINDS, is_gone, new_token, nothing_of, runner, survivors, until

pytestmark = pytest.mark.usefixtures("no_leftovers")


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
        if "guard.py" not in command:
            os.kill(pid, signal.SIGSTOP)


def test_a_runner_killed_takes_its_tree_along(token: str) -> None:
    with runner() as stand_in:
        stand_in.order(f"spawn {forest(token)}")
        assert len(survivors(token)) > len(KINDS)
        stand_in.die()
        until(lambda: not survivors(token), "the tree has ended")


def test_a_runner_killed_takes_a_stopped_tree_along(token: str) -> None:
    with runner() as stand_in:
        stand_in.order(f"spawn {forest(token)}")
        stop_everything_but_the_guard(token)
        stand_in.die()
        until(lambda: not survivors(token), "the tree has ended")


def test_the_tree_lock_is_held_until_the_tree_of_a_dead_runner_has_ended(token: str, tmp_path: Path) -> None:
    lock = tmp_path / "tree.lock"
    with runner(lock) as stand_in:
        stand_in.order(f"spawn {forest(token)}")
        stand_in.die()
        assert survivors(token) and locks.is_held(lock)
        until(lambda: not locks.is_held(lock), "the lock is free")
        # The guard itself may still be on its way out; what it guarded is not.
        assert not [command for command in survivors(token).values() if "guard.py" not in command]


def open_inodes(pid: int) -> set[int]:
    """The files that a process holds open; one that it closes meanwhile is none."""
    found: set[int] = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(fd.stat().st_ino)
    return found


def test_the_program_does_not_inherit_the_tree_lock(token: str, tmp_path: Path) -> None:
    lock = tmp_path / "tree.lock"
    with runner(lock) as stand_in:
        pid = stand_in.order(f"spawn echo ready; exec sleep {token}")["pid"]
        assert lock.stat().st_ino not in open_inodes(pid)


def test_a_guard_killed_leaves_its_tree_to_the_runner_which_ends_it(token: str) -> None:
    with runner() as stand_in:
        program = stand_in.order(f"spawn {forest(token)}")
        stand_in.order("kill-guard 0")
        assert stand_in.order("wait 0") == {"code": None, "method": "sigkill", "zombies": 0}
        assert not survivors(token)
        assert is_gone(program["pid"]) and is_gone(program["guard"])


def test_the_sweep_after_a_killed_guard_spares_other_guards_and_the_runners_helpers(token: str) -> None:
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


def test_a_stopped_guard_is_killed_in_the_end(token: str) -> None:
    with runner() as stand_in:
        program = stand_in.order(f"spawn echo ready; sleep {token}")
        os.kill(program["guard"], signal.SIGSTOP)
        stand_in.order("kill 0")
        assert stand_in.order("wait 0") == {"code": None, "method": "sigkill", "zombies": 0}
        assert not survivors(token)


def test_what_survives_runner_and_guard_is_ended_at_the_next_start(token: str, tmp_path: Path) -> None:
    marked = {"RALPH_LOOP_DIR": str(tmp_path)}
    # What wiped its environment and left the tree is the one thing that escapes; see the module.
    with runner(tmp_path / "tree.lock", marked) as stand_in:
        program = stand_in.order(f"spawn {forest(token, but='env-wiped', deaf=True)}")
        # Stopped first, so that neither has time to act on the other's death.
        for pid in (stand_in.process.pid, program["guard"]):
            os.kill(pid, signal.SIGSTOP)
        for pid in (stand_in.process.pid, program["guard"]):
            os.kill(pid, signal.SIGKILL)
        stand_in.process.wait()
        until(lambda: is_gone(program["guard"]), "the guard is dead")
        left = survivors(token)
        assert program["pid"] in left and len(left) > len(KINDS)
        assert set(sweep_orphans(tmp_path, [], identity.boot_id())) >= set(left)
        assert not survivors(token)
