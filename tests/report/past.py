"""Loops that have a past: their files as a runner would have left them, small but with everything in them."""

import random
from pathlib import Path
from typing import Any

import orjson

from ralph_rpc.clock import iso
from ralph_rpc.files.paths import LoopPaths
from tests.cli import forged

Json = dict[str, Any]
BEGIN = 1_770_400_200_000
"""2026-02-06 17:50:00 UTC."""
SAID = (
    "The parser reads nested lists now; 14 of its 61 tests still fail, all in `tables`.",
    "Moved the column alignment into its own module and covered it with tests. All of `tables` is green.",
    "Footnotes: definitions are collected before inlines are parsed. One open question is noted in task.md.",
    "Fixed the quadratic scan in emphasis; 1 MB of asterisks takes 40 ms instead of 19 s.",
    "Read the changelog and the open items; the next is link reference definitions.",
)
TROUBLE: dict[int, Json] = {
    5: {"outcome": "failed", "error": "529: Overloaded. Please try again in a moment.", "errorKind": "overloaded"},
    9: {"outcome": "timeout", "error": "no sign of life; ended by an abort", "errorKind": "hang"},
    14: {"outcome": "crashed", "error": "pi ended in the middle of an iteration (exit code 134)", "errorKind": "crash"},
    15: {"outcome": "aborted"},
}
TOOLS = (("bash", 4_200, 7), ("read", 30, 90), ("edit", 25, 12), ("grep", 120, 40), ("write", 20, 60))
"""Name, usual duration, one call in so many fails."""


class Past:
    """Writes a loop's events and records, one after the other, on a clock of its own."""

    def __init__(self, project: Path, name: str = "parser") -> None:
        self.paths = LoopPaths.of(project, name)
        self.paths.iterations.mkdir(parents=True)
        self.paths.sessions.mkdir()
        self.rng = random.Random(7)
        self.now = BEGIN
        self.iteration = 0
        self.records: list[Json] = []
        self.log = bytearray()

    def event(self, type: str, **members: Any) -> None:
        self.log += orjson.dumps({"type": type, "at": self.now, **members}) + b"\n"

    def from_pi(self, type: str, **members: Any) -> None:
        stamp = {"at": self.now, "iteration": self.iteration}
        self.log += orjson.dumps({"type": type, **members, "ralph": stamp}) + b"\n"

    def tool(self, name: str, ms: int, fails: bool) -> None:
        call = f"call_{self.rng.randrange(1 << 40):x}"
        self.from_pi("tool_execution_start", toolCallId=call, toolName=name, args={"command": "pytest -q"})
        self.now += ms
        text = "exit code 1" if fails else "ok"
        result = {"content": [{"type": "text", "text": text}]}
        self.from_pi("tool_execution_end", toolCallId=call, toolName=name, result=result, isError=fails)

    def work(self, **changes: Any) -> None:
        """One iteration with tools, text and a record."""
        self.iteration += 1
        number, start, offset = self.iteration, self.now, len(self.log)
        self.event(
            "ralph_iteration_start",
            iteration=number,
            kind="work",
            **{k: changes[k] for k in ("ticket",) if k in changes},
        )
        calls = self.rng.randint(6, 30)
        for _ in range(calls):
            self.from_pi(
                "message_update", assistantMessageEvent={"type": "text_delta", "contentIndex": 0, "delta": "word "}
            )
            name, usual, odds = self.rng.choice(TOOLS)
            self.tool(name, int(usual * self.rng.uniform(0.3, 3)), self.rng.randrange(odds) == 0)
            self.now += self.rng.randint(2_000, 14_000)
        read = self.rng.randint(8_000, 30_000)
        session = self.paths.sessions / f"2026-02-06T17-50-00-000Z_{number:04}.jsonl"
        session.write_text("{}\n")
        record = {
            "iteration": number,
            "kind": "work",
            "outcome": "ok",
            "startedAt": iso(start),
            "endedAt": iso(self.now),
            "durationMs": self.now - start,
            "turns": calls + 1,
            "toolCalls": calls,
            "tokensIn": read,
            "tokensOut": self.rng.randint(2_000, 11_000),
            "cacheRead": read * self.rng.randint(2, 6),
            "cacheWrite": 0,
            "cost": round(read / 1e5 + self.rng.random() / 4, 4),
            "model": "scripted-1",
            "provider": "scripted",
            "sessionId": f"{number:04}",
            "sessionFile": str(session),
            "summary": self.rng.choice(SAID),
            "commits": [f"{self.rng.randrange(1 << 160):040x}" for _ in range(self.rng.randint(0, 3))],
            "filesChanged": self.rng.randint(0, 9),
            "steering": [],
            "eventsFrom": offset,
            "eventsTo": 0,
        } | changes
        self.event("ralph_iteration_end", **record)
        record["eventsTo"] = len(self.log)
        self.records.append(record)
        self.now += 1_500

    def finish(self, **changes: Any) -> LoopPaths:
        """Puts all of it on disk; `changes` are those of the state."""
        for record in self.records:
            (self.paths.iterations / f"{record['iteration']:03}.json").write_bytes(orjson.dumps(record))
        with self.paths.events.open("wb") as file:
            file.write(self.log)
        totals = {
            key: sum(record[key] for record in self.records)
            for key in ("turns", "toolCalls", "durationMs", "tokensIn", "tokensOut", "cacheRead", "cacheWrite", "cost")
        }
        state = forged.state(
            self.paths,
            **{
                "status": "completed",
                "stopReason": "verified",
                "pid": None,
                "pidStartTime": None,
                "model": "scripted-1",
                "provider": "scripted",
                "iteration": self.iteration,
                "startedAt": iso(BEGIN),
                "endedAt": iso(self.now),
                "updatedAt": iso(self.now),
                "elapsedMs": sum(record["durationMs"] for record in self.records),
                "lastText": "All 61 tests pass.\n\n<promise>COMPLETE</promise>",
                "stats": {**totals, "iterations": len(self.records)},
                "config": {**forged.CONFIG, "verify": "pytest -q"},
                **changes,
            },
        )
        self.paths.state.write_bytes(orjson.dumps(state))
        self.paths.config.write_bytes(orjson.dumps(state["config"]))
        self.paths.task.write_text(
            "# Make every test of the CommonMark suite pass\n\n- [x] lists\n- [x] tables\n- [x] footnotes\n"
        )
        return self.paths


