"""Whole runs on backlogs as people write them: epics, claims, odd ids, a folder that is a link, a ticket filed at the end."""

import json
from pathlib import Path

import pytest

from tests.rig import git, wait_for
from tests.ticket_rig import HOLD, MARKER, TicketRig, does, fake_tickets

pytestmark = pytest.mark.usefixtures("no_leftovers")


def put(rig: TicketRig, name: str, head: str, body: str = "# Do it\n") -> None:
    folder = rig.project / ".tickets"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(f"---\n{head}---\n{body}")


@pytest.mark.parametrize("tracked", [True, False], ids=["in git", "ignored"])
def test_odd_heads_ids_and_epics_run_to_their_end_and_every_byte_but_the_status_stays(
    tmp_path: Path, tracked: bool
) -> None:
    rig = fake_tickets(tmp_path, tracked=tracked)
    heads = {
        "été-st3i": "id: été-st3i\nstatus: open\nassignee: @joe\npriority: P1\ndeps: []\n",
        "a b": "id: a b\nstatus: todo\nparent: ep\ntitle: 'It: is'\n",
        "x-2": "id: x-2\nestimate: 3d @ 8h\nstatus: Open # since monday\ndeps:\n- été-st3i\n- old\nparent: in\n",
        "ep": "id: ep\ntype: epic\nstatus: open\nowner: @jane\n",
        "in": "id: in\ntype: Epic\nstatus: open\nparent: ep\n",
        "old": "id: old\nstatus: Cancelled\nassignee: @joe\ndeps: [gone]\n",
    }
    for name, head in heads.items():
        put(rig, name, head)
    (rig.project / ".tickets" / "README.md").write_text("# How we work\n")
    rig.commit()
    told = rig.begin("--parallel", "3").stderr
    assert "no ticket has a tag that begins with component:" in told
    state = rig.wait_end()
    assert (state["status"], state["stopReason"], state["error"]) == ("completed", "tickets-done", None), rig.log()
    for id in ("été-st3i", "a b", "x-2"):
        assert rig.on_main(f"{id}.txt") == f"work of {id}\n"
        assert rig.dispatch(id)["branch"].isascii()
    for name, head in heads.items():
        word = next(line for line in head.splitlines() if line.startswith("status:")).split()[1]
        closed = head if name == "old" else head.replace(f"status: {word}", "status: closed")
        assert rig.ticket(name) == f"---\n{closed}---\n# Do it\n", name
    assert [e["ticket"] for e in rig.of("ralph_iteration_start")] == ["a b", "été-st3i", "x-2"] or (
        [e["ticket"] for e in rig.of("ralph_iteration_start")] == ["été-st3i", "a b", "x-2"]
    )
    order = [e["ticket"] for e in rig.of("ralph_ticket") if e["to"] == "closed"]
    assert order.index("x-2") < order.index("in") < order.index("ep")
    assert rig.merges() == dict.fromkeys(("été-st3i", "a b", "x-2", *(("in", "ep") if tracked else ())), 1)
    rig.check_tidy()
    reported = json.loads(rig.run("report", "x", "--format", "json").stdout)["tickets"]
    assert {one["ticket"] for one in reported} == {"été-st3i", "a b", "x-2", "ep", "in"}
    history = (rig.paths.dir / "progress.md").read_text()
    assert "- été-st3i: COMPLETE" in history and "- ep:" not in history
    assert "work of" in rig.run("logs", "x", "--raw", "--ticket", "st3i").stdout
    assert "has worked on several tickets with '-' in their id" in rig.run("logs", "x", "--ticket=-", check=1).stderr


def test_a_ticket_that_an_agent_files_as_its_last_act_is_done_as_well(tmp_path: Path) -> None:
    late = "printf -- '---\\nid: t-2\\nstatus: open\\n---\\n# Late\\n' > .tickets/t-2.md"
    rig = fake_tickets(tmp_path, {"t-1": [does(late)]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees")
    rig.check_done("t-1", "t-2")


def test_beside_an_unreadable_ticket_nothing_says_that_all_is_done(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(HOLD)]})
    rig.add("t-1")
    (rig.project / ".tickets" / "t-2.md").write_bytes(b"---\nid: t-2\nstatus: open\n---\n# Caf\xe9\n")
    rig.commit()
    told = rig.begin("--worktrees").stderr
    assert "1 ticket cannot be read, so not all will be done: t-2.md:5: it is not UTF-8" in told
    rig.wait_held("t-1")
    assert "1 more cannot be read" in rig.run("status", "x").stdout
    rig.let_go("t-1")
    ended = rig.run("wait", "x", check=11)
    assert "t-2.md:5 cannot be read: it is not UTF-8" in ended.stdout
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("error", "blocked")
    assert rig.dispatch("t-1")["status"] == "closed"
    assert "cannot be read" in rig.run("status", "x").stdout


