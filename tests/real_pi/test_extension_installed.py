"""The extension of a program that was installed as a tool: in an environment of its own, by pipx or by uv."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from ralph_rpc.demo.model import Reply
from tests.real_pi import provision
from tests.real_pi.inside import inside
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, new_project

pytestmark = [pytest.mark.pi, pytest.mark.full, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
ATTACHED = "typing goes to the loop"


def command(*args: object, env: dict[str, str]) -> str:
    done = subprocess.run([str(arg) for arg in args], check=False, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, (args, done.stdout, done.stderr)
    return done.stdout


def installed(folder: Path, tool: str) -> Path:
    """The program, installed from a wheel of this checkout by the tool's newest version."""
    env = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CACHE_DIR": str(provision.CACHE / "pip"),
        "UV_CACHE_DIR": str(provision.CACHE / "uv"),
        "PIPX_HOME": str(folder / "tools"),
        "PIPX_BIN_DIR": str(folder / "bin"),
        "UV_TOOL_DIR": str(folder / "tools"),
        "UV_TOOL_BIN_DIR": str(folder / "bin"),
    }
    command(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, env=env)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "with", with_pip=True)
    python = folder / "with/bin/python"
    command(python, "-m", "pip", "install", "--quiet", tool, env=env)
    how = ["-m", "pipx", "install", "--python", sys.executable] if tool == "pipx" else ["-m", "uv", "tool", "install"]
    command(python, *how, wheel, env=env)
    return folder / "bin/ralph-rpc"


@pytest.mark.parametrize("tool", ["pipx", "uv"])
def test_a_program_that_was_installed_as_a_tool_brings_its_extension_into_pi_and_out_again(
    tmp_path: Path, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = installed(tmp_path, tool)
    pi = provision.provide(provision.NEWEST)
    provision.use(pi, monkeypatch)
    work = Reply("I look around.", [("bash", {"command": "sleep 600"})])
    with ScriptedModel([work]) as model:
        # What pi would note by itself is there already.
        agent = model.agent_dir(tmp_path, {"quietStartup": True, "lastChangelogVersion": pi.version})
        before = (agent / "settings.json").read_bytes()
        rig = Rig(new_project(tmp_path / "project"), pi.command[-1], agent, MODEL_ARGS)
        options = {"RALPH_PI": rig.pi, "RALPH_PROVIDER": MODEL_ARGS[1], "RALPH_MODEL": MODEL_ARGS[3]}
        with inside(tmp_path, rig, pi.command, model, options) as one:
            command(program, "pi-extension", "install", "--pi", rig.pi, env=rig.env)
            record = json.loads((Path(os.environ["RALPH_HOME"]) / "pi-extension.json").read_bytes())
            assert record["command"][0].startswith(str(tmp_path / "tools"))
            told = command(program, "pi-extension", "status", env=rig.env)
            assert f"installed: {tmp_path / 'tools'}" in told
            one.starts()
            one.enters("/ralph start x -m Work.")
            one.sees(ATTACHED, "I look around.")
            assert str(tmp_path / "tools") in Path(f"/proc/{rig.pids()[0]}/cmdline").read_text()
            one.quits()
            command(program, "kill", "x", "--project", rig.project, env=rig.env)
            command(program, "pi-extension", "remove", "--pi", rig.pi, env=rig.env)
            assert (agent / "settings.json").read_bytes() == before
            assert "not installed" in command(program, "pi-extension", "status", env=rig.env)
