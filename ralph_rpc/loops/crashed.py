"""Every loop of this user that died with its machine or was killed, continued. Called by `resume --crashed`, at boot.

Found by the registry, whose entry a runner removes only when its loop has ended in order: at its own end, by `stop`, by
`kill`. Of those that ended by a signal which nobody sent through this program, only the ones that a shutdown of the
machine has ended are meant: they ended before this boot. Safe to run twice at once: each loop is resumed under its
lock, by one of the two. If the machine dies here, the loops that were not reached are found again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from ralph_rpc.errors import AlreadyRunning, RalphError
from ralph_rpc.files import registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import exists, valid_name
from ralph_rpc.loops.launch import Launched
from ralph_rpc.loops.restart import restart
from ralph_rpc.loops.start import await_begun
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.machine import identity
from ralph_rpc.model.state import ENDED, State

Result = Literal["resumed", "running", "paused", "skipped", "failed"]
"""`running`: somebody else was faster. `paused`: it was when it died, and is left so. `skipped`: what is needed is not
there. `failed`: it could not be resumed."""


class Revived(NamedTuple):
    """What became of one loop, or of one file of the registry."""

    name: str
    """The loop's, or the file's."""
    project: str | None
    """None for a file that cannot be read."""
    result: Result
    reason: str | None
    """What a person should know of it, as one line."""

    @property
    def is_well(self) -> bool:
        """The loop works, or a person wants it to be held."""
        return self.result in ("resumed", "running", "paused")


def resume_crashed() -> Iterator[Revived]:
    """Resumes them all, then says of each what became of it, in the order of the registry's files."""
    entries, broken = registry.entries()
    for file in broken:
        yield Revived(file.path.name, None, "skipped", file.reason)
    launched: list[tuple[LoopPaths, Launched]] = []
    for _, entry in entries:
        paths = LoopPaths(Path(entry["ralphDir"]))
        if not _is_ours(paths, entry["name"]):
            continue
        if not exists(paths):
            if entry["status"] not in ENDED:
                yield _revived(paths, "skipped", f"{paths.dir} is not there; the project or its disk may be missing")
            continue
        try:
            found = loop_status(paths)
            if found.shown == "unknown" and found.runner == "dead":
                yield _revived(paths, "skipped", f"{paths.state}: {found.problem}")
            elif died(found) and found.state is not None and _paused(found.state):
                yield _revived(paths, "paused", f"continue it with: ralph-rpc resume {paths.name}")
            elif died(found):
                launched.append((paths, restart(paths, found.state, {}).runner))
        except AlreadyRunning:
            yield _revived(paths, "running")
        except (RalphError, OSError) as error:
            yield _revived(paths, "failed", _line(error))
    for paths, runner in launched:
        try:
            state = await_begun(paths, runner, None)
        except (RalphError, OSError) as error:
            yield _revived(paths, "failed", _line(error))
            continue
        if state is not None and state["status"] == "error":
            yield _revived(paths, "failed", state["error"])
        else:
            yield _revived(paths, "resumed")


def died(found: LoopStatus) -> bool:
    """Whether the loop has ended without anybody wanting it to."""
    if found.runner != "dead":
        return False
    return found.shown == "crashed" or (found.state is not None and _shut_down(found.state))


def _shut_down(state: State) -> bool:
    """Ended by a signal under an earlier boot; one that `kill` ended is not in the registry any more."""
    return state["status"] == "stopped" and state["stopReason"] == "kill" and state["bootId"] != identity.boot_id()


def _paused(state: State) -> bool:
    return state["status"] == "paused" or state.get("wasPaused", False)


def _is_ours(paths: LoopPaths, name: str) -> bool:
    """A folder that is no `.ralph/<name>` was not written by us, and is not believed."""
    return paths.dir.is_absolute() and paths.name == name and paths.dir.parent.name == ".ralph" and valid_name(name)


def _revived(paths: LoopPaths, result: Result, why: str | None = None) -> Revived:
    return Revived(paths.name, str(paths.project), result, why)


def _line(error: RalphError | OSError) -> str:
    if isinstance(error, RalphError):
        return f"{error.message}. {error.hint}" if error.hint else error.message
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)
