"""What `/ralph` does to a loop for good, in real pi: only after a question, and then completely."""

from pathlib import Path

import pytest

from ralph_rpc.demo.model import Reply
from tests.real_pi.inside import SETTINGS, inside
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, alive, new_project, wait_for

pytestmark = pytest.mark.timeout(400)


def test_a_loop_is_killed_and_cleaned_away_only_when_the_person_says_yes(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel([Reply("I work.", [("bash", {"command": "sleep 600"})])]) as model:
        project = new_project(tmp_path / "project")
        rig = Rig(project, pi[-1], model.agent_dir(tmp_path, SETTINGS), MODEL_ARGS)
        rig.start()
        pids = rig.pids()
        with inside(tmp_path, rig, pi, model, {}) as one:
            one.starts()
            one.enters("/ralph attach x")
            one.sees("typing goes to the loop", "sleep 600")
            one.enters("/ralph clean")
            one.sees("nothing to clean")
            one.enters("/ralph kill x")
            one.sees("Kill loop x of", "end at once")
            one.terminal.presses("Escape")
            one.until_gone("Kill loop x of")
            assert all(map(alive, pids)), "it was not wanted"
            one.enters("/ralph kill x")
            one.sees("Kill loop x of")
            one.terminal.presses("Enter")
            one.sees("x: killed")
            wait_for("the end of its processes", lambda: not any(map(alive, pids)))
            one.sees("x · stopped (kill)", "/ralph detach to talk to pi")
            one.enters("/ralph clean")
            one.sees("Remove what ended loops left?")
            one.terminal.presses("Escape")
            one.until_gone("Remove what ended loops left?")
            assert rig.paths.state.exists(), "it was not wanted"
            one.enters("/ralph clean")
            one.sees("Remove what ended loops left?")
            one.terminal.presses("Enter")
            wait_for("the folder to be gone", lambda: not rig.paths.dir.exists())
            one.sees("the folder of loop x is gone")
            one.until_gone("/ralph detach to talk to pi")
            one.quits()
