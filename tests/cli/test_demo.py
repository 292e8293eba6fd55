"""The demo: its scripted agent against real pi, and the whole command as a person runs it."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ralph_rpc.cli.demo import demo
from ralph_rpc.demo import agent, backlog
from ralph_rpc.demo.model import MODEL, PROVIDER, Model, Request, pi_environment, write_models_json
from ralph_rpc.demo.show import leave
from ralph_rpc.errors import PiUnusable, UsageError
from ralph_rpc.pi.find import Pi, installed_where
from ralph_rpc.tickets.sources.markdown import MarkdownTickets
from tests.real_pi import provision

PROMPT = "Task (iteration 1), from .ralph/demo/task.md:\n\ndo the next item"


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def result(text: str) -> Request:
    return {"role": "tool", "tool_call_id": "call_0", "content": text}


class Steers:
    """Counts the calls of `steer_now`."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


def turns(task: str, *, steer: bool) -> list[str]:
    """One whole session of the agent with an imaginary pi; returns what was said and called, turn by turn."""
    conversation: list[Request] = [{"role": "user", "content": PROMPT}]
    slug = agent.FILES["slug.py"]
    said: list[str] = []
    while True:
        steers = Steers()
        reply = agent.reply({"messages": conversation}, steers)
        said.append(" ".join([*(name for name, _ in reply.tool_calls), *["steer_now"] * steers.count]))
        calls = [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for n, (name, arguments) in enumerate(reply.tool_calls)
        ]
        conversation.append({"role": "assistant", "content": reply.text, "tool_calls": calls})
        for name, arguments in reply.tool_calls:
            read = task if "task.md" in str(arguments.get("path")) else slug
            conversation.append(result(read if name == "read" else "ok"))
        if steers.count and steer:
            conversation.append({"role": "user", "content": agent.STEER})
        if not reply.tool_calls:
            return [*said, reply.text]


def ticked(items: int) -> str:
    task = agent.TASK
    for item in range(1, items + 1):
        task = task.replace(f"- [ ] {item}.", f"- [x] {item}.")
    return task


def test_the_agent_does_one_item_and_claims_completion_only_after_the_last() -> None:
    for done in (0, 1, 2):
        *said, last = turns(ticked(done), steer=False)
        wanted = ["read read", "write write", "bash", "edit", ""]
        if done == 1:
            wanted[1] = "write write steer_now"
        assert said == wanted
        assert last.endswith(f"\n\n{agent.MARKER}") == (done == 2)


def test_the_agent_follows_the_operator_in_the_middle_of_an_item() -> None:
    *said, _ = turns(ticked(1), steer=True)
    assert said == ["read read", "write write steer_now", "write write", "bash", "edit", ""]


def test_a_finished_task_is_claimed_again_at_once() -> None:
    *said, last = turns(ticked(3), steer=False)
    assert said == ["read read", ""]
    assert last.endswith(agent.MARKER)


