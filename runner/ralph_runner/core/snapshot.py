"""state.json from the core's state and back. Pure; the shell writes and reads the file.

On the way back every status that a dead runner could leave becomes an honest one: what was under way is over, counters
and limits continue, a message without a receipt is held for the next prompt.
"""

from dataclasses import dataclass

from ralph_rpc.clock import iso, parse_iso
from ralph_rpc.model.config import Config
from ralph_rpc.model.far import FarPlace
from ralph_rpc.model.state import ENDED, HostState, State, Worktree
from ralph_rpc.model.usage import NO_STATS
from ralph_runner.core import budget, models
from ralph_runner.core.failures import restarts_found, restarts_kept
from ralph_runner.core.phases import Closing, Running, Verifying
from ralph_runner.core.results import Now
from ralph_runner.core.run import Run
from ralph_runner.core.state import Loop, PiFacts


@dataclass
class Facts:
    """What state.json holds in addition to the core's state; kept by the shell."""

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
    hosts: list[HostState] | None = None
    """With `--hosts`."""


def new_loop(config: Config, task_path: str) -> Loop:
    """A loop that has never run."""
    return Loop(
        config=config,
        task_path=task_path,
        status="starting",
        stop_reason=None,
        error=None,
        iteration=0,
        stats=NO_STATS,
        consecutive_failures=0,
        unchanged=0,
        restarts=(),
        last_reflection=None,
        last_outcome=None,
        last_text=None,
        refusal=None,
        elapsed_ms=0,
    )


def resumed_loop(config: Config, task_path: str, state: State, last_iteration: int, now: Now) -> Loop:
    """A loop that continues; `last_iteration` is the highest number that any record or event has."""
    asked = state["status"] in ("stopped", "error")
    since = parse_iso(state.get("unchangedSince"))
    forgiven = asked or since is None
    return Loop(
        config=config,
        task_path=task_path,
        status="starting",
        stop_reason=None,
        error=None,
        iteration=max(state["iteration"], last_iteration),
        stats={**NO_STATS, **state["stats"]},
        # A person who resumes after an end gives the loop a new chance; a restart after a crash does not.
        consecutive_failures=0 if asked else state["consecutiveFailures"],
        unchanged=0 if forgiven else state["unchangedIterations"],
        unchanged_since=None if forgiven else since,
        restarts=() if asked else restarts_found(state["restarts"], now.mono, now.wall),
        last_reflection=state["lastReflection"],
        last_outcome=state["lastOutcome"],
        last_text=state["lastText"],
        refusal=state["refusal"],
        news=state.get("news"),
        elapsed_ms=state["elapsedMs"],
    )


def snapshot(loop: Loop, facts: Facts, now: Now) -> State:
    """state.json as of now; the running iteration's figures are included in the totals."""
    ended, run = loop.status in ENDED, running_run(loop)
    state: State = {
        "schemaVersion": 1,
        "name": facts.name,
        "cwd": facts.cwd,
        "ralphDir": facts.ralph_dir,
        "kind": "task",
        "status": loop.status,
        "stopReason": loop.stop_reason,
        "error": loop.error,
        "wasPaused": loop.was_paused,
        "waitingFor": loop.waiting_for,
        "outages": models.told(loop.config, loop.outages),
        "pid": None if ended else facts.pid,
        "pidStartTime": None if ended else facts.pid_start,
        "bootId": facts.boot_id,
        "guardPid": facts.guard_pid,
        "guardStartTime": facts.guard_start,
        "piPid": facts.pi_pid,
        "piStartTime": facts.pi_start,
        "piVersion": loop.config["piVersion"],
        "model": loop.model or loop.config["model"],
        "provider": loop.provider or loop.config["provider"],
        "iteration": loop.iteration,
        "maxIterations": loop.config["maxIterations"],
        "currentTicket": None,
        "startedAt": facts.started_at,
        "updatedAt": iso(now.wall),
        "monotonicMs": now.mono,
        "endedAt": iso(now.wall) if ended else None,
        "nextWakeAt": None if loop.next_wake is None else iso(loop.next_wake),
        "elapsedMs": loop.elapsed_at(now.mono),
        "stats": loop.stats if run is None else budget.with_runs(loop.stats, [run]),
        "consecutiveFailures": loop.consecutive_failures,
        "unchangedIterations": loop.unchanged,
        "unchangedSince": None if loop.unchanged_since is None else iso(loop.unchanged_since),
        "restarts": restarts_kept(loop.restarts, now.mono, now.wall),
        "lastReflection": loop.last_reflection,
        "lastOutcome": loop.last_outcome,
        "lastText": loop.last_text,
        "refusal": loop.refusal,
        "news": loop.news,
        "held": [{"id": m.id, "command": m.verb, "message": m.text} for m in loop.mail],
        "worktree": facts.worktree,
        "tmpDir": facts.tmp_dir,
        "config": loop.config,
    }
    if loop.pi is not None and (place := far_place(loop.pi)) is not None:
        state["far"] = place
    return state


def far_place(pi: PiFacts) -> FarPlace | None:
    """Where it runs, as the files have it; None: here."""
    place = pi.place
    return None if place is None else {"host": place.host, "pid": place.pid, "bootId": place.boot_id}


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
