"""What this user agreed to run, and which loops this user's program made: trust.json and loops.json, outside of every project.

Called by `start`, `resume` and `trust`. Each file is replaced as a whole under a lock beside it, so that two starts at
once lose nothing; if the machine dies here it is old or new. A file that cannot be read is no consent: it is reported
(`Unreadable`) and left as it is.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from ralph_rpc.clock import iso, now_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files.atomic import Unreadable, make_private_dir, read_json_object, write_atomic
from ralph_rpc.files.paths import LoopPaths, data_dir
from ralph_rpc.files.shapes import misfit
from ralph_rpc.machine import locks
from ralph_rpc.model.config import Config
from ralph_rpc.model.trust import Consent, MadeLoop, MadeLoops, Trust
from ralph_rpc.model.version import SCHEMA_VERSION

_PATIENCE_S = 10.0
_STARTS = 10
"""Remembered of each loop."""


def trust_file() -> Path:
    """Where consents are."""
    return data_dir() / "trust.json"


def loops_file() -> Path:
    """Where the loops are remembered that were made here."""
    return data_dir() / "loops.json"


def digest(*parts: bytes) -> str:
    """The hash of a content that is made of these parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(b"%d\n" % len(part))
        found.update(part)
    return found.hexdigest()


def config_digest(config: Config) -> str:
    """The hash of a loop's options, however the file is laid out."""
    plain = {key: value for key, value in config.items() if key != "schemaVersion"}
    return digest(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS))


def consents() -> dict[str, Consent]:
    """Every consent, by path. Raises Unreadable."""
    return dict(_read(trust_file(), Trust)["trusted"])


def is_trusted(path: Path, sha256: str) -> bool:
    """Whether the user agreed to this very content at this path. Raises Unreadable."""
    found = consents().get(_key(path))
    return found is not None and found["sha256"] == sha256


def trust(path: Path, sha256: str) -> None:
    """Remember that the user agreed to this content. Raises RalphError or OSError."""
    consent: Consent = {"sha256": sha256, "at": iso(now_ms())}
    _change(trust_file(), Trust, "trusted", lambda entries: entries.__setitem__(_key(path), consent))


def revoke(paths: list[Path]) -> list[str]:
    """Forget the consents to these files; return those that there were. Raises RalphError or OSError."""
    there = consents()
    gone = [key for key in map(_key, paths) if key in there]
    if gone:
        _change(trust_file(), Trust, "trusted", lambda entries: [entries.pop(key, None) for key in gone])
    return gone


def was_made_here(paths: LoopPaths, config: Config) -> bool:
    """Whether this user's program started the loop in this very place with these options. Raises Unreadable."""
    found = _read(loops_file(), MadeLoops)["loops"].get(_key(paths.dir))
    return found is not None and config_digest(config) in found["configs"]


def remember_loop(paths: LoopPaths, config: Config) -> None:
    """Remember a loop that was started with these options. Raises RalphError or OSError."""
    key, new = _key(paths.dir), config_digest(config)

    def add(entries: dict[str, MadeLoop]) -> None:
        before = [one for one in entries[key]["configs"] if one != new] if key in entries else []
        entries[key] = {"configs": [*before, new][-_STARTS:], "at": iso(now_ms())}

    _change(loops_file(), MadeLoops, "loops", add)


def forget_loop(paths: LoopPaths) -> None:
    """Forget a loop that is gone from its place. Raises RalphError or OSError."""
    if _key(paths.dir) in _read(loops_file(), MadeLoops)["loops"]:
        _change(loops_file(), MadeLoops, "loops", lambda entries: entries.pop(_key(paths.dir), None))


def _key(path: Path) -> str:
    # Of the folder above alone: what lies at the path itself may be a link that somebody has put there.
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - names need not be UTF-8


def _read(file: Path, shape: Any) -> Any:
    value = read_json_object(file)
    if value is None:
        return {member: {} for member in shape.__annotations__ if member != "schemaVersion"}
    if (problem := misfit(value, shape)) is not None:
        raise Unreadable(file, problem)
    return value


def _change(file: Path, shape: Any, member: str, change: Callable[[dict[str, Any]], object]) -> None:
    make_private_dir(file.parent)
    lock = locks.acquire(file.with_suffix(".lock"), _PATIENCE_S)
    if lock is None:
        raise RalphError(f"another process holds {file.with_suffix('.lock')}", "try again in a moment")
    with lock:
        value = _read(file, shape)
        change(value[member])
        value = {"schemaVersion": SCHEMA_VERSION, **value}
        write_atomic(file, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
