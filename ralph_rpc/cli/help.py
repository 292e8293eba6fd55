"""`ralph-rpc help` and `ralph-rpc version`: what `--help` and `--version` say, as commands."""

import click

from ralph_rpc import __version__
from ralph_rpc.cli.command import Command


@click.command(cls=Command)
@click.argument("command", nargs=-1, metavar="[COMMAND]")
@click.pass_context
def help_command(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or of the program."""
    program = ctx.parent
    assert program is not None and isinstance(program.command, click.Group)
    if not command:
        click.echo(program.get_help())
        return
    name, found, rest = program.command.resolve_command(program, list(command))
    if found is None or rest:
        raise click.UsageError(f"there is no help for {' '.join(command)!r}", ctx)
    with found.make_context(name, [], program, resilient_parsing=True) as about:
        click.echo(found.get_help(about))


@click.command(cls=Command)
def version() -> None:
    """Show the version of ralph-rpc."""
    click.echo(f"ralph-rpc {__version__}")
