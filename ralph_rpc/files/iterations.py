"""The records of iterations: iterations/NNN.json, one each, of which the old ones are folded into one file a thousand.

`iterations/000001-001000.jsonl` holds the records 1 to 1000, a line each. The runner writes a record when its iteration
has ended, and folds a block some time after its last number; everyone reads both forms. If the machine dies while a
block is folded, some records stand in both, which is the same record twice; the next fold removes the files. A record
that comes later than its block stays a file of its own until then. What cannot be read is left where it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ralph_rpc.files.atomic import (
    Unreadable,
    as_json_object,
    make_private_dir,
    read_json_object,
    read_plain,
    write_atomic,
)
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.shapes import misfit
from ralph_rpc.machine import nofollow
from ralph_rpc.model.iteration import Iteration

BLOCK = 1000
"""Records in a folded file."""
SLACK = 100
"""Numbers after its last one at which a block is folded: iterations of several workers end out of order."""
_LARGEST = 1 << 30


class Stored(NamedTuple):
    """A record as it is stored: the file, and what is in it, or why that cannot be read."""

    file: Path
    value: dict[str, Any] | Unreadable


def write(paths: LoopPaths, record: Iteration, data: bytes) -> None:
    """Write a record durably, under the iteration's number; `data` is its JSON. Raises OSError."""
    make_private_dir(paths.iterations)
    write_atomic(paths.iterations / f"{record['iteration']:03d}.json", data)


def stored(paths: LoopPaths) -> Iterator[Stored]:
    """Every record, folded or not, in no order; one that stands in both forms comes twice, the file of its own last."""
    for file in _names(paths, ".jsonl"):
        yield from _lines(file)
    for file in single_files(paths):
        try:
            value = read_json_object(file)
        except Unreadable as problem:
            yield Stored(file, problem)
        else:
            if value is not None:
                yield Stored(file, value)


def record_of(paths: LoopPaths, iteration: int) -> dict[str, Any] | None:
    """The record of one iteration, unchecked; None where there is none that can be read."""
    try:
        value = read_json_object(paths.iterations / f"{iteration:03}.json")
    except Unreadable:
        value = None
    if value is not None:
        return value
    return next(
        (one for one in map(_readable, _lines(_block_file(paths, iteration))) if _number(one) == iteration), None
    )


def single_files(paths: LoopPaths) -> list[Path]:
    """The files that hold one record each."""
    return [file for file in _names(paths, ".json") if file.stem.isdecimal()]


def is_due(iteration: int) -> bool:
    """Whether records are to be folded once this one is written: once in `BLOCK` iterations."""
    return iteration > SLACK and iteration % BLOCK == SLACK


def fold(paths: LoopPaths, newest: int) -> None:
    """Fold the blocks that have ended `SLACK` numbers before `newest`. Raises OSError; may be repeated then."""
    last = (newest - SLACK) // BLOCK * BLOCK
    blocks: dict[Path, list[Path]] = {}
    for file in single_files(paths):
        if 1 <= int(file.stem) <= last:
            blocks.setdefault(_block_file(paths, int(file.stem)), []).append(file)
    for block, files in blocks.items():
        _fold(block, files)


def _fold(block: Path, files: list[Path]) -> None:
    found = [one for one in map(_readable, _lines(block)) if one is not None]
    records = {_number(one): one for one in found}
    folded: list[Path] = []
    for file in files:
        try:
            value = read_json_object(file)
        except Unreadable:
            continue
        if value is not None and misfit(value, Iteration) is None and value["iteration"] == int(file.stem):
            records[int(file.stem)] = value
            folded.append(file)
    if not folded:
        return
    lines = (orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for _, record in sorted(records.items()))
    write_atomic(block, b"".join(lines))
    for file in folded:
        nofollow.unlink(file, missing_ok=True)


def _block_file(paths: LoopPaths, iteration: int) -> Path:
    first = (iteration - 1) // BLOCK * BLOCK + 1
    return paths.iterations / f"{first:06d}-{first + BLOCK - 1:06d}.jsonl"


def _lines(file: Path) -> Iterator[Stored]:
    """The records in a folded file; nothing where there is no such file."""
    try:
        data = read_plain(file, _LARGEST, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Stored(file, Unreadable(file, error.strerror or str(error)))
        return
    for line in data.splitlines():
        try:
            yield Stored(file, as_json_object(file, line))
        except Unreadable as problem:
            yield Stored(file, problem)


def _readable(one: Stored) -> dict[str, Any] | None:
    return None if isinstance(one.value, Unreadable) else one.value


def _number(record: dict[str, Any] | None) -> int:
    number = None if record is None else record.get("iteration")
    return number if type(number) is int else 0


def _names(paths: LoopPaths, suffix: str) -> list[Path]:
    return [file for file in nofollow.entries(paths.iterations) if file.suffix == suffix and file.name[0] != "."]
