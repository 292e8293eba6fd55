"""The view in real terminals: in front of a loop on a scripted pi and on real pi, on every way out of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from ralph_rpc.demo.model import Reply
from tests.attach.said import began, iteration, message, notice
from tests.attach.terminals import PROGRAM, colours, on_pty, tmux
from tests.cli import forged
from tests.real_pi import provision
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, fake_rig, new_project, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
ATTACH = [*PROGRAM, "attach", "api"]
XTERM = {"TERM": "xterm-256color", "COLORTERM": "", "NO_COLOR": ""}
HOLD = {"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}


def test_a_loop_is_watched_steered_left_and_found_again(tmp_path: Path) -> None:
    reply = {"reply": "I look at the files.", "deltas": 4, "pace": 0.01}
    rig = fake_rig(tmp_path, [[reply, HOLD, {"reply": "heard you"}], "the end"])
    rig.start("-n", "2")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with tmux(tmp_path, rig.project, rig.env) as terminal:
        terminal.runs("attach", "x")
        terminal.sees("x · running · 0/2 iterations", "I look at the files.", "▸ bash", "running", "Steer")
        terminal.types("mind the gap")
        terminal.presses("Enter")
        terminal.sees("◆ mind the gap", "steer: sent → accepted → queued")
        terminal.presses("Tab")
        terminal.sees("Unfold")
        terminal.presses("?")
        terminal.sees("steer: the agent gets it between two turns", "/abort")
        terminal.presses("Escape")
        terminal.sees("mind the gap", never="/abort")
        for columns, rows in ((80, 24), (200, 60)):
            terminal.resize(columns, rows)
            screen = terminal.sees("x · running", "Detach", "◆ mind the gap", "running")
            assert max(map(len, screen.split("\n"))) <= columns
        terminal.resize(100, 30)
        terminal.presses("q")
        terminal.sees("Detached from x (still running). Back with: ralph-rpc attach x")
        assert terminal.is_plain() and rig.state()["status"] == "running"
        terminal.types(f"cd {elsewhere}; clear")
        terminal.presses("Enter")
        terminal.runs("attach", "x")
        terminal.sees("◆ mind the gap", "▸ bash", "running")
        (rig.project / "go").touch()
        terminal.sees(
            "→ ✓ delivered",
            "heard you",
            "loop stopped (max-iterations)",
            "2/2 iterations",
            "ralph-rpc resume x",
            "q leaves",
        )
        terminal.presses("q")
        terminal.sees("x: stopped (max-iterations), 2/2 iterations")
        assert terminal.is_plain()
    assert [record["outcome"] for record in rig.records()] == ["ok", "ok"]


@pytest.mark.pi
@pytest.mark.parametrize("version", provision.VERSIONS)
def test_real_pi_is_watched_and_steered(tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = provision.provide(version)
    provision.use(found, monkeypatch)

    def script(request: dict[str, Any], n: int) -> Reply:
        texts = [str(m["content"]) for m in request["messages"] if m["role"] == "user"]
        if "quickly" in texts[-1]:
            return Reply("## As you say\n\nI **hurry** now.\n\n<promise>COMPLETE</promise>", piece=8)
        command = "echo first row; while [ ! -e go ]; do sleep 0.05; done; echo last row"
        return Reply("Let me see, in `code`.", tool_calls=[("bash", {"command": command})])

    with ScriptedModel(script) as model:
        rig = Rig(new_project(tmp_path / "project"), found.command[-1], model.agent_dir(tmp_path), list(MODEL_ARGS))
        rig.start("-n", "1")
        with tmux(tmp_path, rig.project, rig.env) as terminal:
            terminal.runs("attach", "x")
            terminal.sees("Let me see, in code.", "▸ bash echo first row", "running", "  first row")
            terminal.types("quickly please")
            terminal.presses("Enter")
            terminal.sees("◆ quickly please", "→ queued")
            (rig.project / "go").touch()
            terminal.sees(" ok ", "last row", "As you say", "I hurry now.", "✓ delivered", never="**")
            terminal.sees("loop completed (marker)", "q leaves")
            terminal.presses("q")
            terminal.sees("x: completed (marker)")
        assert rig.records()[0]["steering"]


def test_viewers_that_are_slow_stopped_or_killed_change_nothing(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[{"reply": "words", "deltas": 2_000}, HOLD], "the end"])
    rig.start("-n", "2")
    rig.wait_event("tool_execution_start")
    viewers = []
    try:
        for _ in range(3):
            context = on_pty([*PROGRAM, "attach", "x"], rig.project, rig.env | XTERM)
            viewers.append((context, context.__enter__()))
        for _, viewer in viewers:
            viewer.sees(b"running")
        viewers[0][1].process.send_signal(signal.SIGSTOP)
        viewers[1][1].process.kill()  # the third is never read from again
        (rig.project / "go").touch()
        assert rig.wait_end()["stopReason"] == "max-iterations"
        assert [record["outcome"] for record in rig.records()] == ["ok", "ok"]
    finally:
        for context, _ in viewers:
            context.__exit__(None, None, None)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def environment(**more: str) -> dict[str, str]:
    return forged.program()[1] | XTERM | more


def test_a_viewer_ends_with_its_terminal(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    forged.write_log(paths, iteration(1))
    with forged.runner_of(paths), on_pty(ATTACH, project, environment()) as terminal:
        terminal.sees(b"iteration 1 ok")
        terminal.hang_up()
        assert terminal.process.wait(20) != 0


def test_sigterm_puts_the_terminal_back(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    forged.write_log(paths, iteration(1))
    with forged.runner_of(paths), on_pty(ATTACH, project, environment()) as terminal:
        terminal.sees(b"iteration 1 ok")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended() == 0
        assert terminal.data.rindex(b"\x1b[?1049l") > terminal.data.rindex(b"\x1b[?1049h")
        assert b"Detached from api" in terminal.data and b"\x1b[?25h" in terminal.data


def test_a_bug_puts_the_terminal_back_and_is_one_line(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    forged.write_log(paths, iteration(1))
    broken = (
        "import ralph_rpc.attach.app as app; from ralph_rpc.cli.main import main\n"
        "def headline(*_): raise RuntimeError('no headline today')\n"
        "app.headline = headline; main()"
    )
    args = [sys.executable, "-P", "-c", broken, "attach", "api"]
    with forged.runner_of(paths), on_pty(args, project, environment()) as terminal:
        assert terminal.ended() == 70
        after = terminal.data[terminal.data.rindex(b"\x1b[?1049l") :]
        assert b"internal error, RuntimeError: no headline today" in after and b"Traceback" not in after


def test_colours_are_the_terminals_own_and_none_with_no_color(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    text = "**bold** `code`\n\n```python\ndef f(): return 1  # one\n```\n\n```diff\n-a\n+b\n```\n"
    forged.write_log(paths, [began(1), *message(text), notice("a warning", "warning"), notice("that was all")])
    shown = {}
    for name, env in (
        ("colour", environment()),
        ("truecolor", environment(COLORTERM="truecolor")),
        ("none", environment(NO_COLOR="1")),
    ):
        with forged.runner_of(paths), on_pty(ATTACH, project, env) as terminal:
            terminal.sees(b"that was all")
            terminal.writes(b"\x03")
            assert terminal.ended() == 0
            shown[name] = colours(terminal.data)
    parts = {name: {part for sgr in sgrs for part in sgr.split(";")} for name, sgrs in shown.items()}
    for name in ("colour", "truecolor"):
        assert {"31", "32", "33"} <= parts[name] and not any(sgr.startswith(("38;", "48;")) for sgr in shown[name])
    assert not {f"{tens}{unit}" for tens in (3, 4, 9, 10) for unit in range(9)} & parts["none"]


def test_hostile_text_sends_nothing_of_its_own_to_the_terminal(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    evil = "\x1b]52;c;aGVsbG8=\x07\x1b[5;5H\x9b2J\x1bP1$r\x1b\\\x1b]0;title\x07 &#x202e;"
    events = [began(1), *message(evil), notice(evil), notice("that was all")]
    forged.write_log(paths, events)
    with forged.runner_of(paths), on_pty(ATTACH, project, environment()) as terminal:
        terminal.sees(b"that was all")
        terminal.writes(b"\x03")
        terminal.ended()
        sent = terminal.data.replace(b"\x1b]22;default\x07", b"")  # the shape of the mouse, from Textual itself
        for part in (b"\x1b]52", b"\x1b]0", b"\x1bP", b"\x07", "\x9b".encode(), "\u202e".encode()):
            assert part not in sent, part


def test_without_a_terminal_it_says_what_to_use_instead(project: Path) -> None:
    forged.loop(project)
    done = subprocess.run(
        ATTACH, cwd=project, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "ralph-rpc: attach needs a terminal. See: ralph-rpc logs api -f\n")


def test_without_a_name_the_running_loop_watched_last_is_offered(project: Path) -> None:
    names = ("one", "two", "three")
    loops = [forged.loop(project, name) for name in names]
    for paths in loops:
        forged.write_log(paths, [notice(f"this is {paths.name}")])
    (loops[1].dir / "events.offset").write_text("1\n")
    bare = [*PROGRAM, "attach"]
    with forged.runner_of(loops[0]):
        with on_pty(bare, project, environment()) as terminal:
            terminal.sees(b"this is one")
            terminal.writes(b"\x03")
            assert terminal.ended() == 0
        os.utime(loops[0].dir / "events.offset", (1, 1))
        with forged.runner_of(loops[1]), on_pty(bare, project, environment()) as terminal:
            terminal.sees(b"Which [1]: ")
            shown = terminal.data.decode()
            assert shown.index("1  two") < shown.index("2  one") and "three" not in shown
            terminal.writes(b"\n")
            terminal.sees(b"this is two")
            terminal.writes(b"\x03")
            assert terminal.ended() == 0
    with on_pty(bare, project, environment()) as terminal:
        terminal.sees(b"Which loop")  # of those that have ended
        terminal.writes(b"\x04")
        assert terminal.ended() != 0


def test_any_number_of_viewers_see_the_same(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    forged.write_log(paths, iteration(1))
    with (
        forged.runner_of(paths),
        on_pty(ATTACH, project, environment()) as one,
        on_pty(ATTACH, project, environment()) as two,
    ):
        for terminal in (one, two):
            terminal.sees(b"iteration 1 ok")
        with paths.events.open("ab") as file:
            file.write(orjson.dumps(notice("to both of you")) + b"\n")
        for terminal in (one, two):
            terminal.sees(b"to both of you")
        wait_for("the position", lambda: (paths.dir / "events.offset").exists())


def test_another_projects_loop_is_shown_at_once_and_told_something_after_a_yes(project: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    paths = forged.loop(project, alive=True)
    forged.register("api", forged.entry(project, alive=True))
    forged.write_log(paths, iteration(1))
    with forged.runner_of(paths):
        for more, asked in (([], True), (["--project", str(project)], False)):
            with on_pty([*ATTACH, *more], tmp_path / "here", environment()) as terminal:
                terminal.sees(b"iteration 1 ok")
                terminal.writes(b"hello\r")
                if asked:
                    terminal.sees(b"Send it?")
                    assert list(paths.inbox.glob("*.json")) == []
                    terminal.writes(b"y")
                wait_for("the message", lambda: list(paths.inbox.glob("steer-*.json")))
                terminal.writes(b"\x03")
                assert terminal.ended() == 0
            for file in paths.inbox.glob("*.json"):
                file.unlink()
