"""Which processes the start-up sweep ends, and which it must leave alone."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.machine import identity, locks
from ralph_runner.shell.orphans import sweep_orphans
from tests.process.trees import is_gone, new_token, nothing_of, survivors, until

pytestmark = pytest.mark.usefixtures("no_leftovers")

BOOT = identity.boot_id()


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def orphan(token: str, loop_dir: Path | None, code: str = "exec sleep TOKEN") -> int:
    """Start a process that is nobody's child here, and return its pid."""
    env = dict(os.environ) | ({"RALPH_LOOP_DIR": str(loop_dir)} if loop_dir else {})
    shell = f"setsid sh -c 'echo $$; exec 1>&-; {code.replace('TOKEN', token)}' &"
    pid = int(subprocess.run(["sh", "-c", shell], env=env, stdout=subprocess.PIPE, check=True).stdout)
    until(lambda: pid in survivors(token), "the orphan runs")
    return pid


def test_a_process_with_the_mark_of_the_loop_is_ended(token: str, tmp_path: Path) -> None:
    pid = orphan(token, tmp_path)
    assert sweep_orphans(tmp_path, [], BOOT) == [pid]
    assert is_gone(pid)


def test_a_process_with_the_mark_of_another_loop_is_left_alone(token: str, tmp_path: Path) -> None:
    pid = orphan(token, tmp_path / "api-2")
    assert sweep_orphans(tmp_path / "api", [], BOOT) == []
    assert not is_gone(pid)


def test_an_orphan_that_is_deaf_or_stopped_is_ended_too(token: str, tmp_path: Path) -> None:
    deaf = orphan(token, tmp_path, 'trap "" TERM; sleep TOKEN; sleep TOKEN')
    stopped = orphan(token, tmp_path)
    os.kill(stopped, signal.SIGSTOP)
    assert set(sweep_orphans(tmp_path, [], BOOT)) >= {deaf, stopped}
    assert not survivors(token)


def test_the_children_of_an_orphan_are_ended_though_they_wiped_their_environment(token: str, tmp_path: Path) -> None:
    orphan(token, tmp_path, "env -i /bin/sleep TOKEN & wait")
    until(lambda: any(command.startswith("/bin/sleep") for command in survivors(token).values()), "it sleeps")
    assert len(sweep_orphans(tmp_path, [], BOOT)) == 2
    assert not survivors(token)


def test_a_recorded_process_is_ended_without_a_mark(token: str, tmp_path: Path) -> None:
    pid = orphan(token, None)
    assert sweep_orphans(tmp_path, [(None, None), (pid, identity.start_time(pid))], BOOT) == [pid]
    assert is_gone(pid)


def test_a_recorded_pid_that_started_at_another_time_is_left_alone(token: str, tmp_path: Path) -> None:
    pid = orphan(token, None)
    start = identity.start_time(pid)
    assert start is not None
    assert sweep_orphans(tmp_path, [(pid, start - 1), (pid, None), (1, start)], BOOT) == []
    assert not is_gone(pid)


def test_recorded_pids_of_another_boot_are_void(token: str, tmp_path: Path) -> None:
    pid = orphan(token, None)
    assert sweep_orphans(tmp_path, [(pid, identity.start_time(pid))], "another boot") == []
    assert not is_gone(pid)


SWEEP_SELF = """
import subprocess, sys
from pathlib import Path
from ralph_rpc.machine import identity
from ralph_runner.shell.orphans import sweep_orphans
print(sweep_orphans(Path(sys.argv[1]), [], identity.boot_id()))
"""


def test_the_sweeper_and_its_ancestors_are_left_alone_though_marked(tmp_path: Path) -> None:
    path = os.pathsep.join(sys.path)
    env = os.environ | {"RALPH_LOOP_DIR": str(tmp_path), "PYTHONPATH": path}
    shell = ["sh", "-c", '"$@"; echo still here', "sh", sys.executable, "-c", SWEEP_SELF, str(tmp_path)]
    done = subprocess.run(shell, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[]\nstill here\n", done.stderr


def test_the_sweep_waits_for_a_guard_that_is_still_cleaning_up(tmp_path: Path) -> None:
    lock = locks.acquire(tmp_path / "tree.lock")
    assert lock
    swept = threading.Event()

    def sweep() -> None:
        sweep_orphans(tmp_path, [], BOOT)
        swept.set()

    thread = threading.Thread(target=sweep)
    thread.start()
    assert not swept.wait(0.3)
    lock.release()
    thread.join(10)
    assert swept.is_set()


def test_the_wait_for_the_tree_lock_is_bounded(token: str, tmp_path: Path) -> None:
    pid = orphan(token, tmp_path)
    with locks.acquire(tmp_path / "tree.lock") or pytest.fail("lock"):
        assert sweep_orphans(tmp_path, [], BOOT, patience_s=0.1) == [pid]
