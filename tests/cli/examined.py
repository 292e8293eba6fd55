"""What `doctor` says of a project on this machine, with a pi that answers on PATH."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.cli.main import run
from ralph_rpc.files.paths import LoopPaths
from tests.cli import forged

Capture = pytest.CaptureFixture[str]
Finding = dict[str, Any]


def install_pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str = "echo 1.5.2") -> None:
    """One that answers and has a key."""
    pi = tmp_path / "bin/pi"
    pi.parent.mkdir(exist_ok=True)
    pi.write_text(f"#!/bin/sh\n{does}\n")
    pi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pi.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SOME_API_KEY", "x")


def private_loop(project: Path, name: str = "api", **changes: Any) -> LoopPaths:
    """A loop with the modes that `start` gives, and remembered as `start` does it."""
    loop = forged.loop(project, name, **changes)
    forged.remember(loop)
    for path in (project / ".ralph", *(project / ".ralph").rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return loop


def examined(capsys: Capture, *args: str) -> tuple[int, list[Finding]]:
    """Exit code and findings of `doctor --json ARGS`."""
    capsys.readouterr()
    code = run(["doctor", "--json", *args])
    findings: list[Finding] = json.loads(capsys.readouterr().out)
    return code, findings


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding["check"] == check]


def troubles(findings: list[Finding]) -> list[Finding]:
    """All that is not well, but for programs that are missing on this machine."""
    return [finding for finding in findings if finding["level"] != "ok" and finding["check"] not in ("node", "npm")]
