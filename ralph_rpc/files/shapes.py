"""Does a value from a file have the shape that ralph_rpc.model gives that file?

Used by every reader of a file that any program may have written. Pure, and cheap to import: the everyday commands
can't afford pydantic, which checks the same shapes where there is time for it.
"""

import types
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, is_typeddict

_Check = Callable[[object, str], str | None]


def misfit(value: object, shape: Any, at: str = "it") -> str | None:
    """Return where a value from a file departs from a shape of ralph_rpc.model; None where it fits.

    Covers what those shapes use: TypedDict, list, dict, Literal, unions and plain types. A key that is added
    to a file after version 1 has to be NotRequired, so that files of older versions keep their shape.
    """
    return _check_of(shape)(value, at)


@cache
def _check_of(shape: Any) -> _Check:
    """Examines a shape once, not for every value: a registry may hold ten thousand of them."""
    if is_typeddict(shape):
        return _object_check(shape)
    origin, arguments = get_origin(shape), get_args(shape)
    if origin in (Union, types.UnionType):
        return _union_check(arguments)
    if origin is Literal:
        choices = frozenset((type(choice), choice) for choice in arguments)
        return lambda value, at: None if _is_one_of(value, choices) else f"{at} has an unknown value"
    if origin is list:
        return _list_check(_check_of(arguments[0]))
    if origin is dict:
        return _dict_check(_check_of(arguments[1]))
    plain = _plain_types(shape)
    return lambda value, at: None if type(value) in plain else f"{at} is of the wrong type"


def _plain_types(shape: Any) -> frozenset[type]:
    """The types of which every value fits; a shape of another kind has none."""
    if get_origin(shape) in (Union, types.UnionType):
        return frozenset[type]().union(*map(_plain_types, get_args(shape)))
    if not isinstance(shape, type) or get_origin(shape) is not None or is_typeddict(shape):
        return frozenset()
    # JSON writes 0.0 as 0 in many languages; True is an int only in Python.
    return frozenset((int, float)) if shape is float else frozenset((shape,))


def _is_one_of(value: object, choices: frozenset[tuple[type, object]]) -> bool:
    return isinstance(value, (str, int, float)) and (type(value), value) in choices


def _object_check(shape: Any) -> _Check:
    # As they stand in the class: `get_type_hints` would look for names to resolve, of which the model has none.
    hints = {key: _unwrapped(hint) for key, hint in shape.__annotations__.items()}
    members = [(key, _plain_types(hint), _check_of(hint), f"'{key}'") for key, hint in hints.items()]
    required = frozenset(shape.__required_keys__)

    def check(value: object, at: str) -> str | None:
        if not isinstance(value, dict):
            return f"{at} is not an object"
        for key, plain, member, label in members:
            if key not in value:
                if key in required:
                    return f"{label} is missing"
            elif type(value[key]) not in plain and (problem := member(value[key], label)):
                return problem
        return None

    return check


def _unwrapped(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is NotRequired else hint


def _union_check(shapes: tuple[Any, ...]) -> _Check:
    checks = [_check_of(shape) for shape in shapes]

    def check(value: object, at: str) -> str | None:
        problems = [member(value, at) for member in checks]
        return None if None in problems else problems[0]

    return check


def _list_check(member: _Check) -> _Check:
    def check(value: object, at: str) -> str | None:
        if not isinstance(value, list):
            return f"{at} is of the wrong type"
        return next((problem for item in value if (problem := member(item, f"{at} item"))), None)

    return check


def _dict_check(member: _Check) -> _Check:
    def check(value: object, at: str) -> str | None:
        if not isinstance(value, dict):
            return f"{at} is of the wrong type"
        return next((problem for item in value.values() if (problem := member(item, f"{at} member"))), None)

    return check
