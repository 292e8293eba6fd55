"""The records of iterations, one file each and folded a thousand to a file: read as if all were files."""

import os
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest

from ralph_rpc.files import iterations, records
from ralph_rpc.files.atomic import Newer
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.story.records import iteration_record
from tests.files.test_records import ITERATION


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopPaths:
    """A loop that folds ten records to a file, once the block is three numbers old."""
    monkeypatch.setattr(iterations, "BLOCK", 10)
    monkeypatch.setattr(iterations, "SLACK", 3)
    return LoopPaths.of(tmp_path, "x")


def write(paths: LoopPaths, *numbers: int, **changes: Any) -> None:
    for number in numbers:
        records.write_iteration(paths, {**ITERATION, "iteration": number, **changes})  # type: ignore[typeddict-item]


def names(paths: LoopPaths) -> list[str]:
    return sorted(file.name for file in paths.iterations.iterdir())


def numbers(paths: LoopPaths) -> list[int]:
    return [record["iteration"] for record in records.read_iterations(paths)]


def test_a_block_is_folded_once_and_every_reader_reads_both_forms(paths: LoopPaths) -> None:
    write(paths, *range(1, 24))
    before = records.read_iterations(paths)
    due = [number for number in range(1, 24) if iterations.is_due(number)]
    assert due == [13, 23]
    for number in due:
        iterations.fold(paths, number)
    assert names(paths) == ["000001-000010.jsonl", "000011-000020.jsonl", "021.json", "022.json", "023.json"]
    assert records.read_iterations(paths) == before
    assert stat.S_IMODE((paths.iterations / "000001-000010.jsonl").stat().st_mode) == 0o600
    for number in (1, 10, 11, 20, 23):
        found = iteration_record(paths, number)
        assert found is not None and found["iteration"] == number
    assert iteration_record(paths, 24) is None
    assert records.unreadable_files(paths) == []


def test_a_fold_that_died_in_the_middle_is_finished_by_the_next(paths: LoopPaths) -> None:
    write(paths, *range(1, 14))
    kept = {name: (paths.iterations / name).read_bytes() for name in names(paths)}
    iterations.fold(paths, 13)
    for name in ("003.json", "004.json"):  # written back: they had not been removed yet
        (paths.iterations / name).write_bytes(kept[name])
    assert numbers(paths) == list(range(1, 14))
    iterations.fold(paths, 13)
    assert numbers(paths) == list(range(1, 14))
    assert names(paths) == ["000001-000010.jsonl", "011.json", "012.json", "013.json"]


def test_a_record_that_comes_late_is_read_and_folded_later(paths: LoopPaths) -> None:
    write(paths, *(number for number in range(1, 14) if number != 7))
    iterations.fold(paths, 13)
    write(paths, 7)
    assert numbers(paths) == list(range(1, 14))
    iterations.fold(paths, 23)
    assert numbers(paths) == list(range(1, 14))
    assert names(paths)[0] == "000001-000010.jsonl" and "007.json" not in names(paths)


def test_what_cannot_be_read_stays_where_it_is_and_is_named(paths: LoopPaths) -> None:
    write(paths, *range(1, 14))
    (paths.iterations / "002.json").write_bytes(b"{")
    (paths.iterations / "003.json").write_bytes(orjson.dumps({"schemaVersion": 9}))
    iterations.fold(paths, 13)
    assert {"002.json", "003.json"} <= set(names(paths))
    assert numbers(paths) == [1, *range(4, 14)]
    assert {problem.path.name for problem in records.unreadable_files(paths)} == {"002.json", "003.json"}
    folded = paths.iterations / "000001-000010.jsonl"
    folded.write_bytes(folded.read_bytes() + b"torn\n")
    assert numbers(paths) == [1, *range(4, 14)]
    assert folded in {problem.path for problem in records.unreadable_files(paths)}


def test_a_folded_record_of_a_newer_version_is_named_as_that(paths: LoopPaths) -> None:
    write(paths, *range(1, 14))
    iterations.fold(paths, 13)
    folded = paths.iterations / "000001-000010.jsonl"
    folded.write_bytes(folded.read_bytes() + orjson.dumps({**ITERATION, "schemaVersion": 2}) + b"\n")
    with pytest.raises(Newer):
        records.refuse_newer(paths)


def test_ten_thousand_iterations_are_folded_without_a_look_at_the_folder_but_once_in_a_block(
    paths: LoopPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[LoopPaths] = []

    def look(paths: LoopPaths) -> list[Path]:
        looks.append(paths)
        return []

    monkeypatch.setattr(iterations, "single_files", look)
    for number in range(1, 10_001):
        if iterations.is_due(number):
            iterations.fold(paths, number)
    assert len(looks) == 999  # in blocks of ten


def test_a_link_in_the_place_of_a_folded_file_is_not_followed(paths: LoopPaths, tmp_path: Path) -> None:
    write(paths, 1)
    secret = tmp_path / "secret"
    secret.write_bytes(orjson.dumps({**ITERATION, "iteration": 2}) + b"\n")
    (paths.iterations / "000001-000010.jsonl").symlink_to(secret)
    assert numbers(paths) == [1]
    assert os.path.lexists(paths.iterations / "000001-000010.jsonl")
