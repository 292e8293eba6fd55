"""What the commands of an unattended agent find in their environment."""

from pathlib import Path

import pytest

from ralph_rpc.files.paths import LoopPaths
from ralph_runner.shell.environment import UNATTENDED, child_environment


def env(tmp_path: Path) -> dict[str, str]:
    return child_environment(LoopPaths.of(tmp_path, "x"), tmp_path)


def test_nothing_opens_an_editor_a_pager_or_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNATTENDED:
        monkeypatch.delenv(name, raising=False)
    found = env(tmp_path)
    for name in ("GIT_EDITOR", "GIT_SEQUENCE_EDITOR", "EDITOR", "VISUAL"):
        assert found[name] == "true"
    assert found["GIT_TERMINAL_PROMPT"] == "0" and found["PAGER"] == found["GIT_PAGER"] == "cat"


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNATTENDED:
        monkeypatch.setenv(name, "mine")
    found = env(tmp_path)
    assert {found[name] for name in UNATTENDED} == {"mine"}
