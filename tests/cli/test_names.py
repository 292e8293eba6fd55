"""NAME on the command line: the picker and the completion."""

from pathlib import Path

import click
import pytest

from ralph_rpc.cli.names import complete_names
from ralph_rpc.files.paths import LoopPaths
from tests.cli import forged
from tests.cli.stage import Stage


def test_on_a_terminal_one_of_several_is_picked(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for folder in ("one", "two"):
        paths = forged.loop(tmp_path / folder, status="stopped")
        forged.register(f"--{folder}--api", forged.entry(paths.project))
    code, shown = stage.on_terminal("steer", "api", "hello", answer="2\n")
    assert code == 0, shown
    assert [len(list(LoopPaths.of(tmp_path / folder, "api").inbox.iterdir())) for folder in ("one", "two")] == [0, 1]


def test_names_are_completed_from_here_and_from_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forged.loop(tmp_path / "project", "api")
    monkeypatch.chdir(tmp_path / "project")
    forged.elsewhere(tmp_path, "elsewhere", "app")
    forged.elsewhere(tmp_path, "third", "web")
    ctx = click.Context(click.Command("status"))
    assert complete_names(ctx, click.Argument(["name"]), "a") == ["api", "app"]
    assert complete_names(ctx, click.Argument(["name"]), "") == ["api", "app", "web"]
