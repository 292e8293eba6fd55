"""The Python interface on real pi: a loop is started, steered with a receipt, watched to its end."""

from pathlib import Path
from typing import Any

import pytest

from ralph_rpc import api
from ralph_rpc.demo.model import Reply
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import new_project, user_texts

pytestmark = [pytest.mark.pi, pytest.mark.usefixtures("no_leftovers")]
MARKER = "<promise>COMPLETE</promise>"


def test_a_python_program_starts_steers_and_watches_a_loop(
    tmp_path: Path, pi: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if any("Finish now." in text for text in user_texts(request)):
            return Reply(f"done\n{MARKER}")
        return Reply("working", tool_calls=[("bash", {"command": f"echo {n} >> out.txt; sleep 0.1"})])

    with ScriptedModel(script) as model:
        project = new_project(tmp_path / "project")
        monkeypatch.setenv("PI_CODING_AGENT_DIR", str(model.agent_dir(tmp_path)))
        loop = api.start(
            "x",
            project,
            task="Do the work.",
            verify="test -f out.txt",
            pi=pi[-1],
            provider=MODEL_ARGS[1],
            model=MODEL_ARGS[3],
        )
        try:
            assert loop.status().shown == "running"
            receipt = loop.receipt(loop.steer("Finish now."), timeout=60)
            assert (receipt.verb, receipt.state) == ("steer", "delivered")
            ended = [event for event in loop.events() if event["type"] == "ralph_iteration_end"]
            assert [event["outcome"] for event in ended] == ["ok"]
            found = loop.wait(timeout=60)
            assert found.shown == "completed" and found.state is not None and found.state["stopReason"] == "verified"
            assert api.find("x", project) == loop and api.loops(project) == [loop]
        finally:
            if loop.status().runner != "dead":
                loop.kill()
