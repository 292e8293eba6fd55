"""`ralph-rpc start`: creates a loop, starts its runner, and says where things are.

Everything that can be checked is checked before anything is made. The runner is detached: this command may
be ended at any time, and the loop goes on (except with --foreground, where Ctrl-C ends the loop, too).
"""

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import orjson

from ralph_rpc import create, git, options
from ralph_rpc.errors import ENDED_IN_ERROR, INTERRUPTED, OK, PiUnusable, RalphError, UsageError
from ralph_rpc.files import inbox, locks, registry
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.launch import Launched, await_started, launch
from ralph_rpc.loops import LoopStatus, check_name, loop_status
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import ENDED, State
from ralph_rpc.notify import DESKTOP, desktop_notifier
from ralph_rpc.option_kinds import read_text
from ralph_rpc.pi_argv import pi_argv
from ralph_rpc.pi_install import check_version, find_pi, numbers, probe_version
from ralph_rpc.prompt import DEFAULT_REFLECT, first_prompt
from ralph_rpc.tasks import keep, task_text
from ralph_rpc.text import inert, inert_json
from ralph_rpc.tickets.setup import (
    check_backlog,
    check_task_loop,
    first_ticket_prompt,
    ticket_config,
    tickets_folder,
)

START_PATIENCE_S = 90.0
APPROVE_SINCE = "0.79.0"


