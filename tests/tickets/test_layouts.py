"""Repositories of every shape in which tickets are worked on: what was once refused there works, and loses nothing."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git.calls import environment
from tests.rig import git, new_project
from tests.ticket_rig import TicketRig, does, fake_tickets

pytestmark = pytest.mark.usefixtures("no_leftovers")


def at(rig: TicketRig, project: Path) -> None:
    """The rig's project is elsewhere."""
    rig.project, rig.paths = project, LoopPaths.of(project, "x")


@pytest.mark.parametrize("beside", [True, False], ids=["in one folder", "apart"])
def test_a_worktree_of_a_bare_repository(tmp_path: Path, beside: bool) -> None:
    rig = fake_tickets(tmp_path)
    rig.add("t-1", "a")
    rig.add("t-2", "b")
    rig.commit()
    home = tmp_path / "bare"
    bare = home / ".bare" if beside else tmp_path / "bare.git"
    git(tmp_path, "clone", "-q", "--bare", str(rig.project), str(bare))
    if beside:
        (home / ".git").write_text("gitdir: ./.bare\n")
    git(bare, "worktree", "add", "-q", str(home / "main"), "main")
    at(rig, home / "main")
    rig.begin("--parallel", "2", "--verify", "true")
    state = rig.wait_end()
    assert state["stopReason"] == "tickets-done", (state["error"], rig.log())
    for id in ("t-1", "t-2"):
        rig.check_closed(id)
        assert rig.on_main(f"{id}.txt") == f"work of {id}\n" == (rig.project / f"{id}.txt").read_text()
    assert rig.branches() == [] and len(rig.worktrees()) == 1
    assert git(rig.project, "status", "--porcelain") == ""


@pytest.mark.parametrize("cone", [True, False], ids=["cone", "patterns"])
def test_a_sparse_checkout(tmp_path: Path, cone: bool) -> None:
    work = "mkdir -p in out; echo new >> in/a; echo new > out/new; ls -A > seen.txt; ls out > out-seen.txt"
    rig = fake_tickets(tmp_path, {"t-1": [does(work)]})
    rig.add("t-1")
    for name in ("in/a", "out/b"):
        (rig.project / name).parent.mkdir()
        (rig.project / name).write_text("old\n")
    rig.commit()
    git(rig.project, "sparse-checkout", "set", *(["in", ".tickets"] if cone else ["--no-cone", "/*", "!/out/"]))
    assert not (rig.project / "out").exists()
    rig.begin("--worktrees", "--verify", "true")
    rig.check_done("t-1")
    assert rig.on_main("in/a") == "old\nnew\n" and rig.on_main("out/b") == "old\n" and rig.on_main("out/new") == "new\n"
    assert git(rig.project, "status", "--porcelain") == "" and (rig.project / "in/a").read_text() == "old\nnew\n"


IDENTITY = {
    "author and committer": {
        "GIT_AUTHOR_NAME": "Ci",
        "GIT_AUTHOR_EMAIL": "ci@example.invalid",
        "GIT_COMMITTER_NAME": "Ci",
        "GIT_COMMITTER_EMAIL": "ci@example.invalid",
    },
    "count": {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "Ci",
        "GIT_CONFIG_KEY_1": "user.email",
        "GIT_CONFIG_VALUE_1": "ci@example.invalid",
    },
    "parameters": {"GIT_CONFIG_PARAMETERS": "'user.name'='Ci' 'user.email'='ci@example.invalid'"},
    "global": {"GIT_CONFIG_GLOBAL": "$TMP/gitconfig"},
}


