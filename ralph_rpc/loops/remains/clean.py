"""Removing or archiving what ended loops left: what would be done, as a plan, and then each step of it.

A loop is touched only under its runner's lock. No work is lost: a worktree with uncommitted or unmerged work, and
messages that the agent has not read, keep the whole loop, unless forced; a branch always stays. No link is followed.
A loop's folder is renamed first, so that a machine that dies here leaves a whole loop or none; the next plan finishes
the removal. Called by `clean`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ralph_rpc import git
from ralph_rpc.errors import AlreadyRunning, RalphError
from ralph_rpc.files import far, registry, trust
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_empty, remove_tree
from ralph_rpc.git.ticket_trees import CLEAN
from ralph_rpc.loops.archive import free_place
from ralph_rpc.loops.consent import made_here
from ralph_rpc.loops.create import unprotect
from ralph_rpc.loops.engine_left import forget_hub, jobs_left, unadopted
from ralph_rpc.loops.find import loops_of, valid_name
from ralph_rpc.loops.hold import kept_still
from ralph_rpc.loops.remains.entries import DeadEntry, dead_entries
from ralph_rpc.loops.remains.files import temp_dirs
from ralph_rpc.loops.remains.messages import unread_messages
from ralph_rpc.loops.remains.processes import Orphan, orphans
from ralph_rpc.loops.remains.worktrees import worktrees_of
from ralph_rpc.loops.status import loop_status, read_state
from ralph_rpc.machine import locks, nofollow

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
    entries: list[DeadEntry] = field(default_factory=list)
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


def plan_of(loops: Sequence[LoopPaths], how: How) -> Plan:
    """To remove these loops. AlreadyRunning where one of them has a runner."""
    plan = Plan()
    alive = orphans({loop.project for loop in loops})
    for loop in loops:
        if locks.is_held(loop.runner_lock):
            raise AlreadyRunning(f"loop {loop.name!r} is running", f"end it first: ralph-rpc stop {loop.name}")
        _add(plan, loop, how, alive)
    return plan


def plan_all(project: Path | None, how: How) -> Plan:
    """To remove all ended loops of this project, and every registry entry whose runner is dead.

    Not those of other projects' loops that can be resumed: by their entries `list --all` and `resume --crashed` find them.
    """
    plan = Plan()
    if project is not None:
        alive = orphans({project})
        for loop in loops_of(project):
            status = loop_status(loop)
            if not status.ended or locks.is_held(loop.runner_lock):
                continue
            if status.state is None and status.shown != "unknown":
                plan.kept.append(Kept(loop, "its state.json cannot be read; give its name to remove it"))
            else:
                _add(plan, loop, how, alive)
        links = (path for path in nofollow.entries(project / ".ralph") if path.is_symlink() and valid_name(path.name))
        plan.kept += [Kept(LoopPaths(path), "its folder is a link") for path in links]
        begun = (path for path in nofollow.entries(project / ".ralph") if path.name.startswith(REMOVING))
        plan.unfinished = [path for path in begun if nofollow.is_folder(path)]
    mine = {loop.dir for loop in (*(job.loop for job in plan.jobs), *(kept.loop for kept in plan.kept))}
    plan.entries = [
        entry
        for entry in dead_entries()
        if entry.loop is None or (entry.loop.dir not in mine and (not entry.resumable or entry.loop.project == project))
    ]
    return plan


def _add(plan: Plan, loop: LoopPaths, how: How, alive: list[Orphan]) -> None:
    """Put an ended loop among those that go or those that stay."""
    if loop.dir.is_symlink():
        plan.kept.append(Kept(loop, "its folder is a link"))
        return
    status = loop_status(loop)
    if status.shown == "unknown" and not how.force:
        plan.kept.append(Kept(loop, f"its state.json was {status.problem}"))
        return
    if locks.is_held(loop.tree_lock):
        plan.kept.append(Kept(loop, "its processes are being ended; try again in a few seconds"))
        return
    if (living := _living(loop, alive)) is not None:
        plan.kept.append(Kept(loop, living))
        return
    risk, unread = _risk(loop), _unread(loop, how)
    if (waiting := unadopted(loop)) and not how.force:
        hint = f"ralph-rpc resume {loop.name} takes their work, --force loses it"
        plan.kept.append(Kept(loop, f"{waiting} of its jobs have left a record that nobody has read; {hint}"))
    elif risk is not None and not how.force:
        plan.kept.append(Kept(loop, f"its worktree has {risk}; save that, or use --force"))
    elif unread is not None and not how.force:
        hint = f"ralph-rpc resume {loop.name} delivers, --archive keeps, --force loses them"
        plan.kept.append(Kept(loop, f"it has {unread}; {hint}"))
    else:
        state = read_state(loop)
        worktree = state["worktree"] if state is not None else None
        lost = " and ".join(one for one in (risk, unread) if one is not None) or None
        plan.jobs.append(Job(loop, loop_status(loop).shown, worktree["branch"] if worktree else None, lost))


def _living(loop: LoopPaths, alive: list[Orphan]) -> str | None:
    """Why a loop must stay whose runner is dead: something that it started is not."""
    pids = ", ".join(str(orphan.pid) for orphan in alive if orphan.loop == loop)
    if pids:
        return f"processes of it still live (pid {pids}); ralph-rpc doctor --fix ends them"
    for job in far.jobs(loop) if made_here(loop) else ():
        return f"{job['job']} may still run elsewhere; ralph-rpc doctor --fix ends it"
    for record in jobs_left(loop):
        return f"a job may still work on {record['ticket']}; ralph-rpc doctor --fix ends it, resume takes it up again"
    return None


def _risk(loop: LoopPaths) -> str | None:
    found: list[str] = []
    for path in worktrees_of(loop):
        if path.name.startswith(CLEAN):
            continue
        where = "" if path == loop.worktree else f" ({path.name})"
        try:
            risk = git.worktree_risk(loop.project, path, _settings(loop))
        except RalphError as error:
            risk = f"content that cannot be judged ({error.message})"
        if risk is not None:
            found.append(risk + where)
    return " and ".join(found) or None


def _settings(loop: LoopPaths) -> tuple[str, ...]:
    """For git, in the worktrees of a loop that was not started here: what its repository names is not run."""
    return () if made_here(loop) else git.without_filters(loop.project)


def _unread(loop: LoopPaths, how: How) -> str | None:
    try:
        count = 0 if how.archive else unread_messages(loop)
    except OSError as error:
        return f"messages that cannot be read ({error.strerror})"
    return f"{count} message{'s'[: count != 1]} that the agent has not read" if count else None


def carry_out(job: Job, how: How) -> Removed | Kept:
    """Removes or archives one loop; Kept where that has become impossible since the plan was made."""
    loop = job.loop
    try:
        with kept_still(loop):
            # The person may have taken long to answer: a runner may have lived and died in the meantime.
            if (living := _living(loop, orphans({loop.project}, loop))) is not None:
                return Kept(loop, living)
            if not how.force and _unread(loop, how) is not None:
                return Kept(loop, "a message has just come for it")
            _remove_worktree(job, how.force)
            for found in registry.entries()[0]:
                if found.entry["ralphDir"] == str(loop.dir):
                    registry.remove(found.path)
            for temp in temp_dirs(loop):
                remove_tree(temp)
            forget_hub(loop)
            archived_to = _move_away(loop, how.archive)
            trust.forget_loop(loop)
        unprotect(loop.project)
        return Removed(job, archived_to)
    except RalphError as error:
        return Kept(loop, error.message)
    except OSError as error:
        return Kept(loop, f"{error.strerror}: {error.filename}")


def _remove_worktree(job: Job, force: bool) -> None:
    loop = job.loop
    for path in worktrees_of(loop):
        if path == loop.worktree and job.branch is None and not nofollow.exists(path):
            continue
        try:
            git.remove_worktree(loop.project, path, force or path.name.startswith(CLEAN), _settings(loop))
        except RalphError:
            # Without a repository there is nothing to tell git, and the folder goes with the loop.
            if git.is_repo(loop.project) or (nofollow.exists(path) and not force):
                raise
        if path != loop.worktree:
            remove_empty(path.parent, path.parent.parent)


def _move_away(loop: LoopPaths, archive: bool) -> Path | None:
    """Take the loop's folder from its place in one step."""
    if not archive:
        doomed = loop.dir.with_name(f"{REMOVING}{loop.name}-{time.time_ns()}")
        nofollow.rename(loop.dir, doomed)
        remove_tree(doomed)
        return None
    place = free_place(loop)
    nofollow.rename(loop.dir, place)
    return place


def finish(doomed: Path) -> None:
    """Ends a removal that an earlier clean began. RalphError where that cannot be done."""
    try:
        remove_tree(doomed)
    except FileNotFoundError:
        pass  # the clean that began it is still running
    except OSError as error:
        raise RalphError(f"{doomed} cannot be removed: {error.strerror}: {error.filename}") from error
