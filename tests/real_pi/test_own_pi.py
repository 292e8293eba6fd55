"""What asks pi itself outside of any loop: the shell's completion of models, and `ralph-rpc pi`."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ralph_rpc.cli.completing import complete_fallbacks, complete_models, complete_providers
from ralph_rpc.demo.model import MODEL, PROVIDER, write_models_json


def test_the_models_that_pi_knows_are_offered(tmp_path: Path, pi: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_models_json(tmp_path / "agent", 1)
    monkeypatch.setenv("PI_CODING_AGENT_DIR", str(tmp_path / "agent"))
    monkeypatch.setenv("RALPH_PI", pi[-1])
    monkeypatch.setattr("ralph_rpc.cli.completing.MODELS_S", 100)  # here nobody waits who has pressed Tab
    ctx, option = click.Context(click.Command("start")), click.Option(["--model"])
    assert MODEL in complete_models(ctx, option, MODEL[:3])
    assert PROVIDER in complete_providers(ctx, option, "")
    assert complete_fallbacks(ctx, option, f"{PROVIDER}/") == [f"{PROVIDER}/{MODEL}"]
    assert complete_models(ctx, option, "no-such-model") == []


def test_pi_runs_as_itself(tmp_path: Path, pi: list[str]) -> None:
    version = subprocess.run([*pi, "--version"], capture_output=True, text=True, check=True)
    command = [sys.executable, "-P", "-m", "ralph_rpc", "pi", "--version"]
    done = subprocess.run(
        command, env={**os.environ, "RALPH_PI": pi[-1]}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (version.stdout, version.stderr)
