"""The files of a ticket loop's memory: where they are, what may be in their place, what a crash leaves."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ralph_rpc.errors import RalphError
from ralph_rpc.files import atomic
from ralph_rpc.tickets.notes import memory
from ralph_rpc.tickets.notes.memory import MemoryPlaces, read_lessons, remember, show_state
from ralph_rpc.tickets.notes.progress import TicketEntry

ENTRY = TicketEntry(
    id="ab-1",
    title="Sort the list",
    outcome="complete",
    iteration=1,
    attempt=1,
    duration_ms=1000,
    cost=0.01,
    ended_at=1_770_000_000_123,
)


@pytest.fixture
def places(tmp_path: Path) -> MemoryPlaces:
    loop = tmp_path / ".ralph" / "x"
    atomic.make_private_dir(loop)
    return MemoryPlaces.of(tmp_path, loop)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_without_other_tools_the_loop_has_files_of_its_own(tmp_path: Path, places: MemoryPlaces) -> None:
    assert places.progress == tmp_path / ".ralph/x/progress.md"
    assert places.lessons == tmp_path / ".ralph/x/lessons.md"
    assert remember(places, ENTRY, ["one", "two"], 50) == ["one", "two"]
    assert read_lessons(places) == ["one", "two"]
    assert "- ab-1: COMPLETE (" in places.progress.read_text()
    assert mode(places.progress) == mode(places.lessons) == 0o600


def test_the_files_of_a_project_with_tf_are_shared(tmp_path: Path) -> None:
    shared = tmp_path / ".tf" / "ralph"
    shared.mkdir(parents=True)
    shared.chmod(0o755)
    (shared / "AGENTS.md").write_text("# Ralph Lessons Learned\n\n## Patterns\n\n- known\n")
    (shared / "AGENTS.md").chmod(0o664)
    places = MemoryPlaces.of(tmp_path, tmp_path / ".ralph" / "x")
    assert remember(places, ENTRY, ["Known", "new"], 50) == ["new"]
    assert read_lessons(places) == ["known", "new"]
    assert mode(shared / "AGENTS.md") == 0o664
    assert mode(shared / "progress.md") == 0o644
    assert not (tmp_path / ".ralph").exists()


def test_a_link_is_no_tf_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "ralph").mkdir(parents=True)
    (tmp_path / ".tf").symlink_to("elsewhere")
    assert MemoryPlaces.of(tmp_path, tmp_path / "loop").progress == tmp_path / "loop" / "progress.md"
    (tmp_path / ".tf").unlink()
    (tmp_path / ".tf").mkdir()
    (tmp_path / ".tf" / "ralph").symlink_to("../elsewhere/ralph")
    assert MemoryPlaces.of(tmp_path, tmp_path / "loop").lessons == tmp_path / "loop" / "lessons.md"


def test_the_same_end_again_changes_nothing(places: MemoryPlaces) -> None:
    remember(places, ENTRY, ["one"], 50)
    before = [path.read_bytes() for path in (places.progress, places.lessons)]
    assert remember(places, ENTRY, ["one"], 50) == []
    assert [path.read_bytes() for path in (places.progress, places.lessons)] == before


def test_no_lesson_makes_no_file(places: MemoryPlaces) -> None:
    assert remember(places, ENTRY, [], 50) == []
    assert not places.lessons.exists()
    assert read_lessons(places) == []


def test_the_state_is_shown(places: MemoryPlaces) -> None:
    show_state(places, "RUNNING", ["ab-1"], 1_770_000_000_000)
    assert "- Current ticket: ab-1\n" in places.progress.read_text()
    remember(places, ENTRY, [], 50)
    assert "- Current ticket: (none)\n" in places.progress.read_text()


def link(path: Path) -> None:
    (path.parent / "target").write_text("secret")
    path.symlink_to("target")


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def latin(path: Path) -> None:
    path.write_bytes(b"caf\xe9\n")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(memory.LARGEST + 1)


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("put", [link, dangling, fifo, latin, huge, folder])
@pytest.mark.parametrize("which", ["progress", "lessons"])
def test_what_is_no_text_file_is_left_alone_and_told(places: MemoryPlaces, put: object, which: str) -> None:
    path: Path = getattr(places, which)
    assert callable(put)
    put(path)
    before = path.lstat()
    names = {found.name for found in path.parent.iterdir()}
    with pytest.raises(RalphError, match=path.name):
        remember(places, ENTRY, ["one"], 50)
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    other = places.lessons if which == "progress" else places.progress
    assert {found.name for found in path.parent.iterdir()} == names | {other.name}


def test_a_folder_that_is_gone_is_told(places: MemoryPlaces) -> None:
    places.progress.parent.rmdir()
    with pytest.raises(RalphError, match="cannot write"):
        remember(places, ENTRY, ["one"], 50)


@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_after_a_crash_the_same_entry_completes_what_is_missing(
    places: MemoryPlaces, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    class Crash(BaseException):
        pass

    remember(places, replace(ENTRY, id="ab-0"), ["zero"], 50)
    real = atomic.write_atomic
    writes = iter(range(1, 10))

    def crashing(path: Path, data: bytes, mode: int = 0o600, durable: bool = True) -> None:
        if next(writes) >= crash_at:
            raise Crash
        real(path, data, mode, durable)

    with monkeypatch.context() as broken:
        broken.setattr(memory, "write_atomic", crashing)
        try:
            remember(places, ENTRY, ["one"], 50)
        except Crash:
            assert crash_at < 3
    remember(places, ENTRY, ["one"], 50)
    assert read_lessons(places) == ["zero", "one"]
    assert places.progress.read_text().count("- ab-1: COMPLETE") == 1
    assert "- Tickets completed: 2\n" in places.progress.read_text()
