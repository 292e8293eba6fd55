"""Validators and JSON Schemas from the shapes, by pydantic. The only module of the model that imports it.

Called by `ralph-rpc schema` and by tests; `python -m ralph_rpc.model.schemas schemas/` rewrites the folder of
schemas that the project ships. A field's docstring becomes its description.
"""

import ast
import inspect
import operator
import sys
import types
from functools import cache, reduce
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

import orjson
import typing_extensions
from pydantic import Field, TypeAdapter

from ralph_rpc.model import commands, config, events, far, iteration, registry, state, ticket, trust, work

SHAPES: dict[str, Any] = {
    "config": config.Config,
    "state": state.State,
    "registry": registry.RegistryEntry,
    "iteration": iteration.Iteration,
    "ticket": ticket.TicketRecord,
    "far": far.FarJob,
    "order": work.WorkOrder,
    "work": work.WorkRecord,
    "trust": trust.Trust,
    "loops": trust.MadeLoops,
    "event": events.RunnerEvent,
    "stamp": events.Stamp,
    "journal": commands.JournalLine,
    "steer": commands.Steer,
    "followup": commands.Followup,
    "abort": commands.Abort,
    "stop": commands.Stop,
    "pause": commands.Pause,
    "resume": commands.Resume,
}
"""Name -> shape."""

TITLES: dict[str, str] = {
    "config": "config.json: the options a loop was started with",
    "state": "state.json: what a loop is doing now",
    "registry": "~/.ralph/registry/*.json: one file per living loop",
    "iteration": "iterations/NNN.json: the record of one pi run",
    "ticket": "tickets/<id>.json: what became of one ticket of a ticket loop",
    "far": "far/<job>.json: what a launcher has started elsewhere",
    "order": "order.json in a note on the hub: what a job on an engine is to do",
    "work": "record.json in a note on the hub: what a job on an engine has done",
    "trust": "trust.json in the user's data folder: what the user agreed to run",
    "loops": "loops.json in the user's data folder: the loops that were made here",
    "event": "A line of events.jsonl that the runner adds to pi's own",
    "stamp": "The member `ralph` of every line of events.jsonl that came from pi",
    "journal": "A line of commands.jsonl: one step of one command",
    **{verb: f"inbox/{verb}.json or inbox/{verb}-*.json: a command" for verb in commands.VERBS},
}


@cache
def validator(name: str) -> TypeAdapter[Any]:
    """Pydantic's adapter of a shape: `.validate_python(value, strict=True)` and `.validate_json(data)`."""
    shape: Any = _pydantic(SHAPES[name])
    if name == "event":
        by_type: Any = Annotated[shape, Field(discriminator="type")]
        return TypeAdapter(by_type)
    return TypeAdapter(shape)


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a shape."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ralph-rpc:schema:{name}",
        "title": TITLES[name],
    }
    schema = validator(name).json_schema()
    return head | {key: value for key, value in schema.items() if key != "title"}


def encoded(name: str) -> bytes:
    """The schema as bytes, as it is stored and printed."""
    return orjson.dumps(json_schema(name), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write(folder: Path) -> None:
    """Writes every schema as `<name>.json` and removes those of shapes that no longer exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        if old.stem not in SHAPES:
            old.unlink()
    for name in SHAPES:
        (folder / f"{name}.json").write_bytes(encoded(name))


def _pydantic(hint: Any) -> Any:
    """The same type with every TypedDict replaced by its twin, however deep."""
    if typing_extensions.is_typeddict(hint):
        return _twin(hint)
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal or not parts:
        return hint
    inner = tuple(_pydantic(part) for part in parts)
    if origin in (Union, types.UnionType):
        return reduce(operator.or_, inner)
    if origin is NotRequired:
        return typing_extensions.NotRequired[inner[0]]
    return origin[inner]


@cache
def _twin(shape: Any) -> Any:
    # Before Python 3.12 pydantic refuses typing's TypedDict; typing_extensions' own would cost every command
    # its import. Descriptions come along by hand: pydantic would look for them in the source of the class.
    told = _descriptions(shape.__name__)
    fields = {}
    for key, hint in get_type_hints(shape, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        value = _pydantic(get_args(hint)[0] if optional else hint)
        if key in told:
            value = Annotated[value, Field(description=told[key])]
        fields[key] = typing_extensions.NotRequired[value] if optional else value
    make: Any = typing_extensions.TypedDict  # to the type checkers its arguments must be literals
    twin = make(shape.__name__, fields)
    twin.__doc__ = shape.__doc__
    return twin


@cache
def _classes() -> dict[str, ast.ClassDef]:
    modules = (commands, config, events, far, iteration, registry, state, ticket, trust)
    trees = [ast.parse(inspect.getsource(module)) for module in modules]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _descriptions(name: str) -> dict[str, str]:
    """The docstrings below the fields of a class, its bases' included."""
    shape = _classes().get(name)
    if shape is None:
        return {}
    told: dict[str, str] = {}
    for base in shape.bases:
        told |= _descriptions(base.id) if isinstance(base, ast.Name) else {}
    for field, below in pairwise(shape.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                told[key] = inspect.cleandoc(text)
    return told


if __name__ == "__main__":
    write(Path(sys.argv[1]))
