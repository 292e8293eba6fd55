"""Options as a Python program gives them, as the command line would give them. Pure. Called by the Python interface."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ralph_rpc.errors import UsageError
from ralph_rpc.options.table import OPTIONS

OptionValue: TypeAlias = str | int | float | bool | Path | Sequence[str | Path] | None
"""What an option may be: a number, or a text as on the command line (`"2h"`); a list where it may be given several times;
None as if it was not given."""


def as_given(options: Mapping[str, OptionValue]) -> dict[str, object]:
    """The same options with texts for values. UsageError for one that does not exist; values are judged later."""
    known = {option.param for option in OPTIONS}
    given: dict[str, object] = {}
    for name, value in options.items():
        if name not in known:
            raise UsageError(f"there is no option {name!r}", "see: ralph-rpc start --help")
        if value is None or isinstance(value, bool):
            given[name] = value
        elif isinstance(value, Sequence) and not isinstance(value, str):
            given[name] = tuple(map(str, value))
        else:
            given[name] = str(value)
    return given
