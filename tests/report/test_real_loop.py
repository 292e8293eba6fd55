"""The report of a loop that really ran, while it runs and after its end."""

from pathlib import Path

import pytest

from ralph_rpc.report import as_json, html, markdown
from ralph_rpc.report.gather import gather
from tests.rig import fake_rig

pytestmark = pytest.mark.usefixtures("no_leftovers")


def test_a_report_follows_a_loop_from_its_run_to_its_end(tmp_path: Path) -> None:
    go = tmp_path / "go"
    waits = {"tool": "bash", "run": f"until [ -e {go} ]; do sleep 0.05; done; echo two > two", "fails": True}
    overloaded = {"error": "529: Overloaded", "retries": 1, "delay": 0.05}
    done = {"reply": "All of it.\n<promise>COMPLETE</promise>", "cost": 0.5}
    rig = fake_rig(tmp_path, [[waits, {"reply": "Half of it."}], [overloaded, done]])
    rig.start("--verify", "test -f two")
    rig.wait_event("tool_execution_start")
    running = gather(rig.paths)
    assert running.summary.status in ("starting", "running")
    assert [one.iteration for one in running.running] == [1] and running.iterations == []
    rig.run("steer", rig.name, "Mind the gap.")
    go.touch()
    rig.wait_end()

    facts = gather(rig.paths)
    state = rig.state()
    assert (facts.summary.status, facts.summary.stop_reason) == ("completed", "verified")
    assert facts.summary.cost == pytest.approx(state["stats"]["cost"]) and facts.summary.cost > 0.5
    assert [record["iteration"] for record in facts.iterations] == [record["iteration"] for record in rig.records()]
    assert [(one.name, one.calls, one.failed) for one in facts.tools] == [("bash", 1, 1)]
    assert [(one.cause, one.times) for one in facts.retries] == [("529: Overloaded", 1)]
    (message,) = facts.messages
    assert (message.text, message.state) == ("Mind the gap.", "delivered") and message.iteration in (1, 2)
    assert [step.what for step in facts.life][:2] == ["started", "pi started"] and facts.life[-1].what == "completed"
    assert not any(step.is_bad for step in facts.life)
    assert (
        facts.gaps == []
        and facts.running == []
        and set(facts.sessions) <= {str(one["sessionFile"]) for one in facts.iterations}
    )
    for render in (html.render, markdown.render, as_json.render):
        assert "Mind the gap." in render(facts)


def test_an_error_that_ends_a_loop_is_its_reports_first_line(tmp_path: Path) -> None:
    rig = fake_rig(
        tmp_path, [[{"tool": "bash", "run": "echo one > one", "output": "fine"}, {"error": "401: invalid key"}]]
    )
    rig.start(check=None)  # which may see the end already
    rig.wait_status("error")
    rig.wait_end()
    facts = gather(rig.paths)
    assert "auth" in [one.kind for one in facts.failures]
    text = html.render(facts)
    assert "Ended in error (auth)" in text
    assert '<p class="trouble">' in text and "401: invalid key" in text
