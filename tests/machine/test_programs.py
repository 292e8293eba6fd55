"""A program is found by the absolute entries of PATH alone."""

import os
import shutil
from pathlib import Path

import pytest

from ralph_rpc.machine.programs import found_there, on_path


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").write_text("#!/bin/sh\n")
        (tmp_path / folder / "tool").chmod(0o755)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "there" / "tool"


@pytest.mark.parametrize("relative", ["", ".", "../here"])
def test_a_relative_entry_is_passed_by(tool: Path, relative: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{relative}{os.pathsep}{tool.parent}")
    assert on_path("tool") == str(tool)
    with found_there():
        assert shutil.which("tool") == str(tool)
    assert os.environ["PATH"] == f"{relative}{os.pathsep}{tool.parent}"
    monkeypatch.setenv("PATH", relative)
    assert on_path("tool") is None
    with found_there():
        assert shutil.which("tool") is None


def test_what_cannot_be_run_is_no_program(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tool.parent))
    tool.chmod(0o644)
    assert on_path("tool") is None
