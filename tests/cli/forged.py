"""Loops as files only: state, log and registry as a runner would have left them, without any runner."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from ralph_rpc import clock
from ralph_rpc.files import records, trust
from ralph_rpc.files.atomic import make_private_dir
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.machine import identity, locks

ROOT = Path(__file__).parents[2]
DEAD_PID = 2**22 + 1
"""Above any pid_max, so that no process has it."""

Json = dict[str, Any]

CONFIG: Json = {
    "model": None,
    "provider": None,
    "thinking": None,
    "maxIterations": 50,
    "maxCost": None,
    "maxTokens": None,
    "maxTimeMs": None,
    "iterationTimeoutMs": 0,
    "idleTimeoutMs": 0,
    "toolTimeoutMs": 0,
    "maxFailures": 10,
    "stallAfter": 5,
    "verify": None,
    "marker": "DONE",
    "reflectEvery": 0,
    "worktree": None,
    "extensions": [],
    "skills": [],
    "approve": None,
    "uiAnswers": {},
    "logSize": 1 << 28,
    "logKeep": 4,
    "pi": ["pi"],
    "piVersion": None,
    "piArgs": [],
}


def ago(seconds: float) -> str:
    """The time so long ago, as in our files."""
    return clock.iso(clock.now_ms() - int(seconds * 1000))


def state(paths: LoopPaths, /, alive: bool = False, **changes: Any) -> Json:
    """state.json of a loop; `alive`: this very process plays its runner."""
    stats = {"iterations": 3, "turns": 9, "toolCalls": 21, "durationMs": 60_000, "cost": 1.25}
    tokens = {"tokensIn": 12_300, "tokensOut": 4_500, "cacheRead": 900, "cacheWrite": 0}
    return {
        "schemaVersion": 1,
        "name": paths.name,
        "cwd": str(paths.project),
        "ralphDir": str(paths.dir),
        "kind": "task",
        "status": "running",
        "stopReason": None,
        "error": None,
        "pid": os.getpid() if alive else DEAD_PID,
        "pidStartTime": identity.start_time(os.getpid()) if alive else 1.0,
        "bootId": identity.boot_id(),
        "guardPid": None,
        "guardStartTime": None,
        "piPid": 4242,
        "piStartTime": None,
        "piVersion": "1.5.2",
        "model": "m1",
        "provider": "fake",
        "iteration": 4,
        "maxIterations": 50,
        "currentTicket": None,
        "startedAt": ago(3_720),
        "updatedAt": ago(1),
        "endedAt": None,
        "nextWakeAt": None,
        "elapsedMs": 3_720_000,
        "stats": stats | tokens,
        "consecutiveFailures": 0,
        "unchangedIterations": 0,
        "restarts": [],
        "lastReflection": None,
        "lastOutcome": "ok",
        "lastText": "Done with step 3.",
        "refusal": None,
        "held": [],
        "worktree": None,
        "tmpDir": None,
        "config": CONFIG,
    } | changes


def loop(project: Path, name: str = "api", alive: bool = False, **changes: Any) -> LoopPaths:
    """The folder of a loop with its state."""
    paths = LoopPaths.of(project, name)
    paths.inbox.mkdir(parents=True)
    paths.iterations.mkdir()
    paths.config.write_bytes(orjson.dumps(CONFIG))
    paths.state.write_bytes(orjson.dumps(state(paths, alive, **changes)))
    return paths


def remember(paths: LoopPaths) -> None:
    """As if this user's program had started it, with the options that it has."""
    config = records.read_config(paths)
    assert config is not None
    trust.remember_loop(paths, config)


@contextmanager
def runner_of(paths: LoopPaths) -> Iterator[None]:
    """While this lasts, the loop's runner lives: its lock is held."""
    lock = locks.acquire(paths.runner_lock)
    assert lock is not None
    with lock:
        yield


def entry(project: Path, name: str = "api", /, alive: bool = False, **changes: Any) -> Json:
    """A registry entry."""
    whole = state(LoopPaths.of(project, name), alive)
    keys = "pid pidStartTime bootId cwd ralphDir name kind startedAt status iteration maxIterations model provider"
    return {key: whole[key] for key in keys.split()} | {"lastSeen": ago(1), "cost": 0.75} | changes


def register(file: str, content: Json | bytes) -> Path:
    """Puts an entry, or anything, into the registry."""
    make_private_dir(registry_dir())
    path = registry_dir() / f"{file}.json"
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return path


def elsewhere(tmp_path: Path, folder: str, name: str = "api") -> LoopPaths:
    """A loop of another project that the registry knows."""
    paths = loop(tmp_path / folder, name)
    register(f"--{folder}--{name}", entry(tmp_path / folder, name))
    return paths


def write_log(paths: LoopPaths, events: Iterable[Json]) -> list[int]:
    """events.jsonl in one file; returns the offset before each event, and the end."""
    offsets = [0]
    with paths.events.open("wb") as file:
        for event in events:
            file.write(orjson.dumps(event) + b"\n")
            offsets.append(file.tell())
    return offsets


def write_record(paths: LoopPaths, number: int, start: int, end: int) -> None:
    """iterations/NNN.json with what a seek needs."""
    record = {"iteration": number, "outcome": "ok", "eventsFrom": start, "eventsTo": end}
    (paths.iterations / f"{number:03}.json").write_bytes(orjson.dumps(record))


def record(paths: LoopPaths, number: int, **changes: Any) -> None:
    """A whole iterations/NNN.json."""
    texts = {"kind": "work", "outcome": "ok", "startedAt": ago(60), "endedAt": ago(1), "summary": "done"}
    nothing = dict.fromkeys(("model", "provider", "sessionId", "sessionFile"))
    counts = ("durationMs", "turns", "toolCalls", "tokensIn", "tokensOut", "cacheRead", "cacheWrite", "cost")
    numbers = dict.fromkeys((*counts, "eventsFrom", "eventsTo"), 0)
    whole = {"iteration": number, **texts, **nothing, **numbers, "steering": [], **changes}
    (paths.iterations / f"{number:03}.json").write_bytes(orjson.dumps(whole))


def program(*args: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the real program, to be started as a process."""
    return [sys.executable, "-m", "ralph_rpc", *args], os.environ | {"PYTHONPATH": str(ROOT)}
