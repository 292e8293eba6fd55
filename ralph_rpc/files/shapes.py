"""Does a value from a file have the shape that ralph_rpc.model gives that file?

Used by everything that reads a file which anything may have written. Pure, and cheap to import: the everyday
commands can't afford pydantic, which checks the same shapes where time allows.
"""

import types
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict


def misfit(value: object, shape: Any, at: str = "it") -> str | None:
    """Say where a value from a file does not have the shape of a type of ralph_rpc.model; None where it has.

    Covers what those shapes use: TypedDict, list, dict, Literal, unions and plain types. A key that is added
    to a file after version 1 has to be NotRequired, so that files of older versions keep their shape.
    """
    if is_typeddict(shape):
        if not isinstance(value, dict):
            return f"{at} is not an object"
        for key, member in _members(shape).items():
            if key in value:
                if problem := misfit(value[key], member, f"'{key}'"):
                    return problem
            elif key in shape.__required_keys__:
                return f"'{key}' is missing"
        return None
    origin, arguments = get_origin(shape), get_args(shape)
    if origin in (Union, types.UnionType):
        problems = [misfit(value, argument, at) for argument in arguments]
        return None if None in problems else problems[0]
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in arguments)
        return None if fits else f"{at} has an unknown value"
    if origin is list and isinstance(value, list):
        return next((p for item in value if (p := misfit(item, arguments[0], f"{at} item"))), None)
    if origin is dict and isinstance(value, dict):
        return next((p for item in value.values() if (p := misfit(item, arguments[1], f"{at} member"))), None)
    # JSON writes 0.0 as 0 in many languages; True is an int only in Python.
    plain = (int, float) if shape is float else (shape,)
    return None if type(value) in plain else f"{at} is of the wrong type"


@cache
def _members(shape: type) -> dict[str, Any]:
    return get_type_hints(shape)
