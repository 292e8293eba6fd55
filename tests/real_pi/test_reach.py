"""What an agent on real pi does to its own loop by accident, and what is done to the program under it."""

from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.demo.model import Reply
from tests.faults.installation import Installation
from tests.faults.namespace import INSIDE, run_in_namespace
from tests.faults.test_survival import settle, started_from
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, git, new_project, wait_for

pytestmark = [pytest.mark.pi, pytest.mark.usefixtures("no_leftovers")]
MARKER = "<promise>COMPLETE</promise>"


def agent(*commands: str) -> Any:
    """A model that has the commands run in its first iteration, and claims in its second that all is done."""

    def script(request: dict[str, Any], n: int) -> Reply:
        if n <= len(commands):
            return Reply("running ", tool_calls=[("bash", {"command": commands[n - 1]})])
        return Reply("once more" if n == len(commands) + 1 else f"done\n{MARKER}")

    return script


def rig_for(tmp_path: Path, pi: list[str], model: ScriptedModel) -> Rig:
    return Rig(new_project(tmp_path / "project"), pi[-1], model.agent_dir(tmp_path), list(MODEL_ARGS))


def check_two_good_iterations(rig: Rig, state: dict[str, Any]) -> None:
    assert (state["status"], state["stopReason"]) == ("completed", "marker"), (state, rig.log())
    assert [record["outcome"] for record in rig.records()] == ["ok", "ok"], rig.log()
    assert len(rig.of("ralph_pi_start")) == 1


def test_an_agent_that_cleans_its_checkout_does_not_touch_the_loop(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(agent("touch junk; git clean -fdx; git stash -a; git add -A")) as model:
        rig = rig_for(tmp_path, pi, model)
        rig.start()
        check_two_good_iterations(rig, rig.wait_end())
        assert not (rig.project / "junk").exists()
        assert git(rig.project, "status", "--short") == ""
        assert not [e for e in rig.of("ralph_notice") if e["level"] == "warning"]


def test_an_agent_that_removes_the_loop_s_folder_works_on_in_a_new_one(tmp_path: Path, pi: list[str]) -> None:
    # A pi that writes its session before the folder is there again fails that one iteration.
    there = " && ".join(f"[ -e .ralph/x/{name} ]" for name in ("sessions", "state.json", "pid"))
    until_there = f"until {there}; do sleep 0.05; done"
    with ScriptedModel(agent(f"rm -rf .ralph; {until_there}", "true")) as model:
        rig = rig_for(tmp_path, pi, model)
        rig.start(task="The task.\n")
        check_two_good_iterations(rig, rig.wait_end())
        assert rig.paths.task.read_text() == "The task.\n"
        assert len([e for e in rig.of("ralph_notice") if "Lost:" in e["message"]]) == 1


@pytest.mark.parametrize("command", ["pkill python", "pkill -f ralph_runner", "killall -q python3 python"])
def test_an_agent_that_ends_processes_by_name_ends_nothing_of_the_loop(
    tmp_path: Path, pi: list[str], command: str
) -> None:
    with ScriptedModel(agent(f"if {INSIDE}; then touch ran; {command}; fi; sleep 1")) as model:
        rig = rig_for(tmp_path, pi, model)
        run_in_namespace(rig, *MODEL_ARGS)
        assert (rig.project / "ran").exists(), "nothing was ended"
        check_two_good_iterations(rig, rig.state())


def test_a_loop_on_real_pi_survives_the_move_of_its_venv(tmp_path: Path, pi: list[str]) -> None:
    hold = "touch at; while [ ! -e go ]; do sleep 0.05; done"
    with ScriptedModel(agent(hold)) as model:
        rig = rig_for(tmp_path, pi, model)
        installed = Installation(tmp_path / "venv")
        started_from(installed, rig, "-m", "Work.", *MODEL_ARGS, "--verify", "test -e at")
        wait_for("the tool", (rig.project / "at").exists)
        settle(rig)
        installed.move_away()
        (rig.project / "go").touch()
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("completed", "verified"), rig.log()
        assert [record["outcome"] for record in rig.records()] == ["ok", "ok"]
