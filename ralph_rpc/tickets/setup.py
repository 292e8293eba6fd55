"""What `start` and `resume` make sure of before a ticket loop begins: the tickets, the branch, the worktrees.

Raises UsageError or RalphError, with nothing made, where a loop could only fail halfway.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ralph_rpc import git
from ralph_rpc.errors import AlreadyRunning, UsageError
from ralph_rpc.files import locks, records
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git.status import status_of
from ralph_rpc.git.target import check_identity, check_target
from ralph_rpc.loops import loops_of
from ralph_rpc.model.config import Config
from ralph_rpc.tickets.markdown import MarkdownTickets, find_folder
from ralph_rpc.tickets.prompt import TicketPrompt, build, check_template
from ralph_rpc.tickets.schedule import plan
from ralph_rpc.tickets.ticket import Backlog

ONLY_FOR_TICKETS = (
    "parallel", "attempts", "only", "allow-untagged", "worktrees", "worktree-setup", "worktree-copy", "into", "merge",
    "prompt-template", "lessons-max",
)  # fmt: skip


def tickets_folder(project: Path, given: str) -> Path:
    """The folder that --tickets names, or where it is given without one, the one that `tk` would use."""
    if given:
        folder = Path(os.path.normpath(Path.cwd() / Path(given).expanduser()))
        if not folder.is_dir():
            raise UsageError(f"--tickets: {folder} is not a folder", "name the folder of the tickets, such as .tickets")
        return folder
    found = find_folder(project, os.environ)
    if found is None:
        raise UsageError(f"there is no .tickets folder in {project} or above it", "create a ticket first: tk create 'what to do'")
    return found


def check_task_loop(given: list[str]) -> None:
    """Raises UsageError where an option is given that only ticket loops have."""
    for name in given:
        if name in ONLY_FOR_TICKETS:
            raise UsageError(f"--{name} is for ticket loops", "add --tickets, or leave it out")


def ticket_config(paths: LoopPaths, config: Config, folder: Path, origins: Mapping[str, str], resume: bool) -> Config:
    """The options of a ticket loop, all that was left open decided.

    With `resume` what lies about in the project may be a ticket's own work.
    """
    project = paths.project
    worktrees = config.get("worktrees")
    parallel = config.get("parallel", 1)
    if worktrees is None:
        worktrees = parallel > 1
    if not worktrees:
        _check_serial(config, parallel)
        if not resume:
            _check_clean(project)
    if config["worktree"] is not None:
        raise UsageError("--worktree is for task loops", "tickets have worktrees of their own: --worktrees")
    if config["reflectEvery"]:
        raise UsageError("--reflect-every is for task loops", "every ticket begins with a fresh mind")
    template = config.get("promptTemplate")
    if template is not None and (problem := check_template(template)) is not None:
        raise UsageError(f"--prompt-template: {problem}")
    changes: dict[str, Any] = {
        "tickets": str(folder), "worktrees": worktrees, "allowUntagged": bool(config.get("allowUntagged")),
        "merge": config.get("merge") is not False,
    }  # fmt: skip
    if origins["max-iterations"] == "default":
        changes["maxIterations"] = 0  # the attempts at each ticket are the limit
    if worktrees:
        changes["into"] = check_target(project, config.get("into")).branch
    elif git.is_repo(project):
        check_identity(project)
    _check_alone(paths)
    return {**config, **changes}  # type: ignore[typeddict-item]


def _check_serial(config: Config, parallel: int) -> None:
    """One pi in the project itself."""
    if parallel > 1:
        raise UsageError(f"--parallel {parallel} needs worktrees", "two agents in one checkout would trample each other's files")
    for name, value in (
        ("worktree-setup", config.get("worktreeSetup")), ("worktree-copy", config.get("worktreeCopy")),
        ("into", config.get("into")), ("no-merge", config.get("merge") is False),
    ):  # fmt: skip
        if value:
            raise UsageError(f"--{name} needs worktrees", "add --worktrees, or --parallel 2 and more")


def _check_clean(project: Path) -> None:
    if git.is_repo(project) and (changed := len(status_of(project).entries)):
        raise UsageError(
            f"{project} has {changed} uncommitted file{'s'[: changed != 1]}, which the first ticket's commit would take along",
            "commit or stash, or add --worktrees",
        )


def _check_alone(paths: LoopPaths) -> None:
    """Raises AlreadyRunning where another loop of the project works on tickets."""
    if not locks.is_held(paths.tickets_lock):
        return
    others = [loop.name for loop in loops_of(paths.project) if loop.name != paths.name and _works_on_tickets(loop)]
    other = others[0] if others else "another loop"
    raise AlreadyRunning(
        f"{other!r} is working on the tickets of this project",
        f"raise its --parallel, or end it: ralph-rpc stop {other}",
    )


def _works_on_tickets(loop: LoopPaths) -> bool:
    try:
        config = records.read_config(loop)
    except Unreadable:
        return False
    return config is not None and bool(config.get("tickets")) and locks.is_held(loop.runner_lock)


def check_backlog(folder: Path, only: list[str]) -> Backlog:
    """The tickets as they are; UsageError where there is nothing to do."""
    backlog = MarkdownTickets(folder).scan()
    for id in only:
        if id not in backlog.tickets:
            bad = next((bad for bad in backlog.bad if bad.id == id), None)
            reason = f"{bad.path}, line {bad.line}: {bad.reason}" if bad else f"there is no such ticket in {folder}"
            raise UsageError(f"--only {id}: {reason}", "see: ralph-rpc tickets")
    wanted = [ticket for ticket in backlog.tickets.values() if not only or ticket.id in only]
    if all(ticket.status == "closed" for ticket in wanted):
        unread = f"; {len(backlog.bad)} cannot be read, see: ralph-rpc tickets" if backlog.bad else ""
        raise UsageError(f"there is no open ticket in {folder}{unread}", "create one first: tk create 'what to do'")
    return backlog


def first_ticket_prompt(paths: LoopPaths, config: Config) -> str:
    """The prompt of the first ticket that would start, as `start --dry-run` shows it."""
    source = MarkdownTickets(Path(config.get("tickets") or ""))
    backlog = source.scan()
    only = config.get("only", [])
    found = plan(
        backlog, {}, parallel=config.get("parallel", 1), allow_untagged=bool(config.get("allowUntagged")),
        only=frozenset(only) if only else None,
    )  # fmt: skip
    if not found.start:
        return "(no ticket can start; see: ralph-rpc tickets)"
    ticket = backlog.tickets[found.start[0]]
    worktrees = bool(config.get("worktrees"))
    return build(
        TicketPrompt(
            iteration=1, attempt=1, attempts=config.get("attempts", 3), id=ticket.id, title=ticket.title,
            text=source.text(ticket.id), path=str(ticket.path), marker=config["marker"], verify=config["verify"],
            nonce="0", worktree=worktrees, branch=f"ralph/{paths.name}/{ticket.id}" if worktrees else None,
            into=config.get("into"), template=config.get("promptTemplate"),
        )
    )  # fmt: skip
