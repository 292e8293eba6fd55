"""What dead runners left: processes, registry entries, temporary folders and files; and loops that need attention."""

from functools import partial
from pathlib import Path

from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.errors import RalphError
from ralph_rpc.files import far
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.files.removal import remove_tree
from ralph_rpc.launchers.cleanup import run_clean_up
from ralph_rpc.loops.engine_left import call_off, jobs_left
from ralph_rpc.loops.hold import is_busy, kept_still
from ralph_rpc.loops.remains import processes
from ralph_rpc.loops.remains.entries import DeadEntry, dead_entries, forget
from ralph_rpc.loops.remains.files import half_written, temp_dirs
from ralph_rpc.loops.status import loop_status
from ralph_rpc.machine import nofollow
from ralph_rpc.model.far import FarJob

ROUNDS = 5
"""Rounds of ending processes: they may have started others meanwhile."""
NAMED = 5
"""Processes of one loop that are listed one by one."""


def orphans(place: Place) -> Findings:
    by_loop: dict[LoopPaths, list[processes.Orphan]] = {}
    for orphan in processes.orphans({place.project}):
        by_loop.setdefault(orphan.loop, []).append(orphan)
    for loop, group in by_loop.items():
        named = [f"pid {orphan.pid} ({orphan.command[:60].strip()})" for orphan in group[:NAMED]]
        more = [f"{len(group) - NAMED} more"] if len(group) > NAMED else []
        text = f"left by the dead runner of {loop.name}: {', '.join(named + more)}"
        hint = "they may still change files; doctor --fix ends them"
        yield Finding("orphans", "fail", text, hint, partial(_end, place, loop))
    if not by_loop:
        yield Finding("orphans", "ok", "no orphaned process")


def _end(place: Place, loop: LoopPaths) -> str:
    ended: set[int] = set()
    left = _orphans_of(place, loop)
    for _ in range(ROUNDS):
        processes.end(left)
        ended |= {orphan.pid for orphan in left}
        left = _orphans_of(place, loop)
        if not left:
            break
    else:
        raise RalphError(f"could not kill: pid {', '.join(str(orphan.pid) for orphan in left)}")
    pids = ", ".join(str(pid) for pid in sorted(ended))
    return f"ended what the dead runner of {loop.name} left behind: {f'pid {pids}' if pids else 'already gone'}"


def _orphans_of(place: Place, loop: LoopPaths) -> list[processes.Orphan]:
    return [orphan for orphan in processes.orphans({place.project}) if orphan.loop == loop]


def registry_entries(_: Place) -> Findings:
    # Entries of crashed and failed loops are needed until `resume` or `clean`.
    stale = [entry for entry in dead_entries() if not entry.resumable]
    for entry in stale:
        text = f"stale entry {entry.what}: {entry.reason}"
        hint = "doctor --fix or clean removes it"
        yield Finding("registry", "warn", text, hint, partial(_forget, entry, text))
    if not stale:
        yield Finding("registry", "ok", "no stale entry")


def _forget(entry: DeadEntry, text: str) -> str:
    if not forget(entry):
        raise RalphError("a runner has just been started")
    return f"{text}: removed"


def elsewhere(place: Place) -> Findings:
    """What launchers of dead runners have started on other machines and in boxes."""
    for loop in place.own_loops():
        for job in far.jobs(loop):
            where = f" on {job['place']['host']}" if "place" in job else ""
            text = f"{loop.name}: {job['job']}{where} may still run; {job['launcher'].split(' ')[0]} has started it"
            hint = "it ends by itself within its lease; doctor --fix ends what has a command for that"
            yield Finding("elsewhere", "warn", text, hint, partial(_end_job, loop, job))


def _end_job(loop: LoopPaths, job: FarJob) -> str:
    with kept_still(loop):
        gone = run_clean_up(job)
        left = far.fenced_s(loop, job)
        if not gone and left > 0 and "place" in job:
            raise RalphError(f"{job['job']} ends by itself within {left:.0f} s", "look again then: ralph-rpc doctor")
        far.remove(loop, job["job"])
    return f"{job['job']} of {loop.name} is gone"


def jobs(place: Place) -> Findings:
    """Jobs on an engine whose head is dead: they work on, and `resume` takes them up again."""
    for loop in place.dead_loops():
        left = jobs_left(loop)
        if not left:
            continue
        named = [record["ticket"] for record in left[:NAMED]]
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        text = f"{loop.name}: jobs may still work on {', '.join(named)}{more}"
        hint = f"ralph-rpc resume {loop.name} takes them up again; doctor --fix ends them"
        yield Finding("jobs", "warn", text, hint, partial(_call_off, loop))


def _call_off(loop: LoopPaths) -> str:
    with kept_still(loop):
        return "; ".join(call_off(loop)) or f"no job of {loop.name} is left"


def loops(place: Place) -> Findings:
    for loop in place.loops:
        status = loop_status(loop)
        if status.shown == "stale":
            hint = f"ralph-rpc kill {loop.name}, then ralph-rpc resume {loop.name}"
            yield Finding("loops", "warn", f"the runner of {loop.name} is alive but does not respond", hint)
        if status.shown == "crashed" and not is_busy(loop):
            hint = f"ralph-rpc resume {loop.name}, or ralph-rpc clean {loop.name}"
            yield Finding("loops", "warn", f"{loop.name} has crashed: its runner is gone", hint)


def temporary(place: Place) -> Findings:
    """The folder that pi's tools had as TMPDIR, and files whose writer died before they got their name."""
    for loop in place.dead_loops():
        for folder in temp_dirs(loop):
            text, hint = f"{folder} was left by {loop.name}", "doctor --fix removes it"
            yield Finding("temp", "warn", text, hint, partial(_remove_folder, loop, folder))
    folders = [place.project / ".ralph", registry_dir()]
    for loop in place.dead_loops():
        folders += [loop.dir, loop.iterations]
    for path in half_written(folders):
        hint = "its writer is dead and nothing reads it; doctor --fix removes it"
        yield Finding("temp", "warn", f"{path} was never finished", hint, partial(_remove_file, path))


def _remove_folder(loop: LoopPaths, folder: Path) -> str:
    with kept_still(loop):
        if folder in temp_dirs(loop):  # else another process was faster
            remove_tree(folder)
    return f"removed {folder}, left by {loop.name}"


def _remove_file(path: Path) -> str:
    nofollow.unlink(path, missing_ok=True)
    return f"removed {path}, which was never finished"
