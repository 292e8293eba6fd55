"""Dying at every step: runs a piece of file work again and again, each time killed one system call later.

A child process does the work; it ends at once, without any clean-up, when it is about to make its k-th call
that changes something on disk. That is what kill -9 at that instant leaves behind.
"""

import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

CALLS = ("write", "fsync", "fdatasync", "rename", "replace", "link", "unlink", "ftruncate", "mkdir")
KILLED = 99


def deaths(work: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> Iterator[int]:
    """Yield 0, 1, 2 … after each death of `work` before its call number 0, 1, 2 …, until it lives to its end.

    `prepare` sets the scene before each try. The first yield that is not followed by another is the last
    death.
    """
    for k in range(10_000):
        prepare()
        if not dies(work, k):
            return
        yield k


def dies(work: Callable[[], object], k: int) -> bool:
    """Run `work` in a child that dies before its call number `k`; False if it came to its end."""
    _, status = os.waitpid(start(lambda: _dying(work, k)), 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"the work failed with {code}"
    return code == KILLED


def start(work: Callable[[], object]) -> int:
    """Run `work` in a child process; the caller waits for it, or kills it and waits."""
    with warnings.catch_warnings():
        # The child only works on files and ends by _exit; it takes no lock that another thread could hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001  whatever it was, the child must not go on as a second pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def _dying(work: Callable[[], object], k: int) -> None:
    left = [k]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **members: Any) -> Any:
            if left[0] == 0:
                os._exit(KILLED)
            left[0] -= 1
            return call(*args, **members)

        return counting

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    work()
