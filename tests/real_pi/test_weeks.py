"""What keeps a loop small over weeks, on real pi of four generations."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.demo.model import Reply
from ralph_rpc.pi.agent_folder import TRUST_SINCE
from ralph_rpc.pi.find import numbers
from tests.real_pi.scripted_model import ScriptedModel
from tests.real_pi.test_loop import rig_for
from tests.rig import alive, wait_for

pytestmark = [pytest.mark.pi, pytest.mark.usefixtures("no_leftovers")]
MARKER = "<promise>COMPLETE</promise>"


def test_a_pi_that_has_grown_is_replaced_and_old_sessions_leave(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: Reply(f"answer {n}")) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "4", "--stall-after", "0", "--pi-memory", "20M", "--keep-sessions", "2")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("stopped", "max-iterations"), state
        assert [record["outcome"] for record in rig.records()] == ["ok"] * 4
        started = {event["pid"] for event in rig.of("ralph_pi_start")}
        assert len(started) == 4
        replaced = [event["message"] for event in rig.of("ralph_notice") if "--pi-memory" in event["message"]]
        assert len(replaced) == 3 and state["restarts"] == [] and state["consecutiveFailures"] == 0
        assert all(event["exitCode"] == 0 for event in rig.of("ralph_pi_exit"))
        kept = {str(file) for file in rig.paths.sessions.rglob("*.jsonl")}
        assert kept == {record["sessionFile"] for record in rig.records()[-2:]}


def test_a_pi_within_its_memory_stays(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: Reply(f"answer {n}")) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "3", "--stall-after", "0")
        rig.wait_end()
        assert len(rig.of("ralph_pi_start")) == 1
        assert len(list(rig.paths.sessions.rglob("*.jsonl"))) == 3


def test_a_killed_loop_continues_at_boot(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if n == 1:
            return Reply("", tool_calls=[("bash", {"command": "touch begun; while [ ! -e go ]; do sleep 0.1; done"})])
        return Reply(f"done\n{MARKER}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start()
        wait_for("the tool", lambda: (rig.project / "begun").exists())
        pids = rig.pids()
        os.kill(pids[0], signal.SIGKILL)
        wait_for("the end of its tree", lambda: not any(map(alive, pids)))
        # The PATH of a boot has no node.
        rig.env["PATH"] = "/usr/bin:/bin"
        (found,) = json.loads(rig.run("resume", "--crashed", "--json").stdout)
        assert (found["name"], found["result"]) == ("x", "resumed")
        assert rig.wait_end()["status"] == "completed"
        assert [record["outcome"] for record in rig.records()] == ["crashed", "ok"]


def test_start_knows_which_settings_pi_ignores(tmp_path: Path, pi: list[str]) -> None:
    """A system prompt of the project reaches the model, or `start` has said that it will not."""
    seen: list[str] = []

    def script(request: dict[str, Any], n: int) -> Reply:
        seen.append(json.dumps(request["messages"]))
        return Reply(f"done\n{MARKER}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        (rig.project / ".pi").mkdir()
        (rig.project / ".pi" / "SYSTEM.md").write_text("You are a xylophone.")
        told = rig.start().stderr
        version = rig.wait_end()["piVersion"]
        assert ("pi will ignore .pi/SYSTEM.md" in told) == (numbers(version) >= numbers(TRUST_SINCE))
        assert ("xylophone" in seen[-1]) == ("pi will ignore" not in told)
        if "pi will ignore" in told:
            assert "pi will ignore" not in rig.start("--approve").stderr
            rig.wait_end()
            assert "xylophone" in seen[-1]
            trust = Path(rig.env["PI_CODING_AGENT_DIR"]) / "trust.json"
            trust.write_text(json.dumps({str(tmp_path): True}))
            assert "pi will ignore" not in rig.start().stderr
            rig.wait_end()
            assert "xylophone" in seen[-1]


def test_a_pi_without_a_login_is_named_before_anything_is_made(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: Reply("never asked")) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.model_args = []
        rig.env["PI_CODING_AGENT_DIR"] = str(tmp_path / "empty")
        rig.env = {name: value for name, value in rig.env.items() if not name.endswith(("_API_KEY", "_TOKEN"))}
        told = rig.start(check=5).stderr
        assert "Log in with `ralph-rpc pi`" in told and "Nothing was started" in told
        assert not rig.paths.dir.exists()
        found = json.loads(rig.run("doctor", "--json", check=None).stdout)
        assert [one["level"] for one in found if one["check"] == "login"] == ["warn"]
        rig.env["PI_CODING_AGENT_DIR"] = model.agent_dir(tmp_path).as_posix()
        found = json.loads(rig.run("doctor", "--json", check=None).stdout)
        assert [one["level"] for one in found if one["check"] == "login"] == ["ok"]
