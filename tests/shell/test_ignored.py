"""Whether ignored files were written: real folders, real git, as the meter that a loop has asks."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from ralph_runner.shell import ignored
from ralph_runner.shell.changes import WorkMeter
from ralph_runner.shell.ignored import written_since
from tests.rig import git, new_project

NOW = 1 << 42
"""Far in the future: nothing was written since."""


def wrote(project: Path, tmp_path: Path, since: int) -> bool:
    return asyncio.run(WorkMeter(project, tmp_path / "scratch").wrote_ignored(since))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = new_project(tmp_path / "project")
    (project / ".gitignore").write_text("out/\n*.log\nnode_modules/\n__pycache__/\n")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "rules")
    old = time.time() - 1_000
    for name in ("out/a.txt", "node_modules/x/index.js", "run.log"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("old\n")
    for file in project.rglob("*"):
        os.utime(file, (old, old))
    return project


def after_all(project: Path) -> int:
    """A moment after every change so far."""
    newest = max(file.lstat().st_ctime_ns for file in project.rglob("*")) // 1_000_000 + 1
    while time.time_ns() // 1_000_000 < newest + 20:
        os.sched_yield()
    return newest


@pytest.mark.parametrize("file", ["out/a.txt", "out/deep/er/new.bin", "run.log", "node_modules/x/index.js"])
def test_an_ignored_file_that_was_written_is_seen_wherever_it_is(project: Path, tmp_path: Path, file: str) -> None:
    since = after_all(project)
    assert not wrote(project, tmp_path, since)
    (project / file).parent.mkdir(parents=True, exist_ok=True)
    with (project / file).open("a") as open_file:
        open_file.write("result\n")
    assert wrote(project, tmp_path, since)


@pytest.mark.parametrize("file", ["README", ".ralph/x/events.jsonl", "__pycache__/a.pyc", "src/__pycache__/a.pyc"])
def test_what_the_measure_sees_itself_the_loops_own_files_and_caches_are_none(
    project: Path, tmp_path: Path, file: str
) -> None:
    (project / ".ralph").mkdir()
    (project / ".ralph" / ".gitignore").write_text("*\n")
    since = after_all(project)
    (project / file).parent.mkdir(parents=True, exist_ok=True)
    (project / file).write_text("x")
    assert not wrote(project, tmp_path, since)


def test_a_folder_without_git_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    (folder / "node_modules").mkdir(parents=True)
    since = after_all(tmp_path)
    assert not wrote(folder, tmp_path, since)
    (folder / "node_modules" / "a").write_text("x")
    assert wrote(folder, tmp_path, since)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "up").symlink_to(tmp_path)
    since = after_all(tmp_path)
    (tmp_path / "elsewhere").write_text("new")
    assert not written_since([os.fsencode(tmp_path / "out") + b"/"], since)


def test_looking_is_bounded_and_the_crowded_folders_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignored, "MOST_ENTRIES", 50)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "zout").mkdir()
    for number in range(100):
        (tmp_path / "node_modules" / str(number)).write_text("")
    since = after_all(tmp_path)
    (tmp_path / "zout" / "new").write_text("x")
    places = [os.fsencode(tmp_path / "node_modules"), os.fsencode(tmp_path / "zout")]
    assert written_since(places, since)
    assert not written_since(places, NOW)
    (tmp_path / "zout" / "new").rename(tmp_path / "venv")
    assert not written_since([places[0], os.fsencode(tmp_path / "venv")], since), "beyond the bounds"
