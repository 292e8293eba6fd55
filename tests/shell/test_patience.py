"""What failed through no fault of the work is tried again, then shown as what the loop waits for, then given up."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ralph_rpc.errors import RalphError
from ralph_rpc.git.calls import GitError
from ralph_runner.guarded import spawn
from ralph_runner.guarded.spawn import GuardFault
from ralph_runner.shell import patience
from ralph_runner.shell.patience import NoLongerWanted, OwnFault, Patience, own_fault
from ralph_runner.shell.verify import Verification


class Shown:
    """What a person would have been shown, in order."""

    def __init__(self) -> None:
        self.reasons: list[str | None] = []
        self.to_end = False

    def hold(self, key: object, reason: str | None) -> None:
        if self.reasons[-1:] != [reason]:
            self.reasons.append(reason)

    def patience(self) -> Patience:
        return Patience(self.hold, lambda: self.to_end)


def failing(times: int, error: Exception) -> Callable[[], Awaitable[str]]:
    left = [times]

    async def work() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return work


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FIRST_GAP_S": 0.001,
        "LOOK_GAP_S": 0.002,
        "LONGEST_GAP_S": 0.002,
        "LOOK_AGAIN_S": 0.05,
    }.items():
        monkeypatch.setattr(patience, name, value)


OURS = [
    GuardFault(errno.ENOENT, "No such file or directory", "/venv/bin/python"),
    FileNotFoundError(errno.ENOENT, "gone", "/project"),
    OSError(errno.ESTALE, "Stale file handle"),
    PermissionError(errno.EACCES, "no", "/project"),
    GitError("status", None, "git is not installed"),
    GitError("status", -9, "it was killed by signal 9"),
    GitError("add", 128, "fatal: Unable to create '/p/.git/index.lock': File exists."),
]
THEIRS = [OSError(errno.EIO, "Input/output error"), GitError("commit", 1, "nothing to commit"), RalphError("no")]


@pytest.mark.parametrize("error", OURS, ids=repr)
def test_a_fault_of_ours_is_tried_again_until_it_is_over(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LOOK_AGAIN_S", 60.0)
    shown = Shown()
    assert asyncio.run(shown.patience().through("the work", failing(5, error))) == "done"
    assert shown.reasons == [None]


@pytest.mark.parametrize("error", THEIRS, ids=repr)
def test_what_says_something_about_the_work_is_raised_at_once(error: Exception) -> None:
    with pytest.raises(type(error)):
        asyncio.run(Shown().patience().through("the work", failing(1, error)))
    assert own_fault(error) is None


def test_after_some_seconds_the_loop_is_shown_as_waiting_and_no_longer_when_it_works() -> None:
    shown = Shown()
    assert asyncio.run(shown.patience().through("the work", failing(60, OURS[0]))) == "done"
    reason = "the work: cannot run anything (No such file or directory: /venv/bin/python); trying again"
    assert shown.reasons == [reason, None]


def test_what_does_not_pass_is_given_up_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GIVE_UP_S", 0.1)
    with pytest.raises(OwnFault, match="the work: cannot run anything") as caught:
        asyncio.run(Shown().patience().through("the work", failing(1_000, OURS[0])))
    assert not isinstance(caught.value, NoLongerWanted)


def test_the_end_of_the_loop_ends_the_patience() -> None:
    shown = Shown()
    shown.to_end = True
    with pytest.raises(NoLongerWanted):
        asyncio.run(shown.patience().through("the work", failing(1_000, OURS[0])))


def test_other_errors_are_looked_at_again_only_where_that_was_asked_for() -> None:
    work = failing(3, THEIRS[2])
    assert asyncio.run(Shown().patience().through("the work", work, all_errors_s=60)) == "done"


def test_a_verification_that_cannot_be_run_says_so_and_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> int:
        verification = Verification()
        monkeypatch.setattr(spawn, "_PYTHON", "/nowhere/python")
        with pytest.raises(GuardFault):
            await verification.run("exit 7", tmp_path, os.environ, 0)
        monkeypatch.undo()
        verify = await verification.run("exit 7", tmp_path, os.environ, 0)
        assert verify is not None
        return verify["exitCode"]

    assert asyncio.run(run()) == 7


def test_a_guard_whose_code_cannot_be_read_is_our_fault_and_no_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        monkeypatch.setattr(spawn, "_CODE", str(tmp_path / "gone.py"))
        with pytest.raises(GuardFault):
            await Verification().run("true", tmp_path, os.environ, 0)

    asyncio.run(run())
