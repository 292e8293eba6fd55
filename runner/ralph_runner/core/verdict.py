"""How a loop, or a worker's ticket, ends. A value only."""

from dataclasses import dataclass
from typing import Literal

from ralph_rpc.model.state import StopReason


@dataclass(frozen=True, slots=True)
class Verdict:
    """`error` is one line for a person; it may be there for every status."""

    status: Literal["stopped", "completed", "error"]
    stop_reason: StopReason
    error: str | None = None
