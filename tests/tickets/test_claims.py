"""Done means landed: what an agent's claim is held against before it counts, and what the records then say."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.rig import git
from tests.ticket_rig import MARKER, TicketRig, does, fake_tickets

pytestmark = pytest.mark.usefixtures("no_leftovers")


def steps(*commands: str, said: str = "done") -> list[Any]:
    """A prompt of an agent that runs these commands, and claims to be done."""
    return [*({"tool": "bash", "run": run} for run in commands), f"{said}\n{MARKER}"]


def loop(tmp_path: Path, prompts: list[Any], *args: str, ignore: str = "", tracked: bool = True) -> TicketRig:
    """A loop with the one ticket t-1, which has ended."""
    rig = fake_tickets(tmp_path, {"usual": prompts}, tracked)
    rig.add("t-1")
    if ignore:
        (rig.project / ".gitignore").write_text(ignore)
    rig.commit()
    rig.begin(*args)
    rig.wait_end()
    return rig


def prompt(rig: TicketRig, number: int) -> str:
    """What the agent was told at its n-th attempt."""
    sent = [e["message"] for e in rig.of("message_start") if e["message"]["role"] == "user"]
    content = sent[number - 1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def clone(rig: TicketRig, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", str(rig.project), "clone")
    return tmp_path / "clone"


RUNS = "[ ! -e run.sh ] || sh ./run.sh"
USES_LIB = (
    "mkdir -p lib; echo VALUE=1 > lib/util.sh; echo '. ./lib/util.sh' > run.sh; git add run.sh; git commit -qm run"
)


@pytest.mark.parametrize("place", ["lib/util.sh", "deep/er/lib/util.sh", "local.sh", "build/steps.sh"])
def test_a_file_that_git_ignores_and_the_work_needs_is_told_and_comes_along(tmp_path: Path, place: str) -> None:
    made = f"mkdir -p $(dirname {place}); echo VALUE=1 > {place}; echo '. ./{place}' > run.sh"
    rig = loop(
        tmp_path,
        [steps(made), steps(f"git add -f {place}")],
        *("--worktrees", "--verify", RUNS),
        ignore="lib/\n*local.sh\nbuild/\n",
    )
    assert rig.dispatch("t-1")["status"] == "closed", rig.log()
    assert place in prompt(rig, 2) and "git add -f" in prompt(rig, 2)
    assert (clone(rig, tmp_path) / place).read_text() == "VALUE=1\n"


UNKEPT = {
    "an empty folder": ("mkdir -p out/data; echo 'touch out/data/x' > run.sh", "out/data/ (an empty folder)", "out/"),
    "a hidden change": (
        "git update-index --assume-unchanged README; echo new > README; echo 'grep -q new README' > run.sh",
        "README (git update-index --no-assume-unchanged",
        "README",
    ),
    "a skipped change": (
        "git update-index --skip-worktree README; echo new > README; echo 'grep -q new README' > run.sh",
        "README (git update-index --no-skip-worktree",
        "README",
    ),
    "a mode that is not recorded": (
        "git config core.fileMode false; echo true > x.sh; chmod +x x.sh; echo ./x.sh > run.sh",
        "x.sh (executable",
        "x.sh",
    ),
}


@pytest.mark.parametrize("what", UNKEPT)
def test_what_no_commit_takes_along_is_not_there_for_verify_either(tmp_path: Path, what: str) -> None:
    made, found, path = UNKEPT[what]
    rig = loop(tmp_path, [steps(made), steps()], "--worktrees", "--verify", RUNS, "--attempts", "2")
    record = rig.dispatch("t-1")
    assert record["status"] == "failed" and rig.merges() == {}, rig.log()
    tails = [one["verify"]["tail"] for one in rig.attempts("t-1") if "verify" in one]
    assert "No commit takes these along" in tails[0] and path in tails[0], tails
    if path != "out/":
        assert "git does not see what you changed" in prompt(rig, 2) and found in prompt(rig, 2)
    else:
        assert found.partition("/")[0] in prompt(rig, 2)


def test_an_empty_folder_that_is_not_needed_is_not_worth_a_word(tmp_path: Path) -> None:
    rig = loop(tmp_path, [steps("mkdir empty; echo work of t-1 > t-1.txt")], "--worktrees", "--verify", "true")
    rig.check_done("t-1")
    assert len(rig.attempts("t-1")) == 1


@pytest.mark.parametrize("verify", [(), ("--verify", "[ ! -e run.sh ] || sh run.sh")], ids=["", "verified"])
@pytest.mark.parametrize("how", ["echo cat $PWD/README > run.sh", "ln -s $PWD/README link; echo cat link > run.sh"])
def test_the_name_of_the_worktree_in_the_work_is_told_once(tmp_path: Path, verify: tuple[str, ...], how: str) -> None:
    fixed = "rm -f link; echo cat README > run.sh; echo work of t-1 > t-1.txt"
    rig = loop(tmp_path, [steps(how), steps(fixed)], "--worktrees", *verify)
    told = prompt(rig, 2)
    assert "hold the name of this directory" in told and ("- link" if "link" in how else "- run.sh") in told
    rig.check_done("t-1")
    assert rig.on_main("run.sh") == "cat README\n"


def test_a_mere_mention_of_the_worktree_passes_the_second_time(tmp_path: Path) -> None:
    rig = loop(tmp_path, [steps("echo I was in $PWD > notes.txt"), steps()], "--worktrees", "--attempts", "1")
    assert rig.dispatch("t-1")["status"] == "closed" and len(rig.attempts("t-1")) == 2


def test_an_agent_that_leaves_the_file_where_it_is_never_closes_the_ticket(tmp_path: Path) -> None:
    rig = loop(tmp_path, [steps(USES_LIB)], "--worktrees", "--verify", RUNS, "--attempts", "2", ignore="lib/\n")
    record = rig.dispatch("t-1")
    assert record["status"] == "failed" and rig.merges() == {}
    tails = [one["verify"]["tail"] for one in rig.attempts("t-1") if "verify" in one]
    assert tails and all("lib/util.sh" in tail and "fresh checkout" in tail for tail in tails)
    assert record["attempt"] == 3  # being told once used up none of the two


def test_what_is_not_needed_is_told_once_and_does_not_keep_the_ticket_open(tmp_path: Path) -> None:
    rig = loop(
        tmp_path,
        [steps("mkdir -p notes; echo x > notes/mine.txt", "echo work of t-1 > t-1.txt")],
        *("--worktrees", "--verify", "test -e t-1.txt"),
        ignore="notes/\n",
    )
    assert rig.dispatch("t-1")["status"] == "closed" and len(rig.attempts("t-1")) == 2
    assert "notes/mine.txt" in prompt(rig, 2)


def test_caches_packages_and_what_a_build_makes_are_not_worth_a_word(tmp_path: Path) -> None:
    rig = loop(
        tmp_path,
        [
            does(
                "mkdir -p __pycache__ node_modules/a build; touch __pycache__/a.pyc node_modules/a/i.js build/a.o a.log"
            )
        ],
        *("--worktrees", "--verify", "pwd; test -e t-1.txt"),
        ignore="__pycache__/\nnode_modules/\nbuild/\n*.log\n",
    )
    assert rig.dispatch("t-1")["status"] == "closed" and len(rig.attempts("t-1")) == 1
    assert "/.verify-t-1" in rig.attempts("t-1")[0]["verify"]["tail"]  # what a build made is not seen, either


def test_packages_that_the_agent_has_installed_are_lent_to_the_checkout_but_no_environment_of_the_worktree_s_own_code(
    tmp_path: Path,
) -> None:
    install = (
        "mkdir -p node_modules/a web/node_modules/b build .venv/lib/python3.12/site-packages; touch web/w build/out; "
        "echo x > node_modules/a/i.js; echo $PWD/src > .venv/lib/python3.12/site-packages/shop.pth"
    )
    rig = loop(
        tmp_path,
        [does(install)],
        *(
            "--worktrees",
            "--attempts",
            "1",
            "--verify",
            "[ ! -e t-1.txt ] || { cat node_modules/a/i.js; test -d web/node_modules/b && test -e .venv; }",
        ),
        ignore="node_modules/\nbuild\n.venv\n",
    )
    tail = rig.attempts("t-1")[0]["verify"]["tail"]
    assert tail.startswith("x\n") and "Not there either: .venv/, which leads into your directory" in tail


@pytest.mark.parametrize(("option", "clean"), [("--verify-clean", True), ("--no-verify-clean", False), ("", False)])
def test_verify_runs_in_a_checkout_of_the_commit_with_setup_and_copies_if_that_is_wanted(
    tmp_path: Path, option: str, clean: bool
) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does()]})
    rig.add("t-1")
    (rig.project / ".gitignore").write_text("made\n.env\n")
    rig.commit()
    (rig.project / ".env").write_text("KEY=1\n")
    check = "pwd; cat made .env t-1.txt"
    args = ["--worktree-setup", "echo set up > made", "--worktree-copy", ".env", "--verify", check]
    rig.begin("--worktrees", *args, *filter(None, [option]))
    rig.check_done("t-1")
    tail = rig.attempts("t-1")[0]["verify"]["tail"]
    assert ("/.verify-t-1" in tail) is clean and tail.endswith("set up\nKEY=1\nwork of t-1\n")


def test_files_of_worktreeinclude_are_copied_unless_an_option_says_otherwise(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does("cp .env seen.txt", "ls -A > list.txt")]})
    rig.add("t-1")
    (rig.project / ".gitignore").write_text(".env\nsecret\n*.pem\n")
    (rig.project / ".worktreeinclude").write_text("# local settings\n.env\n/keys/*.pem\nplain.txt\n")
    rig.commit()
    for name in (".env", "secret", "plain.txt"):
        (rig.project / name).write_text(f"{name}\n")
    (rig.project / "keys").mkdir()
    (rig.project / "keys/a.pem").write_text("a\n")
    rig.begin("--worktrees")
    rig.check_done("t-1")
    assert rig.on_main("seen.txt") == ".env\n"
    listed = rig.on_main("list.txt").split()
    assert ".env" in listed and "keys" in listed and "secret" not in listed and "plain.txt" not in listed


ELSEWHERE = {
    "a branch of its own": (
        "git checkout -qb feature; echo x > x.txt; git add .; git commit -qm x; git checkout -q -",
        "branch feature (1 commit)",
    ),
    "a stash": ("echo x > x.txt; git stash -uq", "stash entry"),
    "the main checkout": ("cd $MAIN; echo x > x.txt; git add x.txt; git commit -qm 'by hand'", "by hand on main"),
    "a file in the main checkout": ("echo x > $MAIN/x.txt", "file x.txt, not committed"),
    "no branch": (
        "git checkout -q --detach; echo x > x.txt; git add .; git commit -qm lost; git checkout -q ralph/x/t-1",
        "lost, which is on no branch",
    ),
    "a branch that was pushed": (
        "echo x > x.txt; git add x.txt; git commit -qm pushed; git update-ref refs/remotes/o/pr HEAD; git reset -q --hard @~",
        "pushed, which is on no branch",
    ),
    "a file that git ignores": ("echo x > x.ign", "file x.ign, which git ignores"),
    "nowhere": ("true", ""),
}


@pytest.mark.parametrize(
    ("where", "verify"),
    [*((where, ()) for where in ELSEWHERE), *((where, ("--verify", "true")) for where in ("a stash", "nowhere"))],
)
def test_a_claim_without_work_is_refused_once_with_what_was_found_and_then_closed_as_without_changes(
    tmp_path: Path, where: str, verify: tuple[str, ...]
) -> None:
    command, found = ELSEWHERE[where]
    command = command.replace("$MAIN", str(tmp_path / "project"))
    rig = loop(
        tmp_path,
        [steps(command), steps(said="It was done already.")],
        *("--worktrees", "--attempts", "1", *verify),
        ignore="*.ign\n",
    )
    told = prompt(rig, 2)
    assert "no change beyond the ticket's own file" in told and found in told
    record = rig.dispatch("t-1")
    assert record["status"] == "closed" and record["withoutChanges"] is True, (record, rig.log())
    assert len(rig.attempts("t-1")) == 2
    shown = rig.run("tickets", "x").stdout
    assert "without changes" in shown
    assert "1 of 1 closed (1 without changes)" in rig.run("status", "x").stdout
    assert "without changes" in rig.run("report", "x", "--format", "md").stdout
    assert [e for e in rig.of("ralph_notice") if "closed without changes: It was done already." in e["message"]]
    if where == "a stash":
        assert "stash entry" in record["leftBehind"][0] and "stash entry" in shown
        assert [e for e in rig.of("ralph_notice") if "left a stash entry" in e["message"]]


def test_a_second_claim_without_a_reason_is_refused_as_well(tmp_path: Path) -> None:
    rig = loop(tmp_path, [steps(), steps(said=""), steps(said="Nothing to do: it is there.")], "--worktrees")
    assert "gave no reason" in prompt(rig, 3)
    assert rig.dispatch("t-1")["withoutChanges"] is True and len(rig.attempts("t-1")) == 3


def test_work_that_is_brought_back_onto_the_branch_is_merged(tmp_path: Path) -> None:
    stash = steps("echo work of t-1 > t-1.txt; git add t-1.txt; git stash -q")
    rig = loop(tmp_path, [stash, steps("git stash pop -q")], "--worktrees")
    rig.check_done("t-1")
    assert "withoutChanges" not in rig.dispatch("t-1") and "leftBehind" not in rig.dispatch("t-1")


@pytest.mark.parametrize("verify", [(), ("--verify", "true")], ids=["", "verified"])
def test_a_loop_without_worktrees_holds_claims_against_the_same(tmp_path: Path, verify: tuple[str, ...]) -> None:
    stash = steps("echo work of t-1 > t-1.txt; git add t-1.txt; git stash -q")
    rig = loop(tmp_path, [stash, steps(said="I give it up.")], "--attempts", "1", *verify)
    assert "stash entry" in prompt(rig, 2)
    record = rig.dispatch("t-1")
    assert record["status"] == "closed" and record["withoutChanges"] is True and record["leftBehind"]


def test_a_branch_that_was_left_checked_out_in_the_project_is_no_place_for_the_work(tmp_path: Path) -> None:
    away = steps("git checkout -qb mine; echo work of t-1 > t-1.txt; git add .; git commit -qm w")
    rig = loop(tmp_path, [away, steps("git checkout -q main; git merge -q mine")], "--verify", "true")
    assert "The project is on branch mine now, and was on main" in prompt(rig, 2)
    assert rig.on_main("t-1.txt") == "work of t-1\n" and rig.dispatch("t-1")["status"] == "closed"


def test_a_stash_beside_real_work_is_mentioned_in_the_record_and_one_of_a_ticket_that_failed_in_its_note(
    tmp_path: Path,
) -> None:
    stash = "echo y > y.txt; git add y.txt; git stash -q"
    rig = fake_tickets(tmp_path, {"t-1": [does(stash)], "t-2": [[{"tool": "bash", "run": stash}, "no"]]})
    for id in ("t-1", "t-2"):
        rig.add(id, id)
    rig.commit()
    git(rig.project, "commit", "-q", "--allow-empty", "-m", "mine")
    (rig.project / "README").write_text("mine\n")
    git(rig.project, "stash", "-q")
    rig.begin("--worktrees", "--attempts", "1")
    rig.wait_end()
    left = rig.dispatch("t-1")["leftBehind"]
    assert len(left) == 1 and "ralph/x/t-1" in left[0]
    assert rig.dispatch("t-2")["status"] == "failed" and "ralph/x/t-2" in rig.notes("t-2")
    assert len(git(rig.project, "stash", "list").splitlines()) == 3


def test_tickets_that_the_agent_files_are_a_change(tmp_path: Path) -> None:
    new = "sed 's/t-1/t-9/; s/status: .*/status: closed/' .tickets/t-1.md > .tickets/t-9.md"
    rig = loop(tmp_path, [steps(new)], "--worktrees")
    assert len(rig.attempts("t-1")) == 1 and "t-9" in rig.on_main(".tickets/t-9.md")
    assert "withoutChanges" not in json.loads((rig.paths.tickets / "t-1.json").read_text())


def test_a_repository_without_a_commit_holds_no_claim_up(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"usual": [does()]})
    rig.add("t-1")
    git(rig.project, "checkout", "-q", "--orphan", "fresh")
    git(rig.project, "rm", "-rqf", "--cached", ".")
    (rig.project / "README").unlink()
    rig.begin("--verify", "true")
    rig.wait_end()
    assert rig.dispatch("t-1")["status"] == "closed" and len(rig.attempts("t-1")) == 1, rig.log()
    assert "withoutChanges" not in rig.dispatch("t-1")