@click.command(cls=options.OptionsCommand)
@click.argument("name")
@click.option("--task", metavar="FILE", help="The file that holds the task; - is stdin.")
@click.option("-m", "--message", metavar="TEXT", help="The task itself.")
@click.option(
    "--tickets", is_flag=False, flag_value="", metavar="[DIR]", help="Work off the tickets in .tickets, or in DIR."
)
@click.option(
    "--foreground", is_flag=True, help="Stay and show what happens; the exit code tells the outcome."
)
@click.option("--attach", "attached", is_flag=True, help="Show it live, with an input line, as attach does.")
@click.option("--dry-run", is_flag=True, help="Show pi's command, the prompt and all options; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--project", type=click.Path(path_type=Path), help="The project's folder [the current one].")
@options.click_options
@click.pass_context
def start(
    ctx: click.Context,
    /,
    name: str,
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

    The task comes from -m, --task, .ralph/NAME/task.md, or your editor; with --tickets, from a backlog of
    tickets as tk keeps it. A loop of that name that has ended makes room: its files move to .ralph/.archive.

    An option can also stand in the environment (--max-cost as RALPH_MAX_COST), in the project's
    .ralph/config.toml and in the user's config.toml (max-cost = 5); --dry-run shows what counts and why.
    """
    check_name(name)
    if foreground and as_json:
        raise UsageError("--foreground and --json exclude each other", "see: ralph-rpc logs NAME -f --json")
    if attached and (foreground or as_json or dry_run):
        raise UsageError("--attach excludes --foreground, --json and --dry-run", "leave one of them out")
    if attached and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--attach needs a terminal", "leave it out, or use --foreground")
    paths = LoopPaths.of((project or Path.cwd()).expanduser().resolve(), name)
    create.check_writable(paths.project)
    resolved = options.resolve(cli, paths.project, os.environ)
    config = with_pi(resolved.config)
    create.check_startable(paths)
    if config.get("notify") == DESKTOP and desktop_notifier() is None:
        click.echo("ralph-rpc: --notify desktop: this system has no notifier (notify-send); nobody is told", err=True)
    if tickets is not None:
        config = for_tickets(paths, config, resolved, tickets, task or message)
    else:
        check_task_loop(options.given(cli))
    if config["worktree"] is not None:
        git.check_worktree(paths.project, paths.worktree, config["worktree"])
    text = task_text(paths, task, message) if tickets is None else None
    reflect = _reflection(paths, resolved) if config["reflectEvery"] else None
    if dry_run:
        _show_plan(paths, resolved, config, text, reflect, as_json)
        return
    typed = text if task is None and message is None else None
    with _task_survives(paths, typed):
        creation, runner = launched(paths, config, text, reflect)
        code = attend(paths, runner, foreground, as_json, creation)
    if creation.archived_to is not None and not foreground and not as_json:
        click.echo(inert(f"  before  {creation.archived_to}", keep_newlines=False))
    if attached and code == OK:
        # Here, because nobody else needs what it takes to draw a terminal.
        from ralph_rpc.cli.attach import attach_to

        attach_to(paths)
    ctx.exit(code)


def for_tickets(
    paths: LoopPaths, config: Config, resolved: options.Resolved, folder: str, task: str | None
) -> Config:
    """The options of a ticket loop; UsageError where it could not do anything."""
    if task is not None:
        raise UsageError("a ticket loop's tasks are its tickets", "leave --task and --message out, or --tickets")
    found = tickets_folder(paths.project, folder)
    config = ticket_config(paths, config, found, resolved.origins, resume=False)
    check_backlog(found, config.get("only", []))
    return config


def _reflection(paths: LoopPaths, resolved: options.Resolved) -> str:
    """The reflection prompt: the one given, else the loop's own, else ours."""
    if resolved.reflect is not None:
        return resolved.reflect
    return read_text(paths.reflect) if paths.reflect.exists() else DEFAULT_REFLECT


def launched(
    paths: LoopPaths, config: Config, text: str | None, reflect: str | None
) -> tuple[create.Creation, Launched]:
    """Makes the loop and starts its runner; a failure leaves nothing behind."""
    creation = create.create(paths, config, text, reflect)
    try:
        if config["worktree"] is not None:
            creation.with_worktree = not paths.worktree.exists()
            git.add_worktree(paths.project, paths.worktree, config["worktree"])
        return creation, launch(paths, creation.lock, resume=False)
    except BaseException:
        creation.undo()
        creation.lock.release()
        raise


@contextmanager
def _task_survives(paths: LoopPaths, typed: str | None) -> Iterator[None]:
    """A task that came from the editor exists nowhere else: where the start fails, it is kept."""
    try:
        yield
    except BaseException:
        if typed is not None:
            click.echo(inert(f"Your task is kept in {keep(paths, typed)}", keep_newlines=False), err=True)
        raise


def with_pi(config: Config) -> Config:
    """The options with the pi that is really there; PiUnusable or UsageError where it cannot serve."""
    # The last word: a stored command may be node and pi's script, and node may have been updated since.
    pi = find_pi(config["pi"][-1] if config["pi"] else None)
    version = pi.version
    if version is None:
        # Only for wrappers, whose package cannot be found: asking costs a second.
        version = probe_version(pi)
        if version is None:
            raise PiUnusable(
                f"{pi.command[-1]} does not say a version of pi", "Is it pi? Try it with --version"
            )
    check_version(type(pi)(pi.command, version, pi.source))
    config = {**config, "pi": pi.command, "piVersion": version}
    check_approve(config)
    return config


def check_approve(config: Config) -> None:
    """Raises UsageError where pi would end at once because it does not know --approve."""
    version = config["piVersion"]
    if config["approve"] is not None and version is not None and numbers(version) < numbers(APPROVE_SINCE):
        flag = "--approve" if config["approve"] else "--no-approve"
        raise UsageError(
            f"pi {version} does not know {flag}",
            f"it needs {APPROVE_SINCE}; older pi always trusts the project",
        )


def attend(
    paths: LoopPaths,
    runner: Launched,
    foreground: bool,
    as_json: bool,
    creation: create.Creation | None,
    offset: int = 0,
) -> int:
    """Waits until the loop works and says where things are, or stays with it; returns the exit code.

    `offset` is where the log of this run begins. Raises RalphError where pi could not be used.
    """
    if foreground:
        return _stay(paths, runner, creation, offset)
    try:
        state = begun(paths, runner, creation)
    except KeyboardInterrupt:
        click.echo(
            f"\n{paths.name} goes on starting by itself; end it with: ralph-rpc stop {paths.name} --now",
            err=True,
        )
        raise
    if as_json:
        shown = state or {"name": paths.name, "ralphDir": str(paths.dir), "status": "starting"}
        click.echo(inert_json(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode()))
        return ENDED_IN_ERROR if state is not None and state["status"] == "error" else OK
    if state is None or state["status"] not in ENDED:
        _say_where(paths, runner.pid, state)
        return OK
    reason = state["error"] or state["stopReason"]
    if state["status"] == "error":
        raise RalphError(f"loop {paths.name!r} ended in error: {reason}", f"see: ralph-rpc logs {paths.name}")
    click.echo(inert(f"{paths.name}: {state['status']} already ({reason})", keep_newlines=False))
    return OK


def begun(paths: LoopPaths, runner: Launched, creation: create.Creation | None) -> State | None:
    """The state once the loop works, None where that takes too long. RalphError where pi was of no use."""
    state = await_started(paths, runner, START_PATIENCE_S)
    if state is not None and state["status"] == "error" and _never_worked(state):
        if creation is not None:
            _withdraw(creation)
        raise PiUnusable(state["error"] or "pi cannot be used", "Nothing was started")
    return state


def _never_worked(state: State) -> bool:
    """True if no model has answered, in this run or any before it."""
    # A ticket may fail before any model is asked, by its worktree.
    reasons = ("auth", "crash") if state["kind"] == "tickets" else ("auth", "crash", "failures")
    by_itself = state["stopReason"] in reasons
    return by_itself and state["stats"]["turns"] <= 1 and state["stats"]["tokensOut"] == 0


def _withdraw(creation: create.Creation) -> None:
    """Nothing half-created is left behind by a start whose pi could not be used."""
    paths = creation.paths
    lock = locks.acquire(paths.runner_lock, 10.0)
    # Without the lock, somebody else has begun here already.
    if lock is not None:
        with lock:
            registry.remove(registry.entry_path(paths.project, paths.name))
            creation.undo()
            creation.archived_to = None


def _say_where(paths: LoopPaths, pid: int, state: State | None) -> None:
    where = "" if paths.project == Path.cwd() else f" --project {shlex.quote(str(paths.project))}"
    name = paths.name + where
    status = state["status"] if state else "still starting"
    tickets = state is not None and state["kind"] == "tickets"
    lines = [
        f"{paths.name}: {status}, runner {pid}"
        + (f", pi {state['piVersion']}, {state['model']}" if state else ""),
        f"  files   {paths.dir}",
        f"  watch   ralph-rpc attach {name}       ralph-rpc {'tickets' if tickets else 'status'} {name}",
        f"  steer   ralph-rpc steer {name}{' --ticket ID' if tickets else ''} 'what to do instead'",
        f"  stop    ralph-rpc stop {name}      (after this iteration; --now: at once)",
    ]
    click.echo(inert("\n".join(lines)))


def _stay(paths: LoopPaths, runner: Launched, creation: create.Creation | None, offset: int) -> int:
    """Shows the loop until it ends; the exit code tells how.

    Ctrl-C or SIGTERM ends the loop, a second one kills it.
    """
    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        # Here, because a detached start, for which somebody waits, needs none of it; and within, because the loop runs
        # already: Ctrl-C must end it from now on.
        from ralph_rpc.cli.logs import follow
        from ralph_rpc.cli.wait import await_end, outcome_code

        state = begun(paths, runner, creation)
        try:
            if state is not None and state["kind"] == "tickets" and sys.stdout.isatty():
                _show_tickets(paths, offset)
            else:
                follow(paths, sys.stdout, offset)
        except BrokenPipeError:
            # Nobody looks any more, but somebody waits for the outcome.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return outcome_code(await_end(paths).shown)
    except KeyboardInterrupt:
        click.echo("\nending the loop; once more kills it", err=True)
    from ralph_rpc.cli.control import end_runner
    from ralph_rpc.cli.wait import await_end

    try:
        if loop_status(paths).runner != "dead":
            inbox.drop(paths.inbox, "stop", {"when": "now"})
            await_end(paths)
    except KeyboardInterrupt:
        if loop_status(paths).runner != "dead":
            end_runner(paths)
    return INTERRUPTED


def _show_tickets(paths: LoopPaths, offset: int) -> None:
    """Until the end: what becomes of the tickets, line by line, above a bar. Agents that talk at once are no sight."""
    from ralph_rpc.cli.bar import Bar
    from ralph_rpc.cli.logs import Steps
    from ralph_rpc.cli.wait import await_end

    with Bar(sys.stdout) as bar, Steps(paths, sys.stdout, offset) as told:

        def look(found: LoopStatus) -> None:
            if told.waiting():
                bar.clear()
                told.write()
            bar.show(found)

        await_end(paths, look=look)


def _show_plan(
    paths: LoopPaths,
    resolved: options.Resolved,
    config: Config,
    text: str | None,
    reflect: str | None,
    as_json: bool,
) -> None:
    """What `start` would do."""
    cwd = git.project_in(paths.worktree, paths.project) if config["worktree"] else paths.project
    argv = pi_argv(config, paths.sessions)
    if config.get("tickets"):
        prompt = first_ticket_prompt(paths, config)
    else:
        task = text if text is not None else read_text(paths.task)
        told = str(paths.task if config["worktree"] else paths.task.relative_to(paths.project))
        prompt = first_prompt(config, task, told, reflect)
    values: Mapping[str, Any] = {**config, "reflect": resolved.reflect}
    effective = {
        option.name: {"value": values[option.key or option.name], "origin": resolved.origins[option.name]}
        for option in options.OPTIONS
    }
    if as_json:
        plan = {"argv": argv, "cwd": str(cwd), "prompt": prompt, "options": effective}
        click.echo(inert_json(orjson.dumps(plan, option=orjson.OPT_INDENT_2).decode()))
        return
    width = max(map(len, effective)) + 2
    rows = "\n".join(
        f"  {name:{width}}{orjson.dumps(one['value']).decode():<34} {one['origin']}"
        for name, one in effective.items()
    )
    plan_text = f"pi:\n  {shlex.join(argv)}\nin:\n  {cwd}\n\noptions:\n{rows}\n\nprompt:\n\n{prompt}"
    click.echo(inert(f"{plan_text}\n\nNothing was started."))
