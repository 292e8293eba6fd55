"""Ticket loops on real pi: what its agents do to real files, and what becomes of it in main."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc import api
from ralph_rpc.demo.model import Reply
from tests.real_pi import provision
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import git, user_texts, wait_for
from tests.ticket_rig import HOLD, MARKER, STEPS, Gate, GitGate, Held, TicketRig, backlog_project, hold, with_own_edits

pytestmark = pytest.mark.usefixtures("no_leftovers")
NAMED = re.compile(r"^Ticket (\S+), ", re.MULTILINE)
Script = Callable[["Asked"], Reply]


class Asked:
    """One request to the model: whose agent asks, and how far it is."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.messages = request["messages"]
        self.texts = list(user_texts(request))
        found = NAMED.search(self.texts[0])
        assert found, f"the prompt names no ticket: {self.texts[0][:300]}"
        self.ticket = found[1]
        self.turn = sum(message["role"] == "assistant" for message in self.messages)
        """0 in a fresh session."""
        self.conflict = "could not be merged" in self.texts[0]


class Agents:
    """The scripted model: every ticket's agent follows its own script, or does its work and says so."""

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        self._scripts = scripts or {}
        self.asked: list[Asked] = []

    def __call__(self, request: dict[str, Any], n: int) -> Reply:
        asked = Asked(request)
        self.asked.append(asked)
        return self._scripts.get(asked.ticket, works())(asked)

    def of(self, ticket: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.ticket == ticket]


def bash(command: str) -> Reply:
    return Reply("running ", tool_calls=[("bash", {"command": command})])


def works(*before: str, says: str = f"done\n{MARKER}") -> Script:
    """Runs these commands, does the ticket, says so."""

    def script(asked: Asked) -> Reply:
        turns = [*before, f"echo work of {asked.ticket} >> {asked.ticket}.txt"]
        return bash(turns[asked.turn]) if asked.turn < len(turns) else Reply(says)

    return script


def rig_for(tmp_path: Path, pi: str, model: ScriptedModel, tracked: bool = True) -> TicketRig:
    project = backlog_project(tmp_path / "project", tracked)
    return TicketRig(project, pi, model.agent_dir(tmp_path), list(MODEL_ARGS))


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> str:
    found = provision.provide(provision.NEWEST)
    provision.use(found, monkeypatch)
    return found.command[-1]


@pytest.mark.pi
def test_one_pi_works_them_off_in_the_order_of_their_deps_each_with_a_fresh_mind(tmp_path: Path, pi: list[str]) -> None:
    order = ["t-4", "t-3", "t-2", "t-1"]
    agents = Agents(dict.fromkeys(order, works('echo "for $RALPH_TICKET" >> $RALPH_LOOP_DIR/told')))
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        # By id alone it would be the other way round.
        rig.add("t-1", deps=("t-2",), text="The secret of t-1.")
        rig.add("t-2", deps=("t-3",), text="The secret of t-2.")
        rig.add("t-3", text="The secret of t-3.")
        rig.add("t-4", priority=0, text="The secret of t-4.")
        rig.commit()
        rig.begin()
        rig.check_done("t-1", "t-2", "t-3", "t-4", worktrees=False)
        assert [record["ticket"] for record in rig.records()] == order
        assert len(rig.of("ralph_pi_start")) == len(rig.of("ralph_pi_exit")) == 1
        assert len({record["sessionId"] for record in rig.records()}) == 4
        for asked in agents.asked:
            assert len(asked.texts) == 1
            assert re.findall(r"The secret of (\S+)\.", json.dumps(asked.messages)) == [asked.ticket]
        log = git(rig.project, "log", "--reverse", "--format=%(trailers:key=Ticket,valueonly)", "main").split()
        assert log == order
        for id in order:
            commit = git(rig.project, "log", "--format=%H", f"--grep=^Ticket: {id}$", "main").strip()
            changed = git(rig.project, "show", "--format=", "--name-only", commit).split()
            assert changed == [f".tickets/{id}.md", f"{id}.txt"]
        assert git(rig.project, "status", "--porcelain") == ""
        told = (rig.paths.dir / "told").read_text()
        assert told == "for \n" * 4, "the environment of a pi that serves them all names the first"


