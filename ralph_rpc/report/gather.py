"""Reads the files of a loop, living, ended or archived, and makes them the facts of a report.

Called by `ralph-rpc report`. It takes no lock and writes nothing. The log is read once, in blocks, up to the end it
had when this began, so that a busy loop cannot keep a report from ending. What cannot be read is left out, and `gaps` says so.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ralph_rpc import __version__, git
from ralph_rpc.clock import iso, now_ms
from ralph_rpc.files import records
from ralph_rpc.files.atomic import LARGEST, Unreadable, read_json_object, read_plain
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.iterations import single_files
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.figures import of_state
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.machine import nofollow
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.ticket import file_name
from ralph_rpc.model.usage import tokens, unpriced
from ralph_rpc.report import facts
from ralph_rpc.report.tally import TEXT, LogTally
from ralph_rpc.story.models import by_host, by_model, waits_for, wakes_at
from ralph_rpc.terminal.units import number

_LARGEST_TASK = 1 << 20
_TOKENS = ("tokensIn", "tokensOut", "cacheRead", "cacheWrite")
_Sum = Literal["turns", "toolCalls", "durationMs", "tokensIn", "tokensOut", "cacheRead", "cacheWrite"]
_SUMMED: tuple[_Sum, ...] = get_args(_Sum)


def gather(paths: LoopPaths) -> facts.Report:
    """All that the loop's files say. Broken files make it shorter, and `gaps` longer; they raise nothing."""
    gaps: list[str] = []
    tally = LogTally()
    for line in _journal(paths, gaps):
        tally.journal_line(line)
    lost = _read_log(paths, tally)
    iterations = _iterations(paths, tally, gaps)
    # After the log, so that what has ended meanwhile is known to have ended.
    found = loop_status(paths)
    if found.state is None:
        gaps.append("state.json is missing or cannot be read: totals are the sums of the iterations below.")
    _tell_lost(lost, iterations, gaps)
    _tell_cut(tally, gaps)
    known = {record["iteration"] for record in iterations}
    tickets = _tickets(paths, _target(found), iterations, gaps)
    waits = tally.waits(now_ms() if found.runner == "alive" else None)
    return facts.Report(
        generated_at=iso(now_ms()),
        version=__version__,
        summary=_summary(paths, found, iterations, sum(wait.total_ms for wait in waits)),
        gaps=gaps,
        iterations=iterations,
        running=[one for number, one in sorted(tally.begun.items()) if number not in known],
        models=by_model(iterations),
        hosts=by_host(iterations),
        tickets=tickets,
        batches=tally.batches.kept,
        tools=tally.tools(),
        messages=list(tally.messages()),
        failures=_failures(iterations, tickets, tally.notices.kept),
        retries=tally.retries(),
        waits=waits,
        life=tally.life.kept,
        sessions=_sessions(paths, iterations),
    )


def _journal(paths: LoopPaths, gaps: list[str]) -> list[bytes]:
    try:
        data = read_plain(paths.commands, LARGEST, follow=False)
    except FileNotFoundError:
        return []
    except OSError as error:
        gaps.append(f"commands.jsonl cannot be read ({error.strerror}): messages may be missing.")
        return []
    return data[:LARGEST].split(b"\n")


def _read_log(paths: LoopPaths, tally: LogTally) -> int:
    """Feeds all that is kept of the log; returns how many bytes are gone, those at its start included."""
    end = EventReader.at_end(paths.events, lines=0)
    until = end.offset
    end.close()
    reader = EventReader.at_start(paths.events)
    lost = reader.offset
    try:
        while reader.offset < until and (batch := reader.read()):
            for _, line in batch:
                tally.line(line)
    finally:
        reader.close()
    return lost + reader.missed


def _iterations(paths: LoopPaths, tally: LogTally, gaps: list[str]) -> list[Iteration]:
    """The records by number: the files, and where one is missing or broken what the log has of it."""
    kept = {record["iteration"]: record for record in records.read_iterations(paths)}
    files = {int(file.stem) for file in single_files(paths)}
    broken = sorted(files - kept.keys() - tally.records.keys())
    if broken:
        numbers = ", ".join(map(str, broken[:20])) + (", …" if len(broken) > 20 else "")
        gaps.append(f"The records of these iterations cannot be read: {numbers}.")
    return [record for _, record in sorted({**tally.records, **kept}.items())]


