"""Are values what their types say? mypy knows it of most of the core, but not of `Turn.set(**changes)` nor of events.

`check` is asked by the conversations after every step: about the whole state, and about each effect, with the events
and records in it. A key that a TypedDict does not have, a word that is not in a Literal, None where none may be: red.
"""

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

_Check = Callable[[Any], str | None]
"""What is wrong with a value, from the place on where it is wrong; None: nothing."""


def check(value: object, kind: Any) -> None:
    """Fail with the place, the value and the type if `value` is no `kind`."""
    wrong = _check(kind)(value)
    assert wrong is None, f"{getattr(kind, '__name__', kind)}{wrong}"


@cache
def _check(kind: Any) -> _Check:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: None
    if is_dataclass(kind) or is_typeddict(kind) or hasattr(kind, "_fields"):
        return _object(kind)
    if origin in (Union, types.UnionType):
        return _union(args)
    if origin is Literal:
        return lambda value: None if value in args else f": {value!r} is none of {args}"
    if origin is tuple and args[-1] is not Ellipsis:
        checks = [_check(one) for one in args]
        return _all(tuple, lambda value: zip(checks, value, strict=True))
    if origin in (tuple, list, frozenset):
        each = _check(args[0])
        return _all(origin, lambda value: ((each, one) for one in value))
    if origin in (dict, Mapping):
        key, item = _check(args[0]), _check(args[1])
        return _all(Mapping, lambda value: (pair for k, v in value.items() for pair in ((key, k), (item, v))))
    allowed: Any = {float: (float, int), None: types.NoneType}.get(kind, kind)
    is_bool = kind is bool
    return lambda value: (
        None if isinstance(value, allowed) and (is_bool or type(value) is not bool) else f": {value!r} is no {kind}"
    )


def _all(kind: Any, items: Callable[[Any], Iterable[tuple[_Check, object]]]) -> _Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, kind):
            return f": {value!r} is no {kind.__name__}"
        return next((f"[]{wrong}" for one, item in items(value) if (wrong := one(item))), None)

    return check


def _union(kinds: tuple[Any, ...]) -> _Check:
    checks = [_check(kind) for kind in kinds]
    by_class = {kind: one for kind, one in zip(kinds, checks, strict=True) if isinstance(kind, type)}

    def check(value: object) -> str | None:
        if (known := by_class.get(type(value))) is not None:
            return known(value)
        wrong = [one(value) for one in checks]
        # The one that was right for the longest is the one that was meant.
        return (
            None
            if None in wrong
            else max((one for one in wrong if one), key=lambda one: one.partition(":")[0].count("."))
        )

    return check


def _object(kind: Any) -> _Check:
    hints, kind_name, is_dict = _hints(kind), kind.__name__, is_typeddict(kind)
    last: dict[str, object] = {}
    """The members of the one before: what is the same object in this one has been looked into."""

    def check(value: Any) -> str | None:
        nonlocal last
        if not is_dict:
            if type(value) is not kind:
                return f": {value!r} is no {kind_name}"
            members = {name: getattr(value, name) for name in hints}
        elif not isinstance(value, dict):
            return f": {value!r} is no {kind_name}"
        else:
            members = value
        for name, member in members.items():
            if name not in hints:
                return f": {kind_name} has no {name!r}"
            if (name not in last or last[name] is not member) and (wrong := hints[name][0](member)):
                return f".{name}{wrong}"
        if len(members) < len(hints) and (
            gone := [name for name, (_, optional) in hints.items() if not optional and name not in members]
        ):
            return f": {kind_name} without {gone}"
        last = members
        return None

    return check


def _hints(kind: Any) -> dict[str, tuple[_Check, bool]]:
    """(check, may be missing) by member."""
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)] if is_dataclass(kind) else list(hints)
    optional = {name: get_origin(hints[name]) is NotRequired for name in names}
    return {
        name: (_check(get_args(hints[name])[0] if optional[name] else hints[name]), optional[name]) for name in names
    }