COMPONENTS = {
    "t-1": ("cli",),
    "t-2": ("core",),
    "t-3": ("docs",),
    "t-4": ("cli",),
    "t-5": ("cli", "core"),
    "t-6": ("web",),
    "t-7": ("docs", "web"),
    "t-8": ("core",),
    "t-9": ("db",),
    "t-10": ("db", "cli"),
    "t-11": ("web",),
    "t-12": ("docs",),
}


@pytest.mark.pi
@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "ignored"])
def test_twelve_tickets_by_three_agents_are_all_merged_and_the_users_edits_stay_as_they_are(
    tmp_path: Path, newest: str, tracked: bool, record_property: Callable[[str, object], None]
) -> None:
    agents = Agents({"t-3": works("echo 3 >> shared.txt; git add -A; git commit -qm 'own words'")})
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, newest, model, tracked)
        for id, components in COMPONENTS.items():
            rig.add(id, *components, deps=("t-2",) if id == "t-11" else ())
        with_own_edits(rig.project)
        before = rig.users_own()
        rig.begin("--parallel", "3", "--verify", "test -e $RALPH_TICKET.txt")
        rig.check_done(*COMPONENTS)
        assert rig.users_own() == before
        assert git(rig.project, "status", "--porcelain") == " M mine/edited.txt\nM  mine/staged.txt\n?? mine/new.txt\n"
        assert rig.on_main("shared.txt") == "3\n"
        seen = rig.seen(COMPONENTS)
        assert seen.most == 3 and seen.pis <= 3, seen
        ends = {e["ticket"]: n for n, e in enumerate(rig.of("ralph_ticket")) if e["to"] == "merged"}
        begins = {e["ticket"]: n for n, e in enumerate(rig.of("ralph_ticket")) if e["to"] == "claimed"}
        assert ends["t-2"] < begins["t-11"]
        assert rig.registry() == []
        took = rig.state()["elapsedMs"] / 1000
        record_property("figure", f"12 tickets merged in {took:.1f} s, {seen.pis} pis at most, fsck clean")


SAME_LINE = "sed -i 's/^colour: .*/colour: {}/' app.txt"


def colours(rig: TicketRig) -> None:
    """Two tickets without a component in common, whose agents change the same line."""
    (rig.project / "app.txt").write_text("head\ncolour: none\ntail\n")
    rig.add("t-1", "one")
    rig.add("t-2", "two")
    rig.commit()


@pytest.mark.pi
def test_a_conflict_goes_back_to_the_agent_who_resolves_it(tmp_path: Path, newest: str) -> None:
    def second(asked: Asked) -> Reply:
        if not asked.conflict:
            return works(HOLD, SAME_LINE.format("blue"))(asked)
        if asked.turn:
            return Reply(f"both colours now\n{MARKER}")
        both = "printf 'head\\ncolour: red and blue\\ntail\\n' > app.txt"
        return bash(f"git merge main; {both}; git add -A && git commit -qm 'both colours'")

    agents = Agents({"t-1": works(SAME_LINE.format("red")), "t-2": second})
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, newest, model)
        colours(rig)
        rig.begin("--parallel", "2", "--verify", "grep -q colour app.txt")
        rig.wait_dispatch("t-1", "closed")
        rig.let_go("t-2")
        rig.check_done("t-1", "t-2")
        assert rig.on_main("app.txt") == "head\ncolour: red and blue\ntail\n"
        assert [record["kind"] for record in rig.attempts("t-2")] == ["work", "conflict"]
        conflict = next(asked for asked in agents.of("t-2") if asked.conflict)
        assert conflict.turn == 0 and "app.txt" in conflict.texts[0], "a fresh session that is told where"
        assert len({record["sessionId"] for record in rig.attempts("t-2")}) == 2


