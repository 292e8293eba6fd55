"""The options as flags of a command line. The only module of the options that imports click.

click only collects texts; `resolve` judges them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import click

from ralph_rpc.options.kinds import ARGUMENTS, BOOLEAN
from ralph_rpc.options.table import OPTIONS

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


class OptionsCommand(click.Command):
    """A command with the options of the table; only what follows `--` is passed to pi."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        split = args.index("--") if "--" in args else len(args)
        ctx.params["pi_args"] = tuple(args[split + 1 :])
        return super().parse_args(ctx, args[:split])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- PI_ARGS...]"]


def click_options(complete: Mapping[str, Complete]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares the table's options on an OptionsCommand. click only collects texts; `resolve` judges them.

    `complete` says by option what the shell offers for its value.
    """
    return lambda command: _declared(command, complete)


def _declared(command: Callable[..., Any], complete: Mapping[str, Complete]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        if option.kind is ARGUMENTS:
            continue
        help_text = option.help if option.default is None else f"{option.help} [{option.default}]"
        if option.kind is BOOLEAN:
            switch = f"--{option.name}/--no-{option.name}"
            command = click.option(switch, option.param, default=None, help=help_text)(command)
        else:
            flags = [flag for flag in (option.short, f"--{option.name}") if flag]
            command = click.option(
                *flags,
                option.param,
                metavar=option.value or option.kind.metavar,
                multiple=option.is_list,
                help=help_text,
                shell_complete=complete.get(option.name),
            )(command)
    return command