def _tell_lost(lost: int, iterations: list[Iteration], gaps: list[str]) -> None:
    if not lost:
        return
    whole = next((record["iteration"] for record in iterations if record["eventsFrom"] >= lost), None)
    before = f"before iteration {whole}" if whole is not None else "of all but the newest iterations"
    gaps.append(
        f"The oldest {lost / 1e6:,.1f} MB of the log were rotated away (--log-keep): tool calls, retries, notices"
        f" and restarts {before} are missing below or incomplete. The iterations and the totals are not affected."
    )


def _tell_cut(tally: LogTally, gaps: list[str]) -> None:
    for some, what in ((tally.notices, "warnings"), (tally.life, "starts and waits"), (tally.batches, "merges")):
        if some.more:
            gaps.append(f"Only the first {len(some.kept):,} {what} are listed; {some.more:,} more are in the log.")
    if tally.messages_cut:
        gaps.append("Only the first messages are listed; the rest is in the log and in commands.jsonl.")


def _summary(paths: LoopPaths, found: LoopStatus, iterations: list[Iteration], waited_ms: int) -> facts.LoopSummary:
    state = found.state
    figures = of_state(state, found.runner) if state else None
    totals: Mapping[str, Any] = state["stats"] if state else _sums(iterations)
    first, last = iterations[:1], iterations[-1:]
    worktree = state["worktree"] if state else None
    elapsed = figures.elapsed_ms if figures else totals["durationMs"]
    return facts.LoopSummary(
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
        progress=figures.progress_words if figures else f"{len(iterations)} iterations",
        waited_ms=waited_ms,
        turns=int(number(totals["turns"])),
        tool_calls=int(number(totals["toolCalls"])),
        tokens_in=int(number(totals["tokensIn"])),
        tokens_out=int(number(totals["tokensOut"])),
        cache_read=int(number(totals["cacheRead"])),
        cache_write=int(number(totals["cacheWrite"])),
        tokens=int(sum(number(totals[key]) for key in _TOKENS)),
        cost=number(totals["cost"]),
        unpriced=int(number(totals.get("unpricedRequests", 0))),
        model=state["model"] if state else next((one["model"] for one in last), None),
        provider=state["provider"] if state else next((one["provider"] for one in last), None),
        waits=_waits(found),
        pi_version=state["piVersion"] if state else None,
        branch=worktree["branch"] if worktree else None,
        verify=state["config"]["verify"] if state else None,
        task=_task(paths),
        last_text=state["lastText"] if state else next((one["summary"] for one in last), None),
    )


def _waits(found: LoopStatus) -> str | None:
    if found.state is None or found.shown != "waiting":
        return None
    reason, until = waits_for(found.state), wakes_at(found.state)
    return ", ".join(part for part in (reason and f"for {reason}", until and f"until {until}") if part) or None


def _sums(iterations: list[Iteration]) -> dict[str, float]:
    totals: dict[str, float] = {key: sum(number(record[key]) for record in iterations) for key in _SUMMED}
    lost = sum(number(unpriced(record)) for record in iterations)
    cost = sum(number(record["cost"]) for record in iterations)
    return {**totals, "iterations": len(iterations), "cost": cost, "unpricedRequests": lost}


def _task(paths: LoopPaths) -> str | None:
    try:
        data = read_plain(paths.task, _LARGEST_TASK)
    except OSError:
        return None
    return data[:_LARGEST_TASK].decode("utf-8", "replace")


def _failures(
    iterations: Iterable[Iteration], tickets: Iterable[facts.TicketSummary], notices: Iterable[facts.ReportedFailure]
) -> list[facts.ReportedFailure]:
    """In the order of time."""
    found = [*notices]
    found += [
        facts.ReportedFailure(one.ended_at, None, one.ticket, one.status, one.error, None)
        for one in tickets
        if one.error
    ]
    for record in iterations:
        at, number, ticket = record["endedAt"], record["iteration"], record.get("ticket")
        verify = record.get("verify")
        if record["outcome"] != "ok":
            kind = record.get("errorKind") or record["outcome"]
            found.append(
                facts.ReportedFailure(at, number, ticket, kind, record.get("error") or record["outcome"], None)
            )
        if verify is not None and verify["exitCode"] != 0:
            cause = f"`{verify['command']}` ended with exit code {verify['exitCode']}"
            found.append(facts.ReportedFailure(at, number, ticket, "verify", cause, verify["tail"][-TEXT:]))
    return sorted(found, key=lambda failure: failure.at or "")


