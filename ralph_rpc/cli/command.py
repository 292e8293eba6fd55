"""A command of the program, alone or with commands below it. Loaded by each of them, so it imports nothing but click."""

import click


class _WithExamples(click.Command):
    """Its help ends in examples, which only the help loads."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from ralph_rpc.cli.examples import EXAMPLES

        with formatter.section("Examples"):
            for line in EXAMPLES.get(ctx.command_path.removeprefix("ralph-rpc "), ()):
                formatter.write(f"  {line}\n")


class Command(_WithExamples):
    """A command."""


class CommandGroup(_WithExamples, click.Group):
    """A command that only has commands below it."""
