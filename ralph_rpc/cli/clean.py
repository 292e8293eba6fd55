"""`ralph-rpc clean`: removes or archives what ended loops left, and only after it has said what.

What may be removed, and how, is decided in `ralph_rpc.loops.remains.clean`; here it is shown, and the person is asked.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.names import complete_names, loop_to_change
from ralph_rpc.errors import ENDED_IN_ERROR, OK, UsageError
from ralph_rpc.loops.find import find_project
from ralph_rpc.loops.remains.clean import How, Kept, Plan, Removed, carry_out, finish, plan_all, plan_of
from ralph_rpc.loops.remains.entries import DeadEntry, forget
from ralph_rpc.loops.remains.worktrees import worktrees_of
from ralph_rpc.terminal.inert import inert, inert_json


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)
@click.option("--archive", is_flag=True, help="Move loops to .ralph/.archive instead of deleting them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--all", "every", is_flag=True, help="All ended loops of this project, as without NAME.")
@click.option("--force", is_flag=True, help="Also remove uncommitted and unmerged work, and unread messages.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as a JSON object.")
@click.option("--project", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its loops.")
@click.pass_context
def clean(
    ctx: click.Context,
    names: tuple[str, ...],
    archive: bool,
    yes: bool,
    dry_run: bool,
    every: bool,
    force: bool,
    as_json: bool,
    project: Path | None,
) -> None:
    """Remove ended loops, their worktrees, and stale registry entries.

    Without NAME: all ended loops of this project, and every registry entry whose runner is dead. Asks first.
    """
    if names and every:
        raise UsageError("--all and a NAME exclude each other", "leave one of them out")
    how = How(archive, force)
    if names:
        plan = plan_of([loop_to_change(name, project) for name in dict.fromkeys(names)], how)
    else:
        plan = plan_all(project.resolve() if project is not None else find_project(Path.cwd()), how)
    if not as_json:
        _say(_described(plan, archive))
    removed: list[Removed] = []
    forgotten: list[DeadEntry] = []
    if dry_run:
        if as_json:
            planned = [Removed(job, None) for job in plan.jobs]
            _print_json(_report(planned, plan.kept, plan.entries))
        else:
            _say(["Nothing was removed."])
        ctx.exit(OK)
    if not plan.is_empty:
        _confirm(yes)
        for job in plan.jobs:
            done = carry_out(job, how)
            if isinstance(done, Kept):
                plan.kept.append(done)
                if not as_json:
                    _say([f"kept {done.loop.name}: {done.reason}"])
            else:
                removed.append(done)
        forgotten = [entry for entry in plan.entries if forget(entry)]
        for folder in plan.unfinished:
            finish(folder)
    if as_json:
        _print_json(_report(removed, plan.kept, forgotten))
    elif not plan.is_empty:
        verb = "archived" if archive else "removed"
        _say([f"{verb} {_count(removed, 'loop')}, removed {_count(forgotten, 'registry entry')}"])
    ctx.exit(ENDED_IN_ERROR if names and plan.kept else OK)


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was removed: there is no terminal to ask on", "to remove it without being asked: --yes"
        )
    click.confirm("Continue?", abort=True, err=True)


def _described(plan: Plan, archive: bool) -> list[str]:
    lines = []
    for job in plan.jobs:
        lines.append(f"{'archive' if archive else 'remove '}  {job.loop.name}  {job.status}  {job.loop.dir}")
        if job.branch is not None:
            lines.append(f"         and its worktree; branch {job.branch} stays")
        if tickets := len(worktrees_of(job.loop)) - 1:
            lines.append(f"         and {tickets} worktree{'s'[: tickets != 1]} of tickets; their branches stay")
        if job.risk is not None:
            lines.append(f"         LOST with it: {job.risk}")
    lines += [f"remove   registry entry {entry.what}: {entry.reason}" for entry in plan.entries]
    lines += [f"remove   {folder}, left by an earlier clean" for folder in plan.unfinished]
    lines += [f"keep     {kept.loop.name}: {kept.reason}" for kept in plan.kept]
    return lines or ["nothing to clean"]


def _report(
    removed: list[Removed], kept: list[Kept], forgotten: list[DeadEntry]
) -> dict[str, list[dict[str, str | None]]]:
    return {
        "removed": [
            {
                "name": one.job.loop.name,
                "project": str(one.job.loop.project),
                "ralphDir": str(one.job.loop.dir),
                "status": one.job.status,
                "archivedTo": str(one.archived_to) if one.archived_to else None,
                "branch": one.job.branch,
                "lost": one.job.risk,
            }
            for one in removed
        ],
        "kept": [
            {
                "name": one.loop.name,
                "project": str(one.loop.project),
                "ralphDir": str(one.loop.dir),
                "reason": one.reason,
            }
            for one in kept
        ],
        "registry": [{"file": str(one.path), "what": one.what, "reason": one.reason} for one in forgotten],
    }


def _print_json(model: object) -> None:
    click.echo(inert_json(json.dumps(model, ensure_ascii=False, indent=2)))


def _count(things: Sequence[object], noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{len(things)} {noun if len(things) == 1 else plural}"


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(inert(line, keep_newlines=False))
