"""`ralph-rpc start`: creates a loop, starts its runner, and says where things are.

Everything that can be checked is checked before anything is made. The runner is detached: this command may
be ended at any time, and the loop continues (except with --foreground, where Ctrl-C also ends the loop).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ralph_rpc.cli.consent import asking
from ralph_rpc.cli.dry_run import show_plan
from ralph_rpc.cli.grouped import TaskCommand, task_options
from ralph_rpc.cli.interrupts import held
from ralph_rpc.cli.launched import attend, warn
from ralph_rpc.cli.task_source import keep, task_text
from ralph_rpc.errors import OK, UsageError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import start as starting
from ralph_rpc.loops.find import project_of
from ralph_rpc.story.notifications import DESKTOP, desktop_notifier
from ralph_rpc.terminal.inert import inert


@click.command(cls=TaskCommand)
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[TASK]...")
@click.option("--task", metavar="FILE", help="The file that holds the task; - is stdin.")
@click.option("-m", "--message", metavar="TEXT", help="The task itself.")
@click.option(
    "--tickets", is_flag=False, flag_value="", metavar="[DIR]", help="Work through the tickets in .tickets, or in DIR."
)
@click.option("--foreground", is_flag=True, help="Stay and show what happens; the exit code tells the outcome.")
@click.option("--attach", "attached", is_flag=True, help="Show it live, with an input line, as attach does.")
@click.option("--dry-run", is_flag=True, help="Show pi's command, the prompt and all options; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option(
    "--project",
    type=click.Path(path_type=Path),
    help="The project's folder [the nearest one above with a .ralph, else this one].",
)
@task_options
@click.pass_context
def start(
    ctx: click.Context,
    /,
    name: str,
    words: tuple[str, ...],
    task: str | None,
    message: str | None,
    tickets: str | None,
    foreground: bool,
    attached: bool,
    dry_run: bool,
    as_json: bool,
    project: Path | None,
    **cli: Any,
) -> None:
    """Create the loop NAME in this project and start it.

    The task comes from TASK, -m, --task, .ralph/NAME/task.md, or your editor; with --tickets, from a backlog of
    tickets as tk keeps it. A file is copied to .ralph/NAME/task.md, which the agent reads and ticks. A loop of
    that name that has ended makes room: its files move to .ralph/.archive.

    An option can also stand in the environment (--max-cost as RALPH_MAX_COST), in the project's
    .ralph/config.toml and in the user's config.toml (max-cost = 5); --dry-run shows what counts and why.
    """
    if words and message is not None:
        raise UsageError("the task stands twice, in -m and behind the name", "leave one of them out")
    message = " ".join(words) if words else message
    if foreground and as_json:
        raise UsageError("--foreground and --json exclude each other", "see: ralph-rpc logs NAME -f --json")
    if attached and (foreground or as_json or dry_run):
        raise UsageError("--attach excludes --foreground, --json and --dry-run", "leave one of them out")
    if attached and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--attach needs a terminal", "leave it out, or use --foreground")
    where = project if project is not None else project_of(Path.cwd())
    plan = asking(lambda: starting.check(name, where, cli, tickets, task or message, only_look=dry_run))
    paths = plan.paths
    if project is None and where != Path.cwd():
        told = f"project {where}: its .ralph is the nearest one above; to make this folder a project of its own: --project ."
        click.echo(inert(told, keep_newlines=False), err=as_json)
    warn(plan.warnings)
    if plan.config.get("notify") == DESKTOP and desktop_notifier() is None:
        missing = "this system has no notifier (notify-send); no notification will be sent"
        click.echo(f"ralph-rpc: --notify desktop: {missing}", err=True)
    text = task_text(paths, task, message) if tickets is None else None
    if dry_run:
        show_plan(plan, text, as_json)
        return
    typed = text if task is None and message is None else None
    with _task_survives(paths, typed):
        if foreground:
            interrupts, (creation, runner) = held(lambda: starting.start(plan, text))
        else:
            interrupts, (creation, runner) = None, starting.start(plan, text)
        code = attend(paths, runner, interrupts, as_json, creation)
    if task not in (None, "-") and text is not None and code == OK and not foreground and not as_json:
        click.echo(inert(f"  task    {paths.task}, a copy of {task}", keep_newlines=False))
    if creation.archived_to is not None and not foreground and not as_json:
        click.echo(inert(f"  before  {creation.archived_to}", keep_newlines=False))
    if attached and code == OK:
        # Here, because nothing else needs what it takes to draw on a terminal.
        from ralph_rpc.cli.attach import attach_to

        attach_to(paths)
    ctx.exit(code)


@contextmanager
def _task_survives(paths: LoopPaths, typed: str | None) -> Iterator[None]:
    """A task that came from the editor exists nowhere else: where the start fails, it is kept."""
    try:
        yield
    except BaseException:
        if typed is not None:
            click.echo(inert(f"Your task is kept in {keep(paths, typed)}", keep_newlines=False), err=True)
        raise
