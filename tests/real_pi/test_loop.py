"""The whole loop on real pi of four generations, with a scripted model."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.demo.model import Reply, Usage
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel, hang_before_headers, hang_mid_stream, status
from tests.rig import Rig, alive, git, new_project, user_texts, wait_for

pytestmark = [pytest.mark.pi, pytest.mark.usefixtures("no_leftovers")]
MARKER = "<promise>COMPLETE</promise>"
FAST_RETRY = {"retry": {"baseDelayMs": 50}}


def rig_for(tmp_path: Path, pi_path: str, model: ScriptedModel, **agent: Any) -> Rig:
    return Rig(new_project(tmp_path / "project"), pi_path, model.agent_dir(tmp_path, **agent), list(MODEL_ARGS))


def bash(command: str) -> Reply:
    return Reply("running ", tool_calls=[("bash", {"command": command})])


def fresh(request: dict[str, Any]) -> bool:
    """True for the first request of an iteration: no answer of the assistant is in it."""
    return all(m["role"] != "assistant" for m in request["messages"])


def last_user(request: dict[str, Any]) -> str:
    return list(user_texts(request))[-1]


def test_three_iterations_leave_a_true_record_and_nothing_else(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if fresh(request):
            return bash(f"echo {n} >> out.txt")
        return Reply(f"wrote line, request {n}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "3")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("stopped", "max-iterations"), state
        records = rig.records()
        assert [r["outcome"] for r in records] == ["ok"] * 3
        for r in records:
            assert r["turns"] == 2 and r["toolCalls"] == 1 and r["cost"] > 0 and r["tokensIn"] > 0
            assert r["filesChanged"] == 1 and r["commits"] == []
            assert Path(r["sessionFile"]).parent == rig.paths.sessions and Path(r["sessionFile"]).exists()
        # Fresh context, from the model's side: no iteration sees another's words.
        firsts = [r for r in model.requests if fresh(r)]
        assert len(firsts) == 3 and all(len(list(user_texts(r))) == 1 for r in firsts)
        # The log: one run each, stamped, linear, and what is in a record's range is its iteration.
        assert len(rig.of("agent_end")) == 3
        assert {e["ralph"]["iteration"] for e in rig.of("agent_end")} == {1, 2, 3}
        log = rig.paths.events.read_bytes()
        for r in records:
            part = log[r["eventsFrom"] : r["eventsTo"]].split(b"\n")
            assert json.loads(part[0])["type"] == "ralph_iteration_start"
            assert json.loads(part[-2])["type"] == "ralph_iteration_end"
        assert rig.litter() == {"README", "out.txt"}
        assert rig.registry() == [] and rig.of_mine() == {}
        assert rig.of("ralph_pi_exit")[-1]["terminationMethod"] == "eof"


def test_a_task_is_done_by_marker_and_verify(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if not fresh(request):
            return Reply(f"done\n{MARKER}")
        return bash("touch good") if "exit code 1" in last_user(request) else Reply(f"nothing to do\n{MARKER}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("--verify", "test -f good || { echo not good; exit 1; }")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("completed", "verified")
        assert [r["verify"]["exitCode"] for r in rig.records()] == [1, 0]
        assert "not good" in rig.records()[0]["verify"]["tail"]


def test_the_task_file_is_read_anew_and_its_checklist_completes(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if not fresh(request):
            return Reply("ticked one")
        return bash("sed -i '0,/- \\[ \\]/s//- [x]/' .ralph/x/task.md")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start(task="- [ ] one\n- [ ] two\n")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("completed", "checklist")
        assert len(rig.records()) == 2
        prompts = [last_user(r) for r in model.requests if fresh(r)]
        assert "- [x] one" not in prompts[0] and "- [x] one" in prompts[1]


def test_a_steer_dropped_by_hand_in_the_middle_of_a_tool_reaches_the_model(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if fresh(request):
            return bash("while [ ! -e go ]; do sleep 0.05; done")
        return Reply(f"heard: {last_user(request)[-20:]}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "1")
        rig.wait_event("tool_execution_start")
        rig.drop("steer.json", '{"id": "s1", "message": "mind the gap"}\n')
        rig.wait_step("s1", "queued")
        assert not (rig.paths.inbox / "steer.json").exists()
        (rig.project / "go").touch()
        rig.wait_end()
        assert rig.steps("s1") == ["accepted", "queued", "delivered"]
        assert last_user(model.requests[-1]) == "mind the gap"
        assert rig.records()[0]["steering"] == ["s1"]
        assert len(rig.records()) == 1


def test_a_followup_continues_the_session(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if fresh(request):
            return bash("while [ ! -e go ]; do sleep 0.05; done")
        return Reply("one thing done")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "1")
        rig.wait_event("tool_execution_start")
        rig.drop("followup-1.json", '{"id": "f1", "message": "and then dance"}')
        rig.wait_step("f1", "queued")
        (rig.project / "go").touch()
        rig.wait_end()
        assert rig.steps("f1")[-1] == "delivered"
        assert last_user(model.requests[-1]) == "and then dance"
        assert [m["role"] for m in model.requests[-1]["messages"]].count("assistant") == 2


def test_a_steer_in_the_gap_before_new_session_heads_the_next_prompt(tmp_path: Path, pi: list[str]) -> None:
    # The verify command holds the gap open: pi has settled, new_session has not been sent.
    def script(request: dict[str, Any], n: int) -> Reply:
        return Reply(f"claim\n{MARKER}")

    verify = "n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) > n; [ $n -ge 1 ] && exit 0; touch gap; while [ ! -e go ]; do sleep 0.05; done; exit 1"
    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("--verify", verify)
        wait_for("the gap", (rig.project / "gap").exists)
        rig.drop("steer.json", '{"id": "g1", "message": "into the gap"}')
        rig.wait_step("g1", "queued")
        (rig.project / "go").touch()
        assert rig.wait_end()["status"] == "completed"
        assert rig.steps("g1") == ["accepted", "queued", "delivered"]
        assert "into the gap" in last_user(model.requests[-1])
        assert sum("into the gap" in last_user(r) for r in model.requests) == 1


def test_abort_kills_the_tool_and_a_fresh_iteration_follows(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return bash("echo on; sleep 600") if n == 1 else Reply("second try")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "2")
        rig.wait_event("tool_execution_start")
        rig.run("abort", "x")
        rig.wait_end()
        assert [r["outcome"] for r in rig.records()] == ["aborted", "ok"]
        assert fresh(model.requests[-1])


def test_pause_holds_and_resume_goes_on_with_the_same_pi(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return bash("while [ ! -e go ]; do sleep 0.05; done") if n == 1 else Reply("ok")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "2")
        rig.wait_event("tool_execution_start")
        rig.drop("pause.json")
        rig.wait_event("ralph_command", command="pause", state="accepted")
        (rig.project / "go").touch()
        rig.wait_status("paused")
        asked = len(model.requests)
        rig.run("steer", "x", "said in the pause")
        rig.run("resume", "x")
        rig.wait_end()
        assert len(model.requests) > asked
        assert "said in the pause" in last_user(model.requests[-1])
        assert len({e["pid"] for e in rig.of("ralph_pi_start")}) == 1


def test_touch_stop_json_ends_the_loop_after_the_iteration(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return bash("while [ ! -e go ]; do sleep 0.05; done") if n == 1 else Reply("ok")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start()
        rig.wait_event("tool_execution_start")
        (rig.paths.inbox / "stop.json").touch()
        rig.wait_event("ralph_command", command="stop", state="accepted")
        (rig.project / "go").touch()
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("stopped", "stop")
        assert [r["outcome"] for r in rig.records()] == ["ok"]
        assert rig.run("wait", "x", check=10)


def test_resume_goes_on_with_the_counters(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: Reply(f"answer {n}")) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "1")
        before = rig.wait_end()
        assert "max-iterations" in rig.run("resume", "x", check=2).stderr
        rig.run("resume", "x", "-n", "3")
        after = rig.wait_end()
        assert [r["iteration"] for r in rig.records()] == [1, 2, 3]
        assert after["stats"]["iterations"] == 3 and after["stats"]["cost"] > before["stats"]["cost"] > 0
        assert after["startedAt"] == before["startedAt"]


def test_a_retry_of_pi_is_one_iteration(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return status(500) if n <= 3 else Reply("at last")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model, settings=FAST_RETRY)
        rig.start("-n", "1")
        rig.wait_end()
        assert [(r["outcome"], r["summary"]) for r in rig.records()] == [("ok", "at last")]


def test_a_provider_that_stays_down_is_waited_for(tmp_path: Path, pi: list[str]) -> None:
    up: list[int] = []

    def script(request: dict[str, Any], n: int) -> Reply:
        return Reply("up again") if up else status(503)

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model, settings={"retry": {"enabled": False}})
        rig.start("-n", "1")
        state = rig.wait_status("waiting")
        assert state["nextWakeAt"] and "overloaded" in state["error"]
        up.append(1)
        state = rig.wait_end()
        assert state["stopReason"] == "max-iterations"
        assert rig.records()[0]["errorKind"] == "overloaded" and rig.records()[-1]["outcome"] == "ok"


def test_a_named_reset_is_waited_for_and_a_stop_ends_the_wait(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: status(429, "Rate limit reached, try again in 2h")) as model:
        rig = rig_for(tmp_path, pi[-1], model, settings={"retry": {"enabled": False}})
        rig.start("--max-failures", "1")
        state = rig.wait_status("waiting")
        assert state["stats"]["iterations"] == 0
        shown = rig.run("status", "x").stdout
        assert re.search(r"1h5\dm|2h", shown), shown
        rig.run("stop", "x")
        assert rig.wait_end()["stopReason"] == "stop"


def test_a_wrong_key_ends_the_loop_at_once(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: status(401)) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        done = rig.start(check=5)
        assert "Incorrect API key" in done.stderr and done.stderr.count("\n") == 1
        assert len(model.requests) == 1


def test_a_hung_provider_is_noticed_and_the_loop_goes_on(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return hang_mid_stream() if n == 1 else Reply("second")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "2", "--idle-timeout", "1s")
        rig.wait_end()
        assert [(r["outcome"], r.get("errorKind")) for r in rig.records()] == [("timeout", "hang"), ("ok", None)]


def test_a_stopped_pi_is_killed_and_replaced(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return hang_before_headers() if n == 2 else Reply("fine")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "3", "--idle-timeout", "3s")
        model.wait_for_request(2)
        _, _, stopped = rig.pids()
        rig.kill(stopped, signal.SIGSTOP)
        rig.wait_end()
        assert [r["outcome"] for r in rig.records()] == ["ok", "timeout", "ok", "ok"]
        assert not alive(stopped)


def test_a_dialog_never_blocks_the_loop(tmp_path: Path, pi: list[str]) -> None:
    extension = tmp_path / "ask.ts"
    extension.write_text(
        'export default function (pi) {\n  pi.on("tool_call", async (event, ctx) => {\n'
        '    const yes = await ctx.ui.confirm("Deploy?", "really");\n'
        '    if (!yes) return { block: true, reason: "the operator said no" };\n  });\n}\n'
    )

    def script(request: dict[str, Any], n: int) -> Reply:
        return bash("echo hi > said") if fresh(request) else Reply("ok")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "1", "--extension", str(extension))
        rig.wait_end()
        assert rig.records()[0]["outcome"] == "ok" and not (rig.project / "said").exists()
        assert any("Deploy?" in e["message"] for e in rig.of("ralph_notice"))
        answers = tmp_path / "answers.json"
        answers.write_text('{"Deploy?": true}')
        rig.run("resume", "x", "-n", "2", "--ui-answers", str(answers))
        rig.wait_end()
        assert (rig.project / "said").exists()


def test_compaction_is_not_the_end_of_an_iteration(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if "summar" in json.dumps(request["messages"][0]).lower() and n > 1:
            return Reply("a summary")
        if fresh(request):
            return bash("head -c 30000 /dev/zero | tr '\\0' 'x'")
        return Reply("long words " * 50, usage=Usage(5000, 200))

    with ScriptedModel(script) as model:
        agent = {"settings": {"compaction": {"enabled": True, "reserveTokens": 2000, "keepRecentTokens": 500}}}
        rig = rig_for(tmp_path, pi[-1], model, context_window=6000, **agent)
        rig.start("-n", "2")
        rig.wait_end()
        assert [e["iteration"] for e in rig.of("ralph_iteration_end")] == [1, 2]
        assert rig.of("compaction_start")
        # Nothing of an iteration comes after its end.
        for number in (1, 2):
            types = [e["type"] for e in rig.events() if e.get("ralph", {}).get("iteration") == number]
            assert types.count("agent_start") >= 1


def tree(rig: Rig) -> Reply:
    """A tool call that leaves children of every kind, and tells their pids by files."""
    return bash(
        "sleep 601 & setsid sleep 602 & (sleep 603 &) ; "
        "env -u RALPH_LOOP_DIR setsid sh -c 'sleep 604 & exec sleep 605' & touch ready; sleep 606"
    )


SLEEPERS = ("sleep 601", "sleep 602", "sleep 603", "sleep 604", "sleep 605", "sleep 606")


def sleepers(before: set[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            home = (entry / "cwd").readlink()
        except OSError:
            continue
        if command in SLEEPERS and int(entry.name) not in before and "project" in str(home):
            found[int(entry.name)] = f"{command} in {home}"
    return found


def mine(rig: Rig) -> dict[int, str]:
    return {pid: text for pid, text in sleepers(set()).items() if text.endswith(f" in {rig.project}")}


@pytest.mark.parametrize("victim", ["runner", "guard", "pi"])
def test_kill_9_of_any_process_leaves_nothing_and_the_loop_can_go_on(
    tmp_path: Path, pi: list[str], victim: str
) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return tree(rig) if n == 1 else Reply("after the kill")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "1")
        wait_for("the tree", (rig.project / "ready").exists)
        wait_for("six sleepers", lambda: len(mine(rig)) == 6)
        pids: dict[str, int] = dict(zip(("runner", "guard", "pi"), rig.pids(), strict=True))
        rig.kill(pids[victim])
        wait_for(f"an empty tree, left {mine(rig)}", lambda: not mine(rig), timeout=15)
        if victim == "runner":
            wait_for("pi's end", lambda: not alive(pids["pi"]), timeout=15)
            assert "crashed" in rig.run("status", "x").stdout
            assert "crashed" in rig.run("list").stdout
            rig.run("resume", "x")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("stopped", "max-iterations"), state
        assert [r["outcome"] for r in rig.records()] == ["crashed", "ok"]
        assert rig.of_mine() == {} and rig.registry() == []


def test_a_steer_survives_kill_9_of_the_runner(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return bash("sleep 600") if n == 1 else Reply("ok")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "1")
        rig.wait_event("tool_execution_start")
        rig.drop("steer.json", '{"id": "k1", "message": "do not lose me"}')
        rig.wait_step("k1", "queued")
        rig.kill(rig.pids()[0])
        wait_for("the runner's end", lambda: rig.run("status", "x", "--json").stdout.count('"crashed"'))
        rig.run("resume", "x")
        rig.wait_end()
        assert rig.steps("k1").count("delivered") == 1
        assert sum("do not lose me" in last_user(r) for r in model.requests) == 1


def test_sigterm_ends_the_loop_cleanly(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: bash("sleep 600")) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start()
        rig.wait_event("tool_execution_start")
        rig.run("kill", "x")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("stopped", "kill")
        assert rig.registry() == []


def test_a_worktree_loop_works_aside(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        if fresh(request):
            return bash("echo new > feature && git add -A && git commit -qm 'the feature'")
        return Reply(f"committed\n{MARKER}")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        (rig.project / "README").write_text("edited by the user\n")
        rig.start("--worktree", "feature-1")
        entry = rig.registry()
        assert not entry or entry[0]["worktree"]["branch"] == "feature-1"
        assert rig.wait_end()["status"] == "completed"
        assert len(rig.records()[0]["commits"]) == 1
        assert rig.litter() == {"README"} and (rig.project / "README").read_text() == "edited by the user\n"
        assert git(rig.project, "log", "--format=%s", "feature-1").split("\n")[0] == "the feature"
        assert (
            "unmerged"
            in rig.run("clean", "x", "--yes", check=None).stderr + rig.run("clean", "x", "--yes", check=None).stdout
        )
        assert rig.paths.worktree.is_dir()
        git(rig.project, "stash", "-q")
        git(rig.project, "merge", "-q", "feature-1")
        rig.run("clean", "x", "--yes")
        assert not rig.paths.dir.exists()
        assert git(rig.project, "worktree", "list").count("\n") == 1


def test_logs_are_readable(tmp_path: Path, pi: list[str]) -> None:
    def script(request: dict[str, Any], n: int) -> Reply:
        return bash("echo hello from the tool") if fresh(request) else Reply("All went well, truly.")

    with ScriptedModel(script) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.start("-n", "1")
        rig.wait_end()
        text = rig.run("logs", "x").stdout
        assert text.count("All went well, truly.") == 1
        assert "bash" in text and "$" in text and "\x1b" not in text


def test_foreground_streams_and_its_exit_code_tells_the_outcome(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(lambda request, n: Reply(f"finished in front\n{MARKER}")) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        done = rig.start("--foreground")
        assert "finished in front" in done.stdout
        assert rig.state()["status"] == "completed"
