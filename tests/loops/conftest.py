from pathlib import Path

import pytest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, without any loop yet."""
    folder = tmp_path / "project"
    (folder / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder
