"""Reads the files of a loop, living, ended or archived, and makes them the facts of a report.

Called by `ralph-rpc report`. It takes no lock and writes nothing. The log is read once, in blocks, up to the end it
had when this began, so that a busy loop cannot keep a report from ending. What cannot be read is left out and said.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ralph_rpc import __version__
from ralph_rpc.clock import iso, now_ms
from ralph_rpc.files import records
from ralph_rpc.files.atomic import LARGEST, Unreadable, read_json_object, read_plain
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import LoopStatus, loop_status
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.report import facts
from ralph_rpc.report.fold import TEXT, Fold
from ralph_rpc.text import number

_LARGEST_TASK = 1 << 20
_Sum = Literal["turns", "toolCalls", "durationMs", "tokensIn", "tokensOut", "cacheRead", "cacheWrite"]
_SUMMED: tuple[_Sum, ...] = get_args(_Sum)


def gather(paths: LoopPaths) -> facts.Facts:
    """All that the loop's files tell. Broken files make it poorer, and `gaps` longer; they raise nothing."""
    gaps: list[str] = []
    fold = Fold()
    for line in _journal(paths, gaps):
        fold.journal_line(line)
    lost = _read_log(paths, fold)
    iterations = _iterations(paths, fold, gaps)
    # After the log: what has ended meanwhile is then known to have ended.
    found = loop_status(paths)
    if found.state is None:
        gaps.append("state.json is missing or cannot be read: totals are the sums of the iterations below.")
    _tell_lost(lost, iterations, gaps)
    _tell_cut(fold, gaps)
    known = {record["iteration"] for record in iterations}
    tickets = _tickets(paths, iterations, gaps)
    return facts.Facts(
        generated_at=iso(now_ms()), version=__version__,
        summary=_summary(paths, found, iterations), gaps=gaps, iterations=iterations,
        running=[one for number, one in sorted(fold.begun.items()) if number not in known],
        tickets=tickets, tools=fold.tools(), messages=list(fold.messages()),
        failures=_failures(iterations, tickets, fold.notices.kept), retries=fold.retries(), life=fold.life.kept,
        sessions=_sessions(paths, iterations),
    )  # fmt: skip


def _journal(paths: LoopPaths, gaps: list[str]) -> list[bytes]:
    try:
        data = read_plain(paths.commands, LARGEST, follow=False)
    except FileNotFoundError:
        return []
    except OSError as error:
        gaps.append(f"commands.jsonl cannot be read ({error.strerror}): messages may be missing.")
        return []
    return data[:LARGEST].split(b"\n")


def _read_log(paths: LoopPaths, fold: Fold) -> int:
    """Feeds all that is kept of the log; returns how many bytes are gone, those at its start included."""
    end = EventReader.at_end(paths.events, lines=0)
    until = end.offset
    end.close()
    reader = EventReader.at_start(paths.events)
    lost = reader.offset
    try:
        while reader.offset < until and (batch := reader.read()):
            for _, line in batch:
                fold.line(line)
    finally:
        reader.close()
    return lost + reader.missed


def _iterations(paths: LoopPaths, fold: Fold, gaps: list[str]) -> list[Iteration]:
    """The records by number: the files, and where one is missing or broken what the log has of it."""
    kept = {record["iteration"]: record for record in records.read_iterations(paths)}
    files = {int(file.stem) for file in _files(paths.iterations, ".json") if file.stem.isdecimal()}
    broken = sorted(files - kept.keys() - fold.records.keys())
    if broken:
        numbers = ", ".join(map(str, broken[:20])) + (", …" if len(broken) > 20 else "")
        gaps.append(f"The records of these iterations cannot be read: {numbers}.")
    return [record for _, record in sorted({**fold.records, **kept}.items())]


def _tell_lost(lost: int, iterations: list[Iteration], gaps: list[str]) -> None:
    if not lost:
        return
    whole = next((record["iteration"] for record in iterations if record["eventsFrom"] >= lost), None)
    before = f"before iteration {whole}" if whole is not None else "of all but the newest iterations"
    gaps.append(
        f"The oldest {lost / 1e6:,.1f} MB of the log were rotated away (--log-keep): tool calls, retries, notices"
        f" and restarts {before} are missing below or incomplete. The iterations and the totals are not affected."
    )


def _tell_cut(fold: Fold, gaps: list[str]) -> None:
    for some, what in ((fold.notices, "warnings"), (fold.life, "starts and waits")):
        if some.more:
            gaps.append(
                f"Only the first {len(some.kept):,} {what} are listed; {some.more:,} more are in the log."
            )
    if fold.messages_cut:
        gaps.append("Only the first messages are listed; the rest is in the log and in commands.jsonl.")


