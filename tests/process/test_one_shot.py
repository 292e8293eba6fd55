"""`--backend print`: a session made of one-shot pis, by a stand-in that behaves as `pi -p --mode json` does."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.trees import new_token, nothing_of, survivors, until
from tests.rig import Rig, new_project
from tests.ticket_rig import MARKER, backlog_project, ticket_text

pytestmark = pytest.mark.usefixtures("no_leftovers")

PI = """#!{python} -S
import json, os, pathlib, subprocess, sys, time
folder = pathlib.Path({folder!r})
asked = sys.stdin.read()
number = len(list(folder.glob("prompt-*"))) + 1
(folder / f"prompt-{{number}}").write_text(asked)
(folder / f"args-{{number}}").write_text(json.dumps(sys.argv[1:]))
plan = json.loads((folder / "plan.json").read_text())
step = plan[min(number, len(plan)) - 1]
def emit(type, **members):
    print(json.dumps({{"type": type, **members}}, separators=(",", ":")), flush=True)
if "stderr" in step:
    print(step["stderr"], file=sys.stderr)
    sys.exit(step.get("exit", 1))
emit("session", version=3, id=f"session-{{number}}", cwd=os.getcwd())
emit("agent_start")
emit("turn_start")
user = {{"role": "user", "content": [{{"type": "text", "text": asked}}]}}
emit("message_start", message=user)
emit("message_end", message=user)
if "run" in step:
    emit("tool_execution_start", toolCallId="t", toolName="bash", args={{"command": step["run"]}})
    subprocess.run(step["run"], shell=True)
    emit("tool_execution_end", toolCallId="t", toolName="bash", result={{"content": []}}, isError=False)
if "exit" in step:
    sys.exit(step["exit"])
cost = {{"input": 0, "output": 0.5, "cacheRead": 0, "cacheWrite": 0, "total": 0.5}}
usage = {{"input": 10, "output": 5, "cacheRead": 0, "cacheWrite": 0, "totalTokens": 15, "cost": cost}}
answer = {{"role": "assistant", "content": [{{"type": "text", "text": step.get("say", "did it")}}], "provider": "fake",
          "model": "fake-1", "usage": usage, "stopReason": "stop"}}
emit("message_start", message=answer)
emit("message_end", message=answer)
emit("turn_end", message=answer, toolResults=[])
emit("agent_end", messages=[], willRetry=False)
if {settles}:
    emit("agent_settled", aborted=False)
