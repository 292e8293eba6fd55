"""`ralph-rpc clean`: removes or archives what ended loops left, and only after it has said what.

A loop is touched only under its runner's lock. No work is lost by it: a worktree with uncommitted or unmerged
work, and messages that the agent has not read, keep the whole loop, unless `--force`; a branch always stays. No
link is followed. A loop's folder is renamed first, so that a machine that dies here leaves a whole loop or none;
the next `clean` finishes the removal.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from ralph_rpc import git, leftovers
from ralph_rpc.errors import ENDED_IN_ERROR, OK, AlreadyRunning, RalphError, UsageError
from ralph_rpc.files import locks, registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_tree
from ralph_rpc.loops import complete_names, find_project, loop_status, loops_of, resolve_loop
from ralph_rpc.text import inert, inert_json

ARCHIVE = ".archive"
REMOVING = ".removing-"
"""Begins the name of a loop's folder while it is deleted."""


@dataclass(frozen=True)
class How:
    """What the person wants."""

    archive: bool
    force: bool


@dataclass(frozen=True)
class Job:
    """A loop to be removed."""

    loop: LoopPaths
    status: str
    branch: str | None
    """Of its worktree, where it has one."""
    risk: str | None
    """What is lost with it: only with --force."""


@dataclass(frozen=True)
class Kept:
    """A loop that stays, and why."""

    loop: LoopPaths
    reason: str


@dataclass
class Plan:
    """All that would be done."""

    jobs: list[Job] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    entries: list[leftovers.DeadEntry] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    """Folders of loops that an earlier clean had begun to delete."""

    @property
    def is_empty(self) -> bool:
        return not (self.jobs or self.entries or self.unfinished)


