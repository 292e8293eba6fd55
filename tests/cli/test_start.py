"""`start` and `resume`: what they check, make, say and take back. A stand-in plays the runner."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ralph_rpc.machine import identity, locks
from tests.cli.stage import Stage, until

pytestmark = pytest.mark.usefixtures("no_leftovers")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.end()


def test_start_makes_the_loop_and_leaves_a_detached_runner_that_holds_the_lock(stage: Stage) -> None:
    shown = stage.start("-m", "Do it.", "--max-cost", "2.50").stdout
    paths, state = stage.paths(), stage.state()
    assert (state["status"], state["config"]["maxCost"]) == ("running", 2.5)
    assert locks.is_held(paths.runner_lock)
    assert os.getsid(state["pid"]) == state["pid"], "it would die with the terminal"
    assert Path(f"/proc/{state['pid']}/cwd").resolve() == paths.dir
    assert paths.task.read_text() == "Do it."
    assert (paths.project / ".ralph" / ".gitignore").read_text() == "*\n"
    assert str(state["pid"]) in shown and str(paths.dir) in shown
    assert "ralph-rpc attach api" in shown and "ralph-rpc stop api" in shown


def test_nobody_else_may_read_what_start_makes_whatever_the_umask_is(stage: Stage) -> None:
    command = " ".join(f"'{word}'" for word in stage.command("start", "api", "--pi", str(stage.pi), "-m", "x"))
    subprocess.run(f"umask 0; {command}", shell=True, cwd=stage.project, env=stage.env, check=True)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (stage.project / ".ralph").rglob("*")}
    loose = {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077 and path.name != "events.jsonl"}
    assert not loose


def test_a_second_start_is_told_that_the_loop_runs(stage: Stage) -> None:
    stage.start("-m", "x")
    pid = stage.state()["pid"]
    told = stage.start("-m", "y", code=4).stderr
    assert "already running" in told and "ralph-rpc status api" in told and "ralph-rpc stop api" in told
    assert (stage.paths().task.read_text(), stage.state()["pid"]) == ("x", pid)


def test_of_many_starts_at_once_exactly_one_wins(stage: Stage) -> None:
    command = stage.command("start", "api", "--pi", str(stage.pi), "-m", "x")
    starts = [
        subprocess.Popen(command, cwd=stage.project, env=stage.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    ends = sorted((process.wait(60), process.communicate()[1]) for process in starts)
    assert [code for code, _ in ends] == [0, 4, 4, 4, 4, 4], ends
    assert stage.state()["status"] == "running"


def test_a_task_needs_no_quotes(stage: Stage) -> None:
    stage.start("fix", "the", "bug", "--max-cost", "5", "--max-tokens", "5k", "--", "--verbose")
    assert stage.paths().task.read_text() == "fix the bug"
    config = stage.state()["config"]
    assert (config["maxCost"], config["piArgs"]) == (5.0, ["--verbose"])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["-m", "x", "--max-cost", "a lot"], "--max-cost: expected US dollars"),
        (["-m", "x", "--idle-timeout", "soon"], "--idle-timeout: expected a duration such as"),
        (["-m", "x", "--reflect-every", "0", "--reflect", "reflect.md"], "--reflect needs --reflect-every"),
        (["-m", "x", "--skill", "nowhere"], "--skill: there is no"),
        (["-m", "x", "--", "--session", "abc"], "'--session' cannot be handed to pi"),
        (["-m", "x", "fix", "the", "bug"], "the task stands twice"),
        (["-m", " "], "the text of --message is empty"),
        (["-m", "x", "--task", "task.txt"], "--task and --message exclude each other"),
        (["--task", "nowhere.md"], "--task nowhere.md: there is no file"),
        (["--task", "."], "--task .: '.' is not a file"),
        (["--task", "latin1.md"], "--task latin1.md: 'latin1.md' is not UTF-8"),
        (["--task", "empty.md"], "is empty"),
        (["--task", "huge.md"], "is larger than 1 MiB"),
        ([], "there is no task. give one with -m TEXT"),
        (["-m", "x", "--worktree", "b"], "git"),
        (["-m", "x", "--foreground", "--json"], "--foreground and --json exclude each other"),
    ],
)
def test_nothing_is_made_when_something_is_wrong(stage: Stage, args: list[str], told: str) -> None:
    files = {
        "reflect.md": b"Think.",
        "task.txt": b"x",
        "latin1.md": b"gr\xfcn",
        "empty.md": b" \n",
        "huge.md": b"x" * (1 << 20 | 1),
    }
    for name, data in files.items():
        (stage.project / name).write_bytes(data)
    assert told.lower() in stage.start(*args, code=2).stderr.lower()
    assert {path.name for path in stage.project.iterdir()} == set(files)


@pytest.mark.parametrize("name", ["-x", "a/b", "..", ".hidden", "a b", "x" * 65, "config.toml", "é"])
def test_what_is_no_name_is_refused(stage: Stage, name: str) -> None:
    stage.run("start", "--pi", str(stage.pi), "-m", "x", "--", name, code=2)
    stage.run("start", f"--project={stage.project}", "-m", "x", name, code=2)
    assert not list(stage.project.iterdir())


def test_pi_is_checked_before_anything_is_made(stage: Stage) -> None:
    stage.run("start", "api", "-m", "x", "--pi", "no-such-pi", code=5)
    old = stage.make_pi("0.73.1")
    told = stage.run("start", "api", "-m", "x", "--pi", str(old), "--approve", code=2).stderr
    assert "pi 0.73.1 does not know --approve" in told and "0.79" in told
    stage.run("start", "api", "-m", "x", "--pi", str(stage.make_pi("0.60.0")), code=5)
    assert not list(stage.project.iterdir())


def test_the_task_may_come_from_a_file_from_stdin_or_be_there_already(stage: Stage) -> None:
    (stage.project / "plan.md").write_bytes("\ufeffFrom a file: é\r\n".encode())
    stage.start("--task", "plan.md", name="a")
    stage.start("--task", "-", "--share-checkout", name="b", stdin="From a pipe\n")
    stage.paths("c").dir.mkdir()
    stage.paths("c").task.write_text("By hand\n")
    stage.start("--share-checkout", name="c")
    assert [stage.paths(name).task.read_bytes().decode() for name in "abc"] == [
        "From a file: é\r\n",
        "From a pipe\n",
        "By hand\n",
    ]


def test_an_ended_run_makes_room_as_a_whole(stage: Stage) -> None:
    stage.start("-m", "first", "--reflect-every", "2")
    stage.run("stop", "api", "--wait")
    paths = stage.paths()
    (paths.iterations / "001.json").write_text("{}")
    (paths.inbox / "steer.json").write_text('{"message": "still here"}')
    told = stage.start("-m", "second").stdout
    [archived] = (stage.project / ".ralph" / ".archive").iterdir()
    assert str(archived) in told
    assert (archived / "task.md").read_text() == "first" and (archived / "reflect.md").exists()
    assert orjson.loads((archived / "state.json").read_bytes())["status"] == "stopped"
    assert (archived / "iterations" / "001.json").exists() and not list(paths.iterations.iterdir())
    assert paths.task.read_text() == "second" and not paths.reflect.exists()
    until(lambda: "still here" in paths.events.read_text() or not (paths.inbox / "steer.json").exists())


def test_a_start_without_a_task_repeats_the_ended_run_s(stage: Stage) -> None:
    stage.start("-m", "again and again")
    stage.run("stop", "api", "--wait")
    stage.start()
    assert stage.paths().task.read_text() == "again and again"


def test_a_task_written_by_hand_is_never_overwritten(stage: Stage) -> None:
    stage.paths().dir.mkdir(parents=True)
    stage.paths().task.write_text("an hour of work")
    stage.start("-m", "short")
    [archived] = (stage.project / ".ralph" / ".archive").iterdir()
    assert (archived / "task.md").read_text() == "an hour of work"


def test_a_crashed_loop_is_resumed_or_cleaned_but_not_started_over(stage: Stage) -> None:
    stage.start("-m", "x")
    os.kill(stage.state()["pid"], signal.SIGKILL)
    stage.await_gone()
    before = stage.paths().state.read_bytes()
    told = stage.start("-m", "y", code=2).stderr
    assert "ralph-rpc resume api" in told and "ralph-rpc clean api" in told
    assert (stage.paths().state.read_bytes(), stage.paths().task.read_text()) == (before, "x")


def test_a_loop_whose_pi_is_of_no_use_leaves_nothing(stage: Stage, isolated: Path) -> None:
    told = stage.start("-m", "x", code=5, env={"STAND_IN": "unusable"}).stderr
    assert "it has no model" in told and len(told.splitlines()) == 1
    assert not stage.paths().dir.exists()
    assert not list((isolated / ".ralph" / "registry").iterdir())


def test_a_failed_start_gives_the_earlier_run_its_place_back(stage: Stage) -> None:
    stage.start("-m", "first")
    stage.run("stop", "api", "--wait")
    paths = stage.paths()
    (paths.sessions / "s.jsonl").write_text("{}")
    before = {path: path.read_bytes() for path in paths.dir.rglob("*") if path.is_file()}
    stage.start("-m", "second", "--reflect-every", "1", code=5, env={"STAND_IN": "unusable"})
    assert {path: path.read_bytes() for path in paths.dir.rglob("*") if path.is_file()} == before
    assert not list((stage.project / ".ralph" / ".archive").iterdir())
    stage.run("resume", "api")
    assert stage.state()["status"] == "running"


def test_a_runner_that_dies_at_once_is_told_with_its_last_words(stage: Stage) -> None:
    told = stage.start("-m", "x", code=1, env={"STAND_IN": "die"}).stderr
    assert "ended at once" in told and "ImportError: no module for you" in told
    stage.start()
    assert stage.state()["status"] == "running", "the leftover was in the way"


def test_a_worktree_is_made_and_taken_back_when_the_start_fails(stage: Stage) -> None:
    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=stage.project, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("commit", "-qm", "first", "--allow-empty")
    stage.start("-m", "x", "--worktree", "side", code=5, env={"STAND_IN": "unusable"})
    assert not stage.paths().dir.exists() and git("worktree", "list").count("\n") == 1
    stage.start("-m", "x", "--worktree", "side")
    assert (stage.paths().worktree / ".git").is_file()


def test_a_dry_run_shows_all_and_makes_nothing(stage: Stage) -> None:
    (stage.project / "ext.ts").write_text("")
    args = ["-m", "Do the work.", "--model", "m1", "--extension", "ext.ts", "--max-time", "2h", "--dry-run"]
    shown = stage.start(*args, "--", "--no-skills").stdout
    argv = f"{stage.pi} --mode rpc --session-dir {stage.paths().sessions} --model m1 --extension {stage.project}/ext.ts --no-skills"
    assert argv in shown and "Do the work." in shown and str(stage.project) in shown
    assert any(line.split() == ["max-time", "2h00m", "--max-time"] for line in shown.splitlines())
    assert any(line.split() == ["stall-after", "5", "default"] for line in shown.splitlines())
    plan = orjson.loads(stage.start(*args, "--json").stdout)
    assert plan["argv"][0] == str(stage.pi) and plan["options"]["model"] == {"value": "m1", "origin": "--model"}
    assert {path.name for path in stage.project.iterdir()} == {"ext.ts"}


def test_json_tells_the_state(stage: Stage) -> None:
    told = orjson.loads(stage.start("-m", "x", "--json").stdout)
    assert (told["name"], told["status"], told["pid"]) == ("api", "running", stage.state()["pid"])


@pytest.mark.parametrize(("kind", "code"), [("completed", 0), ("stopped", 10), ("error", 5)])
def test_foreground_tells_the_outcome_by_its_exit_code(stage: Stage, kind: str, code: int) -> None:
    stage.start("-m", "x", "--foreground", code=code, env={"STAND_IN": kind})


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_foreground_ends_the_loop(stage: Stage, sig: signal.Signals) -> None:
    command = stage.command("start", "api", "--pi", str(stage.pi), "-m", "x", "--foreground")
    process = subprocess.Popen(
        command, cwd=stage.project, env=stage.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    until(lambda: stage.paths().state.exists() and stage.state()["status"] == "running")
    process.send_signal(sig)
    shown = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 130 and "Traceback" not in shown, shown
    assert (stage.state()["status"], stage.state()["stopReason"]) == ("stopped", "stop")


INTERRUPTED_WHILE_LAUNCHING = """\
import os, signal, sys
from ralph_rpc.cli.main import main
from ralph_rpc.loops import restart, start
from ralph_rpc.loops.launch import launch

