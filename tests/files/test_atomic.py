"""Whole or not at all."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.files.atomic import (
    Unreadable,
    end_of_lines,
    ensure_ralph_dir,
    make_private_dir,
    read_json_object,
    write_atomic,
)
from tests.files.crash import deaths


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("umask")
def test_modes_are_exact_under_any_umask(tmp_path: Path) -> None:
    ralph = ensure_ralph_dir(tmp_path)
    make_private_dir(ralph / "a" / "b")
    write_atomic(ralph / "a" / "file", b"x")
    write_atomic(ralph / "a" / "shared", b"x", mode=0o644)
    assert [mode(p) for p in (ralph, ralph / "a", ralph / "a" / "b")] == [0o700] * 3
    assert [mode(p) for p in (ralph / ".gitignore", ralph / "a/file", ralph / "a/shared")] == [0o600, 0o600, 0o644]


def test_the_ralph_folder_ignores_itself_and_keeps_what_is_there(tmp_path: Path) -> None:
    ralph = ensure_ralph_dir(tmp_path)
    assert (ralph / ".gitignore").read_bytes() == b"*\n"
    (ralph / ".gitignore").write_text("mine\n")
    assert ensure_ralph_dir(tmp_path) == ralph
    assert (ralph / ".gitignore").read_text() == "mine\n"


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_private_dir(tmp_path / "file")


def test_a_death_at_any_step_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    seen = set()

    def prepare() -> None:
        for file in tmp_path.iterdir():
            file.unlink()
        path.write_bytes(b"old")

    for _ in deaths(lambda: write_atomic(path, b"new" * 1000), prepare):
        seen.add(path.read_bytes())
    assert seen == {b"old", b"new" * 1000}
    assert path.read_bytes() == b"new" * 1000


@pytest.mark.parametrize("fails", ["write", "fsync", "rename", "fchmod"])
def test_a_failure_leaves_the_old_content_and_no_temporary_file(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, full)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    data = bytes(range(256)) * 4
    write_atomic(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b'{"n": 0}', durable=False)
    done = threading.Event()

    def write() -> None:
        for n in range(300):
            write_atomic(path, b'{"n": %d, "pad": "%s"}' % (n, b"x" * (n % 7) * 1000), durable=False)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set() or reads == 0:
        assert read_json_object(path) is not None
        reads += 1
    writer.join()


def test_no_file_is_none() -> None:
    assert read_json_object(Path("/proc/self/cmdline/below/a/file")) is None
    assert read_json_object(Path("/nowhere/at/all")) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\0" * 100, b"\xff", b"[" * 100_000, b'{"a": NaN}'])
def test_what_is_no_json_object_is_unreadable(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(Unreadable) as problem:
        read_json_object(path)
    assert str(path) in problem.value.message
    assert problem.value.path == path


def test_what_is_no_plain_file_is_unreadable_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_text("{}")
    (tmp_path / "link").symlink_to("target")
    for name in ("fifo", "folder", "link"):
        with pytest.raises(Unreadable):
            read_json_object(tmp_path / name)


@pytest.mark.parametrize("before", [0, 1, 65535, 65536, 65537])
@pytest.mark.parametrize("after", [0, 1, 65535, 65536, 200_000])
def test_the_end_of_the_last_line_is_found_across_blocks(before: int, after: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a" * before + b"\n" + b"b" * after)
    with (tmp_path / "file").open("rb") as file:
        assert end_of_lines(file.fileno()) == before + 1


def test_a_file_without_a_line_ends_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a" * 100_000)
    with (tmp_path / "file").open("rb") as file:
        assert end_of_lines(file.fileno()) == 0