@dataclass(frozen=True)
class Removed:
    """A loop that is gone from its place."""

    job: Job
    archived_to: Path | None


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)
@click.option("--archive", is_flag=True, help="Move loops to .ralph/.archive instead of deleting them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Remove uncommitted and unmerged work, and unread messages, too.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as a JSON object.")
@click.option("--project", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its loops.")
@click.pass_context
def clean(
    ctx: click.Context,
    names: tuple[str, ...],
    archive: bool,
    yes: bool,
    force: bool,
    as_json: bool,
    project: Path | None,
) -> None:
    """Remove ended loops, their worktrees, and stale registry entries.

    Without NAME: all ended loops of this project, and every registry entry whose runner is dead. Asks first.
    """
    how = How(archive, force)
    plan = _plan_named(names, project, how) if names else _plan_all(project, how)
    if not as_json:
        _say(_described(plan, archive))
    removed: list[Removed] = []
    forgotten: list[leftovers.DeadEntry] = []
    if not plan.is_empty:
        _confirm(yes)
        for job in plan.jobs:
            done = _carry_out(job, how)
            if isinstance(done, Kept):
                plan.kept.append(done)
                if not as_json:
                    _say([f"kept {done.loop.name}: {done.reason}"])
            else:
                removed.append(done)
        forgotten = [entry for entry in plan.entries if leftovers.forget(entry)]
        for folder in plan.unfinished:
            _finish(folder)
    if as_json:
        click.echo(
            inert_json(json.dumps(_report(removed, plan.kept, forgotten), ensure_ascii=False, indent=2))
        )
    elif not plan.is_empty:
        verb = "archived" if archive else "removed"
        _say([f"{verb} {_count(removed, 'loop')}, removed {_count(forgotten, 'registry entry')}"])
    ctx.exit(ENDED_IN_ERROR if names and plan.kept else OK)


def _plan_named(names: Sequence[str], project: Path | None, how: How) -> Plan:
    plan = Plan()
    loops = [resolve_loop(name, project) for name in dict.fromkeys(names)]
    alive = leftovers.orphans({loop.project for loop in loops})
    for loop in loops:
        if locks.is_held(loop.runner_lock):
            raise AlreadyRunning(
                f"loop {loop.name!r} is running", f"end it first: ralph-rpc stop {loop.name}"
            )
        _add(plan, loop, how, alive)
    return plan


def _plan_all(folder: Path | None, how: How) -> Plan:
    plan = Plan()
    project = folder.resolve() if folder is not None else find_project(Path.cwd())
    if project is not None:
        alive = leftovers.orphans({project})
        for loop in loops_of(project):
            status = loop_status(loop)
            if not status.ended or locks.is_held(loop.runner_lock):
                continue
            if status.state is None:
                plan.kept.append(Kept(loop, "its state.json cannot be read; give its name to remove it"))
            else:
                _add(plan, loop, how, alive)
        begun = sorted((project / ".ralph").glob(f"{REMOVING}*"))
        plan.unfinished = [path for path in begun if path.is_dir() and not path.is_symlink()]
    mine = {loop.dir for loop in (*(job.loop for job in plan.jobs), *(kept.loop for kept in plan.kept))}
    plan.entries = [
        entry for entry in leftovers.dead_entries() if entry.loop is None or entry.loop.dir not in mine
    ]
    return plan


def _add(plan: Plan, loop: LoopPaths, how: How, orphans: list[leftovers.Orphan]) -> None:
    """Put an ended loop among those that go or those that stay."""
    if loop.dir.is_symlink():
        plan.kept.append(Kept(loop, "its folder is a link"))
        return
    if locks.is_held(loop.tree_lock):
        plan.kept.append(Kept(loop, "its processes are being ended; try again in a few seconds"))
        return
    if (living := _living(loop, orphans)) is not None:
        plan.kept.append(Kept(loop, living))
        return
    risk, unread = _risk(loop), _unread(loop, how)
    if risk is not None and not how.force:
        plan.kept.append(Kept(loop, f"its worktree has {risk}; save that, or use --force"))
    elif unread is not None and not how.force:
        hint = f"ralph-rpc resume {loop.name} delivers, --archive keeps, --force loses them"
        plan.kept.append(Kept(loop, f"it has {unread}; {hint}"))
    else:
        state = leftovers.read_state(loop)
        worktree = state["worktree"] if state is not None else None
        lost = " and ".join(one for one in (risk, unread) if one is not None) or None
        plan.jobs.append(Job(loop, loop_status(loop).shown, worktree["branch"] if worktree else None, lost))


def _living(loop: LoopPaths, orphans: list[leftovers.Orphan]) -> str | None:
    """Why a loop must stay whose runner is dead: something that it started is not."""
    pids = ", ".join(str(orphan.pid) for orphan in orphans if orphan.loop == loop)
    return f"processes of it still live (pid {pids}); ralph-rpc doctor --fix ends them" if pids else None


def _risk(loop: LoopPaths) -> str | None:
    found: list[str] = []
    for path in leftovers.worktrees_of(loop):
        where = "" if path == loop.worktree else f" ({path.name})"
        try:
            risk = git.worktree_risk(loop.project, path)
        except RalphError as error:
            risk = f"content that cannot be judged ({error.message})"
        if risk is not None:
            found.append(risk + where)
    return " and ".join(found) or None


def _unread(loop: LoopPaths, how: How) -> str | None:
    try:
        count = 0 if how.archive else leftovers.unread_messages(loop)
    except OSError as error:
        return f"messages that cannot be read ({error.strerror})"
    return f"{count} message{'s'[: count != 1]} that the agent has not read" if count else None


def _carry_out(job: Job, how: How) -> Removed | Kept:
    loop = job.loop
    try:
        with leftovers.kept_still(loop):
            # The question may have stood for long: a runner may have lived and died in the meantime.
            if (living := _living(loop, leftovers.orphans({loop.project}, loop))) is not None:
                return Kept(loop, living)
            if not how.force and _unread(loop, how) is not None:
                return Kept(loop, "a message has just come for it")
            _remove_worktree(job, how.force)
            for found in registry.entries()[0]:
                if found.entry["ralphDir"] == str(loop.dir):
                    registry.remove(found.path)
            for temp in leftovers.temp_dirs(loop):
                remove_tree(temp)
            return Removed(job, _move_away(loop, how.archive))
    except RalphError as error:
        return Kept(loop, error.message)
    except OSError as error:
        return Kept(loop, f"{error.strerror}: {error.filename}")


def _remove_worktree(job: Job, force: bool) -> None:
    loop = job.loop
    for path in leftovers.worktrees_of(loop):
        if path == loop.worktree and job.branch is None and not path.exists():
            continue
        try:
            git.remove_worktree(loop.project, path, force)
        except RalphError:
            # Without a repository there is nothing to tell git, and the folder goes with the loop.
            if git.is_repo(loop.project) or (path.exists() and not force):
                raise


def _move_away(loop: LoopPaths, archive: bool) -> Path | None:
    """Take the loop's folder from its place in one step."""
    if not archive:
        doomed = loop.dir.with_name(f"{REMOVING}{loop.name}-{time.time_ns()}")
        loop.dir.rename(doomed)
        remove_tree(doomed)
        return None
    kept_in = loop.dir.parent / ARCHIVE
    kept_in.mkdir(mode=0o700, exist_ok=True)
    place = kept_in / f"{loop.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if place.exists():
        place = place.with_name(f"{place.name}-{time.time_ns()}")
    loop.dir.rename(place)
    return place


def _finish(doomed: Path) -> None:
    try:
        remove_tree(doomed)
    except FileNotFoundError:
        pass  # the clean that began it is still at it
    except OSError as error:
        raise RalphError(f"{doomed} cannot be removed: {error.strerror}: {error.filename}") from error


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nothing was removed: there is no terminal to ask on", "--yes answers the question")
    click.confirm("Go on?", abort=True, err=True)


def _described(plan: Plan, archive: bool) -> list[str]:
    lines = []
    for job in plan.jobs:
        lines.append(f"{'archive' if archive else 'remove '}  {job.loop.name}  {job.status}  {job.loop.dir}")
        if job.branch is not None:
            lines.append(f"         and its worktree; branch {job.branch} stays")
        if tickets := len(leftovers.worktrees_of(job.loop)) - 1:
            lines.append(f"         and {tickets} worktree{'s'[: tickets != 1]} of tickets; their branches stay")
        if job.risk is not None:
            lines.append(f"         LOST with it: {job.risk}")
    lines += [f"remove   registry entry {entry.what}: {entry.reason}" for entry in plan.entries]
    lines += [f"remove   {folder}, left of an earlier clean" for folder in plan.unfinished]
    lines += [f"keep     {kept.loop.name}: {kept.reason}" for kept in plan.kept]
    return lines or ["nothing to clean"]


def _report(
    removed: list[Removed], kept: list[Kept], forgotten: list[leftovers.DeadEntry]
) -> dict[str, list[dict[str, str | None]]]:
    return {
        "removed": [
            {
                "name": one.job.loop.name,
                "ralphDir": str(one.job.loop.dir),
                "status": one.job.status,
                "archivedTo": str(one.archived_to) if one.archived_to else None,
                "branch": one.job.branch,
                "lost": one.job.risk,
            }
            for one in removed
        ],
        "kept": [
            {"name": one.loop.name, "ralphDir": str(one.loop.dir), "reason": one.reason} for one in kept
        ],
        "registry": [{"file": str(one.path), "what": one.what, "reason": one.reason} for one in forgotten],
    }


def _count(things: Sequence[object], noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{len(things)} {noun if len(things) == 1 else plural}"


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(inert(line, keep_newlines=False))