def interrupted(*args, **options):
    launched = launch(*args, **options)
    os.kill(os.getpid(), signal.Signals[os.environ["INTERRUPT"]])
    return launched

start.launch = restart.launch = interrupted
main()
"""


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["start", "resume"])
def test_an_interrupt_while_the_runner_is_launched_ends_the_loop_too(
    stage: Stage, verb: str, sig: signal.Signals
) -> None:
    args = ["start", "api", "--pi", str(stage.pi), "-m", "x"]
    if verb == "resume":
        stage.run(*args, env={"STAND_IN": "stopped"})
        stage.await_gone()
        args = ["resume", "api"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERRUPTED_WHILE_LAUNCHING, *args, "--foreground"],
        cwd=stage.project,
        env={**stage.env, "INTERRUPT": sig.name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr, done
    assert (stage.state()["status"], stage.state()["stopReason"]) == ("stopped", "stop")


def test_foreground_ends_when_the_runner_is_killed(stage: Stage) -> None:
    command = stage.command("start", "api", "--pi", str(stage.pi), "-m", "x", "--foreground")
    process = subprocess.Popen(
        command, cwd=stage.project, env=stage.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: stage.paths().state.exists() and stage.state()["status"] == "running")
    pid = stage.state()["pid"]
    os.kill(pid, signal.SIGKILL)
    assert process.wait(30) == 1
    assert identity.start_time(pid) is None and not locks.is_held(stage.paths().runner_lock)


EDITOR = "#!/bin/sh\nprintf '# My task\\n' > \"$1\"\n"


def _editor(stage: Stage, script: str) -> str:
    editor = stage.tmp / "editor"
    editor.write_text(script)
    editor.chmod(0o755)
    return str(editor)


def test_on_a_terminal_the_editor_asks_for_the_task(stage: Stage) -> None:
    code, shown = stage.on_terminal("start", "api", "--pi", str(stage.pi), EDITOR=_editor(stage, EDITOR))
    assert code == 0, shown
    assert stage.paths().task.read_text() == "# My task\n"


def test_a_template_that_is_left_as_it_was_starts_nothing(stage: Stage) -> None:
    code, shown = stage.on_terminal("start", "api", "--pi", str(stage.pi), EDITOR=_editor(stage, "#!/bin/sh\n"))
    assert code == 1 and "nothing was started" in shown
    assert not list(stage.project.iterdir())


def test_a_typed_task_outlives_a_failed_start(stage: Stage) -> None:
    args = ("start", "api", "--pi", str(stage.pi))
    code, shown = stage.on_terminal(*args, EDITOR=_editor(stage, EDITOR), STAND_IN="unusable")
    assert code == 5 and f"Your task is kept in {stage.paths().task}" in shown
    assert [path.name for path in stage.paths().dir.iterdir()] == ["task.md"]
    stage.start()
    assert stage.paths().task.read_text() == "# My task\n"


def test_resume_goes_on_with_the_stored_options_but_for_those_given(stage: Stage) -> None:
    stage.start("-m", "x", "--model", "m1", "--max-cost", "5", "--", "--no-skills")
    stage.run("stop", "api", "--wait")
    stage.run("resume", "api", "--max-cost", "9")
    config = stage.state()["config"]
    assert (config["model"], config["maxCost"], config["piArgs"]) == ("m1", 9.0, ["--no-skills"])
    assert (config["pi"], config["piVersion"]) == ([str(stage.pi)], "1.5.2")


def test_resume_wakes_a_paused_loop_by_a_command(stage: Stage) -> None:
    stage.start("-m", "x")
    stage.run("pause", "api", "--wait")
    until(lambda: stage.state()["status"] == "paused")
    assert "options change only" in stage.run("resume", "api", "--model", "m2", code=4).stderr
    stage.run("resume", "api")
    until(lambda: stage.state()["status"] == "running")
    assert "is neither paused nor waiting, it is running" in stage.run("resume", "api", code=4).stderr


def test_resume_of_a_crashed_loop_starts_a_new_runner(stage: Stage) -> None:
    stage.start("-m", "x")
    old = stage.state()["pid"]
    os.kill(old, signal.SIGKILL)
    stage.await_gone()
    stage.run("resume", "api")
    assert stage.state()["status"] == "running" and stage.state()["pid"] != old


def test_resume_refuses_what_would_end_again_at_once(stage: Stage) -> None:
    stage.start("-m", "x", code=0, env={"STAND_IN": "completed"})
    assert "is completed" in stage.run("resume", "api", code=2).stderr
    stage.await_gone()
    stage.start("-n", "3", env={"STAND_IN": "stopped"})
    state = stage.state()
    stage.paths().state.write_bytes(orjson.dumps(state | {"stats": state["stats"] | {"iterations": 3}}))
    assert "--max-iterations" in stage.run("resume", "api", code=2).stderr
    stage.run("resume", "api", "-n", "4")
    assert stage.state()["status"] == "running"


def test_resume_finds_the_script_that_node_runs(stage: Stage) -> None:
    node = stage.tmp / "bin" / "node"
    node.parent.mkdir()
    node.write_text("#!/bin/sh\necho v24.0.0\n")
    node.chmod(0o755)
    script = stage.pi.with_name("cli.js")
    script.write_text("")
    env = {"PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
    stage.run("start", "api", "--pi", str(script), "-m", "x", env=env)
    assert stage.state()["config"]["pi"] == [str(node), str(script)]
    stage.run("stop", "api", "--wait")
    stage.run("resume", "api", env=env)
    assert stage.state()["config"]["pi"] == [str(node), str(script)]


def test_resume_finds_another_pi_where_the_old_one_is_gone(stage: Stage) -> None:
    stage.start("-m", "x")
    stage.run("stop", "api", "--wait")
    stage.pi.unlink()
    new = stage.make_pi("1.6.0")
    path = f"{new.parent}{os.pathsep}{os.environ['PATH']}"
    stage.run("resume", "api", env={"PATH": path})
    assert stage.state()["config"]["piVersion"] == "1.6.0"


def test_a_task_from_a_file_is_told_to_be_a_copy(stage: Stage) -> None:
    (stage.project / "wishes.md").write_text("- [ ] one\n")
    told = stage.start("--task", "wishes.md").stdout
    assert f"  task    {stage.paths().task}, a copy of wishes.md\n" in told
