"""Options from the environment: `RALPH_<NAME>`. A name that is nearly an option's is refused, as an unknown config key is.

Other names beginning with RALPH_ may belong to other programs: they are told, and do no harm. Pure.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from ralph_rpc.errors import UsageError
from ralph_rpc.options.kinds import HOSTS, LABELS, MODELS, NAMES, PATHS, VARIABLES
from ralph_rpc.options.table import OPTIONS
from ralph_rpc.options.toml import Sourced

_SEPARATORS = {PATHS: os.pathsep, NAMES: os.pathsep, LABELS: ",", MODELS: ",", VARIABLES: ",", HOSTS: ","}
"""Between the values of a list; tags and ids of models may hold colons."""

_PREFIX = "RALPH_"
_OTHERS = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        "HOME",
        # What a runner gives to pi, to verify and to the command of --notify.
        *("LOOP", "LOOP_DIR", "TICKET", "WORKER", "PORT_BASE", "FAR"),
        *("EVENT", "STATUS", "STOP_REASON", "MESSAGE", "ITERATION", "COST"),
    )
)
_OTHER_PREFIXES = (f"{_PREFIX}RPC_", f"{_PREFIX}TEST_")
_NEAR = 0.75
"""Likeness from which a name is taken for a mistyped one."""


def from_environment(env: Mapping[str, str]) -> Sourced:
    """The options that are set there. Raises UsageError that names the variable."""
    found: Sourced = {}
    for option in OPTIONS:
        text = env.get(option.env, "")
        if text:
            texts = [text]
            if option.kind in _SEPARATORS:
                texts = [part for part in text.split(_SEPARATORS[option.kind]) if part]
            found[option.name] = (option.parse(texts, Path.cwd(), option.env), option.env)
    return found


def unknown_variables(env: Mapping[str, str]) -> tuple[str, ...]:
    """A line for each variable that is no option and looks like none. UsageError for one that looks like one."""
    known = {option.env for option in OPTIONS}
    unknown = [
        name
        for name in sorted(env)
        if name.startswith(_PREFIX) and name not in known | _OTHERS and not name.startswith(_OTHER_PREFIXES)
    ]
    if not unknown:
        return ()
    import difflib  # here, because nearly no start needs it

    plain = {name.removeprefix(_PREFIX).replace("_", ""): name for name in known}
    for name in unknown:
        near = difflib.get_close_matches(name.removeprefix(_PREFIX).replace("_", "").upper(), plain, 1, _NEAR)
        if near:
            raise UsageError(f"{name} is set, and there is no such option", f"did you mean {plain[near[0]]}?")
    return tuple(f"{name} is set, but it is no option of ralph-rpc" for name in unknown)
