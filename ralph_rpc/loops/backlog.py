"""What is checked before a ticket loop starts or resumes: its options, its tickets, the branch, the worktrees.

Called by `start` and `resume`. Raises UsageError or RalphError, with nothing made, where a loop could only fail halfway.
What a person should know, although it forbids nothing, is in `backlog_news.py`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ralph_rpc import git
from ralph_rpc.errors import UsageError
from ralph_rpc.files.atomic import make_private_dir
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_empty
from ralph_rpc.git import ticket_trees
from ralph_rpc.git.status import status_of
from ralph_rpc.git.target import check_identity, check_target
from ralph_rpc.loops.elsewhere import with_slots
from ralph_rpc.loops.engine import with_engine
from ralph_rpc.model.config import Config
from ralph_rpc.options.settings import SETTINGS
from ralph_rpc.prompts.ticket import TicketPrompt, build, check_template
from ralph_rpc.tickets.choice import Choice, epics_of
from ralph_rpc.tickets.schedule import Rules, plan
from ralph_rpc.tickets.sources.opening import open_source
from ralph_rpc.tickets.sources.protocol import TicketSource
from ralph_rpc.tickets.ticket import COMPONENT, Backlog, branch_of, named

TRIAL = "trial-"
"""Begins the name of the worktree that is only made to see that one can be made."""

ONLY_FOR_TICKETS = (
    "parallel",
    "attempts",
    "only",
    "assignee",
    "tag",
    "take-in-progress",
    "component-prefix",
    "allow-untagged",
    "hosts",
    "engine",
    "hub",
    "worktrees",
    "worktrees-dir",
    "keep-worktrees",
    "worktree-setup",
    "worktree-copy",
    "verify-clean",
    "into",
    "merge",
    "verify-parallel",
    "prompt-template",
    "lessons-max",
)


def check_task_loop(given: Sequence[str]) -> None:
    """Raises UsageError where an option is given that only ticket loops have."""
    for name in given:
        if name in ONLY_FOR_TICKETS:
            raise UsageError(f"--{name} is for ticket loops", "add --tickets, or leave it out")


def ticket_config(
    paths: LoopPaths, config: Config, tickets: str, origins: Mapping[str, str], may_be_dirty: bool
) -> Config:
    """The options of a ticket loop, with everything decided that was left open.

    `tickets` is what `find_source` found. On a resume, uncommitted changes in the project may be a ticket's own work.
    """
    project = paths.project
    config = with_slots(_as_it_can_be(config, origins), origins)
    config = with_engine(project, config, origins, tickets)
    worktrees = config.get("worktrees")
    parallel = config.get("parallel", 1)
    if worktrees is None:
        worktrees = parallel > 1
    if not worktrees:
        _check_serial(config, parallel)
        if not may_be_dirty:
            _check_clean(project, config, tickets)
    if config["worktree"] is not None:
        raise UsageError("--worktree is for task loops", "tickets have worktrees of their own: --worktrees")
    if config["reflectEvery"]:
        raise UsageError("--reflect-every is for task loops", "every attempt at a ticket starts with an empty context")
    template = config.get("promptTemplate")
    if template is not None and (problem := check_template(template)) is not None:
        raise UsageError(f"--prompt-template: {problem}")
    changes: dict[str, Any] = {"tickets": tickets, "worktrees": worktrees, "merge": config.get("merge") is not False}
    if origins["max-iterations"] == "default":
        changes["maxIterations"] = 0  # the attempts at each ticket are the limit
    if worktrees:
        changes["into"] = check_target(project, config.get("into"), bool(config.get("worktreeSetup"))).branch
    elif git.is_repo(project):
        check_identity(project)
    return {**config, **changes}  # type: ignore[typeddict-item]


def _as_it_can_be(config: Config, origins: Mapping[str, str]) -> Config:
    """Without what another runner's settings say of several workers, where this loop has one: nobody asked for it here."""
    of_settings = {name for name, origin in origins.items() if origin.startswith(SETTINGS)}
    changes: dict[str, Any] = {}
    if config.get("worktrees") is False and "parallel" in of_settings:
        changes["parallel"] = 1
    if not (config.get("worktrees") or {**config, **changes}.get("parallel", 1) > 1):
        unset = {"merge": "merge", "keep-worktrees": "keepWorktrees"}
        changes |= {key: None for name, key in unset.items() if name in of_settings}
    return {**config, **changes}  # type: ignore[typeddict-item]


def try_worktree(paths: LoopPaths, config: Config) -> None:
    """One worktree on trial, in a loop that needs them. Raises UsageError, with nothing left behind."""
    into = config.get("into")
    if not config.get("worktrees") or into is None:
        return
    folder = paths.worktrees(config.get("worktreesDir"))
    trial = f"{TRIAL}{os.getpid()}"
    try:
        make_private_dir(folder)
        ticket_trees.try_worktree(paths.project, folder / trial, branch_of(paths.name, trial), into)
    except OSError as error:
        raise UsageError(
            f"tickets cannot get worktrees in {folder}: {error.strerror}", "choose another place: --worktrees-dir"
        ) from error
    finally:
        remove_empty(folder, folder.parent)