def evening(project: Path) -> LoopPaths:
    """A task loop that had some trouble on its way, two messages, a pause, and a runner that was killed."""
    past = Past(project)
    journal: list[Json] = []
    past.event("ralph_loop_start", name="parser", pid=4711, resumed=False)
    past.event("ralph_pi_start", pid=4712, version="1.5.2", argv=["pi"])
    for number in range(1, 25):
        if number == 3:
            message = "Leave the HTML blocks for last."
            journal.append(
                {"at": past.now, "id": "s1", "command": "steer", "state": "received", "body": {"message": message}}
            )
            past.event("ralph_command", id="s1", command="steer", state="accepted", message=message)
            past.now += 4_000
            journal.append({"at": past.now, "id": "s1", "command": "steer", "state": "delivered", "iteration": 3})
            past.event("ralph_command", id="s1", command="steer", state="delivered")
        if number == 5:
            past.from_pi("auto_retry_start", attempt=1, delayMs=2_000, errorMessage="529: Overloaded")
            past.from_pi("auto_retry_start", attempt=2, delayMs=4_000, errorMessage="529: Overloaded")
        if number == 14:
            past.event("ralph_pi_exit", pid=4712, exitCode=134, terminationMethod="natural")
            past.event("ralph_pi_start", pid=4790, version="1.5.2", argv=["pi"])
        if number == 17:
            past.event("ralph_status", **{"from": "running", "to": "paused", "reason": "paused by a command"})
            past.now += 3 * 3_600_000
            past.event("ralph_loop_start", name="parser", pid=5011, resumed=True)
            past.event("ralph_notice", level="warning", message="ended 2 processes that an earlier run left behind")
        red = {
            "command": "pytest -q",
            "exitCode": 1,
            "durationMs": 21_000,
            "tail": "FAILED test_tables.py::test_pipes\n1 failed, 60 passed",
        }
        green = {"command": "pytest -q", "exitCode": 0, "durationMs": 24_000, "tail": "61 passed"}
        verify: Json = {"verify": red} if number == 21 else {"verify": green} if number == 24 else {}
        past.work(**TROUBLE.get(number, {}), **verify)
    past.event(
        "ralph_command",
        id="s2",
        command="followup",
        state="expired",
        message="Then write the changelog.",
        reason="the loop ended first",
    )
    past.event("ralph_loop_end", status="completed", stopReason="verified", error=None)
    past.paths.commands.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in journal))
    return past.finish()


