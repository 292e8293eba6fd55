"""The registry: one small file per living loop of this user, in ~/.ralph/registry.

The runner of a loop writes its own entry and refreshes it; anyone reads all of them. An entry is a claim,
true only as far as pid, start time and boot id match a process (`liveness`). It is replaced atomically but
not durably: a power loss ends the runner too, and a refresh is at most ten seconds away.
"""

import os
from pathlib import Path
from typing import Literal, NamedTuple, cast

import orjson

from ralph_rpc.clock import now_ms, parse_iso
from ralph_rpc.files import identity
from ralph_rpc.files.atomic import Unreadable, make_private_dir, read_json_object, write_atomic
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.files.shapes import misfit
from ralph_rpc.model.registry import RegistryEntry

Liveness = Literal["alive", "stale", "dead"]

STALE_AFTER_MS = 30_000

_LONGEST_SLUG = 180
"""Bytes, the suffix included: with the loop's name the file's name stays under 255."""


class Found(NamedTuple):
    """An entry and the file that holds it."""

    path: Path
    entry: RegistryEntry


class Broken(NamedTuple):
    """A file in the registry that is no entry."""

    path: Path
    reason: str


def entry_path(cwd: Path, name: str) -> Path:
    """Return the file for this loop: its own where it has one, else the first that no other project holds."""
    project = os.path.realpath(cwd)
    slug = os.fsencode(project.lstrip("/").replace("/", "-"))
    plain = registry_dir() / f"--{os.fsdecode(slug)}--{name}.json"
    short = slug[: _LONGEST_SLUG - len("~01234567")].decode("utf-8", "ignore")
    marked = registry_dir() / f"--{short}~{_digest(project)}--{name}.json"
    if (
        len(slug) > _LONGEST_SLUG
        or _holder(marked, cwd, name) == "us"
        or _holder(plain, cwd, name) == "another"
    ):
        return marked
    return plain


def publish(path: Path | None, entry: RegistryEntry) -> Path:
    """Write the entry and return the file used: `path`, unless that is None or another project's by now."""
    make_private_dir(registry_dir())
    cwd, name = Path(entry["cwd"]), entry["name"]
    if path is None or _holder(path, cwd, name) == "another":
        path = entry_path(cwd, name)
    write_atomic(path, orjson.dumps(entry) + b"\n", durable=False)
    return path


def remove(path: Path) -> None:
    """Remove an entry that may be gone already."""
    path.unlink(missing_ok=True)


def entries() -> tuple[list[Found], list[Broken]]:
    """Return every entry, and every file that is none with the reason; in order of file names."""
    found: list[Found] = []
    broken: list[Broken] = []
    try:
        paths = sorted(registry_dir().iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    for path in paths:
        if path.name.startswith(".") or path.suffix != ".json":
            continue
        try:
            entry = read_json_object(path)
        except Unreadable as problem:
            broken.append(Broken(path, problem.reason))
            continue
        if entry is None:
            continue
        if reason := misfit(entry, RegistryEntry):
            broken.append(Broken(path, reason))
        else:
            found.append(Found(path, cast(RegistryEntry, entry)))
    return found, broken


def liveness(entry: RegistryEntry) -> Liveness:
    """Tell whether the entry's runner lives; `stale`: its process does, but was silent for 30 seconds."""
    if not identity.is_same(entry["pid"], entry["pidStartTime"], entry["bootId"]):
        return "dead"
    seen = parse_iso(entry["lastSeen"])
    return "alive" if seen is not None and now_ms() - seen < STALE_AFTER_MS else "stale"


def _holder(path: Path, cwd: Path, name: str) -> Literal["nobody", "us", "another"]:
    try:
        entry = read_json_object(path)
    except Unreadable:
        # A power loss can leave an empty file, which is free to be replaced; a folder is not.
        return "another" if path.is_dir() else "nobody"
    if entry is None or not isinstance(entry.get("cwd"), str):
        return "nobody"
    ours = entry["cwd"] in (str(cwd), os.path.realpath(cwd)) and entry.get("name") == name
    return "us" if ours else "another"


def _digest(project: str) -> str:
    import hashlib  # loads OpenSSL, which readers of the registry have no use for

    return hashlib.sha256(os.fsencode(project)).hexdigest()[:8]
