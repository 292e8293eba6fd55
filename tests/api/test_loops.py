"""Loops from a Python program: the whole way through `ralph_rpc.api`, on the fake pi."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc import api
from tests.rig import Rig, alive, fake_rig, wait_for

MARKER = "<promise>COMPLETE</promise>"
WORKS = [{"tool": "bash", "run": "echo x >> work.txt"}, "working"]
"""An iteration that changes something and claims nothing."""
MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(tmp_path: Path, ending: list[Rig]) -> MakeRig:
    def make(*prompts: Any) -> Rig:
        rig = fake_rig(tmp_path, list(prompts))
        ending.append(rig)
        return rig

    return make


def start(rig: Rig, **options: Any) -> api.Loop:
    return api.start(rig.name, rig.project, task="Do the work.", pi=rig.pi, **options)


def test_a_loop_is_started_found_and_waited_for(make_rig: MakeRig) -> None:
    rig = make_rig(WORKS, f"done\n{MARKER}")
    loop = start(rig, verify="test -f work.txt", max_cost=5, max_time="10m")
    assert (loop.name, loop.project) == (rig.name, rig.project)
    assert rig.paths.task.read_text() == "Do the work."
    found = loop.wait(timeout=60)
    assert (found.shown, found.runner, found.ended) == ("completed", "dead", True)
    assert found.state is not None and found.state["stopReason"] == "verified"
    assert found.state["config"]["maxCost"] == 5.0 and found.state["config"]["maxTimeMs"] == 600_000
    assert loop.state == found.state
    assert api.find(rig.name, rig.project) == loop
    assert api.loops(rig.project) == [loop]


def test_the_events_come_as_they_are_and_end_with_the_loop(make_rig: MakeRig) -> None:
    rig = make_rig({"reply": "a long story", "deltas": 300}, {"reply": f"the end\n{MARKER}", "deltas": 300})
    loop = start(rig, log_size="20k", log_keep=50, stall_after=0)
    with loop.events() as stream:
        events = list(stream)
    assert events == rig.events(), "each once, in order, over all rotations"
    assert len(list(rig.paths.dir.glob("events.jsonl.*"))) > 1, "the log was not rotated"
    assert (events[0]["type"], events[-1]["type"]) == ("ralph_loop_start", "ralph_loop_end")
    assert (stream.missed, list(stream)) == (0, [])


def test_events_wait_for_what_comes_later(make_rig: MakeRig) -> None:
    rig = make_rig(WORKS)
    loop = start(rig)
    seen: list[str] = []

    def read() -> None:
        seen.extend(event["type"] for event in loop.events())

    reader = threading.Thread(target=read)
    reader.start()
    rig.wait_event("ralph_iteration_end", iteration=2)
    assert reader.is_alive(), "the loop runs, so its events are not over"
    loop.stop("now")
    reader.join(60)
    assert not reader.is_alive() and seen[-1] == "ralph_loop_end" and seen.count("ralph_iteration_end") >= 2


def test_a_stream_begins_where_another_has_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(WORKS, f"done\n{MARKER}")
    loop = start(rig)
    first = loop.events()
    events = [next(first) for _ in range(3)]
    first.close()
    loop.wait(timeout=60)
    rest = loop.events(first.offset, follow=False)
    assert [*events, *rest] == rig.events()
    assert list(loop.events(rest.offset, follow=False)) == []


def test_events_of_a_loop_whose_runner_was_killed_come_to_an_end(make_rig: MakeRig) -> None:
    rig = make_rig([{"hang": True}])
    loop = start(rig)
    rig.kill(rig.pids()[0])
    assert list(loop.events())[-1]["type"] != "ralph_loop_end"
    assert loop.wait(timeout=60).shown == "crashed"


def test_a_steer_has_a_receipt(make_rig: MakeRig) -> None:
    rig = make_rig([{"tool": "bash", "run": "touch began; while [ ! -e go ]; do sleep 0.02; done"}, "ok"], WORKS)
    loop = start(rig)
    wait_for("the tool", (rig.project / "began").exists)
    sent = loop.steer("Look at the tests first.")
    assert not sent.kept
    with pytest.raises(api.TimedOut, match="not delivered yet"):
        loop.receipt(sent, timeout=0)
    (rig.project / "go").touch()
    receipt = loop.receipt(sent, timeout=60)
    assert (receipt.id, receipt.verb, receipt.state, receipt.reason) == (sent.id, "steer", "delivered", None)
    assert rig.steps(sent.id)[-1] == "delivered"
    later = loop.followup("And then the docs.", when="next")
    assert loop.receipt(later, timeout=60).state == "delivered"


def test_a_command_that_never_has_its_effect_says_why(make_rig: MakeRig) -> None:
    rig = make_rig([{"hang": True}])
    loop = start(rig)
    rig.wait_event("ralph_iteration_start")
    sent = loop.followup("For the next iteration.", when="next")
    loop.stop("now")
    receipt = loop.receipt(sent, timeout=60)
    assert (receipt.state, bool(receipt.reason)) == ("expired", True)


def test_a_message_for_an_ended_loop_waits_for_its_next_run(make_rig: MakeRig) -> None:
    rig = make_rig(WORKS)
    loop = start(rig)
    loop.stop("now")
    loop.wait(timeout=60)
    sent = loop.steer("Mind the tests.")
    assert sent.kept
    with pytest.raises(api.RalphError, match="not running"):
        loop.abort()
    loop.resume(max_iterations=70)
    assert loop.receipt(sent, timeout=60).state == "delivered"
    assert loop.state is not None and loop.state["config"]["maxIterations"] == 70


def test_a_paused_loop_is_resumed(make_rig: MakeRig) -> None:
    rig = make_rig(WORKS)
    loop = start(rig)
    with pytest.raises(api.AlreadyRunning, match="neither paused nor waiting"):
        loop.resume()
    assert loop.receipt(loop.pause(), timeout=60).state == "delivered"
    rig.wait_status("paused")
    with pytest.raises(api.AlreadyRunning, match="options change only"):
        loop.resume(model="m2")
    loop.resume()
    rig.wait_status("running")


def test_waiting_gives_up_and_changes_nothing(make_rig: MakeRig) -> None:
    rig = make_rig([{"hang": True}])
    loop = start(rig)
    began = time.monotonic()
    with pytest.raises(api.TimedOut, match="still running"):
        loop.wait(timeout=0.3)
    assert time.monotonic() - began < 10
    assert loop.status().shown == "running"


def test_kill_ends_the_whole_tree(make_rig: MakeRig) -> None:
    rig = make_rig([{"hang": "deaf"}])
    loop = start(rig)
    pids = rig.pids()
    assert loop.kill() is False, "the runner could say its last word"
    assert not any(alive(pid) for pid in pids)
    assert loop.state is not None and loop.state["stopReason"] == "kill"
    with pytest.raises(api.RalphError, match="not running"):
        loop.kill()


def test_a_handle_is_only_a_name(make_rig: MakeRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig(WORKS)
    loop = start(rig)
    monkeypatch.chdir(tmp_path)
    other = api.find(rig.name)
    assert other == loop and hash(other) == hash(loop), "the registry knows it"
    other.stop("now")
    assert loop.wait(timeout=60).shown == "stopped"
    monkeypatch.chdir(rig.project)
    assert api.loops() == [loop]


def test_a_crash_of_the_runner_is_no_end_of_the_loop(make_rig: MakeRig) -> None:
    rig = make_rig(WORKS)
    loop = start(rig)
    os.kill(rig.pids()[0], signal.SIGKILL)
    assert loop.wait(timeout=60).shown == "crashed"
    loop.resume()
    rig.wait_status("running")


def test_what_cannot_be_started_leaves_nothing_and_says_what_to_do(make_rig: MakeRig, tmp_path: Path) -> None:
    rig = make_rig({"exit": 3})

    def refused(kind: type[api.RalphError], **given: Any) -> api.RalphError:
        with pytest.raises(kind) as raised:
            api.start(**{"name": "x", "project": rig.project, "task": "Do it.", "pi": rig.pi, **given})
        assert not (rig.project / ".ralph" / "x").exists()
        return raised.value

    assert "no option 'max_costs'" in refused(api.UsageError, max_costs=5).message
    assert "--max-cost: expected" in refused(api.UsageError, max_cost="a lot").message
    assert "task=" in refused(api.UsageError, task=None).hint
    assert "is empty" in refused(api.UsageError, task=" ").message
    assert "its tickets" in refused(api.UsageError, tickets="").message
    assert "is not a folder" in refused(api.UsageError, project=tmp_path / "nowhere").message
    refused(api.UsageError, name="no/name")
    refused(api.PiUnusable, pi=tmp_path / "no-pi")
    with pytest.raises(api.NoSuchLoop):
        api.find("x", rig.project)
    assert api.loops(rig.project) == []


def test_a_pi_that_turns_out_to_be_of_no_use_is_told_and_taken_back(tmp_path: Path, ending: list[Rig]) -> None:
    rig = fake_rig(tmp_path, {"prompts": ["x"], "start": {"exit": 3, "stderr": "no key"}})
    ending.append(rig)
    with pytest.raises(api.PiUnusable):
        start(rig)
    assert not rig.paths.dir.exists()


def test_a_second_start_is_refused_while_the_first_runs(make_rig: MakeRig) -> None:
    rig = make_rig(WORKS)
    start(rig)
    with pytest.raises(api.AlreadyRunning):
        start(rig)
