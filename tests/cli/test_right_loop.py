"""A command that changes something acts on the loop of this project, and says which project that is."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.cli.main import run
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import Elsewhere, find_to_change
from tests.cli import forged
from tests.cli.stage import Stage

CHANGING = (
    ["stop", "api", "--now"],
    ["abort", "api"],
    ["pause", "api"],
    ["steer", "api", "hello"],
    ["followup", "api", "hello"],
    ["kill", "api"],
    ["resume", "api"],
    ["clean", "api", "--yes", "--force"],
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopPaths]:
    """A living loop of another project, known from the registry; this project has another one."""
    monkeypatch.chdir(forged.loop(tmp_path / "here", "web").project)
    paths = forged.loop(tmp_path / "other", "api", alive=True)
    forged.register("--other--api", forged.entry(tmp_path / "other", "api", alive=True))
    with forged.runner_of(paths):
        yield paths


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: command[0])
def test_what_changes_something_does_not_reach_another_projects_loop(
    other: LoopPaths, command: list[str], capsys: Capture
) -> None:
    assert run(command) == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "no loop 'api' in this project" in told and f"--project {other.project}" in told
    assert list(other.inbox.iterdir()) == [] and not other.kill_order.exists()


@pytest.mark.parametrize("command", CHANGING[:5], ids=lambda command: command[0])
def test_with_the_project_it_acts_and_names_it(other: LoopPaths, command: list[str], capsys: Capture) -> None:
    assert run([*command, "--project", str(other.project)]) == 0
    assert str(other.project) in capsys.readouterr().out
    assert run([*command, "--project", str(other.project), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said[0] if isinstance(said, list) else said)["project"] == str(other.project)
    assert len(list(other.inbox.glob("*.json"))) == 2


@pytest.mark.parametrize("command", [["status", "api"], ["logs", "api"], ["wait", "api", "--timeout", "0.01"]])
def test_what_only_looks_finds_it_wherever_it_is(other: LoopPaths, command: list[str], capsys: Capture) -> None:
    assert run(command) in (0, 124)
    assert "no loop" not in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "sent"), [("y\n", 1), ("n\n", 0)])
def test_on_a_terminal_a_yes_is_enough(tmp_path: Path, answer: str, sent: int) -> None:
    stage = Stage(tmp_path)
    paths = forged.loop(tmp_path / "other", "api", alive=True)
    forged.register("--other--api", forged.entry(tmp_path / "other", "api", alive=True))
    with forged.runner_of(paths):
        code, shown = stage.on_terminal("stop", "api", answer=answer)
    assert str(paths.project) in shown and (code == 0) is bool(sent)
    assert len(list(paths.inbox.glob("*.json"))) == sent


def test_of_several_elsewhere_all_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        forged.elsewhere(tmp_path, folder)
    with pytest.raises(Elsewhere) as caught:
        find_to_change("api")
    assert all(str(tmp_path / folder) in caught.value.message for folder in ("one", "two"))


def test_an_agent_in_a_worktree_elsewhere_reaches_the_loops_of_its_own_project(
    other: LoopPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RALPH_LOOP_DIR", str(other.dir.with_name("night")))
    assert find_to_change("api") == other


def test_clean_names_the_project_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    paths = forged.loop(tmp_path / "project", status="completed")
    monkeypatch.chdir(paths.project)
    assert run(["clean", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"][0]["project"] == os.fspath(paths.project)