@pytest.mark.parametrize("wish", [False, True])
@pytest.mark.parametrize("item", [1, 2, 3])
def test_what_the_agent_writes_passes_its_own_tests(tmp_path: Path, item: int, wish: bool) -> None:
    (tmp_path / "slug.py").write_text(agent.slug_py(item, wish))
    (tmp_path / "test_slug.py").write_text(agent.tests_py(item, wish))
    done = subprocess.run(agent.VERIFY.split(), cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Ran {item + wish} test" in done.stderr


def test_without_pi_and_without_a_terminal_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(demo, [])
    assert isinstance(result.exception, PiUnusable)
    assert result.exception.message == "pi is not on PATH"
    assert "ralph-rpc demo --yes" in result.exception.hint


def test_a_pi_that_is_too_old_is_replaced_by_an_installed_one_for_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "bin/pi", "#!/bin/sh\necho 0.60.0\n")
    executable(tmp_path / "bin/node", "#!/bin/sh\necho v24.0.0\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    shown: list[Pi] = []
    monkeypatch.setattr("ralph_rpc.demo.show.show", lambda pi, say: shown.append(pi))
    refused = CliRunner().invoke(demo, [])
    assert isinstance(refused.exception, PiUnusable)
    assert "pi 0.60.0 is too old" in refused.exception.message
    installed = installed_where() / "1.5.2/package"
    executable(installed / "cli.js", "")
    (installed / "package.json").write_text(
        '{"name": "@x/pi-coding-agent", "version": "1.5.2", "bin": {"pi": "cli.js"}}'
    )
    assert CliRunner().invoke(demo, ["--yes"]).exit_code == 0
    assert [(pi.version, pi.command[-1]) for pi in shown] == [("1.5.2", str(installed / "cli.js"))]


def test_on_a_terminal_it_asks_before_it_installs_and_takes_no_for_an_answer(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as keyboard, os.fdopen(theirs, "rb") as terminal:
        keyboard.write(b"n\n")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ralph_rpc", "demo"],
            check=False,
            env={**os.environ, "PATH": str(tmp_path)},
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert f"pi is not on PATH. Install pi for you alone, into {installed_where()}? [Y/n]" in done.stdout
    assert done.returncode == 5
    assert not installed_where().exists()


def test_a_pi_that_was_named_is_not_replaced_by_an_installed_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo, ["--yes", "--pi", str(tmp_path / "none")])
    assert isinstance(result.exception, PiUnusable)
    assert "no such file" in result.exception.message


def demo_process(pi: Pi, tmp_path: Path, **popen: Any) -> subprocess.Popen[str]:
    """`ralph-rpc demo` with its temporary folder below `tmp_path`."""
    (tmp_path / "t").mkdir()
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ralph_rpc", "demo", "--pi", pi.command[-1]],
        env={**os.environ, "TMPDIR": str(tmp_path / "t"), "PI_CODING_AGENT_DIR": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **popen,
    )


@pytest.mark.pi
@pytest.mark.timeout(240)  # twenty seconds of acting, on a busy machine much more
@pytest.mark.parametrize("version", provision.VERSIONS)
def test_the_demo_completes_and_says_what_happened(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated: Path, no_leftovers: None
) -> None:
    pi = provision.provide(version)
    provision.use(pi, monkeypatch)
    with demo_process(pi, tmp_path) as process:
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    for wanted in (
        f"Real pi {version}, scripted model",
        r"iteration 1: 5 turns, 6 tool calls, \$0\.\d+\n",
        r"iteration 2: 6 turns, 8 tool calls, \$0\.\d+, steered by you",
        r"iteration 3: 5 turns",
        r"your message: accepted -> .*delivered",
        "16 requests to the model",
        "slugify: length",
    ):
        assert re.search(wanted, said), f"{wanted}\n{said}"
    story = ["(you, in another terminal)", "I put that in too.", "What happened"]
    assert sorted(story, key=said.index) == story
    (root,) = (tmp_path / "t").glob("ralph-demo-*")
    project = root / "project"
    subprocess.run(agent.VERIFY.split(), cwd=project, check=True, capture_output=True)
    status = subprocess.check_output(["git", "status", "--porcelain"], cwd=project, text=True)
    assert status == "", "nothing but what the agent committed"
    assert not (isolated / ".pi").exists()
    assert list((isolated / ".ralph").rglob("*.json")) == []


@pytest.mark.pi
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_and_no_file(
    sig: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated: Path, no_leftovers: None
) -> None:
    pi = provision.provide(provision.NEWEST)
    provision.use(pi, monkeypatch)
    with demo_process(pi, tmp_path) as process:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "t").glob("ralph-demo-*/project/.ralph/demo/iterations/001.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(sig)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert list((tmp_path / "t").glob("ralph-demo-*")) == []
    assert list((isolated / ".ralph").rglob("*.json")) == []
    assert "Traceback" not in said


def test_a_project_that_is_kept_is_the_one_that_the_tour_begins_with(tmp_path: Path) -> None:
    said: list[str] = []
    leave(tmp_path / "new" / "slugs", said.append)
    folder = tmp_path / "new" / "slugs"
    assert (folder / "wishes.md").read_text() == agent.TASK and not (folder / ".ralph").exists()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=folder, check=True, capture_output=True)
    assert status.stdout == b"", "all of it is committed"
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    typed = f"start slugs --task wishes.md --verify '{agent.VERIFY}' --max-cost 5"
    assert typed in said[0] and typed in readme and agent.TASK in readme


def test_the_kept_project_has_the_backlog_of_the_readme(tmp_path: Path) -> None:
    said: list[str] = []
    leave(tmp_path / "slugs", said.append)
    found = MarkdownTickets(tmp_path / "slugs/.tickets").scan()
    assert not found.bad and {id: (one.deps, one.status) for id, one in found.tickets.items()} == {
        "sl-1": ((), "open"),
        "sl-2": (("sl-1",), "open"),
        "sl-3": ((), "open"),
        "sl-4": ((), "open"),
    }
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    typed = "ralph-rpc start night --tickets --parallel 3 --verify 'python3 -m compileall -q .'"
    assert typed in said[0] and f"$ {typed}" in readme
    assert all(one.title in readme for one in found.tickets.values())