@pytest.mark.parametrize("how", IDENTITY)
def test_who_commits_may_be_known_by_the_environment_alone(
    tmp_path: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    rig = fake_tickets(tmp_path)
    rig.add("t-1")
    rig.commit()
    before = git(rig.project, "rev-parse", "main").strip()
    (isolated / ".gitconfig").unlink()
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Ci\n\temail = ci@example.invalid\n")
    rig.env |= {name: value.replace("$TMP", str(tmp_path)) for name, value in IDENTITY[how].items()}
    # Of a hook in which the loop is started: it must lead nothing of ours, nor of the agent's, to another repository.
    rig.env |= {"GIT_DIR": str(tmp_path / "elsewhere"), "GIT_INDEX_FILE": str(tmp_path / "index"), "GIT_PREFIX": "x/"}
    rig.begin("--worktrees")
    rig.check_done("t-1")
    told = git(rig.project, "log", "--format=%an <%ae> %cn", f"{before}..main").splitlines()
    assert len(told) >= 2 and set(told) == {"Ci <ci@example.invalid> Ci"}


@pytest.mark.parametrize("tracked", [True, False])
def test_a_new_ticket_file_does_not_stop_the_first_start_without_worktrees(tmp_path: Path, tracked: bool) -> None:
    rig = fake_tickets(tmp_path)
    if tracked:
        rig.add("t-0")
        rig.commit()
    rig.add("t-1")
    rig.begin("--dry-run")
    (rig.project / "mine.txt").write_text("mine\n")
    assert "1 uncommitted file" in rig.begin(check=2).stderr
    (rig.project / "mine.txt").unlink()
    rig.begin()
    assert rig.wait_end()["stopReason"] in ("tickets-done", "blocked"), rig.log()
    assert rig.dispatch("t-1")["status"] == "closed" and "status: closed" in rig.on_main(".tickets/t-1.md")


FILL = "git -c protocol.file.allow=always submodule --quiet update --init --recursive"


@pytest.fixture
def with_submodule(tmp_path: Path) -> Path:
    """The library of which `project` of the next rig has a submodule at libs/one."""
    library = new_project(tmp_path / "library")
    (library / "code.txt").write_text("one\n")
    git(library, "add", "-A")
    git(library, "commit", "-qm", "one")
    git(library, "config", "receive.denyCurrentBranch", "updateInstead")
    return library


def rig_with(tmp_path: Path, library: Path, scripts: dict[str, list[list[object]]], *ids: str) -> TicketRig:
    rig = fake_tickets(tmp_path, scripts)
    git(rig.project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "libs/one")
    for id in ids:
        rig.add(id, id)
    rig.commit()
    return rig


def test_submodules_that_setup_fills_in_are_there_and_nothing_of_them_keeps_the_worktree(
    tmp_path: Path, with_submodule: Path
) -> None:
    rig = rig_with(tmp_path, with_submodule, {"t-1": [does("cat libs/one/code.txt > seen.txt")]}, "t-1")
    told = rig.begin("--worktrees", check=2).stderr
    assert "--worktree-setup 'git submodule update --init --recursive'" in told
    rig.begin("--worktrees", "--worktree-setup", FILL, "--verify", "grep one libs/one/code.txt")
    rig.check_done("t-1")
    assert rig.on_main("seen.txt") == "one\n"
    assert git(rig.project, "status", "--porcelain") == ""


CHANGE = "cd libs/one; echo two > code.txt; git -c user.name=a -c user.email=b@c commit -qam two"


def test_a_submodule_s_pointer_moves_to_a_commit_that_its_remote_has_and_to_no_other(
    tmp_path: Path, with_submodule: Path
) -> None:
    local, pushed = does(CHANGE), does("cd libs/one; git push -q origin HEAD:main")
    rig = rig_with(tmp_path, with_submodule, {"t-1": [local, pushed]}, "t-1", "t-2")
    rig.begin("--worktrees", "--worktree-setup", FILL, "--verify", "cat libs/one/code.txt")
    rig.wait_end()
    assert len(rig.attempts("t-1")) == 2, rig.log()
    second = [e for e in rig.of("message_start") if e["message"]["role"] == "user" and e["ralph"]["ticket"] == "t-1"][1]
    assert "which neither its remote nor this repository's own module has" in json.dumps(second)
    assert rig.dispatch("t-1")["status"] == "closed" and rig.dispatch("t-2")["status"] == "closed"
    git(tmp_path, "-c", "protocol.file.allow=always", "clone", "-q", "--recurse-submodules", str(rig.project), "clone")
    assert (tmp_path / "clone/libs/one/code.txt").read_text() == "two\n"


def test_a_pointer_that_another_ticket_has_moved_is_not_moved_back(tmp_path: Path, with_submodule: Path) -> None:
    bump = does(f"({CHANGE}; git push -q origin HEAD:main)")
    rig = rig_with(
        tmp_path,
        with_submodule,
        {"t-1": [bump], "t-2": [does("while [ ! -e $RALPH_LOOP_DIR/go ]; do sleep 0.02; done")]},
        "t-1",
        "t-2",
    )
    rig.begin("--parallel", "2", "--worktree-setup", FILL, "--verify", "cat libs/one/code.txt")
    rig.wait_dispatch("t-1", "closed")
    (rig.paths.dir / "go").touch()
    rig.wait_end()
    assert rig.dispatch("t-2")["status"] == "closed", rig.log()
    verified = [
        event["tail"] for event in rig.of("ralph_verify") if event.get("ticket") == "t-2" and "cat" in event["command"]
    ]
    assert verified == ["one\n", "two\n"]
    pointer = git(rig.project, "rev-parse", "main:libs/one").strip()
    assert pointer == git(with_submodule, "rev-parse", "main").strip()


def test_what_is_uncommitted_in_a_submodule_goes_back_to_the_agent(tmp_path: Path, with_submodule: Path) -> None:
    rig = rig_with(
        tmp_path, with_submodule, {"t-1": [does("echo x > libs/one/x.txt"), does("rm libs/one/x.txt")]}, "t-1"
    )
    rig.begin("--worktrees", "--worktree-setup", FILL, "--verify", "true")
    rig.check_done("t-1")
    assert "submodule libs/one has uncommitted changes" in rig.attempts("t-1")[0]["verify"]["tail"]


def test_git_names_the_variables_that_are_dropped() -> None:

    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], check=True, capture_output=True, text=True)
    kept = {"GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"}
    for name in listed.stdout.split():
        os.environ[name] = "x"
        try:
            assert (name in environment()) is (name in kept), name
        finally:
            del os.environ[name]
