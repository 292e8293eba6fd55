"""A report as JSON: the facts as they are, keys in camelCase. Pure."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache

import orjson

from ralph_rpc.report.facts import Report
from ralph_rpc.story.models import HostUse, ModelUse
from ralph_rpc.terminal.inert import inert_json


def render(facts: Report) -> str:
    """The document; control characters in it are escapes, so that it may be printed on a terminal."""
    return inert_json(orjson.dumps(_plain(facts), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {_camel(field.name): _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, ModelUse | HostUse):
        return {_camel(key): _plain(one) for key, one in value._asdict().items()}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    # Half of a surrogate pair, which JSON from pi may hold, is no text that can be written.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@cache
def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