def _summary(paths: LoopPaths, found: LoopStatus, iterations: list[Iteration]) -> facts.Summary:
    state = found.state
    totals: Mapping[str, Any] = state["stats"] if state else _sums(iterations)
    first, last = iterations[:1], iterations[-1:]
    worktree = state["worktree"] if state else None
    elapsed = state["elapsedMs"] if state else totals["durationMs"]
    return facts.Summary(
        name=state["name"] if state else paths.name,
        project=state["cwd"] if state else str(paths.project),
        ralph_dir=str(paths.dir),
        kind=state["kind"] if state else "task",
        status=found.shown,
        stop_reason=state["stopReason"] if state else None,
        error=state["error"] if state else None,
        started_at=state["startedAt"] if state else next((one["startedAt"] for one in first), None),
        ended_at=state["endedAt"] if state else next((one["endedAt"] for one in last), None),
        updated_at=state["updatedAt"] if state else None,
        elapsed_ms=int(number(elapsed)),
        iterations=int(number(totals["iterations"])),
        max_iterations=state["maxIterations"] if state else 0,
        turns=int(number(totals["turns"])),
        tool_calls=int(number(totals["toolCalls"])),
        tokens_in=int(number(totals["tokensIn"])),
        tokens_out=int(number(totals["tokensOut"])),
        cache_read=int(number(totals["cacheRead"])),
        cache_write=int(number(totals["cacheWrite"])),
        cost=number(totals["cost"]),
        model=state["model"] if state else next((one["model"] for one in last), None),
        provider=state["provider"] if state else next((one["provider"] for one in last), None),
        pi_version=state["piVersion"] if state else None,
        branch=worktree["branch"] if worktree else None,
        verify=state["config"]["verify"] if state else None,
        task=_task(paths),
        last_text=state["lastText"] if state else next((one["summary"] for one in last), None),
    )


def _sums(iterations: list[Iteration]) -> dict[str, float]:
    totals: dict[str, float] = {key: sum(number(record[key]) for record in iterations) for key in _SUMMED}
    return {
        **totals,
        "iterations": len(iterations),
        "cost": sum(number(record["cost"]) for record in iterations),
    }


def _task(paths: LoopPaths) -> str | None:
    try:
        data = read_plain(paths.task, _LARGEST_TASK)
    except OSError:
        return None
    return data[:_LARGEST_TASK].decode("utf-8", "replace")


def _failures(
    iterations: Iterable[Iteration], tickets: Iterable[facts.Ticket], notices: Iterable[facts.Failure]
) -> list[facts.Failure]:
    """In the order of time."""
    found = [*notices]
    found += [
        facts.Failure(one.ended_at, None, one.ticket, one.status, one.error, None)
        for one in tickets
        if one.error
    ]
    for record in iterations:
        at, number, ticket = record["endedAt"], record["iteration"], record.get("ticket")
        verify = record.get("verify")
        if record["outcome"] != "ok":
            kind = record.get("errorKind") or record["outcome"]
            found.append(
                facts.Failure(at, number, ticket, kind, record.get("error") or record["outcome"], None)
            )
        if verify is not None and verify["exitCode"] != 0:
            cause = f"`{verify['command']}` ended with exit code {verify['exitCode']}"
            found.append(facts.Failure(at, number, ticket, "verify", cause, verify["tail"][-TEXT:]))
    return sorted(found, key=lambda failure: failure.at or "")


def _tickets(paths: LoopPaths, iterations: Iterable[Iteration], gaps: list[str]) -> list[facts.Ticket]:
    by_ticket: dict[str, list[Iteration]] = {}
    for record in iterations:
        ticket = record.get("ticket")
        if ticket is not None:
            by_ticket.setdefault(ticket, []).append(record)
    found: dict[str, Mapping[str, Any]] = {}
    for file in _files(paths.dir / "tickets", ".json"):
        try:
            found[file.stem] = read_json_object(file) or {}
        except Unreadable as error:
            gaps.append(f"The record of ticket {file.stem} cannot be read: {error.reason}.")
    return [
        _ticket(id, found.get(id, {}), by_ticket.get(id, []))
        for id in sorted(found.keys() | by_ticket.keys())
    ]


def _ticket(id: str, record: Mapping[str, Any], iterations: list[Iteration]) -> facts.Ticket:
    def text(key: str) -> str | None:
        value = record.get(key)
        return value if isinstance(value, str) else None

    def whole(key: str) -> int | None:
        value = record.get(key)
        return value if isinstance(value, int) else None

    worked = sum(number(one["durationMs"]) for one in iterations)
    return facts.Ticket(
        ticket=id, title=text("title"), status=text("status") or "unknown", attempt=whole("attempt"),
        branch=text("branch"), session_id=text("sessionId"), started_at=text("startedAt"), ended_at=text("endedAt"),
        duration_ms=whole("durationMs") or int(worked) or None,
        return_code=whole("returnCode"), termination_method=text("terminationMethod"), error=text("error"),
        iterations=[one["iteration"] for one in iterations],
        tokens=int(sum(number(one["tokensIn"]) + number(one["tokensOut"]) for one in iterations)),
        cost=sum(number(one["cost"]) for one in iterations),
        commits=sum(len(one.get("commits", ())) for one in iterations),
        session_files=list(dict.fromkeys(one["sessionFile"] for one in iterations if one["sessionFile"])),
    )  # fmt: skip


def _sessions(paths: LoopPaths, iterations: Iterable[Iteration]) -> dict[str, str]:
    """Links to session files, made of what lies in our folder: what a record names may be any path."""
    there = {file.name: file for file in _files(paths.sessions, ".jsonl", deep=True)}
    links: dict[str, str] = {}
    for record in iterations:
        named = record["sessionFile"]
        file = there.get(Path(named).name) if named else None
        if named and file is not None:
            links[named] = file.absolute().as_uri()
    return links


def _files(folder: Path, suffix: str, deep: bool = False) -> list[Path]:
    """The files of a folder, in the order of their names; of one that is not there or cannot be read, none."""
    try:
        return sorted(folder.rglob(f"*{suffix}") if deep else folder.glob(f"*{suffix}"))
    except OSError:
        return []
