"""Jobs on an engine, on real pi: each in a clone, and what they bring back."""

import importlib.util
from pathlib import Path

import pytest

from ralph_rpc.demo.model import Reply
from tests.launchers.test_engine import no_job_left
from tests.real_pi import provision
from tests.real_pi.scripted_model import ScriptedModel
from tests.real_pi.test_tickets import Agents, Asked, bash, rig_for
from tests.rig import git
from tests.ticket_rig import MARKER

__all__ = ["no_job_left"]
pytestmark = [
    pytest.mark.pi,
    pytest.mark.usefixtures("no_leftovers"),
    pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="needs PSI/J: pip install -e '.[dev,cluster]'"),
]


def edits_the_same_line(asked: Asked) -> Reply:
    """Does its ticket beside the others; hears of the conflict, merges the target and keeps both."""
    id = asked.ticket
    if asked.conflict:
        turns = [
            f"git merge main; sort -u <(grep -h ^t- both) > b; echo {id} >> b; sort -u b > both; rm b",
            "git add both",
        ]
        turns.append("git -c core.editor=true commit --no-edit")
    else:
        turns = [f"echo work of {id} > {id}.txt; echo {id} > both"]
    return bash(turns[asked.turn]) if asked.turn < len(turns) else Reply(f"done\n{MARKER}")


def test_jobs_whose_work_conflicts_come_back_told_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = provision.provide(provision.NEWEST)
    provision.use(found, monkeypatch)
    agents = Agents(dict.fromkeys(("t-1", "t-2"), edits_the_same_line))
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, found.command[-1], model)
        rig.add("t-1", "one")
        rig.add("t-2", "two")
        rig.commit()
        rig.begin("--engine", "local", "--parallel", "2", "--verify", "! grep -q '<<<' both")
        rig.check_done("t-1", "t-2")
        assert rig.on_main("both") == "t-1\nt-2\n"
        kinds = sorted((record["job"], record["kind"]) for record in rig.records())
        assert kinds == [("1.1", "work"), ("1.1", "work"), ("2.1", "conflict")], rig.records()
        assert any("could not be merged into main" in asked.texts[0] for asked in agents.asked)
        state = rig.state()
        assert state["stats"]["cost"] == pytest.approx(sum(record["cost"] for record in rig.records()))
        assert git(rig.project, "for-each-ref", "refs/ralph") == ""
