"""The temporary folder of a loop: always the same one, always empty and private, and never anybody else's."""

import tempfile
from pathlib import Path

import pytest

from ralph_rpc.files import tempdir
from ralph_rpc.files.paths import LoopPaths


@pytest.fixture
def loop(tmp_path: Path) -> LoopPaths:
    paths = LoopPaths.of(tmp_path, "api")
    paths.dir.mkdir(parents=True)
    return paths


def test_it_is_the_same_again_and_empty(loop: LoopPaths) -> None:
    first = tempdir.make(loop, None)
    assert tempdir.of_loop(loop, None) == [first] and first.stat().st_mode & 0o777 == 0o700
    (first / "sealed").mkdir()
    (first / "sealed/file").touch()
    (first / "sealed").chmod(0o500)
    first.chmod(0o755)
    assert tempdir.make(loop, None) == first
    assert list(first.iterdir()) == [] and first.stat().st_mode & 0o777 == 0o700


def test_each_loop_has_its_own(loop: LoopPaths, tmp_path: Path) -> None:
    other, namesake = LoopPaths.of(tmp_path, "api-2"), LoopPaths.of(tmp_path / "b", "api")
    for paths in (other, namesake):
        paths.dir.mkdir(parents=True)
    folders = [tempdir.make(paths, None) for paths in (loop, other, namesake)]
    assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)


def test_the_one_that_state_json_tells_of_goes_too(loop: LoopPaths) -> None:
    named = Path(tempfile.mkdtemp(prefix="ralph-api-"))
    made = tempdir.make(loop, str(named))
    assert made != named and not named.exists()
    assert tempdir.make(loop, str(made)) == made


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_stands_in_its_place_stays_and_another_is_made(loop: LoopPaths, tmp_path: Path, kind: str) -> None:
    place = tempdir.make(loop, None)
    place.rmdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    if kind == "link":
        place.symlink_to(other)
    else:
        place.touch()
    made = tempdir.make(loop, None)
    assert made != place and made.is_dir() and made.name.startswith("ralph-api-")
    assert place.is_symlink() == (kind == "link") and (other / "file").exists()
    assert tempdir.of_loop(loop, None) == [] and tempdir.of_loop(loop, str(made)) == [made]


def test_one_of_another_user_stays_and_another_is_made(loop: LoopPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tempdir.make(loop, None)
    (place / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr("os.geteuid", lambda: place.stat().st_uid + 1)
        assert tempdir.make(loop, None) != place
    assert (place / "file").exists()


def test_one_that_cannot_be_removed_is_no_reason_not_to_work(loop: LoopPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, **_: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    place = tempdir.make(loop, None)
    monkeypatch.setattr("shutil.rmtree", refuse)
    assert tempdir.make(loop, None) != place