@pytest.mark.pi
@pytest.mark.parametrize(
    "attempt",
    ["true", "git merge main; git add -A; git commit -qm 'with markers'", "git merge main"],
    ids=["does nothing", "commits the markers", "leaves the merge"],
)
def test_a_conflict_that_nobody_resolves_needs_a_merge_and_keeps_its_branch(
    tmp_path: Path, newest: str, attempt: str
) -> None:
    def second(asked: Asked) -> Reply:
        if not asked.conflict and "does not count" not in asked.texts[0]:
            return works(HOLD, SAME_LINE.format("blue"))(asked)
        return Reply(f"resolved, I think\n{MARKER}") if asked.turn else bash(attempt)

    agents = Agents({"t-1": works(SAME_LINE.format("red")), "t-2": second})
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, newest, model)
        colours(rig)
        rig.add("t-3", "three", deps=("t-2",))
        rig.commit()
        rig.begin("--parallel", "2", "--attempts", "2")
        rig.wait_dispatch("t-1", "closed")
        rig.let_go("t-2")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("error", "blocked"), state["error"]
        assert "t-2: needs-merge" in state["error"] and "t-3: blocked" in state["error"]
        record = rig.dispatch("t-2")
        assert record["status"] == "needs-merge" and record["error"]
        assert rig.branches() == ["ralph/x/t-2"]
        assert "colour: blue" in git(rig.project, "log", "-p", "main..ralph/x/t-2")
        assert rig.on_main("app.txt") == "head\ncolour: red\ntail\n"
        assert rig.merges() == {"t-1": 1}
        assert rig.status_of("t-2") == "open"
        assert "ralph/x/t-2" in rig.notes("t-2")
        assert [one["kind"] for one in rig.attempts("t-2")] == ["work", "conflict", "conflict"]
        assert rig.of_mine() == {}
        rig.check_whole()


@pytest.mark.pi
def test_a_ticket_whose_verify_is_red_is_never_merged_and_holds_up_only_its_dependents(
    tmp_path: Path, newest: str
) -> None:
    agents = Agents({"t-2": works("echo BROKEN >> code.txt")})
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, newest, model)
        rig.add("t-1", "one")
        rig.add("t-2", "two", priority=0)
        rig.add("t-3", "three", deps=("t-2",))
        rig.add("t-4", "four", deps=("t-3",))
        rig.add("t-5", "two")
        rig.commit()
        rig.begin("--parallel", "2", "--attempts", "2", "--verify", "! grep BROKEN code.txt")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("error", "failures"), state
        assert rig.merges() == {"t-1": 1, "t-5": 1}
        assert "BROKEN" not in git(rig.project, "log", "-p", "main")
        failed = rig.dispatch("t-2")
        assert (failed["status"], failed["attempt"]) == ("failed", 2)
        assert [record["verify"]["exitCode"] for record in rig.attempts("t-2")] == [1, 1]
        assert "exit code 1" in agents.of("t-2")[-1].texts[0], "the second attempt was told why"
        assert rig.status_of("t-2") == "open" and "gave up" in rig.notes("t-2")
        for id in ("t-3", "t-4"):
            assert f"{id}: blocked" in state["error"]
            assert not rig.attempts(id) and rig.status_of(id) == "open"
        assert "BROKEN" in git(rig.project, "log", "-p", "ralph/x/t-2") or (
            Path(rig.worktrees()[0], "code.txt").read_text().startswith("BROKEN")
        ), "its work is kept"
        assert rig.of_mine() == {}
        rig.check_whole()


@pytest.mark.pi
@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "ignored"])
@pytest.mark.parametrize("parallel", ["1", "2"])
def test_a_ticket_that_its_agent_closes_is_done_and_a_marker_in_prose_is_not(
    tmp_path: Path, newest: str, parallel: str, tracked: bool
) -> None:
    def closes(asked: Asked) -> Reply:
        path = re.search(r" from (\S+)\.$", asked.texts[0], re.MULTILINE)
        assert path
        return works(f"sed -i 's/^status: .*/status: closed/' {path[1]}", says="closed it myself")(asked)

    def boasts(asked: Asked) -> Reply:
        again = "attempt 2 of" in asked.texts[0]
        return works(says=f"done\n{MARKER}" if again else f"When it is done I shall say {MARKER} and be happy.")(asked)

    with ScriptedModel(Agents({"t-1": closes, "t-2": boasts})) as model:
        rig = rig_for(tmp_path, newest, model, tracked)
        rig.add("t-1", "one")
        rig.add("t-2", "two")
        rig.commit()
        rig.begin("--parallel", parallel)
        rig.check_done("t-1", "t-2", worktrees=parallel == "2")
        assert [len(rig.attempts(id)) for id in ("t-1", "t-2")] == [1, 2]


