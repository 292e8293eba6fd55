"""What a runner does with files from its start to its end, by its own modules, in one thread and without processes.

Taking over, claim, receipt, hand-over to pi (a plain file here), receipts, record, rotation, state, registry. `life`
runs in a child that dies somewhere; run again, it recovers. It is quick enough to be tried at every system call.
"""

from pathlib import Path
from typing import cast

from ralph_rpc.clock import iso, now_ms
from ralph_rpc.files import records, registry
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.inbox import Inbox
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.reserve import Reserve
from ralph_rpc.model.commands import JournalLine, JournalState
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import State
from ralph_runner.core.results import CommandCame
from ralph_runner.shell.intake import Intake
from ralph_runner.shell.notices import Notices
from ralph_runner.shell.record import write_record
from ralph_runner.shell.recover import recover
from tests.cli import forged

LOG_BYTES = 1200
"""Small, so that the log is rotated in the middle of everything."""
KEEP = 50


def prepare(paths: LoopPaths) -> list[str]:
    """A loop that was stopped, with two messages and a file that is no command in its inbox; the messages' ids."""
    for folder in (paths.inbox, paths.iterations):
        folder.mkdir(parents=True)
    records.write_state(paths, cast(State, forged.state(paths, status="stopped", iteration=0, piPid=None)))
    (paths.inbox / "steer.json").write_text('{"message": "first", "id": "one"}')
    (paths.inbox / "followup-2.json").write_text('{"message": "second", "id": "two"}')
    (paths.inbox / "fly.json").write_text("{}")
    return ["one", "two"]


def life(paths: LoopPaths, pi: Path) -> None:
    """One run, from taking over to the end; `pi` gets a line with the id of each message."""
    found = recover(paths, cast(Config, forged.CONFIG), "task.md", resume=True, wall=now_ms())
    records.write_pid(paths, forged.DEAD_PID)
    log = EventLog.open(paths.events, limit=LOG_BYTES, keep=KEEP)
    journal = CommandJournal.open(paths.commands)
    log.append_event({"type": "ralph_loop_start", "at": now_ms()})
    for lost in found.lost:
        write_record(paths, log, lost, log.offset)
    iteration = found.core.iteration() + 1
    entry = _save(paths, "running", iteration)
    came = [CommandCame(c.id, c.verb, c.body, known=True, maybe=c.sent) for c in journal.open_commands()]
    inbox = Inbox(paths.inbox)
    intake = Intake(
        inbox,
        core=found.core,
        feed=lambda *inputs: came.extend(inputs),
        journal=journal,
        log=log,
        reserve=Reserve(paths.reserve),
        notices=Notices(log, print),
        note=print,
    )
    for now_s in (0.0, 2.0):  # the second finds that what is no command has not changed
        intake.accept(inbox.scan(now_s).commands)
    start = log.offset
    for command in came:
        _step(journal, command, "sent")
        with pi.open("ab", buffering=0) as stdin:
            stdin.write(command.id.encode() + b"\n")
        _step(journal, command, "queued")
        for n in range(4):
            log.append(b'{"type":"message_update","n":%d,"text":"%s"}\n' % (n, b"x" * 80))
        _step(journal, command, "delivered")
        log.append_event({"type": "ralph_command", "id": command.id, "state": "delivered"})
    write_record(paths, log, _record(iteration), start)
    _save(paths, "stopped", iteration)
    registry.remove(entry)
    log.sync()
    log.close()
    journal.close()


def _step(journal: CommandJournal, command: CommandCame, state: JournalState) -> None:
    line: JournalLine = {"at": now_ms(), "id": command.id, "command": command.verb, "state": state}
    if state == "delivered" and command.maybe:
        line["redelivered"] = True
    journal.append(line, durable=True)


def _save(paths: LoopPaths, status: str, iteration: int) -> Path:
    state = forged.state(paths, status=status, iteration=iteration, piPid=None)
    records.write_state(paths, cast(State, state))
    entry = forged.entry(paths.project, paths.name, status=status, iteration=iteration)
    return registry.publish(None, cast(RegistryEntry, entry))


def _record(iteration: int) -> Iteration:
    now = iso(now_ms())
    return {
        "iteration": iteration,
        "kind": "work",
        "outcome": "ok",
        "startedAt": now,
        "endedAt": now,
        "durationMs": 1,
        "turns": 1,
        "toolCalls": 0,
        "tokensIn": 1,
        "tokensOut": 1,
        "cacheRead": 0,
        "cacheWrite": 0,
        "cost": 0.0,
        "model": "m1",
        "provider": "fake",
        "sessionId": None,
        "sessionFile": None,
        "summary": "done",
        "steering": [],
        "eventsFrom": 0,
        "eventsTo": 0,
    }