def backlog(project: Path) -> LoopPaths:
    """A ticket loop: three of its tickets are merged, one needs a person."""
    past = Past(project, "night")
    past.event("ralph_loop_start", name="night", pid=4711, resumed=False)
    folder = past.paths.dir / "tickets"
    folder.mkdir()
    for number, (ticket, status) in enumerate(
        [("ab-1", "closed"), ("ab-2", "closed"), ("ab-7", "needs-merge"), ("zz-9", "closed")]
    ):
        past.work(ticket=ticket, attempt=1)
        if number == 2:
            past.work(ticket=ticket, attempt=2, kind="conflict")
        record: Json = {
            "ticket": ticket,
            "status": status,
            "attempt": 1 + (number == 2),
            "sessionId": "s",
            "branch": f"ralph/night/{ticket}",
            "startedAt": iso(past.now - 60_000),
            "endedAt": iso(past.now),
            "durationMs": 60_000,
            "returnCode": 0,
            "terminationMethod": "eof",
            "error": "conflict in src/table.py" if number == 2 else None,
            "newer": ["key"],
        }
        (folder / f"{ticket}.json").write_bytes(orjson.dumps(record))
    return past.finish(kind="tickets", status="error", stopReason="blocked", error="ab-7 needs a merge by hand")


def poisoned(project: Path, evil: str) -> LoopPaths:
    """A loop whose every text that comes from a model, a file or a person is `evil`."""
    past = Past(project, "parser")
    past.event("ralph_loop_start", name=evil, pid=1, resumed=False)
    past.event("ralph_pi_start", pid=1, version=evil, argv=[evil])
    for state in ("accepted", "rejected"):
        past.event("ralph_command", id=evil, command=evil, state=state, message=evil, reason=evil)
    past.event("ralph_notice", level="error", message=evil)
    past.event("ralph_status", **{"from": evil, "to": "waiting", "reason": evil})
    past.from_pi("auto_retry_start", attempt=1, delayMs=1, errorMessage=evil)
    past.from_pi("tool_execution_start", toolCallId="1", toolName=evil, args={"command": evil})
    result = {"content": [{"type": "text", "text": evil}]}
    past.from_pi("tool_execution_end", toolCallId="1", toolName=evil, result=result, isError=True)
    verify = {"command": evil, "exitCode": 1, "durationMs": 1, "tail": evil}
    past.work(
        ticket=evil,
        outcome="failed",
        error=evil,
        summary=evil,
        model=evil,
        provider=evil,
        sessionId=evil,
        sessionFile=evil,
        commits=[evil],
        startedAt=evil,
        verify=verify,
    )
    past.work(sessionFile="javascript:alert(1)")
    (past.paths.dir / "tickets").mkdir()
    ticket = {
        "status": evil,
        "title": evil,
        "branch": evil,
        "error": evil,
        "startedAt": evil,
        "terminationMethod": evil,
        "returnCode": 1,
    }
    (past.paths.dir / "tickets" / "a.json").write_bytes(orjson.dumps(ticket))
    past.event("ralph_loop_end", status=evil, stopReason=evil, error=evil)
    paths = past.finish(
        name=evil,
        cwd=evil,
        ralphDir=evil,
        status="error",
        error=evil,
        model=evil,
        provider=evil,
        piVersion=evil,
        startedAt=evil,
        endedAt=evil,
        updatedAt=evil,
        lastText=evil,
        worktree={"branch": evil, "path": evil},
    )
    paths.task.write_text(evil)
    return paths
