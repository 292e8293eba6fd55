"""Real pi of every generation behind a launcher, and as one-shot pis."""

from pathlib import Path

import pytest

from ralph_rpc.demo.model import Reply
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, new_project

MARKER = "<promise>COMPLETE</promise>"


@pytest.mark.parametrize("how", [("--launcher", "env"), ("--backend", "print")], ids=["prefix", "print"])
def test_a_loop_runs_to_its_end_and_counts_what_was_billed(tmp_path: Path, pi: list[str], how: tuple[str, ...]) -> None:
    replies = [
        Reply("first ", tool_calls=[("bash", {"command": "echo one > one"})]),
        Reply("that was one thing"),
        Reply("second ", tool_calls=[("bash", {"command": "echo two > two"})]),
        Reply(f"all done\n{MARKER}"),
    ]
    with ScriptedModel(replies) as model:
        rig = Rig(new_project(tmp_path / "project"), pi[-1], model.agent_dir(tmp_path), list(MODEL_ARGS))
        rig.start(*how, "--verify", "test -e two", "--max-tokens", "1M")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("completed", "verified"), (state["error"], rig.log())
        assert [one["outcome"] for one in rig.records()] == ["ok", "ok"]
        assert state["stats"]["cost"] == pytest.approx(sum(model.bill))
        assert state["stats"]["turns"] == 4 and state["stats"]["toolCalls"] == 2
    assert all(one["sessionId"] for one in rig.records())
    assert rig.litter() == {"README", "one", "two"}
