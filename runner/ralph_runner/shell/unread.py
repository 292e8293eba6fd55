"""What pi had said and a killed runner had not read: it lay in the pipe, and went with both.

pi keeps each message in its session's file before it asks the model again. So the file knows answers, and requests under
way, that the event log lacks, most of all on a busy machine. Called by `recover` for iterations without a record; the
rules are those of the log (`core/charges.py`). Only reads; what is no session is skipped. May be repeated.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ralph_rpc.clock import parse_iso
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow
from ralph_rpc.model import pi
from ralph_rpc.model.members import mapping, text
from ralph_rpc.model.state import RunFigures
from ralph_runner.core import budget, charges
from ralph_runner.core.inputs import TurnStart
from ralph_runner.core.run import Run
from ralph_runner.pi import protocol


def figures(paths: LoopPaths, since: int, cwd: str | None) -> RunFigures:
    """What the sessions say was used since then (epoch milliseconds), of pis in the folder `cwd`; None: in any."""
    run = Run(0, "work", started_mono=0, started_wall=since, last_sign=0)
    for file in (file for file in nofollow.entries(paths.sessions) if file.suffix == ".jsonl"):
        run = _with(run, file, cwd)
    return budget.figures_of(run)


def _with(run: Run, file: Path, cwd: str | None) -> Run:
    entries = _entries(file, run.started_wall)
    head = next(entries, {})
    if cwd is not None and text(head, "cwd") != cwd:
        return run
    results = 0
    """Still to come before pi asks the model again."""
    for entry in entries:
        at = parse_iso(entry.get("timestamp"))
        if at is None or at < run.started_wall:
            continue
        message = mapping(entry, "message")
        match pi.role(message):
            case "assistant":
                ended = protocol.interpret({"type": pi.MESSAGE_END, "message": message})
                run = run if ended is None else charges.counted(run, ended)
                results = pi.tool_calls(message)
            case "user":
                run = charges.counted(run, TurnStart())
            case "toolResult":
                results -= 1
                run = run if results or _was_aborted(message) else charges.counted(run, TurnStart())
            case _:
                charged = protocol.interpret({"type": pi.ENTRY_APPENDED, "entry": entry})
                run = run if charged is None else charges.counted(run, charged)
    return charges.cut(run)


def _was_aborted(result: pi.Event) -> bool:
    """True for a tool that ended with its pi, which then asks nobody any more."""
    return pi.is_error(result) and "abort" in pi.content_text(result).lower()


def _entries(file: Path, since: int) -> Iterator[pi.Event]:
    """The lines of a session that was written to since then."""
    try:
        with os.fdopen(nofollow.open_fd(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as lines:
            if os.fstat(lines.fileno()).st_mtime_ns // 1_000_000 < since:
                return
            for line in lines:
                with suppress(ValueError):  # torn: pi was killed in the middle of it
                    entry = protocol.decode(line)
                    if isinstance(entry, dict):
                        yield entry
    except OSError:  # gone, or no plain file
        return