@pytest.mark.pi
def test_a_steer_reaches_the_agent_of_its_ticket_and_is_refused_without_one(tmp_path: Path, newest: str) -> None:
    agents = Agents({"t-1": works(HOLD), "t-2": works(HOLD)})
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, newest, model)
        rig.add("t-1", "one")
        rig.add("t-2", "two")
        rig.commit()
        rig.begin("--parallel", "2")
        rig.wait_held("t-1", "t-2")
        refused = rig.run("steer", "x", "to whom?", check=2)
        assert "t-1, t-2" in refused.stderr and "--ticket" in refused.stderr
        assert not list(rig.paths.inbox.glob("*.json")), "nothing was sent"
        rig.drop("steer-1.json", '{"id": "s1", "message": "to whom?"}')
        rejected = rig.wait_event("ralph_command", id="s1", state="rejected")
        assert "t-1, t-2" in rejected["reason"]
        reason = rig.paths.rejected / "steer-1.json.reason"
        assert (rig.paths.rejected / "steer-1.json").exists() and "t-1, t-2" in reason.read_text()
        rig.run("steer", "x", "--ticket", "t-2", "mind the gap")
        rig.drop("steer-2.json", '{"id": "s2", "message": "mind the step", "ticket": "t-1"}')
        rig.wait_step("s2", "queued")
        rig.let_go("t-1", "t-2")
        rig.check_done("t-1", "t-2")
        assert agents.of("t-2")[-1].texts[1:] == ["mind the gap"]
        assert agents.of("t-1")[-1].texts[1:] == ["mind the step"]
        assert rig.steps("s2") == ["accepted", "queued", "delivered"]
        delivered = [step["ticket"] for step in rig.of("ralph_command") if step["state"] == "delivered"]
        assert sorted(delivered) == ["t-1", "t-2"]


@pytest.mark.pi
def test_merges_that_wait_for_their_user_hold_up_nobody_and_keep_no_pi(tmp_path: Path, newest: str) -> None:
    with ScriptedModel(Agents()) as model:
        rig = rig_for(tmp_path, newest, model)
        for n in range(1, 5):
            rig.add(f"t-{n}", f"component-{n}")
        rig.commit()
        in_the_way = [rig.project / f"t-{n}.txt" for n in range(1, 4)]
        for path in in_the_way:
            path.write_text("mine\n")
        rig.begin("--worktrees")
        rig.wait_dispatch("t-4", "closed")
        assert rig.merges() == {"t-4": 1}
        assert [path.read_text() for path in in_the_way] == ["mine\n"] * 3
        told = rig.run("status", "x").stdout
        assert "t-1.txt" in told and "commit, stash or move" in told
        assert rig.dispatch("t-1")["status"] == "merging"
        wait_for(
            "the end of each pi that has nothing to do: it costs 150 MB",
            lambda: len(rig.of("ralph_pi_start")) == len(rig.of("ralph_pi_exit")),
        )
        for path in in_the_way:
            path.unlink()
        rig.check_done("t-1", "t-2", "t-3", "t-4")


@pytest.mark.pi
@pytest.mark.parametrize(
    "step", ["running", "verifying", "before it lands", "after it landed", "after its worktree went"]
)
def test_a_killed_runner_is_followed_by_one_that_ends_in_the_same_state(tmp_path: Path, newest: str, step: str) -> None:
    with ScriptedModel(Agents({id: works(*before) for id, before in Held.AGENTS.items()})) as model:
        held = Held(tmp_path / "gate", rig_for(tmp_path, newest, model), STEPS[step])
        held.reach()
        held.rig.kill_runner()
        held.open()
        held.rig.resume()
        held.check()


