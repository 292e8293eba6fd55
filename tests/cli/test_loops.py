"""Which loop a name means, and the status that is shown for it."""

from pathlib import Path

import click
import pytest

from ralph_rpc.errors import NoSuchLoop, UsageError
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops import complete_names, find_project, loop_status, resolve_loop, valid_name
from tests.cli import forged
from tests.cli.stage import Stage


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def other(tmp_path: Path, folder: str, name: str = "api") -> LoopPaths:
    """A loop of another project that the registry knows."""
    paths = forged.loop(tmp_path / folder, name)
    forged.register(f"--{folder}--{name}", forged.entry(tmp_path / folder, name))
    return paths


@pytest.mark.parametrize("name", ["a", "api-2", "9.x_Y", "x" * 64])
def test_a_valid_name(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "_a", "a/b", "a\n", "a b", "é", "x" * 65, "config.toml", "registry"]
)
def test_no_valid_name(name: str) -> None:
    assert not valid_name(name)
    with pytest.raises(UsageError):
        resolve_loop(name, None)


def test_a_loop_is_found_from_any_folder_below_its_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = forged.loop(project)
    monkeypatch.chdir(project / "deep" / "down")
    assert resolve_loop("api", None) == paths


def test_a_loop_of_this_project_comes_before_those_of_others(project: Path, tmp_path: Path) -> None:
    other(tmp_path, "elsewhere")
    assert resolve_loop("api", None).project == tmp_path / "elsewhere"
    paths = forged.loop(project)
    assert resolve_loop("api", None) == paths
    assert resolve_loop("api", tmp_path / "elsewhere").project == tmp_path / "elsewhere"


def test_a_loop_of_several_other_projects_is_not_guessed(project: Path, tmp_path: Path) -> None:
    other(tmp_path, "one")
    other(tmp_path, "two")
    with pytest.raises(NoSuchLoop) as raised:
        resolve_loop("api", None)
    assert (
        f"{tmp_path / 'one'}, {tmp_path / 'two'}" in raised.value.message and "--project" in raised.value.hint
    )


def test_on_a_terminal_one_of_several_is_picked(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for folder in ("one", "two"):
        paths = forged.loop(tmp_path / folder, status="stopped")
        forged.register(f"--{folder}--api", forged.entry(paths.project))
    code, shown = stage.on_terminal("steer", "api", "hello", answer="2\n")
    assert code == 0, shown
    assert [
        len(list(LoopPaths.of(tmp_path / folder, "api").inbox.iterdir())) for folder in ("one", "two")
    ] == [0, 1]


def test_what_there_is_is_named_where_there_is_no_such_loop(project: Path, tmp_path: Path) -> None:
    with pytest.raises(NoSuchLoop, match="there is no loop 'api'"):
        resolve_loop("api", None)
    other(tmp_path, "elsewhere", "web")
    with pytest.raises(NoSuchLoop) as raised:
        resolve_loop("api", None)
    assert "web" in raised.value.hint and raised.value.code == 3
    forged.loop(project, "docs")
    with pytest.raises(NoSuchLoop) as raised:
        resolve_loop("api", project)
    assert "docs" in raised.value.hint


def test_the_registry_alone_makes_the_home_no_project(
    isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        resolve_loop("api", None)
    assert complete_names(click.Context(click.Command("x")), click.Argument(["name"]), "") == []


@pytest.mark.parametrize(
    ("changes", "alive", "runner", "shown"),
    [
        ({"status": "running"}, True, "alive", "running"),
        ({"status": "waiting"}, True, "alive", "waiting"),
        ({"status": "running"}, False, "dead", "crashed"),
        ({"status": "paused"}, False, "dead", "crashed"),
        ({"status": "stopped", "pid": None}, False, "dead", "stopped"),
        ({"status": "completed", "pid": None}, False, "dead", "completed"),
        ({"status": "running", "updatedAt": forged.ago(60)}, True, "stale", "stale"),
        ({"status": "running", "bootId": "another boot"}, False, "dead", "crashed"),
    ],
)  # fmt: skip
def test_the_status_that_is_shown(
    project: Path, changes: forged.Json, alive: bool, runner: str, shown: str
) -> None:
    paths = forged.loop(project, "api", alive, **changes)
    status = loop_status(paths)
    assert (status.runner, status.shown) == (runner, shown)


def test_a_held_lock_is_life_whatever_the_state_says(project: Path) -> None:
    paths = forged.loop(project, status="running")
    with forged.runner_of(paths):
        assert loop_status(paths).runner == "alive"
        paths.state.unlink()
        assert (loop_status(paths).runner, loop_status(paths).shown) == ("alive", "starting")
    assert loop_status(paths).shown == "crashed"


def test_a_runner_that_refreshes_its_registry_entry_is_not_stale(project: Path) -> None:
    paths = forged.loop(project, "api", alive=True, updatedAt=forged.ago(600))
    slug = str(project).lstrip("/").replace("/", "-")
    forged.register(f"--{slug}--api", forged.entry(project, "api", alive=True, lastSeen=forged.ago(3)))
    assert loop_status(paths).shown == "running"
    forged.register(f"--{slug}--api", forged.entry(project, "api", alive=True, lastSeen=forged.ago(45)))
    assert loop_status(paths).shown == "stale"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"status": 1}', b"\xff"])
def test_a_state_that_cannot_be_read_is_a_crash_and_no_error(project: Path, content: bytes) -> None:
    paths = forged.loop(project)
    paths.state.write_bytes(content)
    assert (loop_status(paths).state, loop_status(paths).shown) == (None, "crashed")


def test_names_are_completed_from_here_and_from_the_registry(project: Path, tmp_path: Path) -> None:
    forged.loop(project, "api")
    other(tmp_path, "elsewhere", "app")
    other(tmp_path, "third", "web")
    ctx = click.Context(click.Command("status"))
    assert complete_names(ctx, click.Argument(["name"]), "a") == ["api", "app"]
    assert complete_names(ctx, click.Argument(["name"]), "") == ["api", "app", "web"]
