"""Counted equals billed on real pi: the log of the scripted model against state.json, the records and `report`.

tests/faults/test_billed.py tries many more sequences of faults, on the fake one.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.demo.model import PRICES, Reply, Request, Usage
from tests.real_pi import scripted_model as model_of
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, alive, new_project, wait_for

pytestmark = [pytest.mark.pi, pytest.mark.timeout(300)]
SLEEP = ("bash", {"command": "sleep 30"})
FREE = dict.fromkeys(PRICES, 0)


def rig_of(tmp_path: Path, pi: list[str], model: ScriptedModel, **more: Any) -> Rig:
    return Rig(new_project(tmp_path / "project"), pi[-1], model.agent_dir(tmp_path, **more), list(MODEL_ARGS))


def check(rig: Rig, billed: float, unpriced: int) -> None:
    """All three say what was billed."""
    stats, records = rig.state()["stats"], rig.records()
    summary = json.loads(rig.run("report", rig.name, "--format", "json", "-o", "-").stdout)["summary"]
    recorded = (sum(one["cost"] for one in records), sum(one["unpricedRequests"] for one in records))
    assert (stats["cost"], stats["unpricedRequests"]) == (pytest.approx(billed), unpriced)
    assert recorded == (pytest.approx(billed), unpriced)
    assert (summary["cost"], summary["unpriced"]) == (pytest.approx(billed), unpriced)


def wait_for_answers(rig: Rig, count: int) -> None:
    def enough() -> bool:
        return len([1 for e in rig.of("message_end") if e["message"]["role"] == "assistant"]) >= count

    wait_for(f"{count} answers", enough)


def kill_runner(rig: Rig) -> None:
    runner = rig.state()["pid"]
    os.kill(runner, signal.SIGKILL)
    wait_for("the runner's death", lambda: not alive(runner))


def test_a_runner_killed_after_each_answer_has_counted_them_all(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(
        lambda request, n: Reply("looking ", tool_calls=[SLEEP], usage=Usage(10_000, 500, 2_000))
    ) as model:
        rig = rig_of(tmp_path, pi, model)
        rig.start("-n", "0", "--stall-after", "0", "--max-failures", "0")
        for kill in range(3):
            wait_for_answers(rig, kill + 1)
            time.sleep(0.15)
            kill_runner(rig)
            rig.run("resume", "x")
            assert rig.state()["stats"]["cost"] >= sum(model.bill[: kill + 1]) - 1e-9
        rig.run("stop", "x", "--now")
        rig.wait_end()
        check(rig, sum(model.bill), 0)


def test_what_was_cut_off_is_flagged_and_what_the_provider_refused_is_not(tmp_path: Path, pi: list[str]) -> None:
    replies = [
        model_of.status(400),
        Reply("one", tool_calls=[("bash", {"command": "true"})]),
        model_of.hang_mid_stream(),
        Reply("two"),
    ]
    with ScriptedModel(replies) as model:
        rig = rig_of(tmp_path, pi, model)
        rig.start("-n", "1", "--max-failures", "0")
        model.wait_for_request(3)
        rig.wait_event("message_update")
        wait_for("the answer that hangs", lambda: "I was about" in json.dumps(rig.of("message_update")))
        rig.run("abort", "x", "--wait")
        rig.wait_end()
        check(rig, sum(model.bill), 1)
        assert "1 request cut off" in rig.run("status", "x").stdout


def test_the_summary_of_a_compaction_is_counted_or_flagged(tmp_path: Path, pi: list[str]) -> None:
    summaries: list[int] = []

    def script(request: Request, number: int) -> Reply:
        if not request.get("tools"):
            summaries.append(number)
            return Reply("a summary", usage=Usage(3_000, 300))
        if len(request["messages"]) > 8 or summaries:
            return Reply("<promise>COMPLETE</promise>", usage=Usage(9_000 if not summaries else 500, 100))
        return Reply("long words " * 400, tool_calls=[("bash", {"command": "true"})], usage=Usage(5_000, 200))

    with ScriptedModel(script) as model:
        rig = rig_of(
            tmp_path,
            pi,
            model,
            settings={"compaction": {"enabled": True, "reserveTokens": 2_000, "keepRecentTokens": 1_000}},
            context_window=10_000,
        )
        rig.start()
        rig.wait_end()
        assert summaries, "no compaction"
        told = [e for e in rig.of("compaction_end") if (e.get("result") or {}).get("usage")]
        missing = 0.0 if told else sum(model.bill[n - 1] for n in summaries)
        check(rig, sum(model.bill) - missing, 0 if told else len(rig.of("compaction_end")))


def test_a_cap_in_dollars_is_refused_for_a_model_without_prices(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: Reply("some work")) as model:
        rig = rig_of(tmp_path, pi, model, cost=FREE)
        refused = rig.start("--max-cost", "1", check=2)
        assert "knows no prices for scripted/scripted-1" in refused.stderr and "--max-tokens" in refused.stderr
        assert not rig.paths.dir.exists() and not rig.registry() and not model.requests
        rig.start("-n", "1", "--max-cost", "1", "--max-tokens", "1M")
        rig.wait_end()
        assert "no prices" in rig.run("status", "x").stdout and "$0.00" not in rig.run("list").stdout
        refused = rig.run("resume", "x", "-n", "2", "--max-tokens", "0", check=2)
        assert "knows no prices" in refused.stderr and len(model.requests) == 1


def test_an_ended_iteration_leaves_no_session_that_pi_keeps_warm(tmp_path: Path, pi: list[str]) -> None:
    """And what pi warms during a run is counted."""
    tool = ("bash", {"command": "until [ -e warm ]; do sleep 0.05; done"})
    big = Usage(400_000, 50)

    def script(request: Request, number: int) -> Reply:
        asked = [m for m in request["messages"] if m["role"] == "tool"]
        return Reply("x", usage=big) if asked else Reply("working ", tool_calls=[tool], usage=big)

    with ScriptedModel(script) as model:
        settings = {"cacheWarming": "idle"}
        cache = {"short": 12, "long": 12}
        rig = rig_of(tmp_path, pi, model, settings=settings, context_window=1_000_000, promptCache=cache)
        rig.start("-n", "0", "--stall-after", "0")
        rig.wait_event("tool_execution_start")
        rig.run("pause", "x")
        if "0.73.1" not in pi[-1]:  # the newer ones warm during a tool
            wait_for("a warm-up", lambda: any(e["entry"]["type"] == "usage" for e in rig.of("entry_appended")))
        (rig.project / "warm").touch()
        rig.wait_status("paused")
        before = len(model.requests)
        check(rig, sum(model.bill), 0)
        time.sleep(8)
        assert len(model.requests) == before
        rig.run("stop", "x")
        rig.wait_end()
        check(rig, sum(model.bill), 0)
