"""What pi had said and a killed runner had not read: counted all the same."""

import os
import signal
from pathlib import Path

import pytest

from ralph_rpc.demo.model import Reply, Request
from ralph_rpc.files import records
from tests.benchmarks.faulty_provider import price
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel, hang_before_headers
from tests.rig import Rig, alive, new_project, wait_for


def test_an_answer_and_a_request_that_a_killed_runner_had_not_read_are_counted(tmp_path: Path, pi: list[str]) -> None:
    answer = Reply("on with it ", tool_calls=[("bash", {"command": "echo a >> a"})])
    stopped: list[int] = []

    def script(request: Request, number: int) -> Reply:
        if number == 3:  # the first of the second iteration
            stopped.append(rig.state()["pid"])
            os.kill(stopped[0], signal.SIGSTOP)
        elif number == 4:
            os.kill(stopped[0], signal.SIGKILL)
            return hang_before_headers()
        return answer if number in (1, 3) else Reply("done")

    with ScriptedModel(script) as model:
        rig = Rig(new_project(tmp_path / "project"), pi[-1], model.agent_dir(tmp_path), list(MODEL_ARGS))
        rig.start("-n", "2")
        wait_for("the kill", lambda: stopped and not alive(stopped[0]))
        wait_for("the end of its tree", lambda: not rig.of_mine())
        rig.run("resume", "x")
        rig.wait_end()
    done = records.read_iterations(rig.paths)
    assert [record["outcome"] for record in done] == ["ok", "crashed", "ok"]
    assert done[1]["cost"] == pytest.approx(price(answer.usage))
    assert done[1].get("unpricedRequests") == 1
    assert rig.state()["stats"]["cost"] == pytest.approx(4 * price(answer.usage))
