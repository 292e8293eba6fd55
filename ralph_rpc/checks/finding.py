"""What a check is given and what it gives.

A repair is harmless for living loops and may be ended at any moment and repeated: it works under the loop's lock
(`leftovers.kept_still`), and looks again before it acts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ralph_rpc import leftovers
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import loop_status

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `hint` says what to do unless it is ok."""

    check: str
    level: Level
    message: str
    hint: str = ""
    repair: Callable[[], str] | None = None
    """Mends it and says what it did. Raises RalphError or OSError if it must not or cannot."""
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
    """The project that is looked at, and its loops."""

    project: Path
    loops: list[LoopPaths]

    def dead_loops(self) -> list[LoopPaths]:
        """Those that nobody works on: neither a runner nor a guard that still ends processes."""
        return [loop for loop in self.loops if loop_status(loop).runner == "dead" and not leftovers.is_busy(loop)]
