"""`ralph-rpc start --dry-run`: what `start` would do, shown and not done."""

import shlex
from collections.abc import Mapping
from typing import Any

import click
import orjson

from ralph_rpc import git
from ralph_rpc.files.text import read_own_text
from ralph_rpc.loops.backlog import first_ticket_prompt
from ralph_rpc.loops.consent import is_agreed
from ralph_rpc.loops.start import Plan
from ralph_rpc.options.kinds import DURATION, LIMIT
from ralph_rpc.options.table import OPTIONS, Option
from ralph_rpc.pi.argv import pi_argv
from ralph_rpc.prompts.task import first_prompt
from ralph_rpc.story.notifications import shown_config
from ralph_rpc.terminal.inert import inert, inert_json
from ralph_rpc.terminal.table import Column, table
from ralph_rpc.terminal.units import duration


def _shown(option: Option, value: object) -> str:
    """A value for people: times as they are typed."""
    if option.kind in (DURATION, LIMIT) and isinstance(value, int):
        return duration(value)
    return inert(orjson.dumps(value).decode(), keep_newlines=False)


def show_plan(plan: Plan, text: str | None, as_json: bool) -> None:
    """Prints pi's command, the first prompt and every option with its origin; `text` is a task not yet in task.md."""
    paths, config = plan.paths, plan.config
    cwd = git.project_in(paths.worktree, paths.project) if config["worktree"] else paths.project
    argv = pi_argv(config, paths.sessions)
    if config.get("tickets"):
        prompt = first_ticket_prompt(paths, config)
    else:
        task = text if text is not None else read_own_text(paths.task)
        told = str(paths.task if config["worktree"] else paths.task.relative_to(paths.project))
        prompt = first_prompt(config, task, told, plan.reflect)
    values: Mapping[str, Any] = {**shown_config(config), "reflect": plan.resolved.reflect}
    effective = {
        option.name: {"value": values[option.key or option.name], "origin": plan.resolved.origins[option.name]}
        for option in OPTIONS
    }
    guarded = sorted(one.name for one in plan.resolved.guarded)
    asked = [] if is_agreed(paths.project, plan.resolved) else guarded
    if as_json:
        shown_json = {"argv": argv, "cwd": str(cwd), "prompt": prompt, "options": effective, "notAgreedTo": asked}
        click.echo(inert_json(orjson.dumps(shown_json, option=orjson.OPT_INDENT_2).decode()))
        return
    shown = [_shown(option, effective[option.name]["value"]) for option in OPTIONS]
    origins = [str(one["origin"]) for one in effective.values()]
    origins = [
        f"{told}, not agreed to" if name in asked else told for name, told in zip(effective, origins, strict=True)
    ]
    rows = table([Column([f"  {name}" for name in effective]), Column(shown, most=32), Column(origins)], colour=False)
    text_shown = f"pi:\n  {shlex.join(argv)}\nin:\n  {cwd}\n\noptions:\n{rows}\n\nprompt:\n\n{prompt}"
    hint = f"\n\nstart will ask you to agree to {', '.join(asked)} first: ralph-rpc trust" if asked else ""
    click.echo(inert(f"{text_shown}{hint}\n\nNothing was started."))