def test_what_others_work_on_and_what_leaves_a_doubt_is_not_started(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path)
    put(rig, "theirs", "id: theirs\nstatus: in_progress\nassignee: @joe\n")
    put(rig, "unclear", "id: unclear\nstatus: open\nblocked_by: [mine]\n")
    put(rig, "mine", "id: mine\nstatus: open\nassignee: Test Person\n")
    rig.commit()
    told = rig.begin("--worktrees").stderr
    assert "1 ticket is in progress already and left to whoever works there: theirs (@joe)" in told
    assert "1 ticket will not start before you have looked: unclear.md:4: 'blocked_by' looks like" in told
    assert rig.run("wait", "x", check=11).stdout.startswith("x: error (1 ticket needs a person: unclear: blocked")
    rig.wait_end()
    assert [rig.dispatch(id).get("status") for id in ("mine", "theirs", "unclear")] == ["closed", None, None]
    rows = {row["id"]: row for row in json.loads(rig.run("tickets", "x", "--json").stdout)["tickets"]}
    assert (rows["theirs"]["status"], rows["theirs"]["assignee"]) == ("in_progress", "@joe")
    put(rig, "unclear", "id: unclear\nstatus: open\ndeps: [mine]\n")
    rig.commit()
    rig.resume("--take-in-progress")
    rig.check_done("mine", "theirs", "unclear")


def test_a_folder_that_is_a_link_into_the_repository_merges_like_any_other(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path)
    (rig.project / "docs" / "tickets").mkdir(parents=True)
    (rig.project / ".tickets").symlink_to("docs/tickets")
    rig.add("t-1")
    rig.add("t-2", deps=("t-1",))
    rig.commit()
    rig.begin("--parallel", "2")
    state = rig.wait_end()
    assert state["status"] == "completed", (state["error"], rig.log())
    assert rig.status_of("t-1") == rig.status_of("t-2") == "closed"
    assert git(rig.project, "status", "--porcelain") == ""
    rig.check_tidy()


def test_a_backlog_whose_last_file_an_agent_removes_is_done(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does("git rm -q .tickets/t-1.md")]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees", "--verify", "true")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("completed", "tickets-done"), (state["error"], rig.log())
    assert rig.dispatch("t-1")["status"] == "closed" and rig.on_main("t-1.txt") == "work of t-1\n"
    assert not (rig.project / ".tickets").exists()


def test_a_part_of_an_id_is_enough_for_only_and_for_a_message(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"ab-emzy": [does(HOLD), f"heard\n{MARKER}"]})
    rig.add("ab-emzy")
    rig.add("ab-other")
    rig.commit()
    assert "2 tickets have that in their id: ab-emzy, ab-other" in rig.begin("--only", "ab", check=2).stderr
    rig.begin("--worktrees", "--only", "emzy")
    assert rig.state()["config"]["only"] == ["ab-emzy"]
    rig.wait_held("ab-emzy")
    rig.run("steer", "x", "--ticket", "mzy", "look here")
    rig.drop("steer-1.json", json.dumps({"message": "and here", "ticket": "EMZ", "id": "m1"}))
    rig.wait_step("m1", "accepted")
    rig.let_go("ab-emzy")
    rig.wait_step("m1", "delivered")
    rig.check_done("ab-emzy")


def test_worktrees_and_branches_are_kept_on_request(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path)
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees", "--keep-worktrees")
    assert rig.wait_end()["status"] == "completed"
    (tree,) = rig.worktrees()
    assert (Path(tree) / "t-1.txt").read_text() == "work of t-1\n" and rig.branches() == ["ralph/x/t-1"]
    assert rig.merges() == {"t-1": 1}


def test_a_ticket_that_a_stopped_loop_leaves_is_nobodys_to_the_next(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(HOLD)]}, tracked=False)
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees")
    rig.wait_held("t-1")
    wait_for("in_progress", lambda: rig.status_of("t-1") == "in_progress")
    rig.run("stop", "x", "--now")
    rig.wait_end()
    assert rig.status_of("t-1") == "open" and rig.dispatch("t-1")["status"] == "orphaned"
    assert rig.begin("--worktrees").stderr == ""
    rig.wait_held("t-1")
    rig.let_go("t-1")
    rig.check_done("t-1")
