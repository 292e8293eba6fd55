"""Members of a JSON object, read tolerantly: of the type that is wanted, or an empty value; never an error.

For objects that something else wrote: pi, an older version of this program, a person. Pure, and light to import.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

Object: TypeAlias = Mapping[str, Any]

_NONE: dict[str, Any] = {}
_LARGEST = 1 << 53
"""Beyond it JSON's readers do not agree on an integer."""


def text(holder: Object, member: str) -> str:
    """Empty where it is no text."""
    value = holder.get(member)
    return value if isinstance(value, str) else ""


def text_or_none(holder: Object, member: str) -> str | None:
    """None where it is no text."""
    value = holder.get(member)
    return value if isinstance(value, str) else None


def texts(holder: Object, member: str) -> list[str]:
    """A list of texts; an item that is none is empty."""
    value = holder.get(member)
    return [item if isinstance(item, str) else "" for item in value] if isinstance(value, list) else []


def mapping(holder: Object, member: str) -> dict[str, Any]:
    """Empty where it is no object. To be read only."""
    value = holder.get(member)
    return value if isinstance(value, dict) else _NONE


def flag(holder: Object, member: str) -> bool | None:
    """None where it is neither true nor false."""
    value = holder.get(member)
    return value if isinstance(value, bool) else None


def number(holder: Object, member: str) -> float:
    """0 for what is no number, or none that a float or our own files can hold."""
    value = holder.get(member)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return 0.0
    try:
        found = float(value)
    except OverflowError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def whole(holder: Object, member: str) -> int:
    """A number without its fraction; 0 for what is no number, or beyond 2**53."""
    value = holder.get(member)
    if type(value) is int and -_LARGEST <= value <= _LARGEST:
        return value
    found = number(holder, member)
    return int(found) if abs(found) <= _LARGEST else 0