time.sleep(step.get("linger", 0))
"""


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def one_shot(tmp_path: Path, *plan: dict[str, Any], settles: bool = True, project: Path | None = None) -> Rig:
    folder = tmp_path / "shots"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(plan))
    pi = folder / "pi"
    # The first line of a script holds one argument.
    body = PI.format(python=sys.executable, folder=str(folder), settles=settles)
    pi.write_text(body)
    pi.chmod(0o755)
    version = tmp_path / "pi"
    version.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 1.5.2 && exit\nexec {pi} "$@"\n')
    version.chmod(0o755)
    return Rig(project or new_project(tmp_path / "project"), str(version), tmp_path / "agent", [])


def prompts(tmp_path: Path) -> list[str]:
    folder = tmp_path / "shots"
    return [(folder / f"prompt-{n + 1}").read_text() for n in range(len(list(folder.glob("prompt-*"))))]


@pytest.mark.parametrize("settles", [True, False])
def test_each_prompt_gets_a_pi_of_its_own_and_is_recorded_like_any(tmp_path: Path, settles: bool) -> None:
    rig = one_shot(
        tmp_path, {"run": "echo one > one"}, {"run": "echo two > two", "say": f"all\n{MARKER}"}, settles=settles
    )
    told = rig.start("--backend", "print", "--verify", "test -e two", "--model", "m", "--provider", "p")
    assert "head the next prompt" in told.stderr
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("completed", "verified"), (state["error"], rig.log())
    first, second = rig.records()
    assert (first["outcome"], second["outcome"]) == ("ok", "ok")
    assert (second["sessionId"], second["model"]) == ("session-2", "fake-1")
    assert state["stats"]["cost"] == 1.0 and state["stats"]["iterations"] == 2
    assert all("Do the work." in one for one in prompts(tmp_path))
    args = json.loads((tmp_path / "shots" / "args-1").read_text())
    assert args[:3] == ["-p", "--mode", "json"] and args[5:] == ["--provider", "p", "--model", "m"]
    assert rig.of("ralph_pi_start")[0]["argv"][1:4] == ["-p", "--mode", "json"]


def test_a_message_waits_for_the_next_prompt(tmp_path: Path, token: str) -> None:
    gate = tmp_path / "go"
    rig = one_shot(
        tmp_path, {"run": f": {token}; while [ ! -e {gate} ]; do sleep 0.05; done"}, {"say": f"all\n{MARKER}"}
    )
    rig.start("--backend", "print")
    until(lambda: survivors(token), "the tool")
    rig.run("steer", "x", "look left first")
    rig.wait_event("ralph_command", command="steer", state="accepted")
    gate.touch()
    assert rig.wait_end()["status"] == "completed", rig.log()
    one, two = prompts(tmp_path)
    assert "look left first" not in one and "look left first" in two
    assert rig.wait_event("ralph_command", command="steer", state="delivered")


@pytest.mark.parametrize("how", [("stop", "x", "--now"), ("abort", "x"), ("kill", "x")])
def test_a_run_can_be_cut_short(tmp_path: Path, token: str, how: tuple[str, ...]) -> None:
    rig = one_shot(tmp_path, {"run": f"setsid sleep {token} & sleep {token}"}, {"say": f"all\n{MARKER}"})
    rig.start("--backend", "print")
    until(lambda: len(survivors(token)) >= 2, "the tool")
    rig.run(*how)
    state = rig.wait_end()
    assert state["status"] == ("completed" if how[0] == "abort" else "stopped"), state
    assert rig.records()[0]["outcome"] == "aborted"
    assert not survivors(token)


def test_a_pi_that_dies_is_a_crash_and_the_iteration_is_repeated(tmp_path: Path) -> None:
    rig = one_shot(tmp_path, {"exit": 3}, {"run": "kill -9 $PPID"}, {"say": f"all\n{MARKER}"})
    rig.start("--backend", "print")
    assert rig.wait_end()["status"] == "completed", rig.log()
    assert [one["outcome"] for one in rig.records()] == ["crashed", "crashed", "ok"]
    assert [one["exitCode"] for one in rig.of("ralph_pi_exit")] == [3, -9, 0]


def test_what_pi_says_before_it_takes_the_prompt_is_the_reason(tmp_path: Path) -> None:
    rig = one_shot(tmp_path, {"stderr": "No API key found for anthropic."})
    done = rig.start("--backend", "print", check=5)
    assert "No API key found for anthropic." in done.stderr


def test_max_cost_holds(tmp_path: Path) -> None:
    rig = one_shot(tmp_path, {"run": "date > now"})
    rig.start("--backend", "print", "--max-cost", "1.2", "--stall-after", "0")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "max-cost")
    assert state["stats"]["cost"] == 1.5


def test_tickets_are_worked_on(tmp_path: Path) -> None:
    project = backlog_project(tmp_path / "project")
    rig = one_shot(
        tmp_path, {"run": "echo $RALPH_TICKET > $RALPH_TICKET.txt", "say": f"all\n{MARKER}"}, project=project
    )
    (project / ".tickets").mkdir()
    for id in ("t-1", "t-2"):
        (project / ".tickets" / f"{id}.md").write_text(ticket_text(id, id))
    rig.run("start", "x", "--pi", rig.pi, "--tickets", "--parallel", "2", "--backend", "print")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("completed", "tickets-done"), (state["error"], rig.log())


def test_it_goes_through_a_launcher(tmp_path: Path) -> None:
    rig = one_shot(tmp_path, {"run": "true", "say": f"all\n{MARKER}"})
    rig.start("--backend", "print", "--launcher", "env")
    assert rig.wait_end()["status"] == "completed", rig.log()


def test_another_backend_is_refused(tmp_path: Path) -> None:
    rig = one_shot(tmp_path, {})
    assert "expected rpc or print" in rig.start("--backend", "tui", check=2).stderr
