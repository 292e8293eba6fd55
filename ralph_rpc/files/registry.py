"""The registry: one small file per living loop of this user, in ~/.ralph/registry.

The runner of a loop writes its own entry and refreshes it; anyone reads all of them. An entry is a claim,
true only as far as pid, start time and boot id match a process (`liveness`). It is replaced atomically but
not durably: a power loss ends the runner too, and a refresh is at most ten seconds away.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import orjson

from ralph_rpc.clock import silent_ms
from ralph_rpc.files.atomic import BLOCK, Newer, Unreadable, make_private_dir, read_json_object, write_atomic
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.files.shapes import misfit
from ralph_rpc.machine import identity
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.version import SCHEMA_VERSION

Liveness = Literal["alive", "stale", "dead"]

STALE_AFTER_MS = 30_000

_LONGEST_SLUG = 180
"""Bytes, the suffix included: with the loop's name the file's name stays under 255."""


class StoredEntry(NamedTuple):
    """An entry and the file that holds it."""

    path: Path
    entry: RegistryEntry


class UnreadableEntry(NamedTuple):
    """A file in the registry that cannot be read as an entry."""

    path: Path
    reason: str
    newer: bool = False
    """It is an entry of a newer version of this program."""


def entry_path(cwd: Path, name: str) -> Path:
    """Return the file for this loop: its own where it has one, else the first that no other project holds."""
    project = os.path.realpath(cwd)
    slug = os.fsencode(project.lstrip("/").replace("/", "-"))
    plain = registry_dir() / f"--{os.fsdecode(slug)}--{name}.json"
    holder = _holder(plain, cwd, name) if len(slug) <= _LONGEST_SLUG else "another"
    if holder == "us":  # the rule; `list` and `status` ask for every loop, and need no hash for it
        return plain
    short = slug[: _LONGEST_SLUG - len("~01234567")].decode("utf-8", "ignore")
    marked = registry_dir() / f"--{short}~{_digest(project)}--{name}.json"
    return marked if holder == "another" or _holder(marked, cwd, name) == "us" else plain


def publish(path: Path | None, entry: RegistryEntry) -> Path:
    """Write the entry and return the file used: `path`, unless that is None or another project's by now."""
    make_private_dir(registry_dir())
    cwd, name = Path(entry["cwd"]), entry["name"]
    if path is None or _holder(path, cwd, name) == "another":
        path = entry_path(cwd, name)
    # The first one survives a power loss, after which `resume --crashed` looks for it.
    write_atomic(path, orjson.dumps({"schemaVersion": SCHEMA_VERSION, **entry}) + b"\n", durable=not path.exists())
    return path


def remove(path: Path) -> None:
    """Remove an entry that may be gone already."""
    path.unlink(missing_ok=True)


def entries() -> tuple[list[StoredEntry], list[UnreadableEntry]]:
    """Return every entry, and every file that cannot be read with the reason; in order of file names."""
    folder = registry_dir()
    found, broken = entries_by_file()
    return [StoredEntry(folder / file, entry) for file, entry in found], broken


def entries_by_file() -> tuple[list[tuple[str, RegistryEntry]], list[UnreadableEntry]]:
    """As `entries`, with bare names: ten thousand paths would be a good part of what `list --all` costs."""
    path = registry_dir()
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    try:
        with os.scandir(folder) as scan:
            files = sorted(
                (one.name, one.is_file(follow_symlinks=False))
                for one in scan
                if one.name.endswith(".json") and not one.name.startswith(".")
            )
        return _read_all(path, folder, files)
    finally:
        os.close(folder)


def _read_all(
    path: Path, folder: int, files: list[tuple[str, bool]]
) -> tuple[list[tuple[str, RegistryEntry]], list[UnreadableEntry]]:
    found: list[tuple[str, RegistryEntry]] = []
    broken: list[UnreadableEntry] = []
    for file, is_plain in files:
        entry = _read_plain(folder, file) if is_plain else None
        if entry is None:
            try:
                entry = read_json_object(path / file)
            except Unreadable as problem:
                broken.append(UnreadableEntry(path / file, problem.reason, isinstance(problem, Newer)))
                continue
            if entry is None:
                continue
        if reason := misfit(entry, RegistryEntry):
            broken.append(UnreadableEntry(path / file, reason))
        elif "\0" in entry["ralphDir"] or "\0" in entry["cwd"]:
            broken.append(UnreadableEntry(path / file, "it names no folder"))
        else:
            found.append((file, cast(RegistryEntry, entry)))
    return found, broken


def _read_plain(folder: int, file: str) -> dict[str, Any] | None:
    """The object in a small plain file by the fewest system calls; None sends the caller the careful way."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            data = os.read(fd, BLOCK)
        finally:
            os.close(fd)
        # A full block may not be the whole file.
        value = orjson.loads(data) if len(data) < BLOCK else None
    except (OSError, orjson.JSONDecodeError):
        return None
    # Of another version, it is for the careful way to judge.
    known = isinstance(value, dict) and value.get("schemaVersion", SCHEMA_VERSION) == SCHEMA_VERSION
    return value if known else None


def liveness(entry: RegistryEntry) -> Liveness:
    """Return whether the entry's runner lives; `stale`: its process does, but has been silent for 30 seconds."""
    if not identity.is_same(entry["pid"], entry["pidStartTime"], entry["bootId"]):
        return "dead"
    silent = silent_ms(entry["lastSeen"], entry.get("monotonicMs"))
    return "alive" if silent < STALE_AFTER_MS else "stale"


def livenesses(several: Sequence[RegistryEntry]) -> list[Liveness]:
    """`liveness` of each; one whose pid this machine does not have is dead without a closer look."""
    here = _pids()
    return ["dead" if here is not None and one["pid"] not in here else liveness(one) for one in several]


def _pids() -> frozenset[int] | None:
    """The pids of all processes, None where the system does not list them in /proc."""
    try:
        with os.scandir("/proc") as entries:
            return frozenset(int(entry.name) for entry in entries if entry.name.isdecimal()) or None
    except OSError:
        return None


def _holder(path: Path, cwd: Path, name: str) -> Literal["none", "us", "another"]:
    try:
        entry = read_json_object(path)
    except Newer:
        return "another"
    except Unreadable:
        # A power loss can leave an empty file, which is free to be replaced; a folder is not.
        return "another" if path.is_dir() else "none"
    if entry is None or not isinstance(entry.get("cwd"), str):
        return "none"
    ours = entry["cwd"] in (str(cwd), os.path.realpath(cwd)) and entry.get("name") == name
    return "us" if ours else "another"


def _digest(project: str) -> str:
    import hashlib  # loads OpenSSL, which readers of the registry do not need

    return hashlib.sha256(os.fsencode(project)).hexdigest()[:8]
