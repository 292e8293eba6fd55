"""A pid is a process only together with its start time and boot id."""

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.machine import identity
from tests.process.trees import until

BOOT = identity.boot_id()

junk = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers()))


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


def started(pid: int) -> float:
    start = identity.start_time(pid)
    assert start is not None
    return start


def test_a_process_is_itself(child: subprocess.Popen[bytes]) -> None:
    assert identity.is_same(child.pid, started(child.pid), BOOT)
    assert identity.is_same(child.pid, int(started(child.pid)), BOOT)


def test_a_name_full_of_brackets_does_not_shift_the_fields() -> None:
    argv = ["bash", "-c", "printf ') S 1 (' > /proc/$$/comm; echo; read line"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        before = started(process.pid)
        assert process.stdout and process.stdout.readline()
        assert started(process.pid) == before == started(process.pid) > 1000
        process.kill()


def test_a_zombie_is_nobody() -> None:
    with subprocess.Popen(["sleep", "300"]) as process:
        start = started(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert identity.start_time(process.pid) is None
        assert not identity.is_same(process.pid, start, BOOT)


@pytest.mark.parametrize("pid", [0, 1, -1, True, "2", 2.0, None, 2**31, 10**400])
def test_a_pid_that_cannot_be_meant_is_nobody(pid: Any) -> None:
    assert not identity.is_same(pid, 1.0, BOOT)
    assert not identity.signal_same(pid, 1.0, BOOT, signal.SIGKILL)


def test_init_is_never_meant() -> None:
    assert not identity.is_same(1, started(1), BOOT)
    assert not identity.signal_same(1, started(1), BOOT, 0)


@given(junk, junk, junk)
def test_garbage_is_nobody_and_never_an_error(pid: Any, start: Any, boot: Any) -> None:
    assert identity.is_same(pid, start, boot) is False
    assert identity.is_same(os.getpid(), start, boot) is False
    assert identity.is_same(pid, start, BOOT) is False


def test_the_process_meant_gets_the_signal(child: subprocess.Popen[bytes]) -> None:
    assert identity.signal_same(child.pid, started(child.pid), BOOT, signal.SIGTERM)
    assert child.wait(10) == -signal.SIGTERM


def test_nobody_signals_himself() -> None:
    assert not identity.signal_same(os.getpid(), started(os.getpid()), BOOT, 0)


def test_a_process_that_is_gone_gets_no_signal(child: subprocess.Popen[bytes]) -> None:
    start = started(child.pid)
    child.kill()
    child.wait()
    until(lambda: identity.start_time(child.pid) is None, "it is gone")
    assert not identity.signal_same(child.pid, start, BOOT, signal.SIGTERM)


def test_a_pid_that_changes_hands_between_look_and_signal_gets_none(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pidfd is opened after the first look; the second look finds another process there."""
    start = started(child.pid)
    looks = iter([start, start + 1])
    with monkeypatch.context() as patch:
        patch.setattr(identity, "start_time", lambda _pid: next(looks))
        assert not identity.signal_same(child.pid, start, BOOT, signal.SIGKILL)
    assert identity.is_same(child.pid, start, BOOT)
