"""`ralph-rpc doctor`: checks what a loop needs and what dead ones left behind, and says what to do about it.

Without --fix it changes nothing. With it, it fixes only what can harm neither a living loop nor work: every repair
is made under the lock of its loop. It can be interrupted at any moment and run again.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from ralph_rpc.checks import folders, inboxes, logs, machine, pi_extension, records, remains, trust, worktrees
from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.cli.command import Command
from ralph_rpc.errors import ENDED_IN_ERROR, OK, RalphError
from ralph_rpc.loops.find import find_project, loops_of
from ralph_rpc.terminal.colour import Style, paint, wants_colour
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.width import pad

STYLES: dict[str, Style] = {"ok": "green", "warn": "yellow", "fail": "red"}

# Processes first: what they might still write to is repaired after them.
CHECKS: tuple[Callable[[Place], Findings], ...] = (
    machine.python,
    machine.pi,
    trust.consent,
    machine.login,
    machine.project_settings,
    pi_extension.pi_extension,
    machine.node,
    machine.npm,
    machine.git_program,
    machine.identity,
    machine.inotify,
    machine.disk,
    folders.registry_folder,
    folders.permissions,
    remains.orphans,
    remains.elsewhere,
    remains.jobs,
    remains.registry_entries,
    remains.loops,
    records.unreadable,
    remains.temporary,
    logs.torn,
    inboxes.claims,
    inboxes.half_written,
    worktrees.left_worktrees,
    worktrees.worktrees_of_gone_projects,
    worktrees.git_locks,
    worktrees.interrupted_merges,
)


@click.command(cls=Command)
@click.option("--fix", is_flag=True, help="Fix what can be fixed safely.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
@click.option("--project", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The project to check.")
@click.pass_context
def doctor(ctx: click.Context, fix: bool, as_json: bool, project: Path | None) -> None:
    """Check this machine, this project and its loops. Exit code 1 if something is wrong."""
    folder = project.resolve() if project is not None else find_project(Path.cwd()) or Path.cwd()
    place = Place(folder, loops_of(folder))
    found = []
    for check in CHECKS:
        for seen in check(place):
            finding = _fixed(seen) if fix else seen
            found.append(finding)
            if not as_json:
                _show(finding)
    if as_json:
        click.echo(inert_json(json.dumps([finding.as_json() for finding in found], ensure_ascii=False, indent=2)))
    ctx.exit(ENDED_IN_ERROR if any(finding.level == "fail" for finding in found) else OK)


def _fixed(finding: Finding) -> Finding:
    """The finding after its repair, if it has one; why it could not be fixed becomes the hint."""
    if finding.repair is None:
        return finding
    try:
        return replace(finding, level="ok", message=finding.repair(), hint="", fixed=True)
    except RalphError as error:
        return replace(finding, hint=f"not fixed: {error.message}")
    except OSError as error:
        return replace(finding, hint=f"not fixed: {error.strerror}: {error.filename}")


def _show(finding: Finding) -> None:
    colour = wants_colour(sys.stdout)
    level = paint(pad(finding.level, 4), STYLES[finding.level], colour)
    click.echo(f"{level}  {pad(finding.check, 11)}  {inert(finding.message, keep_newlines=False)}", color=colour)
    if finding.hint:
        click.echo(f"{' ' * 19}{inert(finding.hint, keep_newlines=False)}")
