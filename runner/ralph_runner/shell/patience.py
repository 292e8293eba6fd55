"""Trying again what failed through no fault of the work: a guard, shell or git that could not be run, a file out of place.

Used by everything in the shell that does such things. For some seconds the loop only looks again; then it is shown as
`waiting`, with the reason, and tries at gaps of up to a minute; after ten minutes the caller is told, which ends the
loop in error. If the machine dies here, nothing was done, and the next runner begins anew.
"""

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from ralph_rpc.errors import RalphError
from ralph_rpc.git.calls import GitError
from ralph_runner.guarded.spawn import GuardFault

LOOK_AGAIN_S = 5.0
"""What an editor, a `git switch` or a file server puts out of place is back by then."""
GIVE_UP_S = 600.0
FIRST_GAP_S = 0.05
LOOK_GAP_S = 0.5
LONGEST_GAP_S = 60.0
_SLICE_S = 0.5
"""How soon a stop ends the waiting."""

PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.EINTR,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ESTALE,
        errno.EACCES,
        errno.EPERM,
        errno.EBUSY,
        errno.ETXTBSY,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
    }
)
"""Errors that may be gone at the next look: the machine is short of something, or a folder or file is out of place."""

T = TypeVar("T")


class OwnFault(Exception):
    """A fault of this program or machine that did not pass: one line for a person."""


def always(_: Exception) -> bool:
    """For `through`: where nothing can be the work's fault."""
    return True


class NoLongerWanted(OwnFault):
    """The same, given up because the loop is to end or the work was cancelled: nothing is to be concluded from it."""


class Hold(Protocol):
    """Shows the loop as waiting for this reason; None: no longer. `key` tells the reasons of different callers apart."""

    def __call__(self, key: object, reason: str | None) -> None: ...


def own_fault(error: Exception) -> str | None:
    """Why it is the fault of this program or machine, as one line; None: it says something about the work."""
    match error:
        case OwnFault():
            return str(error)
        case GuardFault():
            return f"cannot run anything ({error.strerror}{_of(error)})"
        case OSError() if error.errno in PASSING:
            return f"{error.strerror}{_of(error)}"
        case GitError() if error.is_passing:
            return f"{error.message} ({error.hint})" if error.hint else error.message
    return None


def _said(error: Exception) -> str:
    return f"{error.message} ({error.hint})" if isinstance(error, RalphError) and error.hint else str(error)


def _of(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


class Patience:
    """For the event loop's thread."""

    def __init__(self, hold: Hold, is_to_end: Callable[[], bool]) -> None:
        self._hold, self._is_to_end = hold, is_to_end

    async def through(
        self,
        what: str,
        work: Callable[[], Awaitable[T]],
        *,
        give_up_s: float | None = None,
        unwanted: Callable[[], bool] = lambda: False,
        all_errors_s: float = 0.0,
        ours: Callable[[Exception], bool] = lambda _: False,
        first_gap_s: float | None = None,
    ) -> T:
        """What `work` gives, tried again as long as an own fault keeps it from being done; `what` names it for people.

        Raises OwnFault after `give_up_s` (GIVE_UP_S), NoLongerWanted as soon as the loop is to end or the work is
        `unwanted`. Any other RalphError or OSError is looked at again for `all_errors_s`, and then raised; unless `ours`
        says that it is never the work's.
        """
        limit = GIVE_UP_S if give_up_s is None else give_up_s
        first = FIRST_GAP_S if first_gap_s is None else first_gap_s
        began, gap = time.monotonic(), first
        key = object()
        try:
            while True:
                try:
                    return await work()
                except (OSError, RalphError, OwnFault) as error:
                    waited = time.monotonic() - began
                    reason = own_fault(error) or (_said(error) if ours(error) else None)
                    if reason is None and waited >= all_errors_s:
                        raise
                    line = f"{what}: {reason or error}"
                    if self._is_to_end() or unwanted():
                        raise NoLongerWanted(line) from error
                    if waited >= limit:
                        raise OwnFault(line) from error
                    if waited >= LOOK_AGAIN_S:
                        self._hold(key, f"{line}; trying again")
                await self._pause(gap, unwanted)
                most = max(LOOK_GAP_S, first) if waited < LOOK_AGAIN_S else LONGEST_GAP_S
                gap = min(2 * gap, most)
        finally:
            self._hold(key, None)

    async def _pause(self, seconds: float, unwanted: Callable[[], bool]) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._is_to_end() and not unwanted():
            await asyncio.sleep(min(left, _SLICE_S))
