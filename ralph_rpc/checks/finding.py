"""What a check is given, and what it returns.

A repair does no harm to a living loop, and it can be killed at any moment and run again: it works under the loop's lock
(`loops.hold.kept_still`) and looks again before it acts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.consent import made_here
from ralph_rpc.loops.hold import is_busy
from ralph_rpc.loops.status import loop_status

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One result of a check; `hint` says what to do unless it is ok."""

    check: str
    level: Level
    message: str
    hint: str = ""
    repair: Callable[[], str] | None = None
    """Fixes it and says what it did. Raises RalphError or OSError if it must not or cannot."""
    fixed: bool = False
    """It was not ok before --fix."""

    def as_json(self) -> dict[str, str | bool]:
        return {
            "check": self.check,
            "level": self.level,
            "message": self.message,
            "hint": self.hint,
            "fixed": self.fixed,
        }


Findings = Iterator[Finding]


@dataclass(frozen=True)
class Place:
    """The project under examination, and its loops."""

    project: Path
    loops: list[LoopPaths]

    def dead_loops(self) -> list[LoopPaths]:
        """Those that nothing works on any more, neither a runner nor a guard, and whose files this version knows."""
        return [loop for loop in self.loops if _is_dead(loop) and not is_busy(loop)]

    def own_loops(self) -> list[LoopPaths]:
        """Those of the dead ones that this user's program started here, so that their files may say what to do elsewhere."""
        return [loop for loop in self.dead_loops() if made_here(loop)]


def _is_dead(loop: LoopPaths) -> bool:
    status = loop_status(loop)
    return status.runner == "dead" and status.shown != "unknown"
