"""Which loop a name means."""

from pathlib import Path

import pytest

from ralph_rpc.errors import NoSuchLoop, UsageError
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops.find import AmbiguousName, find, find_project, registered, valid_name
from tests.cli import forged


@pytest.mark.parametrize("name", ["a", "api-2", "9.x_Y", "x" * 64])
def test_a_valid_name(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "_a", "a/b", "a\n", "a b", "é", "x" * 65, "config.toml", "registry"]
)
def test_no_valid_name(name: str) -> None:
    assert not valid_name(name)
    with pytest.raises(UsageError):
        find(name, None)


def test_a_loop_is_found_from_any_folder_below_its_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = forged.loop(project)
    monkeypatch.chdir(project / "deep" / "down")
    assert find("api", None) == paths


def test_a_loop_of_this_project_comes_before_those_of_others(project: Path, tmp_path: Path) -> None:
    forged.elsewhere(tmp_path, "elsewhere")
    assert find("api", None).project == tmp_path / "elsewhere"
    paths = forged.loop(project)
    assert find("api", None) == paths
    assert find("api", tmp_path / "elsewhere").project == tmp_path / "elsewhere"


def test_a_loop_of_several_other_projects_is_not_guessed(project: Path, tmp_path: Path) -> None:
    forged.elsewhere(tmp_path, "one")
    forged.elsewhere(tmp_path, "two")
    with pytest.raises(AmbiguousName) as raised:
        find("api", None)
    assert [paths.project for paths in raised.value.candidates] == [tmp_path / "one", tmp_path / "two"]
    assert f"{tmp_path / 'one'}, {tmp_path / 'two'}" in raised.value.message and "--project" in raised.value.hint


def test_what_there_is_is_named_where_there_is_no_such_loop(project: Path, tmp_path: Path) -> None:
    with pytest.raises(NoSuchLoop, match="there is no loop 'api'"):
        find("api", None)
    forged.elsewhere(tmp_path, "elsewhere", "web")
    with pytest.raises(NoSuchLoop) as raised:
        find("api", None)
    assert "web" in raised.value.hint and raised.value.code == 3
    forged.loop(project, "docs")
    with pytest.raises(NoSuchLoop) as raised:
        find("api", project)
    assert "docs" in raised.value.hint


def test_the_registry_alone_makes_the_home_no_project(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry_dir().mkdir(parents=True)
    (isolated / "code").mkdir()
    assert find_project(isolated / "code") is None
    forged.loop(isolated, "mine")
    assert find_project(isolated / "code") == isolated


@pytest.mark.parametrize("folder", ["elsewhere/api", "elsewhere/.ralph/other"])
def test_an_entry_that_points_elsewhere_is_not_believed(project: Path, folder: str) -> None:
    place = LoopPaths(project / folder)
    place.dir.mkdir(parents=True)
    place.config.write_text("{}")
    forged.register("forged", forged.entry(project, "api", ralphDir=str(place.dir)))
    with pytest.raises(NoSuchLoop):
        find("api", None)
    assert registered() == []