def _check_serial(config: Config, parallel: int) -> None:
    """One pi in the project itself."""
    if parallel > 1:
        raise UsageError(
            f"--parallel {parallel} needs worktrees", "two agents in one checkout would overwrite each other's files"
        )
    for name, value in (
        ("worktrees-dir", config.get("worktreesDir")),
        ("worktree-setup", config.get("worktreeSetup")),
        ("worktree-copy", config.get("worktreeCopy")),
        ("verify-clean", config.get("verifyClean")),
        ("into", config.get("into")),
        ("keep-worktrees", config.get("keepWorktrees")),
        ("no-merge", config.get("merge") is False),
        ("verify-parallel", config.get("verifyParallel")),
    ):
        if value:
            raise UsageError(f"--{name} needs worktrees", "add --worktrees, or --parallel 2 or more")


def _check_clean(project: Path, config: Config, tickets: str) -> None:
    """The tickets themselves may be changed or new: they are what is to be worked on."""
    top = git.toplevel(project)
    if top is None:
        return
    source = open_source(project, tickets, config.get("componentPrefix") or COMPONENT)
    changed = sum(not source.holds(top / entry.path) for entry in status_of(project).entries)
    if changed:
        raise UsageError(
            f"{project} has {changed} uncommitted file{'s'[: changed != 1]}, which the first ticket's commit would include",
            "commit or stash, or add --worktrees",
        )


def read_backlog(project: Path, config: Config) -> Backlog:
    """The tickets of a loop as they are."""
    return open_tickets(project, config).scan()


def open_tickets(project: Path, config: Config) -> TicketSource:
    """The tickets of a loop."""
    return open_source(project, config.get("tickets") or "", config.get("componentPrefix") or COMPONENT)


def with_whole_ids(config: Config, backlog: Backlog) -> Config:
    """The options with every ticket of --only by its whole id. UsageError where there is none, or several are meant."""
    whole: dict[str, None] = {}
    for part in config.get("only", []):
        whole[the_one(part, backlog, "--only ")] = None
    return {**config, "only": list(whole)}


def the_one(part: str, backlog: Backlog, option: str) -> str:
    """The id of the ticket that is meant by an id or a part of one. UsageError, which names the option, if it is not one."""
    found = named(part, backlog.tickets)
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise UsageError(f"{option}{part}: {len(found)} tickets have that in their id: {shown}", "say more of the id")
    bad = next((bad for bad in backlog.unread if bad.id == part), None)
    reason = f"{bad.path}, line {bad.line}: {bad.reason}" if bad else "there is no such ticket"
    raise UsageError(f"{option}{part}: {reason}", "see: ralph-rpc tickets")


def check_work(backlog: Backlog, config: Config) -> None:
    """UsageError where there is nothing to do."""
    choice = Choice.of(config).within(backlog.tickets, epics_of(backlog.tickets))
    unclosed = [ticket for ticket in backlog.tickets.values() if ticket.status != "closed"]
    left_out = [out for ticket in unclosed if (out := choice.leaves_out(ticket, ())) is not None]
    if len(left_out) < len(unclosed):
        return
    more = f"; {len(backlog.unread)} cannot be read, see: ralph-rpc tickets" if backlog.unread else ""
    where = config.get("tickets")
    if any(out.is_claimed for out in left_out):
        claimed = f"there is no ticket to start in {where}: others work on those that are open{more}"
        raise UsageError(claimed, "take them all the same with --take-in-progress, or choose one with --only ID")
    if left_out and choice.only is None:
        chosen = f"no open ticket in {where} is chosen: {unclosed[0].id} {left_out[0].reason}{more}"
        raise UsageError(chosen, "see: ralph-rpc tickets")
    if choice.only is not None and unclosed:
        named = [backlog.tickets[id] for id in sorted(choice.only) if id in backlog.tickets]
        if named and all(ticket.status == "closed" for ticket in named):
            ids = ", ".join(ticket.id for ticket in named[:5])
            raise UsageError(f"--only: {ids} {'is' if len(named) == 1 else 'are'} closed", "see: ralph-rpc tickets")
        raise UsageError(f"no ticket that --only chooses is open{more}", "see: ralph-rpc tickets")
    raise UsageError(
        f"there is no open ticket in {where}{more}", "create one first: ralph-rpc tickets add 'what to do'"
    )


def first_ticket_prompt(paths: LoopPaths, config: Config) -> str:
    """The prompt of the first ticket that would start, as `start --dry-run` shows it."""
    source = open_tickets(paths.project, config)
    found = plan(source.scan(), {}, Rules.of(config))
    if not found.start:
        return "(no ticket can start; see: ralph-rpc tickets)"
    ticket, text = source.read(found.start[0])
    worktrees = bool(config.get("worktrees"))
    return build(
        TicketPrompt(
            iteration=1,
            attempt=1,
            attempts=config.get("attempts", 3),
            id=ticket.id,
            title=ticket.title,
            text=text,
            path=str(ticket.path),
            marker=config["marker"],
            verify=config["verify"],
            nonce="0",
            worktree=worktrees,
            branch=branch_of(paths.name, ticket.id) if worktrees else None,
            into=config.get("into"),
            template=config.get("promptTemplate"),
        )
    )
