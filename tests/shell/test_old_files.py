"""What ended iterations leave stays bounded, and nothing else is ever removed."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from ralph_rpc.files import iterations, records
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.iteration import Iteration
from ralph_runner.shell.old_files import OldFiles
from tests.core.talk import config
from tests.files.test_records import ITERATION


def old_files(paths: LoopPaths, notes: list[str] | None = None, **changes: Any) -> OldFiles:
    def now(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    return OldFiles(paths, config(**changes), now, ([] if notes is None else notes).append)


def ended(paths: LoopPaths, number: int, session: Path | None) -> Iteration:
    made = cast(Iteration, {**ITERATION, "iteration": number, "sessionFile": None if session is None else str(session)})
    records.write_iteration(paths, made)
    return made


def made(paths: LoopPaths, name: str) -> Path:
    paths.sessions.mkdir(parents=True, exist_ok=True)
    file = paths.sessions / f"{name}.jsonl"
    file.write_text("{}\n")
    return file


def test_the_sessions_of_the_newest_iterations_stay(tmp_path: Path) -> None:
    paths = LoopPaths.of(tmp_path, "x")
    old = old_files(paths, keepSessions=3)
    running = made(paths, "running")
    for number in range(1, 11):
        old.ended(ended(paths, number, made(paths, f"s{number}")))
        assert running.exists()
        assert len(list(paths.sessions.iterdir())) <= 4
    assert {file.name for file in paths.sessions.iterdir()} == {"running.jsonl", *(f"s{n}.jsonl" for n in (8, 9, 10))}


def test_the_sessions_of_earlier_runs_count(tmp_path: Path) -> None:
    paths = LoopPaths.of(tmp_path, "x")
    for number in range(5):
        made(paths, f"old{number}")
    old = old_files(paths, keepSessions=2)
    old.ended(ended(paths, 1, made(paths, "new")))
    assert len(list(paths.sessions.iterdir())) == 2 and (paths.sessions / "new.jsonl").exists()


def test_no_session_is_kept_with_0_and_a_session_that_goes_on_counts_once(tmp_path: Path) -> None:
    paths = LoopPaths.of(tmp_path, "x")
    old = old_files(paths, keepSessions=0)
    old.ended(ended(paths, 1, made(paths, "a")))
    assert list(paths.sessions.iterdir()) == []
    old = old_files(paths, keepSessions=2)
    same = made(paths, "same")
    for number in range(2, 6):
        old.ended(ended(paths, number, same))
    assert same.exists()


@pytest.mark.parametrize(
    "named", ["{out}/precious.jsonl", "{sessions}/../config.json", "{sessions}/notes.txt", "x.jsonl"]
)
def test_nothing_outside_of_the_sessions_is_removed_whatever_pi_says(tmp_path: Path, named: str) -> None:
    paths = LoopPaths.of(tmp_path, "x")
    made(paths, "a")
    (tmp_path / "precious.jsonl").write_text("x")
    (paths.sessions / "notes.txt").write_text("x")
    paths.config.write_text("{}")
    old = old_files(paths, keepSessions=0)
    old.ended(ended(paths, 1, Path(named.format(out=tmp_path, sessions=paths.sessions))))
    assert (tmp_path / "precious.jsonl").exists() and paths.config.exists() and (paths.sessions / "notes.txt").exists()


def test_records_are_folded_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterations, "BLOCK", 10)
    monkeypatch.setattr(iterations, "SLACK", 3)
    paths = LoopPaths.of(tmp_path, "x")
    old = old_files(paths)
    for number in range(1, 31):
        old.ended(ended(paths, number, None))
    assert len(list(paths.iterations.glob("*.jsonl"))) == 2
    assert [record["iteration"] for record in records.read_iterations(paths)] == list(range(1, 31))


def test_what_cannot_be_removed_is_noted_and_no_more(tmp_path: Path) -> None:
    paths = LoopPaths.of(tmp_path, "x")
    notes: list[str] = []
    old = old_files(paths, notes, keepSessions=0)
    folder = paths.sessions / "a.jsonl"
    folder.mkdir(parents=True)
    old.ended(ended(paths, 1, folder))
    assert folder.exists() and "old files stay" in notes[0]
