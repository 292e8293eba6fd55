"""Defaults of ticket loops from `.tf/config/settings.json`, where the project has one for another runner of its tickets.

Seven of its keys mean options of ours; all others are none of our business. They stand at the top or under `ralph`. Only
reads, and follows no link. Called by `resolve`.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ralph_rpc.errors import UsageError
from ralph_rpc.files.atomic import read_plain
from ralph_rpc.files.text import LARGEST_FILE
from ralph_rpc.options.kinds import LARGEST
from ralph_rpc.options.table import BY_NAME
from ralph_rpc.options.toml import Sourced, value_of

SETTINGS = ".tf/config/settings.json"
"""In the project; also begins the origin of every option from there."""


def _milliseconds(value: object, origin: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise UsageError(f"{origin}: expected milliseconds, 0 or more; 0 is no limit")
    return value


def _attempts(value: object, origin: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**9:
        raise UsageError(f"{origin}: expected a whole number, 0 or more")
    return value + 1  # the first attempt is no restart


class _Key(NamedTuple):
    """What a key of the file means."""

    option: str
    convert: Callable[[object, str], Any] | None = None
    """None: as a TOML file would have it."""


KEYS = {
    "parallelWorkers": _Key("parallel"),
    "parallelAllowUntagged": _Key("allow-untagged"),
    "componentTagPrefix": _Key("component-prefix"),
    "parallelKeepWorktrees": _Key("keep-worktrees"),
    "parallelAutoMerge": _Key("merge"),
    "attemptTimeoutMs": _Key("iteration-timeout", _milliseconds),
    "maxRestarts": _Key("attempts", _attempts),
}


def read_settings(project: Path) -> Sourced:
    """The options that the file gives, with file and key as their origin. UsageError for a value that makes no sense."""
    table = _table(project)
    inner = table.get("ralph")
    found: Sourced = {}
    for key, (name, convert) in KEYS.items():
        holder = inner if isinstance(inner, dict) and key in inner else table
        value = holder.get(key)
        if value is None:
            continue
        origin = f"{SETTINGS} {key}"
        found[name] = (convert(value, origin) if convert else value_of(BY_NAME[name], value, project, origin), origin)
    return found


def _table(project: Path) -> dict[str, Any]:
    path = project / SETTINGS
    if path.parent.is_symlink() or path.parent.parent.is_symlink():
        return {}
    try:
        data = read_plain(path, LARGEST_FILE, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        why = "it is a link, and links are not followed" if error.errno == errno.ELOOP else error.strerror
        raise UsageError(f"cannot read {SETTINGS}: {why}") from error
    if len(data) > LARGEST_FILE:
        raise UsageError(f"{SETTINGS} is larger than 1 MiB")
    try:
        table: object = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise UsageError(f"{SETTINGS} is not JSON ({error.msg}, {where})", "correct it, or remove it") from None
    if not isinstance(table, dict):
        raise UsageError(f"{SETTINGS} holds no JSON object", "correct it, or remove it")
    return table
