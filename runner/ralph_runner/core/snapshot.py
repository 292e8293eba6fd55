"""state.json from the core's state and back. Pure; the shell writes and reads the file.

On the way back every status that a dead runner could leave becomes an honest one: whatever was under way is over,
counters and limits go on, a message without a receipt is held for the next prompt.
"""

from dataclasses import dataclass

from ralph_rpc.clock import iso
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import State, Stats, Worktree
from ralph_runner.core.failures import restarts_found, restarts_kept
from ralph_runner.core.reports import Now
from ralph_runner.core.run import Run
from ralph_runner.core.state import Closing, Loop, Running, Verifying

NO_STATS: Stats = {
    "iterations": 0, "turns": 0, "toolCalls": 0, "durationMs": 0,
    "tokensIn": 0, "tokensOut": 0, "cacheRead": 0, "cacheWrite": 0, "cost": 0.0,
}  # fmt: skip


@dataclass
class Facts:
    """What state.json tells beside the core's state; kept by the shell."""

    name: str
    cwd: str
    ralph_dir: str
    pid: int
    pid_start: float
    boot_id: str
    started_at: str
    worktree: Worktree | None
    tmp_dir: str | None = None
    guard_pid: int | None = None
    guard_start: float | None = None
    pi_pid: int | None = None
    pi_start: float | None = None


def new_loop(config: Config, task_path: str) -> Loop:
    """A loop that has never run."""
    return Loop(
        config=config, task_path=task_path, status="starting", stop_reason=None, error=None, iteration=0,
        stats=NO_STATS, consecutive_failures=0, unchanged=0, restarts=(), last_reflection=None, last_outcome=None,
        last_text=None, refusal=None, elapsed_ms=0,
    )  # fmt: skip


def resumed_loop(config: Config, task_path: str, state: State, last_iteration: int, now: Now) -> Loop:
    """A loop that goes on; `last_iteration` is the highest number that any record or event has."""
    asked = state["status"] in ("stopped", "error")
    return Loop(
        config=config, task_path=task_path, status="starting", stop_reason=None, error=None,
        iteration=max(state["iteration"], last_iteration), stats={**NO_STATS, **state["stats"]},
        # A person who resumes after an end gives the loop a new chance; a restart after a crash does not.
        consecutive_failures=0 if asked else state["consecutiveFailures"],
        unchanged=0 if asked else state["unchangedIterations"],
        restarts=() if asked else restarts_found(state["restarts"], now.mono, now.wall),
        last_reflection=state["lastReflection"], last_outcome=state["lastOutcome"], last_text=state["lastText"],
        refusal=state["refusal"], elapsed_ms=state["elapsedMs"],
    )  # fmt: skip


def snapshot(loop: Loop, facts: Facts, now: Now) -> State:
    """state.json as of now; the running iteration's figures are included in the totals."""
    ended = loop.status in ("stopped", "completed", "error")
    return {
        "schemaVersion": 1, "name": facts.name, "cwd": facts.cwd, "ralphDir": facts.ralph_dir, "kind": "task",
        "status": loop.status, "stopReason": loop.stop_reason, "error": loop.error,
        "pid": None if ended else facts.pid, "pidStartTime": None if ended else facts.pid_start,
        "bootId": facts.boot_id,
        "guardPid": facts.guard_pid, "guardStartTime": facts.guard_start,
        "piPid": facts.pi_pid, "piStartTime": facts.pi_start, "piVersion": loop.config["piVersion"],
        "model": loop.model or loop.config["model"], "provider": loop.provider or loop.config["provider"],
        "iteration": loop.iteration, "maxIterations": loop.config["maxIterations"], "currentTicket": None,
        "startedAt": facts.started_at, "updatedAt": iso(now.wall), "monotonicMs": now.mono,
        "endedAt": iso(now.wall) if ended else None,
        "nextWakeAt": None if loop.next_wake is None else iso(loop.next_wake), "elapsedMs": loop.elapsed_ms,
        "stats": _with_running(loop), "consecutiveFailures": loop.consecutive_failures,
        "unchangedIterations": loop.unchanged, "restarts": restarts_kept(loop.restarts, now.mono, now.wall),
        "lastReflection": loop.last_reflection, "lastOutcome": loop.last_outcome, "lastText": loop.last_text,
        "refusal": loop.refusal,
        "held": [{"id": m.id, "command": m.verb, "message": m.text} for m in loop.mail],
        "worktree": facts.worktree, "tmpDir": facts.tmp_dir, "config": loop.config,
    }  # fmt: skip


def _with_running(loop: Loop) -> Stats:
    run = running_run(loop)
    if run is None:
        return loop.stats
    s, u = loop.stats, run.usage
    return {
        **s,
        "turns": s["turns"] + run.turns, "toolCalls": s["toolCalls"] + run.tool_calls,
        "tokensIn": s["tokensIn"] + u.input, "tokensOut": s["tokensOut"] + u.output,
        "cacheRead": s["cacheRead"] + u.cache_read, "cacheWrite": s["cacheWrite"] + u.cache_write,
        "cost": s["cost"] + u.cost,
    }  # fmt: skip


def running_run(loop: Loop) -> Run | None:
    """The run whose record is not written yet."""
    match loop.phase:
        case Running(run):
            return run
        case Closing(result):
            return result.run
        case Verifying(closing):
            return closing.result.run
        case _:
            return None
