"""What `start` refuses or says before anything runs: another loop in the checkout, settings pi ignores, whose .ralph it is."""

import json
import os
from pathlib import Path

import pytest

from tests.rig import Rig, fake_rig, git, new_project

pytestmark = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"
HOLD = [{"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}, f"done\n{MARKER}"]


def another(rig: Rig, *args: str, name: str = "y", check: int = 0, project: Path | None = None) -> str:
    """Starts a second loop, which ends soon; what it said."""
    where = [] if project is None else ["--project", str(project)]
    done = rig.run("start", name, "--pi", rig.pi, "-m", "more", "-n", "1", *where, *args, check=check)
    if not check and "--dry-run" not in args:
        rig.run("wait", name, *where, check=10)
    return done.stdout + done.stderr


def end(rig: Rig) -> None:
    (rig.project / "go").touch()
    rig.wait_end()


def test_a_second_loop_in_a_checkout_is_refused_while_the_first_one_lives(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [HOLD, "two", "three", "four"])
    rig.start()
    told = another(rig, check=4)
    assert "loop 'x' works in this checkout" in told and "--worktree" in told and "--share-checkout" in told
    assert not (rig.project / ".ralph" / "y").exists()
    below = rig.project / "part"
    below.mkdir()
    assert f"loop 'x' ({rig.project})" in another(rig, check=4, project=below)
    for name, how in (("w", ["--worktree", "aside"]), ("s", ["--share-checkout"])):
        another(rig, *how, name=name)
    end(rig)
    another(rig)


def test_a_loop_in_another_checkout_or_in_a_worktree_is_in_nobodys_way(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [HOLD, "two", "three"])
    rig.start("--worktree", "aside")
    another(rig)
    inner = new_project(rig.project / "vendored")
    another(rig, project=inner, name="z")
    (rig.paths.worktree / "go").touch()
    rig.wait_end()


def test_a_resume_is_refused_as_well(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["one", HOLD, "three"])
    another(rig)
    rig.start()
    assert "loop 'x' works in this checkout" in rig.run("resume", "y", "-n", "2", check=4).stderr
    rig.run("resume", "y", "-n", "2", "--share-checkout")
    rig.run("wait", "y", check=10)
    end(rig)


def test_a_start_in_a_subfolder_belongs_to_the_project_above_and_says_so(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["one", "two", "three"])
    rig.start("-n", "1")
    rig.wait_end()
    below = rig.project / "src" / "deep"
    below.mkdir(parents=True)
    project, rig.project = rig.project, below
    told = another(rig)
    assert f"project {project}: its .ralph is the nearest one above" in told and "--project ." in told
    assert "ralph-rpc attach y  " in told, "found from here without --project"
    assert (project / ".ralph" / "y" / "state.json").exists() and not (below / ".ralph").exists()
    told = another(rig, "--json", name="j")
    assert json.loads(told[: told.rindex("}") + 1])["name"] == "j"
    another(rig, "--project", ".", name="own")
    assert (below / ".ralph" / "own" / "state.json").exists()


def test_the_registrys_folder_makes_the_home_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ralph_rpc.loops.find import project_of

    home = tmp_path / "home"
    (home / ".ralph" / "registry").mkdir(parents=True)
    (home / "code" / "x").mkdir(parents=True)
    monkeypatch.setenv("RALPH_HOME", str(home / ".ralph"))
    assert project_of(home / "code" / "x") == home / "code" / "x"
    (home / "code" / ".ralph").mkdir()
    assert project_of(home / "code" / "x") == home / "code"
    if os.geteuid() == 0:
        os.chown(home / "code" / ".ralph", 65534, 65534)
        assert project_of(home / "code" / "x") == home / "code" / "x"


def test_settings_that_pi_will_ignore_are_named(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["one"])
    (rig.project / ".pi" / "extensions").mkdir(parents=True)
    (rig.project / ".pi" / "SYSTEM.md").write_text("Be brief.")
    shown = another(rig, "--dry-run")
    assert "pi will ignore .pi/extensions, .pi/SYSTEM.md of this project" in shown
    rig.env["RALPH_PI"] = rig.pi
    assert "pi will ignore" in rig.run("doctor", check=None).stdout
    for how in (["--approve"], ["--no-approve"]):
        assert "pi will ignore" not in another(rig, "--dry-run", *how)
    agent = Path(rig.env["PI_CODING_AGENT_DIR"])
    agent.mkdir(exist_ok=True)
    for file, text in (
        ("trust.json", json.dumps({str(rig.project): True})),
        ("trust.json", json.dumps({str(tmp_path): False, str(rig.project): True})),
        ("settings.json", '{"defaultProjectTrust": "always"}'),
    ):
        (agent / file).write_text(text)
        assert "pi will ignore" not in another(rig, "--dry-run")
        (agent / file).unlink()
    (agent / "trust.json").write_text(json.dumps({str(rig.project): False}))
    assert "pi will ignore" in another(rig, "--dry-run")


def test_an_old_pi_ignores_nothing(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["one"], "old")
    (rig.project / ".pi" / "extensions").mkdir(parents=True)
    assert "pi will ignore" not in another(rig, "--dry-run")


def test_doctor_says_whether_pi_can_have_a_model(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["one"])
    for name in list(rig.env):
        if name.endswith(("_API_KEY", "_TOKEN")) or name.startswith("AWS_"):
            del rig.env[name]

    def said() -> str:
        found = json.loads(rig.run("doctor", "--json", check=None).stdout)
        return "".join(one["level"] for one in found if one["check"] == "login")

    assert said() == "warn"
    agent = Path(rig.env["PI_CODING_AGENT_DIR"])
    agent.mkdir()
    for file, text in (("auth.json", '{"x": {"type": "api_key"}}'), ("models.json", '{"providers": {"x": {}}}')):
        (agent / file).write_text(text)
        assert said() == "ok"
        (agent / file).write_text("{}")
        assert said() == "warn"
    rig.env["SOME_API_KEY"] = "k"
    assert said() == "ok"


@pytest.mark.parametrize("how", ["names", "config"])
def test_an_identity_in_the_environment_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    rig = fake_rig(tmp_path, [f"done\n{MARKER}"])
    (rig.project / ".tickets").mkdir()
    (rig.project / ".tickets" / "a.md").write_text("---\nid: a\nstatus: open\ndeps: []\ntags: []\n---\n# A\n")
    git(rig.project, "add", "-A")
    git(rig.project, "commit", "-qm", "tickets")
    rig.env = {key: value for key, value in rig.env.items() if not key.startswith("GIT_")}
    rig.env["GIT_CONFIG_GLOBAL"] = "/dev/null"
    rig.env["HOME"] = str(tmp_path)

    def identity() -> list[str]:
        found = json.loads(rig.run("doctor", "--json", check=None).stdout)
        return [one["level"] for one in found if one["check"] == "identity"]

    start = ("start", "t", "--tickets", "--worktrees", "--pi", rig.pi)
    assert "git has no author" in rig.run(*start, check=2).stderr and identity() == ["warn"]
    if how == "names":
        for who in ("AUTHOR", "COMMITTER"):
            rig.env |= {f"GIT_{who}_NAME": "Robot", f"GIT_{who}_EMAIL": "robot@example.invalid"}
    else:
        pairs = {"user.name": "Robot", "user.email": "robot@example.invalid"}
        rig.env["GIT_CONFIG_COUNT"] = str(len(pairs))
        for n, (key, value) in enumerate(pairs.items()):
            rig.env |= {f"GIT_CONFIG_KEY_{n}": key, f"GIT_CONFIG_VALUE_{n}": value}
    assert identity() == ["ok"]
    rig.run(*start)
    rig.run("wait", "t")
    assert "Robot" in git(rig.project, "log", "-1", "--format=%an", "main")


def test_a_pi_that_ends_after_the_first_prompt_leaves_a_loop_with_a_record(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["begun", {"exit": 3}]])
    rig.start("--max-failures", "1", check=None)
    state = rig.wait_end()
    assert state["status"] == "error"
    assert [record["outcome"] for record in rig.records()] == ["crashed"]
    (tmp_path / "again").mkdir()
    rig = fake_rig(tmp_path / "again", [[{"exit": 3}]])
    told = rig.start("--max-failures", "1", check=1)
    assert "Nothing was started" not in told.stderr
    assert [record["outcome"] for record in rig.records()] == ["crashed"] and rig.state()["status"] == "error"
