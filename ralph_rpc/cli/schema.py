"""`ralph-rpc schema`: the JSON Schemas of the files, made from the shapes themselves."""

import difflib

import click
import orjson

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.completing import complete_schemas
from ralph_rpc.errors import UsageError


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=complete_schemas)
@click.option("--json", "as_json", is_flag=True, help="Without NAME: the list as JSON. A schema is JSON anyway.")
def schema(name: str | None, as_json: bool) -> None:
    """Print the JSON Schema of a file, or without NAME list what there is."""
    from ralph_rpc.model.schemas import SHAPES, TITLES, encoded

    if name is None:
        if as_json:
            click.echo(orjson.dumps(TITLES, option=orjson.OPT_INDENT_2).decode())
            return
        width = max(map(len, SHAPES)) + 2
        for one in SHAPES:
            click.echo(f"{one:{width}}{TITLES[one]}")
        return
    if name not in SHAPES:
        near = difflib.get_close_matches(name, SHAPES, 1)
        raise UsageError(
            f"there is no schema {name!r}", f"did you mean {near[0]!r}?" if near else f"known: {', '.join(SHAPES)}"
        )
    click.echo(encoded(name).decode(), nl=False)
