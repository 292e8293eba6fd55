"""Providers that do not answer, and what else keeps an iteration from being work: real pi, a scripted model."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.demo.model import Reply, Stream
from tests.real_pi.scripted_model import MODEL_ARGS, Fault, ScriptedModel, status
from tests.rig import Rig, alive, git, new_project, user_texts, wait_for
from tests.ticket_rig import TicketRig, backlog_project

pytestmark = [pytest.mark.pi, pytest.mark.usefixtures("no_leftovers")]
MARKER = "<promise>COMPLETE</promise>"
NO_RETRY = {"retry": {"enabled": False}}
BILL = status(402, "Insufficient Balance")
Request = dict[str, Any]


def rig_for(tmp_path: Path, pi: str, model: ScriptedModel) -> Rig:
    agent = model.agent_dir(tmp_path, settings=NO_RETRY)
    return Rig(new_project(tmp_path / "project"), pi, agent, list(MODEL_ARGS))


def bash(command: str) -> Reply:
    return Reply("running ", tool_calls=[("bash", {"command": command})])


def fresh(request: Request) -> bool:
    """True for the first request of an iteration."""
    return all(m["role"] != "assistant" for m in request["messages"])


def prompts(model: ScriptedModel) -> list[str]:
    return [next(user_texts(request)) for request in model.requests if fresh(request)]


def thinks_only() -> Fault:
    """An answer that holds nothing but reasoning."""

    def act(stream: Stream, fault: Fault) -> None:
        stream.begin()
        stream.chunk({"reasoning_content": "I wonder."})
        stream.end(fault)

    return Fault(act=act)


def overloaded_stream() -> Fault:
    """A good beginning, then the error that providers write into a stream."""

    def act(stream: Stream, fault: Fault) -> None:
        stream.begin()
        stream.body(fault)
        error = {"error": {"message": "Overloaded", "type": "overloaded_error", "code": 529}}
        stream.raw(b"data: " + json.dumps(error).encode() + b"\n\n")
        stream.finish()

    return Fault("So far ", act=act)


class Till:
    """A model that answers with `fault` until it is paid."""

    def __init__(self, fault: Reply, then: Callable[[Request], Reply] = lambda _: Reply(f"done\n{MARKER}")) -> None:
        self.fault, self.then = fault, then
        self.paid = False

    def __call__(self, request: Request, n: int) -> Reply:
        return self.then(request) if self.paid else self.fault


def test_an_unpaid_bill_holds_the_loop_notifies_once_and_a_resume_asks_at_once(tmp_path: Path, pi: list[str]) -> None:
    till = Till(BILL)
    with ScriptedModel(till) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        notify = 'echo "$RALPH_EVENT $RALPH_MESSAGE" >> "$RALPH_LOOP_DIR/told"'
        rig.start("--max-failures", "1", "--stall-after", "1", "-n", "1", "--notify", notify)
        state = rig.wait_status("waiting")
        assert state["waitingFor"] == "billing" and "Insufficient Balance" in state["error"]
        assert (state["stats"]["iterations"], state["unchangedIterations"], state["consecutiveFailures"]) == (0, 0, 0)
        shown = rig.run("status", "x").stdout
        assert "Insufficient Balance" in shown and "for a payment, until 20" in shown and "pay or top up" in shown
        assert "waiting (billing) until 20" in rig.run("list").stdout
        asked = len(model.requests)
        rig.run("resume", "x")
        model.wait_for_request(asked + 1)
        wait_for("the second record", lambda: len(rig.records()) == 2)
        rig.wait_status("waiting")
        till.paid = True
        rig.run("resume", "x")
        end = rig.wait_end()
        assert (end["status"], end["stopReason"]) == ("completed", "marker")
        assert [r.get("errorKind") for r in rig.records()] == ["billing", "billing", None]
        assert end["stats"]["iterations"] == 1 and end["outages"] == []
        told = (rig.paths.dir / "told").read_text().splitlines()
        assert [line.split(":")[0] for line in told] == ["needs-person x", "completed x"]
        assert f"{MODEL_ARGS[1]}/{MODEL_ARGS[3]} wants to be paid" in told[0]


def test_a_named_reset_is_waited_for_and_counts_as_nothing(tmp_path: Path, pi: list[str]) -> None:
    def script(request: Request, n: int) -> Reply:
        # Some pi's client repeats a 429 by itself: it is the iteration that counts.
        if "(iteration 3)" not in next(user_texts(request)):
            return status(429, "Rate limit reached for requests. Please try again in 1s.")
        return Reply(f"done\n{MARKER}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("--max-failures", "1", "--stall-after", "1", "-n", "1")
        end = rig.wait_end()
        assert (end["status"], end["stopReason"]) == ("completed", "marker")
        assert [r.get("errorKind") for r in rig.records()] == ["rate-limit", "rate-limit", None]


@pytest.mark.parametrize(
    "text",
    [
        "You have hit your ChatGPT usage limit (plus plan). Try again in ~287 min.",
        "You've hit your limit · resets 2:30am (America/New_York)",
        "You've hit your usage limit, try again at Dec 17th, 2199 12:27 AM",
    ],
)
def test_the_reset_of_a_plan_is_read_and_what_is_too_far_off_is_for_a_person(
    tmp_path: Path, pi: list[str], text: str
) -> None:
    with ScriptedModel(lambda request, n: status(429, text)) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        if "2199" in text:
            said = rig.start(check=5).stderr
            assert text in said and "--max-wait" in said
            return
        rig.start()
        state = rig.wait_status("waiting")
        assert state["waitingFor"] in ("quota", "rate-limit") and text in rig.run("status", "x").stdout
        assert state["nextWakeAt"] is not None
        rig.run("stop", "x")
        rig.wait_end()


@pytest.mark.parametrize("fault", [Reply(""), thinks_only()], ids=["empty", "thinking only"])
def test_answers_of_nothing_are_no_work_and_end_the_loop_in_a_row(tmp_path: Path, pi: list[str], fault: Reply) -> None:
    till = Till(fault)
    with ScriptedModel(till) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("--max-failures", "2", "--stall-after", "1", check=None)
        end = rig.wait_end()
        assert (end["status"], end["stopReason"]) == ("error", "failures")
        assert "neither text nor a tool call" in end["error"]
        assert [(r["outcome"], r["errorKind"]) for r in rig.records()] == [("failed", "empty")] * 2
        assert end["stats"]["iterations"] == 0 and end["unchangedIterations"] == 0
        assert len({prompt.replace("(iteration 2)", "(iteration 1)") for prompt in prompts(model)}) == 1
        till.paid = True
        rig.run("resume", "x")
        assert rig.wait_end()["status"] == "completed"


def test_a_request_that_is_refused_three_times_ends_the_loop_with_the_words_and_resume_goes_on(
    tmp_path: Path, pi: list[str]
) -> None:
    till = Till(status(422, "no such parameter: top_k"))
    with ScriptedModel(till) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("--stall-after", "1", check=None)
        end = rig.wait_end()
        assert (end["status"], end["stopReason"]) == ("error", "failures") and "no such parameter" in end["error"]
        assert [r["errorKind"] for r in rig.records()] == ["refused"] * 3
        assert end["stats"]["iterations"] == 0
        till.paid = True
        rig.run("resume", "x")
        assert rig.wait_end()["status"] == "completed"


def test_an_overloaded_stream_is_an_outage_and_not_work(tmp_path: Path, pi: list[str]) -> None:
    def script(request: Request, n: int) -> Reply:
        return overloaded_stream() if n == 1 else Reply(f"done\n{MARKER}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("--max-failures", "1", "-n", "1")
        end = rig.wait_end()
        assert (end["status"], end["stopReason"]) == ("completed", "marker"), end
        assert [r.get("errorKind") for r in rig.records()] == ["overloaded", None]


def test_a_second_model_steps_in_at_a_limit_and_is_left_again(tmp_path: Path, pi: list[str]) -> None:
    till = Till(status(429, "You've hit your usage limit."))

    def second(request: Request, n: int) -> Reply:
        return bash("while [ ! -e go ]; do sleep 0.05; done") if fresh(request) else Reply("some work done")

    with ScriptedModel(till) as model, ScriptedModel(second) as other:
        rig = rig_for(tmp_path, pi[-1], model)
        file = Path(rig.env["PI_CODING_AGENT_DIR"]) / "models.json"
        known = json.loads(file.read_bytes())
        provider = {**known["providers"][MODEL_ARGS[1]], "baseUrl": other.url}
        known["providers"]["other"] = {**provider, "models": [{**provider["models"][0], "id": "vendor/small:1"}]}
        file.write_text(json.dumps(known))
        rig.start("--fallback-model", "other/vendor/small:1", "-n", "3")
        rig.wait_event("tool_execution_start")
        state = rig.state()
        assert (state["status"], state["provider"], state["model"]) == ("running", "other", "vendor/small:1")
        shown = rig.run("status", "x").stdout
        assert "its own model until 20" in shown and "hit your usage limit" in shown
        rig.run("pause", "x")
        (rig.project / "go").touch()
        rig.wait_status("paused")
        till.paid = True
        rig.run("resume", "x")
        end = rig.wait_end()
        assert (end["status"], end["stopReason"]) == ("completed", "marker")
        records = rig.records()
        assert [r["provider"] for r in records] == [MODEL_ARGS[1], "other", MODEL_ARGS[1]]
        assert records[1]["outcome"] == "ok" and end["stats"]["iterations"] == 2
        shown = rig.run("status", "x").stdout
        assert "other/vendor/small:1: 1 iteration (no. 2)" in shown and "2 iterations (no. 1, 3)" in shown
        assert "vendor/small" in rig.run("report", "x", "--format", "md", "-o", "-").stdout


def test_a_backlog_waits_as_a_whole_and_all_of_it_is_done_once_it_is_paid(tmp_path: Path, pi: list[str]) -> None:
    def works(request: Request) -> Reply:
        return bash('echo work > "$RALPH_TICKET.txt"') if fresh(request) else Reply(f"done\n{MARKER}")

    till, both = Till(BILL, works), threading.Barrier(2)

    def script(request: Request, n: int) -> Reply:
        if n <= 2:  # neither worker hears of the bill before the other has asked, too
            both.wait(60)
        return till(request, n)

    with ScriptedModel(script) as model:
        project = backlog_project(tmp_path / "project", True)
        rig = TicketRig(project, pi[-1], model.agent_dir(tmp_path, settings=NO_RETRY), list(MODEL_ARGS))
        for id in "abcd":
            rig.add(id, id)
        rig.commit()
        rig.begin("--parallel", "2", "--attempts", "1", "--max-failures", "1")
        rig.wait_status("waiting")
        wait_for("both workers", lambda: len(rig.records()) == 2)
        state = rig.wait_status("waiting")
        assert state["waitingFor"] == "billing" and state["stats"]["iterations"] == 0
        assert {one["ticket"] for one in rig.records()} == {"a", "b"}, "no further ticket was started"
        asked = len(model.requests)
        rig.run("resume", "x")
        model.wait_for_request(asked + 1)
        wait_for("the probe's record", lambda: len(rig.records()) == 3)
        rig.wait_status("waiting")
        assert len(model.requests) == asked + 1, "one probe at a time"
        assert "Insufficient Balance" in rig.run("status", "x").stdout
        till.paid = True
        rig.run("resume", "x")
        end = rig.wait_end(180)
        assert (end["status"], end["stopReason"]) == ("completed", "tickets-done")
        assert sorted(rig.merges()) == list("abcd")
        assert [one["outcome"] for one in rig.records() if one.get("errorKind") is None] == ["ok"] * 4


def test_a_marker_before_a_failed_tool_and_silent_thoughts_claims_nothing(tmp_path: Path, pi: list[str]) -> None:
    def script(request: Request, n: int) -> Reply:
        if fresh(request):
            return Reply(f"done\n{MARKER}", tool_calls=[("bash", {"command": "exit 1"})])
        return thinks_only()

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "1")
        end = rig.wait_end()
        assert (end["status"], end["stopReason"]) == ("stopped", "max-iterations"), end


def test_a_claim_that_was_nearly_made_is_told_to_the_next_iteration(tmp_path: Path, pi: list[str]) -> None:
    def script(request: Request, n: int) -> Reply:
        return Reply(f"It is done: {MARKER}") if n == 1 else Reply(f"well\n**{MARKER}**.")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "3")
        assert rig.wait_end()["stopReason"] == "marker"
        assert prompts(model)[1].startswith(f"The last message had {MARKER} on a line with other words")


def test_what_hung_is_told_to_the_next_iteration_also_after_the_runners_death(tmp_path: Path, pi: list[str]) -> None:
    def script(request: Request, n: int) -> Reply:
        if not fresh(request):
            return Reply("went on")
        return bash(f"sleep 60{n}") if len(prompts(model)) <= 2 else Reply(f"done\n{MARKER}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "5", "--iteration-timeout", "8s")
        rig.wait_records(1)
        model.wait_for_request(2)
        wait_for("the second tool", lambda: len(rig.of("tool_execution_start")) == 2)
        assert "`bash sleep 601` was running then" in prompts(model)[1]
        runner = rig.state()["pid"]
        os.kill(runner, signal.SIGKILL)
        wait_for("the runner's death", lambda: not alive(runner))
        rig.run("resume", "x")
        assert rig.wait_end()["stopReason"] == "marker"
        assert "the runner was killed" in prompts(model)[2] and "`bash sleep 602` was running then" in prompts(model)[2]
        assert rig.records()[1]["cutOff"] == ["bash sleep 602"]


def test_a_commit_without_a_message_ends_instead_of_opening_an_editor(tmp_path: Path, pi: list[str]) -> None:
    def script(request: Request, n: int) -> Reply:
        return (
            bash("echo x > f; git add f; git commit; git rebase -i --root; git log") if fresh(request) else Reply("ok")
        )

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        for name in ("GIT_EDITOR", "EDITOR", "VISUAL", "PAGER"):
            rig.env.pop(name, None)
        git(rig.project, "config", "core.editor", "sleep 600; false")
        rig.start("-n", "1", "--iteration-timeout", "60s")
        rig.wait_end()
        assert rig.records()[0]["outcome"] == "ok"


def test_results_in_a_folder_that_git_ignores_are_work_and_nothing_at_all_is_a_stall(
    tmp_path: Path, pi: list[str]
) -> None:
    def script(request: Request, n: int) -> Reply:
        if fresh(request) and len(prompts(model)) <= 4:
            return bash("mkdir -p out; echo result >> out/all.txt")
        return Reply("looked at it")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        (rig.project / ".gitignore").write_text("out/\n")
        git(rig.project, "add", "-A")
        git(rig.project, "commit", "-qm", "rules")
        rig.start("--stall-after", "2", "-n", "20")
        end = rig.wait_end()
        assert (end["status"], end["stopReason"]) == ("error", "stalled")
        assert len(rig.records()) == 6, "four that wrote, two that did not"
