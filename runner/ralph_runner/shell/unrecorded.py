"""What the event log holds of iterations beyond their records: those that died with a runner, and what was charged late.

Called by `recover`, under the loop's lock, when the last runner was killed or could not write. state.json may be a second
older than the log, and a second is enough for a request; so everything is counted again from pi's own lines, with the
core's rules (`core/charges.py`). Only reads, but for the torn end of the log, which it repairs. May be repeated.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model import pi
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration, IterationKind
from ralph_rpc.model.members import mapping, text, whole
from ralph_rpc.model.state import RunFigures
from ralph_runner.core import budget, charges
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    Charged,
    PiInput,
    Settled,
    ToolEnd,
    ToolStart,
    TurnEnd,
    Usage,
)
from ralph_runner.core.run import Run
from ralph_runner.pi import protocol

_START = pi.head("ralph_iteration_start")
_END = pi.head("ralph_iteration_end")
_UNPARSED = pi.head("ralph_unparsed")
_OF_PI = tuple(
    pi.head(kind)
    for kind in (
        *(pi.AGENT_START, pi.AGENT_END, pi.AGENT_SETTLED, pi.TURN_START, pi.TURN_END, pi.MESSAGE_START, pi.MESSAGE_END),
        *(pi.TOOL_START, pi.TOOL_END, pi.COMPACTION_START, pi.COMPACTION_END, pi.ENTRY_APPENDED),
    )
)
"""The lines that change figures."""
_STAMP = re.compile(rb'"ralph":\{"at":(\d+),"iteration":(\d+)(?:,"ticket":"[^"]*")?\}\}\Z')
_CHARGES = tuple(f'{{"type":"{kind}",' for kind in (pi.MESSAGE_END, pi.COMPACTION_END, pi.ENTRY_APPENDED))
_USAGE = '"usage":{'


@dataclass
class Logged:
    """One iteration, as far as the log was read."""

    run: Run
    ticket: str | None = None
    events_from: int | None = None
    """Where it begins in the log; None: before what was read."""
    last_at: int = 0
    """The time of its last line, epoch milliseconds."""
    record: Iteration | None = None
    """As its end was logged, if it was; the file may be missing."""
    tools: dict[str, ToolStart] = field(default_factory=dict)
    """The calls that had not ended, by id."""
    next_request: bool = True
    """pi would ask the model next; no line of the log need have told that yet."""

    def hear(self, event: PiInput) -> None:
        """Counts one of pi's lines."""
        self.run = charges.counted(self.run, event)
        match event:
            case AgentStart() | AssistantEnd() | AgentEnd() | Settled():
                self.next_request = False
            case ToolStart(id=id):
                self.tools[id] = event
                self.next_request = False
            case ToolEnd(id=id):
                self.tools.pop(id, None)
                self.next_request = not self.tools
            case TurnEnd():
                self.next_request = self.run.stop_reason == "toolUse"
            case _:
                pass

    @property
    def figures(self) -> RunFigures:
        """What it has used; a request that was under way at the end is unpriced."""
        cut = charges.cut(self.run)
        under_way = self.next_request and cut.unpriced == self.run.unpriced
        return {**budget.figures_of(cut), "unpricedRequests": cut.unpriced + under_way}

    @property
    def charged(self) -> RunFigures:
        """Only its tokens and cost."""
        return budget.figures(self.run.usage)


def read(paths: LoopPaths, config: Config, done: list[Iteration]) -> dict[int, Logged]:
    """The iterations at the end of the log by number: all without a record in `done`, and others. Raises OSError."""
    EventLog.open(paths.events, limit=config["logSize"], keep=config["logKeep"]).close()
    begins = {record["iteration"]: record["eventsFrom"] for record in done}
    at = begins.get(_last_in_a_row(begins), 0)
    while True:
        found = _scan(paths, at)
        # Charged late, and begun before what was read: its whole sum is needed to tell what its record lacks.
        earlier = [begins[n] for n, one in found.items() if n in begins and one.events_from is None and begins[n] < at]
        if not earlier:
            return found
        at = min(earlier)


def _last_in_a_row(numbers: Iterable[int]) -> int:
    """The number before the first gap: whatever lacks a record began after this one."""
    last = 0
    for number in sorted(numbers):
        if last and number != last + 1:
            break
        last = number
    return last


def _scan(paths: LoopPaths, at: int) -> dict[int, Logged]:
    found: dict[int, Logged] = {}
    reader = EventReader.at(paths.events, at)
    offset = reader.offset
    try:
        while lines := reader.read():
            for end, line in lines:
                _take(found, line, offset)
                offset = end
    finally:
        reader.close()
    return found


def _take(found: dict[int, Logged], line: bytes, offset: int) -> None:
    if line.startswith(_OF_PI):
        stamp = _STAMP.search(line, max(0, len(line) - 512))
        event = protocol.parse(line) if stamp else None
        if stamp is not None and event is not None:
            one = found.setdefault(int(stamp[2]), Logged(_run(int(stamp[2]), "work", 0)))
            one.last_at = int(stamp[1])
            one.hear(event)
    elif line.startswith((_START, _END, _UNPARSED)):
        _take_ours(found, protocol.decode(line), offset)


def _take_ours(found: dict[int, Logged], event: object, offset: int) -> None:
    if not isinstance(event, dict):
        return
    number, at = whole(event, "iteration"), whole(event, "at")
    match event["type"]:
        case "ralph_iteration_start":
            kind = cast(IterationKind, text(event, "kind") or "work")
            found[number] = Logged(_run(number, kind, at), text(event, "ticket") or None, offset, at)
        case "ralph_iteration_end" if number in found:
            found[number].record = cast(Iteration, {k: v for k, v in event.items() if k not in ("type", "at")})
        case "ralph_unparsed":
            open_ones = [one for one in found.values() if one.record is None and one.run.asking]
            used = _torn_usage(text(event, "raw"))
            if used is not None and open_ones:
                one = open_ones[-1]
                one.hear(Charged(used))
                one.run = charges.answered(one.run)
        case _:
            pass


def _run(number: int, kind: IterationKind, wall: int) -> Run:
    return Run(number, kind, started_mono=0, started_wall=wall, last_sign=0)


def _torn_usage(raw: str) -> Usage | None:
    """The usage in a line that was torn after it; it follows the message's content, in which a tool may have one too."""
    at = raw.rfind(_USAGE)
    if not raw.startswith(_CHARGES) or at < 0:
        return None
    try:
        used, _ = json.JSONDecoder().raw_decode(raw, at + len(_USAGE) - 1)
    except (ValueError, RecursionError):
        return None
    usage = Usage(*pi.usage({"usage": used}))
    return usage if isinstance(mapping({"usage": used}, "usage").get("input"), int) else None