@pytest.mark.parametrize("steer", [False, True])
@pytest.mark.parametrize("id", ["sl-1", "sl-2", "sl-3", "sl-4"])
def test_the_agent_of_a_ticket_writes_commits_and_claims_and_hears_the_operator(id: str, steer: bool) -> None:
    conversation: list[Request] = [{"role": "user", "content": f"Ticket {id}, Title (attempt 1 of 3), from x.\n\nText"}]
    said: list[str] = []
    while not said or not said[-1].endswith(agent.MARKER):
        reply = agent.reply({"messages": conversation}, lambda: None)
        calls = [
            {"id": "call_0", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for name, arguments in reply.tool_calls
        ]
        said.append(f"{' '.join(name for name, _ in reply.tool_calls)}: {reply.text}")
        conversation += [{"role": "assistant", "content": reply.text, "tool_calls": calls}, result("ok")]
        if steer and len(said) == 2:
            conversation.append({"role": "user", "content": "Keep it short."})
    tools = [line.split(":")[0] for line in said]
    assert tools == ["read", "write", *(["read"] if steer else []), "bash", ""]
    assert any("Keep it short." in line for line in said) == steer


@pytest.mark.pi
@pytest.mark.timeout(240)
def test_the_kept_backlog_is_worked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated: Path, no_leftovers: None
) -> None:
    pi = provision.provide(provision.NEWEST)
    provision.use(pi, monkeypatch)
    monkeypatch.setattr(backlog, "PACE_S", 0.0)
    project = tmp_path / "slugs"
    leave(project, lambda line: None)
    (project / "wishes.md").write_text("A change of the reader's own.")
    with Model(lambda request, number: agent.reply(request, lambda: None)) as model:
        write_models_json(tmp_path / "agent", model.port)
        chosen = {"RALPH_PI": pi.command[-1], "RALPH_PROVIDER": PROVIDER, "RALPH_MODEL": MODEL}
        env = pi_environment(tmp_path / "agent", {**os.environ, **chosen})

        def program(*args: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-P", "-m", "ralph_rpc", *args]
            return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)

        try:
            begun = program("start", "night", "--tickets", "--parallel", "3", "--verify", "python3 -m compileall -q .")
            assert begun.returncode == 0, begun.stderr
            ended = program("wait", "night", "--timeout", "3m")
            assert (ended.returncode, ended.stdout) == (0, "night: completed (tickets-done)\n"), program("logs").stdout
        finally:
            program("kill", "night")
    git = ["git", "-C", str(project)]
    merges = subprocess.check_output([*git, "log", "--first-parent", "--merges", "--format=%s"], text=True)
    assert sorted(line.split(":")[0] for line in merges.splitlines()) == [f"Merge sl-{n}" for n in (1, 2, 3, 4)]
    said = subprocess.check_output([sys.executable, "cli.py", "Hello", "World"], cwd=project, text=True)
    assert said == "Hello\nWorld\n", "what the tickets wanted works; slug.py itself is untouched yet"
    assert subprocess.check_output([*git, "status", "--porcelain"], text=True) == " M wishes.md\n"


@pytest.mark.parametrize("there", ["a file", "a folder with a file"])
def test_nothing_is_left_among_somebodys_files(tmp_path: Path, there: str) -> None:
    place = tmp_path / "slugs" if there == "a file" else tmp_path
    (tmp_path / "slugs").write_text("mine")
    result = CliRunner().invoke(demo, ["--keep", str(place), "--pi", "/nowhere"])
    assert isinstance(result.exception, UsageError) and "is there already" in result.exception.message
    assert [path.name for path in tmp_path.iterdir()] == ["slugs"]


def test_the_scripted_model_answers_for_the_kept_project_until_ctrl_c(tmp_path: Path) -> None:
    code = (
        "from ralph_rpc.demo.show import answer; from ralph_rpc.pi.find import Pi; "
        "answer(Pi(['/opt/my pi'], '1.6.0', 'path'), lambda text: print(text, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = next(line for line in process.stdout if "export " in line)
    chosen = dict(word.split("=", 1) for word in shlex.split(line)[1:])
    assert (chosen["RALPH_PI"], chosen["RALPH_PROVIDER"]) == ("/opt/my pi", "scripted")
    folder = Path(chosen["PI_CODING_AGENT_DIR"])
    [provider] = json.loads((folder / "models.json").read_bytes())["providers"].values()
    asked = {"model": chosen["RALPH_MODEL"], "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    request = urllib.request.Request(
        f"{provider['baseUrl']}/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answered:
        assert answered.status == 200 and b"data:" in answered.read()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert not folder.exists()
