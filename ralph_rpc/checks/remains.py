"""What dead runners left: processes, registry entries, temporary folders and files; and loops that need a hand."""

from functools import partial
from pathlib import Path

from ralph_rpc import leftovers
from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.errors import RalphError
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.files.removal import remove_tree
from ralph_rpc.loops import loop_status

ROUNDS = 5
"""Of ending processes: they may have started others meanwhile."""
NAMED = 5
"""Processes of one loop that are told one by one."""


def orphans(place: Place) -> Findings:
    by_loop: dict[LoopPaths, list[leftovers.Orphan]] = {}
    for orphan in leftovers.orphans({place.project}):
        by_loop.setdefault(orphan.loop, []).append(orphan)
    for loop, group in by_loop.items():
        named = [f"pid {orphan.pid} ({orphan.command[:60].strip()})" for orphan in group[:NAMED]]
        more = [f"{len(group) - NAMED} more"] if len(group) > NAMED else []
        text = f"left by the dead runner of {loop.name}: {', '.join(named + more)}"
        hint = "they may still change files; doctor --fix ends them"
        yield Finding("orphans", "fail", text, hint, partial(_end, place, loop))
    if not by_loop:
        yield Finding("orphans", "ok", "no process without its runner")


def _end(place: Place, loop: LoopPaths) -> str:
    ended: set[int] = set()
    left = _orphans_of(place, loop)
    for _ in range(ROUNDS):
        leftovers.end(left)
        ended |= {orphan.pid for orphan in left}
        left = _orphans_of(place, loop)
        if not left:
            break
    else:
        raise RalphError(f"they do not die: pid {', '.join(str(orphan.pid) for orphan in left)}")
    pids = ", ".join(str(pid) for pid in sorted(ended))
    return f"ended what the dead runner of {loop.name} had left: {f'pid {pids}' if pids else 'it is gone'}"


def _orphans_of(place: Place, loop: LoopPaths) -> list[leftovers.Orphan]:
    return [orphan for orphan in leftovers.orphans({place.project}) if orphan.loop == loop]


def registry_entries(_: Place) -> Findings:
    # Entries of crashed and failed loops are needed until `resume` or `clean`.
    stale = [entry for entry in leftovers.dead_entries() if not entry.resumable]
    for entry in stale:
        text = f"stale entry {entry.what}: {entry.reason}"
        hint = "doctor --fix or clean removes it"
        yield Finding("registry", "warn", text, hint, partial(_forget, entry, text))
    if not stale:
        yield Finding("registry", "ok", "no stale entry")


def _forget(entry: leftovers.DeadEntry, text: str) -> str:
    if not leftovers.forget(entry):
        raise RalphError("a runner has just been started")
    return f"{text}: removed"


def loops(place: Place) -> Findings:
    for loop in place.loops:
        status = loop_status(loop)
        if status.shown == "stale":
            hint = f"ralph-rpc kill {loop.name}, then ralph-rpc resume {loop.name}"
            yield Finding("loops", "warn", f"the runner of {loop.name} lives but does not answer", hint)
        if status.shown == "crashed" and not leftovers.is_busy(loop):
            hint = f"ralph-rpc resume {loop.name}, or ralph-rpc clean {loop.name}"
            yield Finding("loops", "warn", f"{loop.name} has crashed: its runner is gone", hint)


def temporary(place: Place) -> Findings:
    """The folder that pi's tools had as TMPDIR, and files whose writer died before they got their name."""
    for loop in place.dead_loops():
        for folder in leftovers.temp_dirs(loop):
            text, hint = f"{folder} was left by {loop.name}", "doctor --fix removes it"
            yield Finding("temp", "warn", text, hint, partial(_remove_folder, loop, folder))
    folders = [place.project / ".ralph", registry_dir()]
    for loop in place.dead_loops():
        folders += [loop.dir, loop.iterations]
    for path in leftovers.half_written(folders):
        hint = "its writer is dead and nobody reads it; doctor --fix removes it"
        yield Finding("temp", "warn", f"{path} was never finished", hint, partial(_remove_file, path))


def _remove_folder(loop: LoopPaths, folder: Path) -> str:
    with leftovers.kept_still(loop):
        if folder in leftovers.temp_dirs(loop):  # else somebody was faster
            remove_tree(folder)
    return f"removed {folder}, left by {loop.name}"


def _remove_file(path: Path) -> str:
    path.unlink(missing_ok=True)
    return f"removed {path}, which was never finished"
