"""What a report tells: all of it from the loop's files, and honest where they do not say."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.report.facts import Report, ToolUse
from ralph_rpc.report.gather import gather
from ralph_rpc.report.tally import LogTally
from tests.cli import forged
from tests.faults.hostile import mutant
from tests.faults.test_inert import OURS, in_turn, poisoned, recorded
from tests.report import past
from tests.rig import git

TRANSCRIPTS = sorted((Path(__file__).parents[1] / "data" / "transcripts").glob("*/*.jsonl"))


def events(paths: LoopPaths) -> list[dict[str, Any]]:
    return [json.loads(line) for line in paths.events.read_bytes().split(b"\n")[:-1]]


def spoilt(rng: random.Random, event: dict[str, Any]) -> bytes:
    """`mutant` of an event of any size; it wants four members."""
    return mutant(rng, {"at": 1, "id": "i", "iteration": 1, "reason": "r", **event})


def tool(facts: Report, name: str) -> ToolUse:
    return next(one for one in facts.tools if one.name == name)


def folded(*log: dict[str, Any]) -> LogTally:
    fold = LogTally()
    for event in log:
        fold.line(orjson.dumps(event))
    return fold


def test_the_totals_are_the_states_and_the_iterations_the_records(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    facts = gather(paths)
    assert [record["iteration"] for record in facts.iterations] == list(range(1, 25))
    assert facts.summary.cost == pytest.approx(sum(record["cost"] for record in facts.iterations))
    assert (facts.summary.status, facts.summary.stop_reason, facts.summary.verify) == (
        "completed",
        "verified",
        "pytest -q",
    )
    assert facts.gaps == [] and facts.running == []


def test_tools_are_counted_with_their_failures_and_times(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    calls: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    began = 0
    for event in events(paths):
        if event["type"] == "tool_execution_start":
            began = event["ralph"]["at"]
        if event["type"] == "tool_execution_end":
            calls[event["toolName"]] += 1
            failed[event["toolName"]] += event["isError"]
            taken[event["toolName"]] += event["ralph"]["at"] - began
    facts = gather(paths)
    assert {one.name: (one.calls, one.failed, one.total_ms) for one in facts.tools} == {
        name: (calls[name], failed[name], taken[name]) for name in calls
    }
    assert [one.calls for one in facts.tools] == sorted((one.calls for one in facts.tools), reverse=True)
    assert tool(facts, "bash").last_failure == "exit code 1" and tool(facts, "bash").unfinished == 0


def test_messages_come_with_text_time_and_receipt(tmp_path: Path) -> None:
    first, second = gather(past.evening(tmp_path)).messages
    assert (first.text, first.state, first.iteration) == ("Leave the HTML blocks for last.", "delivered", 3)
    assert first.at is not None and first.delivered_at is not None and first.at < first.delivered_at
    assert (second.command, second.state, second.reason) == ("followup", "expired", "the loop ended first")


def test_the_journal_tells_of_messages_that_the_log_has_lost(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    paths.events.write_bytes(b"")
    (message,) = gather(paths).messages
    assert (message.text, message.state, message.iteration) == ("Leave the HTML blocks for last.", "delivered", 3)


def test_a_message_that_has_ended_is_not_reopened_by_a_log_that_lost_its_end(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    kept = [line for line in paths.events.read_bytes().split(b"\n") if b'"state":"delivered"' not in line]
    paths.events.write_bytes(b"\n".join(kept))
    assert [one.state for one in gather(paths).messages] == ["delivered", "expired"]


def test_failures_have_causes_and_stand_in_the_order_of_time(tmp_path: Path) -> None:
    failures = gather(past.evening(tmp_path)).failures
    assert [one.kind for one in failures] == ["overloaded", "hang", "crash", "aborted", "warning", "verify"]
    assert "exit code 1" in failures[-1].cause and "test_pipes" in (failures[-1].detail or "")
    assert [one.at for one in failures] == sorted(one.at or "" for one in failures)


def test_retries_of_pi_are_counted_by_their_error(tmp_path: Path) -> None:
    (retry,) = gather(past.evening(tmp_path)).retries
    assert (retry.cause, retry.times) == ("529: Overloaded", 2)


def test_a_runner_that_was_lost_is_seen_by_the_start_after_it(tmp_path: Path) -> None:
    life = gather(past.evening(tmp_path)).life
    assert [step.what for step in life] == [
        "started",
        "pi started",
        "pi ended",
        "pi started",
        "paused",
        "runner lost",
        "resumed",
        "completed",
    ]
    assert [step.what for step in life if step.is_bad] == ["pi ended", "runner lost"]


def test_an_iteration_without_a_record_is_told_as_such(tmp_path: Path) -> None:
    loop = past.Past(tmp_path)
    loop.work()
    loop.event("ralph_iteration_start", iteration=2, kind="work")
    loop.from_pi("tool_execution_start", toolCallId="1", toolName="bash", args={})
    facts = gather(loop.finish(status="running", endedAt=None))
    assert [one.iteration for one in facts.running] == [2]
    assert facts.summary.status == "crashed", "nobody holds its lock"
    assert tool(facts, "bash").unfinished == 1


def test_a_living_loop_is_reported_so_far_and_not_touched(tmp_path: Path) -> None:
    loop = past.Past(tmp_path)
    loop.work()
    paths = loop.finish(
        **{
            key: forged.state(loop.paths, alive=True)[key]
            for key in ("status", "pid", "pidStartTime", "updatedAt", "endedAt")
        }
    )
    with forged.runner_of(paths):
        before = {file: file.stat().st_mtime_ns for file in paths.dir.rglob("*")}
        facts = gather(paths)
        assert {file: file.stat().st_mtime_ns for file in paths.dir.rglob("*")} == before
    assert facts.summary.status == "running" and facts.summary.ended_at is None


def test_tickets_have_their_record_and_what_their_iterations_add_up_to(tmp_path: Path) -> None:
    facts = gather(past.backlog(tmp_path))
    by_id = {one.ticket: one for one in facts.tickets}
    assert list(by_id) == ["ab-1", "ab-2", "ab-7", "zz-9"]
    stuck = by_id["ab-7"]
    assert (stuck.status, stuck.attempt, stuck.iterations) == ("needs-merge", 2, [3, 4])
    assert stuck.cost == pytest.approx(sum(one["cost"] for one in facts.iterations if one.get("ticket") == "ab-7"))
    assert len(stuck.session_files) == 2 and all(file in facts.sessions for file in stuck.session_files)
    assert [(one.ticket, one.kind, one.cause) for one in facts.failures] == [
        ("ab-7", "needs-merge", "conflict in src/table.py")
    ]


def test_tickets_that_run_at_once_do_not_mix_their_tools() -> None:
    def stamped(type: str, ticket: str, at: int, **members: Any) -> dict[str, Any]:
        event = {"type": type, "toolCallId": "call_0", "toolName": "bash", "args": {}, **members}
        return event | {"ralph": {"at": at, "iteration": 1, "ticket": ticket}}

    fold = folded(
        stamped("tool_execution_start", "a", 0),
        stamped("tool_execution_start", "b", 50),
        stamped("tool_execution_end", "a", 100),
        stamped("tool_execution_end", "b", 300),
    )
    (bash,) = fold.tools()
    assert (bash.calls, bash.total_ms, bash.longest_ms) == (2, 350, 250)


def test_what_was_rotated_away_is_said_and_from_which_iteration_on_all_is_there(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    records = gather(paths).iterations
    lost = records[9]["eventsFrom"] + 100
    rest = paths.events.read_bytes()[lost:]
    opened = orjson.dumps({"type": "ralph_log_open", "at": 1, "base": lost}) + b"\n"
    paths.events.write_bytes(opened + rest[rest.index(b"\n") + 1 + len(opened) :])
    facts = gather(paths)
    (gap,) = facts.gaps
    assert f"The oldest {lost / 1e6:.1f} MB" in gap and "before iteration 11" in gap
    assert len(facts.iterations) == 24


def test_a_record_that_is_broken_or_gone_is_taken_from_the_log(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    (paths.iterations / "003.json").write_bytes(b'{"iteration": 3, "half')
    (paths.iterations / "004.json").unlink()
    facts = gather(paths)
    assert len(facts.iterations) == 24 and facts.gaps == []


def test_a_record_that_nobody_has_is_named(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    (paths.iterations / "003.json").write_bytes(b"{")
    paths.events.write_bytes(b"")
    facts = gather(paths)
    assert facts.gaps == ["The records of these iterations cannot be read: 3."]
    assert len(facts.iterations) == 23


@pytest.mark.parametrize("state", [None, b"{", b"[]"])
def test_without_a_state_the_totals_are_sums(tmp_path: Path, state: bytes | None) -> None:
    paths = past.evening(tmp_path)
    paths.state.unlink()
    if state is not None:
        paths.state.write_bytes(state)
    facts = gather(paths)
    assert facts.summary.cost == pytest.approx(sum(record["cost"] for record in facts.iterations))
    assert facts.summary.iterations == 24 and facts.summary.name == "parser"
    assert len(facts.gaps) == 1 and "state.json" in facts.gaps[0]


def test_an_empty_folder_makes_an_empty_report(tmp_path: Path) -> None:
    facts = gather(LoopPaths.of(tmp_path, "api"))
    assert (facts.iterations, facts.tools, facts.messages, facts.life) == ([], [], [], [])


def test_session_links_lead_only_to_files_of_the_loops_own_folder(tmp_path: Path) -> None:
    loop = past.Past(tmp_path / "a b#c")
    loop.work()
    loop.work(sessionFile="/etc/passwd")
    loop.work(sessionFile="javascript:alert(1)")
    facts = gather(loop.finish())
    (link,) = facts.sessions.values()
    assert link.startswith("file:///") and "a%20b%23c" in link


def test_sessions_of_an_archived_loop_are_found_where_they_are_now(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    archived = LoopPaths(paths.dir.parent / ".archive" / "parser-20260206-215330")
    archived.dir.parent.mkdir()
    paths.dir.rename(archived.dir)
    facts = gather(archived)
    assert len(facts.sessions) == 24
    assert all("/.archive/" in link for link in facts.sessions.values())


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_transcripts_of_all_generations_are_understood(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    fold = LogTally()
    for line in lines:
        fold.line(line)
    ended = Counter(json.loads(line)["toolName"] for line in lines if line.startswith(b'{"type":"tool_execution_end"'))
    assert {one.name: one.calls - one.unfinished for one in fold.tools()} == dict(ended)
    retried = sum(line.startswith(b'{"type":"auto_retry_start"') for line in lines)
    assert sum(one.times for one in fold.retries()) == retried


def test_a_line_whose_type_is_not_its_first_member_counts_too() -> None:
    (bash,) = folded({"toolName": "bash", "toolCallId": "1", "type": "tool_execution_start"}).tools()
    assert bash.calls == 1


def test_lists_have_a_limit_and_say_so(tmp_path: Path) -> None:
    loop = past.Past(tmp_path)
    for number in range(2_000):
        loop.event("ralph_notice", level="warning", message=f"w{number}")
        loop.event("ralph_command", id=f"c{number}", command="steer", state="accepted", message="m")
        loop.from_pi("tool_execution_start", toolCallId=str(number), toolName=f"tool {number}", args={})
    facts = gather(loop.finish())
    assert len(facts.failures) == len(facts.messages) == 1_000
    assert len(facts.tools) == 101 and tool(facts, "(others)").calls == 1_900
    assert [gap.split(":")[0][:20] for gap in facts.gaps] == ["Only the first 1,000", "Only the first messa"]


def test_hostile_events_never_break_the_fold() -> None:
    rng = random.Random(4)
    for log in in_turn(rng, recorded(), 2_000):
        fold = LogTally()
        for event in log:
            fold.line(json.dumps(event).encode())
            fold.line(spoilt(rng, event))
            fold.journal_line(spoilt(rng, event))
        assert list(fold.messages()) is not None and fold.tools() is not None and fold.retries() is not None


def test_broken_files_never_break_the_gathering(tmp_path: Path) -> None:
    rng = random.Random(5)
    paths = past.backlog(tmp_path)
    files = [paths.state, paths.iterations / "002.json", paths.dir / "tickets" / "ab-1.json"]
    whole = {file: json.loads(file.read_bytes()) for file in files}
    for _ in range(200):
        for file in files:
            file.write_bytes(mutant(rng, whole[file]))
        paths.commands.write_bytes(b"\n".join(spoilt(rng, poisoned(rng, event)) for event in OURS))
        assert gather(paths).summary.name is not None


def test_a_link_or_a_pipe_in_the_place_of_a_file_is_no_danger(tmp_path: Path) -> None:
    paths = past.evening(tmp_path)
    (tmp_path / "secret").write_text('{"at": 1, "id": "x", "command": "steer", "state": "received"}\n')
    paths.commands.unlink()
    paths.commands.symlink_to(tmp_path / "secret")
    paths.task.unlink()
    os.mkfifo(paths.task)
    facts = gather(paths)
    assert [one.id for one in facts.messages] == ["s1", "s2"]
    assert facts.summary.task is None and len(facts.gaps) == 1


PEAK = """
import resource, sys
from pathlib import Path
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.report.gather import gather
facts = gather(LoopPaths(Path(sys.argv[1])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sum(tool.calls for tool in facts.tools))
"""


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """64 MB of log may cost 16 MB: blocks, not the whole."""
    paths = past.evening(tmp_path)
    block = paths.events.read_bytes()

    def peak() -> tuple[int, int]:
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(paths.dir)],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        kib, calls = map(int, done.stdout.split())
        return kib, calls

    small, once = peak()
    times = (64 << 20) // len(block)
    with paths.events.open("ab") as file:
        for _ in range(times - 1):
            file.write(block)
    large, often = peak()
    assert often == once * times
    assert large - small < 16_384


def test_the_record_of_the_log_and_of_the_file_are_the_same_shape(tmp_path: Path) -> None:
    facts = gather(past.evening(tmp_path))
    assert all(Iteration.__required_keys__ <= record.keys() for record in facts.iterations)


def test_a_tickets_commits_are_those_that_its_merge_brought(tmp_path: Path) -> None:
    """The runner's own commit, and none that others had merged meanwhile."""
    paths = past.backlog(tmp_path)

    def commit(subject: str) -> None:
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", subject)

    git(tmp_path, "init", "-q", "-b", "main")
    commit("base")
    git(tmp_path, "switch", "-q", "-c", "ticket")
    commit("the agent's")
    git(tmp_path, "switch", "-q", "main")
    commit("merged meanwhile")
    git(tmp_path, "switch", "-q", "ticket")
    git(tmp_path, "merge", "-q", "--no-edit", "main")
    commit("the runner's")
    git(tmp_path, "switch", "-q", "main")
    git(tmp_path, "merge", "-q", "--no-ff", "--no-edit", "ticket")
    for ticket, merge in (
        ("ab-1", git(tmp_path, "rev-parse", "HEAD").strip()),
        ("ab-2", "--output=x"),
        ("zz-9", "0" * 40),
    ):
        file = paths.dir / "tickets" / f"{ticket}.json"
        file.write_bytes(orjson.dumps(orjson.loads(file.read_bytes()) | {"mergeCommit": merge}))
    for number in range(1, 6):
        record = paths.iterations / f"{number:03}.json"
        record.write_bytes(orjson.dumps(orjson.loads(record.read_bytes()) | {"commits": []}))
    found = {ticket.ticket: ticket.commits for ticket in gather(paths).tickets}
    assert found == {"ab-1": 2, "ab-2": 0, "ab-7": 0, "zz-9": 0}


def test_a_tickets_commits_without_a_merge_are_those_of_its_branch_or_the_agents_and_the_runners(
    tmp_path: Path,
) -> None:
    paths = past.backlog(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "base")
    git(tmp_path, "switch", "-q", "-c", "ralph/night/ab-1")
    for subject in ("the agent's", "the runner's"):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", subject)
    state = orjson.loads(paths.state.read_bytes())
    state["config"]["into"] = "main"
    paths.state.write_bytes(orjson.dumps(state))
    changes = {
        "ab-1": {"branch": "ralph/night/ab-1", "status": "needs-merge", "mergeCommit": None},
        "ab-2": {"branch": None, "status": "closed", "mergeCommit": None, "commit": "1" * 40},
    }
    for ticket, change in changes.items():
        file = paths.dir / "tickets" / f"{ticket}.json"
        file.write_bytes(orjson.dumps(orjson.loads(file.read_bytes()) | change))
    agents = {"ab-1": 1, "ab-2": 2}
    for file in paths.iterations.glob("*.json"):
        record = orjson.loads(file.read_bytes())
        file.write_bytes(orjson.dumps(record | {"commits": ["0" * 40] * agents.pop(record.get("ticket"), 0)}))
    found = {ticket.ticket: ticket.commits for ticket in gather(paths).tickets}
    assert (found["ab-1"], found["ab-2"]) == (2, 3)


def status(to: str, at: int, reason: str | None = None) -> dict[str, Any]:
    return {"type": "ralph_status", "at": at, "from": "x", "to": to} | ({"reason": reason} if reason else {})


def test_what_was_waited_for_is_summed_by_its_reason() -> None:
    fold = folded(
        {"type": "ralph_loop_start", "at": 0, "pid": 1, "resumed": False},
        status("waiting", 1_000, "429"),
        status("running", 4_000),
        status("paused", 5_000),
        status("running", 15_000),
        status("waiting", 20_000, "429"),
        status("waiting", 21_000, "529"),
        # The runner was killed; the last that was heard of it was the wait's beginning and one command.
        {"type": "ralph_command", "at": 23_000, "id": "i", "command": "steer", "state": "accepted"},
        {"type": "ralph_loop_start", "at": 99_000, "pid": 2, "resumed": True},
        status("paused", 100_000),
    )
    found = [(one.what, one.reason, one.times, one.total_ms, one.longest_ms) for one in fold.waits(103_000)]
    assert found == [
        ("paused", None, 2, 13_000, 10_000),
        ("waiting", "429", 2, 4_000, 3_000),
        ("waiting", "529", 1, 2_000, 2_000),
    ]
    assert folded(status("waiting", 1_000, "x")).waits(None)[0].total_ms == 0
