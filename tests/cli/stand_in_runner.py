"""Plays the runner for tests of the program: takes the same arguments, keeps the lock, writes the same files.

It starts no pi. `$STAND_IN` says what becomes of it: `run` (default: until a stop command or SIGTERM),
`deaf` (the same, but it ignores SIGTERM), `unusable`, `die`, `completed`, `stopped`, `error`.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

import orjson

from ralph_rpc import clock
from ralph_rpc.files import records, registry
from ralph_rpc.files.inbox import Inbox
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import identity, locks
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import ENDED, State

ENDINGS = {
    "unusable": ("error", "auth", "pi cannot work: it has no model"),
    "completed": ("completed", "marker", None),
    "stopped": ("stopped", "max-iterations", None),
    "error": ("error", "failures", "10 failures in a row"),
}


class StandIn:
    def __init__(self, paths: LoopPaths, resume: bool) -> None:
        self.paths = paths
        self.inbox = Inbox(paths.inbox)
        old = records.read_state(paths) if resume else None
        config = records.read_config(paths)
        assert config is not None
        zero = dict.fromkeys(
            ("turns", "toolCalls", "durationMs", "tokensIn", "tokensOut", "cacheRead", "cacheWrite"), 0
        )
        now = clock.iso(clock.now_ms())
        fresh: dict[str, Any] = {
            "schemaVersion": 1,
            "name": paths.name,
            "cwd": str(paths.project),
            "ralphDir": str(paths.dir),
            "kind": "task",
            "guardPid": None,
            "guardStartTime": None,
            "piPid": None,
            "piStartTime": None,
            "piVersion": "1.5.2",
            "model": "scripted",
            "provider": "fake",
            "iteration": 0,
            "currentTicket": None,
            "startedAt": now,
            "elapsedMs": 0,
            "stats": {"iterations": 0, "cost": 0.0, **zero},
            "consecutiveFailures": 0,
            "unchangedIterations": 0,
            "restarts": [],
            "lastReflection": None,
            "lastOutcome": None,
            "lastText": None,
            "refusal": None,
            "held": [],
            "worktree": None,
            "tmpDir": None,
        }
        self.state: dict[str, Any] = {
            **fresh,
            **(old or {}),
            "config": config,
            "maxIterations": config["maxIterations"],
        }

    def save(self, status: str, reason: str | None = None, error: str | None = None) -> None:
        ended, pid, now = status in ENDED, os.getpid(), clock.iso(clock.now_ms())
        self.state |= {
            "status": status,
            "stopReason": reason,
            "error": error,
            "updatedAt": now,
            "nextWakeAt": None,
            "endedAt": now if ended else None,
            "pid": None if ended else pid,
            "pidStartTime": None if ended else identity.start_time(pid),
            "bootId": identity.boot_id(),
        }
        records.write_state(self.paths, cast(State, self.state))
        entry = registry.entry_path(self.paths.project, self.paths.name)
        if ended:
            registry.remove(entry)
            return
        keys = "pid pidStartTime bootId cwd ralphDir name kind startedAt status iteration maxIterations model provider"
        shown = {key: self.state[key] for key in keys.split()} | {"lastSeen": now, "cost": 0.0}
        registry.publish(entry, cast(RegistryEntry, shown))

    def event(self, **members: Any) -> None:
        with self.paths.events.open("ab") as log:
            log.write(orjson.dumps({**members, "at": clock.now_ms()}) + b"\n")

    def run(self, deaf: bool) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: self.end("stopped", "kill"))
        self.save("running")
        while True:
            for command in self.inbox.scan(time.monotonic()).commands:
                self.inbox.done(command)
                step = {"type": "ralph_command", "id": command.id, "command": command.verb}
                self.event(**step, state="accepted")
                if command.body.get("message") == "never":
                    continue
                if command.body.get("message") == "refuse":
                    self.event(**step, state="rejected", reason="not today")
                    continue
                self.event(**step, state="delivered")
                if command.verb == "stop":
                    self.end("stopped", "stop")
                self.save("paused" if command.verb == "pause" else "running")
            time.sleep(0.02)

    def end(self, status: str, reason: str, error: str | None = None) -> None:
        self.save(status, reason, error)
        self.event(type="ralph_loop_end", status=status, stopReason=reason, error=error)
        time.sleep(0.2)  # the real one, too, keeps the lock for a while after its last word
        sys.exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--launched", type=float, required=True)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    paths = LoopPaths(given.folder)
    kept = locks.adopt(given.lock_fd, paths.runner_lock)
    kind = os.environ.get("STAND_IN", "run")
    if kind == "die":
        sys.exit("Traceback and so on\nImportError: no module for you")
    runner = StandIn(paths, given.resume)
    runner.save("starting")
    runner.event(type="ralph_loop_start", name=paths.name, pid=os.getpid(), resumed=given.resume)
    if kind in ENDINGS:
        runner.end(*ENDINGS[kind])
    runner.run(deaf=kind == "deaf")
    kept.release()


if __name__ == "__main__":
    main()