def _target(found: LoopStatus) -> str | None:
    """The branch that tickets are merged into."""
    into = found.state["config"].get("into") if found.state else None
    return into if isinstance(into, str) else None


def _tickets(
    paths: LoopPaths, into: str | None, iterations: Iterable[Iteration], gaps: list[str]
) -> list[facts.TicketSummary]:
    by_ticket: dict[str, list[Iteration]] = {}
    for record in iterations:
        ticket = record.get("ticket")
        if ticket is not None:
            by_ticket.setdefault(ticket, []).append(record)
    found: dict[str, Mapping[str, Any]] = {}
    for file in _files(paths.dir / "tickets", ".json"):
        try:
            read = read_json_object(file) or {}
            id = read.get("ticket")
            found[id if isinstance(id, str) and file_name(id) == file.stem else file.stem] = read
        except Unreadable as error:
            gaps.append(f"The record of ticket {file.stem} cannot be read: {error.reason}.")
    ids = sorted(found.keys() | by_ticket.keys())
    return [
        _ticket(id, found.get(id, {}), by_ticket.get(id, []), _git_commits(paths.project, found.get(id, {}), into))
        for id in ids
    ]


def _ticket(id: str, record: Mapping[str, Any], iterations: list[Iteration], known_to_git: int) -> facts.TicketSummary:
    def text(key: str) -> str | None:
        value = record.get(key)
        return value if isinstance(value, str) else None

    def whole(key: str) -> int | None:
        value = record.get(key)
        return value if isinstance(value, int) else None

    worked = sum(number(one["durationMs"]) for one in iterations)
    return facts.TicketSummary(
        ticket=id,
        title=text("title"),
        status=text("status") or "unknown",
        attempt=whole("attempt"),
        branch=text("branch"),
        waited_ms=whole("waitedMs"),
        session_id=text("sessionId"),
        started_at=text("startedAt"),
        ended_at=text("endedAt"),
        duration_ms=whole("durationMs") or int(worked) or None,
        return_code=whole("returnCode"),
        termination_method=text("terminationMethod"),
        error=text("error"),
        note=_note(record),
        iterations=[one["iteration"] for one in iterations],
        tokens=int(sum(number(tokens(one)) for one in iterations)),
        cost=sum(number(one["cost"]) for one in iterations),
        # Where it has a worktree git knows them all, the runner's included; in the checkout the runner's is in the record.
        commits=max(sum(len(one.get("commits", ())) for one in iterations) + ("commit" in record), known_to_git),
        session_files=list(dict.fromkeys(one["sessionFile"] for one in iterations if one["sessionFile"])),
    )


def _note(record: Mapping[str, Any]) -> str | None:
    left = record.get("leftBehind")
    parts = ["without changes"] if record.get("withoutChanges") is True and record.get("status") == "closed" else []
    parts += [f"left behind: {'; '.join(map(str, left))}"] if isinstance(left, list) and left else []
    return ", ".join(parts) or None


def _git_commits(project: Path, record: Mapping[str, Any], into: str | None) -> int:
    """What a ticket's merge brought, or what its branch has beyond the target, the runner's own commits included.

    No iteration knows these. 0: git does not either.
    """
    merge, branch = record.get("mergeCommit"), record.get("branch")
    if isinstance(merge, str) and re.fullmatch(r"[0-9a-f]{40,64}", merge):
        span = [f"{merge}^1..{merge}^2"]
    elif isinstance(branch, str) and into is not None and record.get("status") != "closed":
        span = ["--first-parent", f"refs/heads/{branch}", f"^refs/heads/{into}"]
    else:
        return 0
    try:
        counted = git.run(["rev-list", "--count", "--no-merges", *span, "--"], project, check=False)
    except git.GitError:
        return 0
    return int(counted.out) if counted.code == 0 and counted.out.strip().isdigit() else 0


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
    if deep:
        return nofollow.files_below(folder, suffix)
    return [file for file in nofollow.entries(folder) if file.name.endswith(suffix)]
