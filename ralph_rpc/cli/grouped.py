"""The options of `start`, `resume` and `run-ticket` as their help shows them: in groups, instead of forty in one list.

An option that no group names stands in the last one, so that a new one is never missing.
"""

import click

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.completing import VALUES
from ralph_rpc.options.flags import OptionsCommand, click_options

GROUPS: dict[str, tuple[str, ...]] = {
    "What to do": ("task", "message", "tickets", "name", "crashed", "project"),
    "When it is done": ("verify", "marker", "reflect-every", "reflect"),
    "Limits": (
        "max-iterations",
        "max-cost",
        "max-tokens",
        "max-time",
        "iteration-timeout",
        "idle-timeout",
        "tool-timeout",
        "max-failures",
        "max-wait",
        "stall-after",
        "timeout",
    ),
    "Model": ("provider", "model", "thinking", "fallback-model"),
    "Where it works": (
        "worktree",
        "share-checkout",
        "launcher",
        "launcher-env",
        "queue-timeout",
        "lease",
        "hosts",
        "engine",
        "hub",
        "job",
        "dir",
        "backend",
    ),
    "Tickets": (
        "parallel",
        "attempts",
        "only",
        "assignee",
        "tag",
        "take-in-progress",
        "component-prefix",
        "allow-untagged",
        "worktrees",
        "worktree-setup",
        "worktree-copy",
        "worktrees-dir",
        "keep-worktrees",
        "verify-clean",
        "verify-parallel",
        "into",
        "merge",
        "prompt-template",
        "lessons-max",
    ),
    "pi": ("pi", "approve", "extension", "skill", "ui-answers", "pi-memory", "keep-sessions"),
    "What you see of it": ("attach", "foreground", "wait", "dry-run", "json", "notify", "log-size", "log-keep"),
}
"""Title -> options, by their long names."""
OTHERS = "Others"

task_options = click_options(VALUES)
"""Declares the options of the table, each with what the shell offers for its value."""


class TaskCommand(OptionsCommand, Command):
    """A command with the options of the table, in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in (*GROUPS, OTHERS)}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups[group_of(param)].append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def group_of(param: click.Parameter) -> str:
    """The title that an option stands under."""
    names = {name.lstrip("-") for name in param.opts}
    return next((title for title, options in GROUPS.items() if names & set(options)), OTHERS)