@pytest.mark.pi
@pytest.mark.parametrize("gate", [None, ("before", "commit --quiet"), ("after", "commit --quiet")], ids=str)
def test_a_runner_killed_over_a_ticket_in_the_project_itself_leaves_it_to_the_next(
    tmp_path: Path, newest: str, gate: Gate | None
) -> None:
    def script(asked: Asked) -> Reply:
        return works(hold(ticket=asked.ticket))(asked)

    with ScriptedModel(Agents({"t-1": script})) as model:
        rig = rig_for(tmp_path, newest, model)
        git_gate = GitGate(tmp_path / "gate", rig)
        rig.add("t-1")
        rig.add("t-2")
        rig.commit()
        rig.begin()
        rig.wait_held("t-1")
        if gate is not None:
            git_gate.arm(*gate)
            rig.let_go("t-1")
            git_gate.wait_held()
        rig.kill_runner()
        git_gate.open()
        rig.let_go("t-1")
        rig.resume()
        rig.check_done("t-1", "t-2", worktrees=False)
        log = git(rig.project, "log", "--reverse", "--format=%(trailers:key=Ticket,valueonly)", "main").split()
        assert log == ["t-1", "t-2"]
        assert [one["outcome"] for one in rig.attempts("t-1")] == (["crashed", "ok"] if gate is None else ["ok"])
        assert git(rig.project, "status", "--porcelain") == ""


@pytest.mark.pi
def test_one_ticket_is_run_by_itself_with_a_structured_result(
    tmp_path: Path, newest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = Agents({"t-2": works(says="I cannot")})
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, newest, model)
        for id in ("t-1", "t-2", "t-3"):
            rig.add(id, "one")
        rig.commit()
        options = ["--pi", newest, *MODEL_ARGS, "--worktrees", "--attempts", "1"]
        done = json.loads(rig.run("run-ticket", "t-1", "--json", *options).stdout)
        assert done["success"] and done["error"] is None and done["branch"] is None
        assert (done["ticket_id"], done["status"], done["return_code"]) == ("t-1", "closed", 0)
        assert done["termination_method"] == "eof" and done["duration_ms"] > 0
        loop = Path(done["loop_dir"])
        assert loop == rig.project / ".ralph" / "ticket-t-1"
        assert any(done["session_id"] in path.name for path in (loop / "sessions").rglob("*.jsonl"))

        failed = json.loads(rig.run("run-ticket", "t-2", "--json", *options, check=1).stdout)
        assert not failed["success"] and failed["status"] == "failed" and "not done after 1 attempt" in failed["error"]
        assert failed["branch"] == "ralph/ticket-t-2/t-2"
        missing = rig.run("run-ticket", "t-9", *options, check=2)
        assert "t-9" in missing.stderr and not (rig.project / ".ralph" / "ticket-t-9").exists()

        monkeypatch.setenv("PI_CODING_AGENT_DIR", rig.env["PI_CODING_AGENT_DIR"])
        result = api.run_ticket(
            "t-3", rig.project, pi=newest, provider=MODEL_ARGS[1], model=MODEL_ARGS[3], worktrees=True, timeout=60
        )
        assert result.success and result.error is None and set(asdict(result)) == set(done)
        assert (result.ticket_id, result.return_code, result.termination_method) == ("t-3", 0, "eof")
        assert rig.merges() == {"t-1": 1, "t-3": 1}
        assert {asked.ticket for asked in agents.asked} == {"t-1", "t-2", "t-3"}
        rig.check_whole()


@pytest.mark.pi
def test_what_agents_file_as_their_last_act_and_epics_above_them_are_done_to_the_last(
    tmp_path: Path, pi: list[str]
) -> None:
    filed = (
        "printf -- '---\\nid: ét-2\\nstatus: todo\\nassignee: @joe\\nparent: top\\n---\\n# Late\\n' > .tickets/late.md"
    )
    agents = Agents({"t-1": works(filed)})
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        rig.add("t-1")
        (rig.project / ".tickets" / "top.md").write_text("---\nid: top\ntype: epic\nstatus: open\n---\n# All of it\n")
        (rig.project / ".tickets" / "t-1.md").write_text(
            rig.ticket("t-1").replace("type: task", "type: task\nparent: top")
        )
        rig.commit()
        rig.begin("--worktrees", "--verify", "true")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"], state["error"]) == ("completed", "tickets-done", None), rig.log()
        assert [asked.ticket for asked in agents.asked if asked.turn == 0] == ["t-1", "ét-2"]
        assert rig.on_main("ét-2.txt") == "work of ét-2\n"
        assert "status: closed\nassignee: @joe\n" in rig.on_main(".tickets/late.md")
        assert "status: closed" in rig.on_main(".tickets/top.md")
        rig.check_tidy()
